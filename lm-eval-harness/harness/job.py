"""The job file: what is asked for."""

import json

from .errors import Refused

WIRE = 6

JOB_KEYS = {
    "wire", "events", "out", "backend", "device", "threads", "task_dirs", "unsafe_code", "models", "offline",
}  # fmt: skip

MODEL_KEYS = {"name", "path", "model_args", "speed_args", "tasks"}

TASK_KEYS = {
    "item", "task", "name", "data", "num_fewshot", "limit", "gen_kwargs", "apply_chat_template", "chat_template_args",
    "system_instruction", "fewshot_as_multiturn", "batch_size", "seed", "code_timeout", "tripwires", "kept", "wanted",
    "command",
}  # fmt: skip


def check_keys(what, found, known):
    unknown = sorted(set(found) - known)
    if unknown:
        raise Refused(f"{what}: unknown key `{unknown[0]}`; known are {', '.join(sorted(known))}")


def read_job(path):
    """The job file as a dict; refuses another version and unknown keys."""
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    if job.get("wire") != WIRE:
        raise Refused(
            f"{path} is of version {job.get('wire')}, and this driver understands version {WIRE}",
            "mergelab and its driver must come from one build",
        )
    check_keys(path, job, JOB_KEYS)
    for model in job["models"]:
        check_keys(f"{path}: model {model.get('name')}", model, MODEL_KEYS)
        for task in model["tasks"]:
            check_keys(f"{path}: task {task.get('task')}", task, TASK_KEYS)
    if job["backend"] not in ("hf", "vllm"):
        raise Refused(f"{path}: backend `{job['backend']}` is not one of hf, vllm")
    if job.get("unsafe_code", "refuse") not in ("refuse", "sandbox", "allow"):
        raise Refused(f"{path}: unsafe_code `{job['unsafe_code']}` is not one of refuse, sandbox, allow")
    return job


def defaults(job):
    """Fills what a job file may leave out, so that the rest of the program need not ask."""
    job.setdefault("task_dirs", [])
    job.setdefault("device", "auto")
    for model in job["models"]:
        for key in ("model_args", "speed_args"):
            model[key] = model.get(key) or {}
        for task in model["tasks"]:
            for key in TASK_KEYS - {"item", "task"}:
                task.setdefault(key, None)
            task["seed"] = task["seed"] or 0
    return job


def task_names(job):
    return list(dict.fromkeys(task["task"] for model in job["models"] for task in model["tasks"]))


def limit_of(task):
    """lm_eval reads a limit below 1 as a share, and 1.0 and more as a number of documents."""
    limit = task["limit"]
    return int(limit) if limit is not None and limit >= 1 else limit
