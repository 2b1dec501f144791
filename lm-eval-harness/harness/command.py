"""The `lm_eval` command that does the same."""

import shlex

from .job import limit_of


def command(job, arguments, task):
    """The `lm_eval` command that does the same, with MODEL and TASK_DIR for the paths."""
    given = {"pretrained": "MODEL", **arguments}
    words = ["lm_eval", "run", "--model", job["backend"], "--model_args", pairs(given), "--tasks", task["task"]]
    if job["task_dirs"]:
        words += ["--include_path", "TASK_DIR"]
    if task["num_fewshot"] is not None:
        words += ["--num_fewshot", str(task["num_fewshot"])]
    if task["limit"] is not None:
        words += ["--limit", str(limit_of(task))]
    if task["gen_kwargs"]:
        words += ["--gen_kwargs", pairs(task["gen_kwargs"])]
    if task["apply_chat_template"]:
        words += ["--apply_chat_template", *([task["apply_chat_template"]] if task["apply_chat_template"] is not True else [])]
    if task["fewshot_as_multiturn"] is not None:
        words += ["--fewshot_as_multiturn", str(task["fewshot_as_multiturn"]).lower()]
    if task["system_instruction"]:
        words += ["--system_instruction", task["system_instruction"]]
    words += ["--seed", ",".join([str(task["seed"])] * 4), "--log_samples", "--output_path", "OUT"]
    if job.get("unsafe_code", "refuse") != "refuse":
        words.append("--confirm_run_unsafe_code")
    return shlex.join(words)


def pairs(values):
    return ",".join(f"{key}={value}" for key, value in values.items())
