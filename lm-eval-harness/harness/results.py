"""What is written for one task."""

import gzip
import hashlib
import inspect
import json
import math
import textwrap

from .errors import NoFigure, Refused
from .job import limit_of
from .models import model_arguments
from .tripwires import chance, time_outs, warnings_of


def metrics_of(results, loaded, task):
    """metrics.json: every `metric,filter` of the task, or of the group that it is, that is a finite number.

    Beside it, what the others came out as. Raises [`NoFigure`] when there is no other kind.
    """
    name = task["task"]
    groups = results.get("groups", {})
    if name in groups:
        scores = groups[name]
    elif len(loaded["tasks"]) == 1:
        (name,) = loaded["tasks"]
        scores = results["results"][name]
    else:
        members = ", ".join(loaded["tasks"])
        raise Refused(f"`{name}` is a group without a score of its own; name its tasks: {members}")
    better = results["higher_is_better"].get(name) or {}
    count = results["n-samples"].get(name, {}).get("effective", scores.get("sample_len"))
    rows, left_out = [], []
    for key, value in scores.items():
        metric, comma, filter_name = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        if number(value) is None:
            left_out.append(f"{key} = {value}")
            continue
        rows.append(
            {
                "metric": metric,
                "filter": filter_name,
                "value": number(value),
                "stderr": number(scores.get(f"{metric}_stderr,{filter_name}")),
                "n_samples": count,
                "n_shot": results["n-shot"].get(name),
                "higher_is_better": better.get(metric),
            }
        )
    if not rows:
        raise NoFigure(
            f"no metric is a finite number ({', '.join(left_out) or 'lm_eval gave none'}): NaN and inf come of weights "
            "that are not finite (look at the merge), of a dtype too narrow for the model, or of a task that divides "
            "by 0"
        )
    return sorted(rows, key=lambda row: (row["metric"], row["filter"])), left_out


def number(value):
    """A finite float, or None for what is not one (lm_eval says `N/A`; JSON knows no NaN)."""
    try:
        value = float(value)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def task_file(results, loaded, job, model, task):
    """task.json: what was run, without paths, times and what only decides the speed."""
    configs = {}
    for name, built in loaded["tasks"].items():
        config = plain(built.config.to_dict(keep_callable=True))
        config["metadata"] = {k: v for k, v in (config.get("metadata") or {}).items() if k != "config_source"}
        if task["data"] is not None:
            config.pop("dataset_kwargs", None)
        configs[name] = config
    return {
        "task": task["task"],
        "configs": configs,
        "versions": {name: results["versions"][name] for name in sorted(results["versions"])},
        "n_shot": {name: results["n-shot"].get(name) for name in configs},
        "n_samples": {name: dict(results["n-samples"][name]) for name in configs},
        "data_sha256": None if task["data"] is None else sha256(task["data"]),
        "backend": job["backend"],
        "model_args": model_arguments(job["backend"], model, task),
        "limit": limit_of(task),
        "gen_kwargs": dict(task["gen_kwargs"] or {}),
        "apply_chat_template": task["apply_chat_template"] or False,
        "chat_template_args": dict(task["chat_template_args"] or {}),
        "fewshot_as_multiturn": task["fewshot_as_multiturn"],
        "system_instruction": task["system_instruction"],
        "seed": task["seed"],
        "command": task["command"],
        # What TASK_FILE is in the command, where a local file replaces the data set.
        **({"task_file": loaded["task_file"]} if "task_file" in loaded else {}),
    }


def tripped(results, loaded, counts):
    """warnings.json: what a [`Watch`] counted, scores at chance, and programs that ran out of time."""
    more = {"chance": chance(results, loaded), "timeout": time_outs(results)}
    return warnings_of({**counts, **{name: count for name, count in more.items() if count.of}})


def samples_of(results):
    """One record per document, what each filter made of it inside."""
    records = {}
    for name in sorted(results["samples"]):
        for sample in results["samples"][name]:
            record = records.setdefault(
                (name, sample["doc_id"]),
                {
                    "task": name,
                    "doc_id": sample["doc_id"],
                    "doc": sample["doc"],
                    "target": sample["target"],
                    "arguments": sample["arguments"],
                    "responses": sample["resps"],
                    "filtered": {},
                    "metrics": {},
                },
            )
            record["filtered"][sample["filter"]] = sample["filtered_resps"]
            if "outcomes" in sample:
                record.setdefault("outcomes", {})[sample["filter"]] = sample["outcomes"]
            record["metrics"][sample["filter"]] = {metric: sample[metric] for metric in sample["metrics"]}
    return [plain(records[key]) for key in sorted(records)]


def plain(value):
    """Makes JSON of anything, the same on every run: no addresses, no NaN, sets in order."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(inner) for inner in value), key=repr)
    if isinstance(value, bytes):
        return {"sha256": hashlib.sha256(value).hexdigest()}
    if hasattr(value, "tolist"):  # numpy
        return plain(value.tolist())
    if inspect.isfunction(value):
        try:
            return textwrap.dedent(inspect.getsource(value))
        except OSError:
            return f"{value.__module__}.{value.__qualname__}"
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return f"<{type(value).__module__}.{type(value).__qualname__}>"


def write_item(out, metrics, task, samples, warnings):
    """Writes the files of one item; warnings.json only where there are any."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "metrics.json", metrics)
    write_json(out / "task.json", task)
    if warnings:
        write_json(out / "warnings.json", warnings)
    with open(out / "samples.jsonl.gz", "wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
        for sample in samples:
            packed.write(json.dumps(sample, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def write_json(path, value):
    path.write_text(
        json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
