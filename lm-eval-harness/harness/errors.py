"""What can go wrong, and how it is told."""

import sys


class Refused(Exception):
    """The job cannot be run as it is written; its author has to change something."""

    def __init__(self, message, hint=None):
        super().__init__(message)
        self.hint = hint


class DataUnavailable(Exception):
    """A task's data set is not on this machine."""


class NoFigure(Exception):
    """A task was run, and none of its metrics came out as a finite number."""


class NoSandbox(Exception):
    """Programs cannot be run in a sandbox on this machine."""


class MissingPackage(Exception):
    """The Python that runs the driver lacks a package."""

    def __init__(self, package):
        super().__init__(f"{sys.executable} has no package {package}")


def where(model, task):
    return f"{task['task']} on {model['name']}"


def explain(error, model, task):
    """A message that names model, task and the way out, and whose fault it is."""
    place = where(model, task)
    if isinstance(error, DataUnavailable):
        way_out = "" if task["data"] else "; name a local file with `data:`, or fetch the data set on a machine with network"
        return f"{place}: its data set cannot be had: {error}{way_out}", "stage"
    if isinstance(error, NoFigure):
        return f"{place}: {error}", "stage"
    if isinstance(error, Refused):
        return f"{place}: {error}{f'; {error.hint}' if error.hint else ''}", "experiment"
    if isinstance(error, NoSandbox):
        return f"{place}: {error}", "stage"
    if type(error).__name__ == "OutOfMemoryError":
        return f"{place}: out of memory on the device; set a smaller batch_size or max_length", "stage"
    return f"{place}: {type(error).__name__}: {one_line(error)}", "stage"


def one_line(error):
    text = " ".join(str(error).split())
    return text if len(text) <= 500 else text[:500] + " …"
