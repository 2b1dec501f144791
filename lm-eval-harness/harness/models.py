"""Models made ready to run, and what a task may change on one."""

import copy
from pathlib import Path

from .engine import is_cpu_build
from .environment import device_of
from .errors import Refused

# Small enough for a big model with long prompts; a suite that knows better sets `batch_size`.
HF_BATCH_SIZE = 8


def model_arguments(model):
    """What the backend's model class is given that decides results, defaults spelled out."""
    arguments = dict(model["model_args"])
    if "pretrained" in arguments:
        raise Refused("`pretrained` is the model's own directory and cannot be set in model_args")
    # The default of lm_eval has changed between releases: always said.
    arguments.setdefault("add_bos_token", False)
    # The checkpoint's own, on every device.
    arguments.setdefault("dtype", "auto")
    return arguments


def load_model(job, model):
    """An lm_eval LM object for one model directory."""
    from lm_eval.api.registry import get_model

    if not Path(model["path"]).is_dir():
        raise FileNotFoundError(f"{model['path']} is not a directory")
    arguments = {**model_arguments(model), **model["speed_args"]}
    if job["backend"] == "hf":
        arguments["device"] = device_of(job, model)
        arguments.setdefault("batch_size", HF_BATCH_SIZE)
    else:
        arguments.setdefault("batch_size", "auto")
        if is_cpu_build():
            # Compiling takes minutes and a compiler, and gains little on a CPU.
            arguments.setdefault("enforce_eager", True)
    return get_model(job["backend"])(pretrained=str(model["path"]), **arguments)


def free_memory():
    """Gives the memory of a model back that nothing refers to any more, so that the next one finds the device empty."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def set_batch_size(lm, backend, size):
    """Batch size for the next task: a number, `auto`, or None for the model's own."""
    if size is None:
        return
    if backend == "vllm":
        lm.batch_size = "auto" if str(size).startswith("auto") else int(size)
        return
    if str(size).startswith("auto"):
        parts = str(size).split(":")
        lm.batch_size_per_gpu = "auto"
        lm.batch_schedule = float(parts[1]) if len(parts) > 1 else 1
        lm.batch_sizes = {}
    else:
        lm.batch_size_per_gpu = int(size)


def task_settings(lm, backend):
    """What a task may change on a loaded model, as it is now: `[(object, attribute, value)]`."""
    if backend == "vllm":
        places = [(lm, "batch_size"), (lm, "hf_chat_template")]
    else:
        places = [(lm, name) for name in ("batch_size_per_gpu", "batch_schedule", "batch_sizes")]
        places.append((lm.tokenizer, "chat_template"))
    return [(owner, name, copy.copy(getattr(owner, name))) for owner, name in places]


def restore(settings):
    for owner, name, value in settings:
        setattr(owner, name, copy.copy(value))


def choose_template(lm, backend, wanted):
    """Makes `apply_chat_template: NAME` mean that template; refuses one that the model does not have."""
    if not wanted:
        return
    template = lm.chat_template(wanted)
    if not template:
        raise Refused("apply_chat_template is set, and the model's tokenizer has no chat template")
    if isinstance(wanted, str):
        if backend == "vllm":
            lm.hf_chat_template = template
        else:
            lm.tokenizer.chat_template = template
