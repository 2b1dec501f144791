"""One task on one model."""

import random

from .engine import seed_sampling
from .job import limit_of
from .models import choose_template, restore, set_batch_size


def set_seeds(seed):
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def evaluate(lm, settings, job, task, loaded):
    """Runs one task; lm_eval's result dict.

    Every task starts from its own seed and from the `settings` that the model was loaded with, whatever ran before it.
    """
    from lm_eval.evaluator import evaluate as lm_eval_evaluate

    template = task["apply_chat_template"] or False
    multiturn = task["fewshot_as_multiturn"]
    restore(settings)
    choose_template(lm, job["backend"], template)
    set_batch_size(lm, job["backend"], task["batch_size"])
    set_seeds(task["seed"])
    if job["backend"] == "vllm":
        seed_sampling(lm, task["seed"])
    return lm_eval_evaluate(
        lm=lm,
        task_dict=loaded,
        limit=limit_of(task),
        log_samples=True,
        system_instruction=task["system_instruction"],
        apply_chat_template=template,
        fewshot_as_multiturn=bool(template) if multiturn is None else multiturn,
        confirm_run_unsafe_code=job.get("unsafe_code") == "allow",
    )
