"""One task on one model."""

import random

from .engine import seed_sampling
from .job import limit_of
from .models import choose_template, restore, set_batch_size, set_template_variables


def set_seeds(seed):
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def evaluate(lm, settings, job, model, task, loaded):
    """Runs one task; lm_eval's result dict.

    Every task starts from its own seed and from the `settings` that the model was loaded with, whatever ran before it.
    """
    from lm_eval.evaluator import evaluate as lm_eval_evaluate

    restore(settings)
    choose_template(lm, job["backend"], task["apply_chat_template"] or False)
    set_template_variables(lm, job["backend"], model, task)
    set_batch_size(lm, job["backend"], task["batch_size"])
    set_seeds(task["seed"])
    if job["backend"] == "vllm":
        seed_sampling(lm, task["seed"])
    return lm_eval_evaluate(lm=lm, task_dict=loaded, **arguments(task, job.get("unsafe_code", "refuse") != "refuse"))


def arguments(task, unsafe):
    """What lm_eval's `evaluate` is given of a task's settings, whichever model answers."""
    template = task["apply_chat_template"] or False
    multiturn = task["fewshot_as_multiturn"]
    return {
        "limit": limit_of(task),
        "log_samples": True,
        "system_instruction": task["system_instruction"],
        "apply_chat_template": template,
        "fewshot_as_multiturn": bool(template) if multiturn is None else multiturn,
        "confirm_run_unsafe_code": unsafe,
    }
