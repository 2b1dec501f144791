"""Models made ready to run, and what a task may change on one."""

import copy
from pathlib import Path

from .engine import is_cpu_build
from .environment import device_of
from .errors import Refused

# Small enough for a big model with long prompts; a suite that knows better sets `batch_size`.
HF_BATCH_SIZE = 8


def model_arguments(backend, model, task):
    """What the backend's model class is given that decides results, defaults spelled out."""
    arguments = copy.deepcopy(model["model_args"])
    if "pretrained" in arguments:
        raise Refused("`pretrained` is the model's own directory and cannot be set in model_args")
    # The default of lm_eval has changed between releases: always said.
    arguments.setdefault("add_bos_token", False)
    # The checkpoint's own, on every device.
    arguments.setdefault("dtype", "auto")
    if backend == "vllm":
        # The engine draws from a seed of its own, which lm_eval does not set by `--seed`.
        arguments.setdefault("seed", task["seed"])
    return arguments


def by_loading(backend, ready):
    """`ready` pairs `(task, …)` in groups, in their order: those that one loaded model serves.

    A vLLM engine has one seed, from when it is started.
    """
    groups = {}
    for pair in ready:
        groups.setdefault(pair[0]["seed"] if backend == "vllm" else None, []).append(pair)
    return list(groups.values())


def load_model(job, model, task):
    """An lm_eval LM object for one model directory; `task` is one of those that it will serve."""
    from lm_eval.api.registry import get_model

    if not Path(model["path"]).is_dir():
        raise FileNotFoundError(f"{model['path']} is not a directory")
    arguments = {**model_arguments(job["backend"], model, task), **model["speed_args"]}
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
        places = [(lm, name) for name in ("batch_size", "hf_chat_template", "enable_thinking")]
    else:
        places = [(lm, name) for name in ("batch_size_per_gpu", "batch_schedule", "batch_sizes")]
        places.append((lm.tokenizer, "chat_template"))
    places.append((lm, "chat_template_args"))
    return [(owner, name, copy.copy(getattr(owner, name))) for owner, name in places]


def restore(settings):
    for owner, name, value in settings:
        setattr(owner, name, copy.copy(value))


def choose_template(lm, backend, wanted):
    """Makes `apply_chat_template: NAME` mean that template; refuses one that the model does not have."""
    if not wanted:
        return
    held = lm.tokenizer.chat_template
    if isinstance(wanted, str) and held:
        # lm_eval takes the only template there is, whatever name is asked for.
        names = sorted(held) if isinstance(held, dict) else ["default"]
        if wanted not in names:
            raise Refused(f"the model has no chat template `{wanted}`; it has {', '.join(names)}")
    template = lm.chat_template(wanted)
    if not template:
        raise Refused(
            "apply_chat_template is set, and the model's tokenizer has no chat template",
            "add one to the model (chat_template.jinja beside its tokenizer), or leave apply_chat_template out",
        )
    if isinstance(wanted, str):
        if backend == "vllm":
            lm.hf_chat_template = template
        else:
            lm.tokenizer.chat_template = template


def set_template_variables(lm, backend, model, task):
    """Gives the chat template its variables: those of the model's arguments, then the task's own.

    lm_eval's vLLM is given `enable_thinking` apart from the others, and forgets it when it stands among them.
    """
    variables = {**lm.chat_template_args, **(model["model_args"].get("chat_template_args") or {})}
    variables.update(task["chat_template_args"] or {})
    if backend == "vllm" and "enable_thinking" in variables:
        lm.enable_thinking = variables.pop("enable_thinking")
    lm.chat_template_args = variables
