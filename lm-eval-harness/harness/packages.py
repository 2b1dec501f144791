"""The packages that an evaluation stands on, and the versions that this driver knows."""

from .environment import version_of
from .errors import MissingPackage

# The oldest that will do: the driver calls parts of lm_eval that older ones do not have.
WANTED = {"lm_eval": "0.4.13", "torch": "2.4", "transformers": "5", "vllm": "0.24"}


def require_packages(backend):
    """Says which package is missing or too old, before an error deep inside another one does."""
    for package, wanted in WANTED.items():
        if package == "vllm" and backend != "vllm":
            continue
        found = version_of(package)
        if found is None or release(found) < release(wanted):
            raise MissingPackage(package, found, wanted)


def release(version):
    """The numbers of a version, `(0, 24, 0)` of `0.24.0rc1+cpu`: what counts is which interface it has."""
    numbers = []
    for part in version.split("+")[0].split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)
