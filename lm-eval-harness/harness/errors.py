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


class Tripped(Exception):
    """A task was run, or was about to be, and its score would not mean what it seems to."""

    def __init__(self, message, hint):
        super().__init__(message)
        self.hint = hint


class MissingPackage(Exception):
    """The Python that runs the driver lacks a package, or has one that is too old."""

    def __init__(self, package, found=None, wanted=None):
        what = f"has no package {package}" if found is None else f"has {package} {found}, which is too old"
        at_least = f"; {wanted} or newer is wanted" if wanted else ""
        super().__init__(f"{sys.executable} {what}{at_least}")
        pin = f"'{package.replace('_', '-')}>={wanted}'" if wanted else package
        self.hint = (
            f"`pip install {pin}` in that environment (`make setup` fills .venv), or name a Python that has it under "
            "[python] path in mergelab.toml"
        )


def where(model, task):
    return f"{task['task']} on {model['name']}"


def explain(error, model, task):
    """A message that names model, task and the way out, and whose fault it is."""
    place = where(model, task)
    if isinstance(error, DataUnavailable):
        return f"{place}: its data set cannot be had: {error}", "stage"
    if isinstance(error, NoFigure):
        return f"{place}: {error}", "stage"
    if isinstance(error, Tripped):
        return f"{place}: {error}; {error.hint}", "stage"
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
