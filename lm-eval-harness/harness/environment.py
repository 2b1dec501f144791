"""The process and the machine around an evaluation."""

import importlib.metadata
import os
import sys


def set_environment(job):
    """Settings that lm_eval and what it stands on read when they are imported. What the user has set wins."""
    if job.get("offline", True):
        # A run must not depend on what a hub serves today; what is missing is an error that says so.
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE"):
            os.environ.setdefault(name, "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("LMEVAL_LOG_LEVEL", "WARNING")
    os.environ.setdefault("TQDM_MININTERVAL", "5")
    threads = job.get("threads")
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)


def skip_unused_imports():
    """Keeps packages that nothing here uses from being imported: about a quarter of the time lm_eval takes to start.

    `requests` prefers chardet (megabytes of tables) where charset-normalizer serves as well; `transformers` imports
    scikit-learn and scipy for assisted generation and for losses of object detection.
    """
    import importlib

    if "requests" not in sys.modules and "chardet" not in sys.modules:
        sys.modules["chardet"] = None
        try:
            importlib.import_module("requests")
        finally:
            del sys.modules["chardet"]
    utils = importlib.import_module("transformers.utils")
    utils.is_sklearn_available = lambda: False
    utils.is_scipy_available = lambda: False


def version_of(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions(job):
    packages = ["lm_eval", "transformers", "torch", "tokenizers", "datasets", *(["vllm"] if job["backend"] == "vllm" else [])]
    return {"python": sys.version.split()[0], **{package: version_of(package) for package in packages}}


def peak_memory():
    """The most memory that this process has held so far, in bytes (that of a GPU is not in it)."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def device_of(job, model):
    """`cpu`, `cuda` or `cuda:N`; what is said for the model comes before what is said for the job."""
    import torch

    device = model["speed_args"].get("device") or job["device"]
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name(job, model):
    import torch

    device = device_of(job, model)
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device
