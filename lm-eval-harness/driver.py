"""Evaluates models on tasks with lm_eval, one artifact per (model, task).

    python driver.py JOB.json

The job file names models and, for each, the tasks to run with their own settings. Each model is loaded once; each task
is then run by itself through lm_eval's Python API and handed over at once, so that what was finished survives whatever
comes after. (lm_eval's command line takes one number of shots and one limit for all the tasks of a run; here they
belong to the task.) `mergelab` starts this file; it also runs alone.

What is written for item N, under `OUT/N/`, the same bytes whenever the inputs are the same:

    metrics.json       [{metric, filter, value, stderr, n_samples, n_shot, higher_is_better}]
    task.json          the task as it was run: configuration, version, shots, counts, the `lm_eval` command
    samples.jsonl.gz   one line per document: prompts, responses, what the filters made of them, scores

Events (JSON Lines) are appended to the job's `events` file. Exit codes: 0 done, 1 something failed, 3 the job names a
task that is not there, or is not a job.
"""

import copy
import difflib
import gzip
import hashlib
import importlib.metadata
import inspect
import json
import math
import os
import random
import re
import shlex
import sys
import tempfile
import textwrap
import traceback
from pathlib import Path

WIRE = 2
EXIT_FAILED, EXIT_EXPERIMENT = 1, 3

# Builders of `datasets` that read files; everything else comes from a hub repository.
FILE_BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}

# Small enough for a big model with long prompts; a suite that knows better sets `batch_size`.
HF_BATCH_SIZE = 8


class Refused(Exception):
    """The job cannot be run as it is written; its author has to change something."""

    def __init__(self, message, hint=None):
        super().__init__(message)
        self.hint = hint


class DataUnavailable(Exception):
    """A task's data set is not on this machine."""


class NoFigure(Exception):
    """A task was run, and none of its metrics came out as a finite number."""


JOB_KEYS = {
    "wire", "events", "out", "backend", "device", "threads", "task_dirs", "unsafe_code", "models", "offline",
}  # fmt: skip
MODEL_KEYS = {"name", "path", "model_args", "speed_args", "tasks"}
TASK_KEYS = {
    "item", "task", "name", "data", "num_fewshot", "limit", "gen_kwargs", "apply_chat_template", "system_instruction",
    "fewshot_as_multiturn", "batch_size", "seed",
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


class Events:
    """Appends events, one line and one write each, so that a reader never sees half of one it takes for whole."""

    def __init__(self, path):
        self.descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def send(self, event, **fields):
        os.write(self.descriptor, (json.dumps({"event": event, **fields}) + "\n").encode())


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
    if job.get("unsafe_code") == "allow":
        os.environ["HF_ALLOW_CODE_EVAL"] = "1"


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


def require_packages(backend):
    """Says which package is missing before an ImportError deep inside another one does."""
    for package in ("lm_eval", "torch", "transformers", *(["vllm"] if backend == "vllm" else [])):
        if version_of(package) is None:
            raise MissingPackage(package)


class MissingPackage(Exception):
    """The Python that runs the driver lacks a package."""

    def __init__(self, package):
        super().__init__(f"{sys.executable} has no package {package}")


class Catalogue:
    """Finds tasks by name: in the job's own directories first, then among lm_eval's.

    lm_eval's TaskManager parses every YAML file it ships (over ten thousand, many seconds) to learn their names. A task
    that its file spells out at the start of a line is found by a plain text search; only a name that is not (a group, a
    tag, a misspelling) is worth reading them all.
    """

    def __init__(self, directories):
        from lm_eval.tasks import TaskManager

        for directory in directories:
            if not Path(directory).is_dir():
                raise Refused(f"task_dirs: {directory} is not a directory")
        self.directories = list(directories)
        self.manager = TaskManager(include_path=self.directories, include_defaults=False)
        self.shipped = {}
        self.all_read = False

    def find(self, names):
        """Entries of lm_eval's index by name; refuses unknown names, with the nearest ones."""
        missing = {name for name in names if name not in self.manager.task_index}
        self.shipped.update(find_shipped(missing))
        missing -= set(self.shipped)
        if missing:
            self.read_all()
        return {name: self.entry(name) for name in names}

    def read_all(self):
        from lm_eval.tasks import TaskManager

        if not self.all_read:
            self.manager = TaskManager(include_path=self.directories, include_defaults=True)
            self.all_read = True

    def entry(self, name):
        entry = self.manager.task_index.get(name) or self.shipped.get(name)
        if entry is None:
            near = difflib.get_close_matches(name, self.manager.all_tasks, n=3, cutoff=0.6)
            hint = f"did you mean {' or '.join(f'`{other}`' for other in near)}?" if near else None
            searched = ", ".join([*map(str, self.directories), f"lm_eval {version_of('lm_eval')}"])
            raise Refused(f"no task `{name}` in {searched}", hint or "add its directory to task_dirs")
        return entry

    def leaves(self, name):
        """Configurations (functions unresolved) of the tasks that a name stands for."""
        from lm_eval.tasks._index import Kind
        from lm_eval.tasks._yaml_loader import load_yaml

        entry = self.entry(name)
        if entry.kind is Kind.TAG:
            return [leaf for member in sorted(entry.tags) for leaf in self.leaves(member)]
        config = load_yaml(entry.yaml_path, resolve_func=False)
        if entry.kind is not Kind.GROUP:
            return [config]
        leaves = []
        members = config.get("task") or []
        for member in members if isinstance(members, list) else [members]:
            if isinstance(member, str):
                leaves += self.leaves(member)
            elif (known := member.get("task") or member.get("group")) in self.manager.task_index:
                leaves += [{**leaf, **member} for leaf in self.leaves(known)]
            else:
                leaves.append(member)
        return leaves


def find_shipped(names):
    """Tasks of lm_eval's own whose file says `task: NAME` at the start of a line, as index entries."""
    import lm_eval.tasks
    from lm_eval.tasks._index import TaskIndex
    from lm_eval.tasks._yaml_loader import load_yaml

    if not names:
        return {}
    line = re.compile(rb"^task:[ \t]*[\"']?([^\s\"'#]+)", re.MULTILINE)
    found = {}
    for path in sorted(Path(lm_eval.tasks.__file__).parent.glob("**/*.yaml"), key=Path.as_posix):
        match = line.search(path.read_bytes())
        name = match and match.group(1).decode(errors="replace")
        if name in names and name not in found:
            entry = TaskIndex.entry_from_path(path)
            if entry is not None and load_yaml(path, resolve_func=False, recursive=False).get("task") == name:
                found[name] = entry
    return found


def check_unsafe_code(catalogue, job, name):
    """Refuses a task that runs what a model wrote, unless the job allows it."""
    rule = job.get("unsafe_code", "refuse")
    if rule == "allow" or not any(leaf.get("unsafe_code") for leaf in catalogue.leaves(name)):
        return
    if rule == "sandbox":
        raise Refused(
            f"task `{name}` runs code that the model wrote, and this version has no sandbox for it yet",
            "leave the task out, or set `unsafe_code: allow` to run that code on this machine as you",
        )
    raise Refused(
        f"task `{name}` runs code that the model wrote, and `unsafe_code` is `refuse`",
        "set `unsafe_code: allow` on the suite to run that code on this machine as you",
    )


def task_names(job):
    return list(dict.fromkeys(task["task"] for model in job["models"] for task in model["tasks"]))


class DataSets:
    """Stands in for `datasets.load_dataset` while tasks are built.

    Files are read through a cache of this process's own: the one in the home directory goes by a file's name and time,
    and a file whose content changed while neither did would be evaluated with its old rows. Within one process a data
    set is read once, however many models are evaluated on it. A failure becomes [`DataUnavailable`].
    """

    def __init__(self, cache):
        self.cache = cache
        self.known = {}

    def __enter__(self):
        import datasets

        self.real, datasets.load_dataset = datasets.load_dataset, self.load
        return self

    def __exit__(self, *_):
        import datasets

        datasets.load_dataset = self.real

    def load(self, path=None, name=None, **options):
        if path in set(FILE_BUILDERS.values()) | {"text", "arrow"}:
            options.setdefault("cache_dir", self.cache)
        key = repr((path, name, sorted(options.items(), key=lambda option: option[0])))
        if key not in self.known:
            try:
                self.known[key] = self.real(path=path, name=name, **options)
            except Exception as error:
                raise DataUnavailable(f"{path}{f' ({name})' if name else ''}: {one_line(error)}") from error
        return self.known[key]


def build(catalogue, task):
    """Builds one task of the job: `{"tasks": ..., "groups": ...}` as `TaskManager.load` gives it.

    Raises [`DataUnavailable`] or [`Refused`].
    """
    from lm_eval.tasks._index import Kind
    from lm_eval.tasks._yaml_loader import load_yaml

    entry = catalogue.entry(task["task"])
    if entry.kind in (Kind.GROUP, Kind.TAG):
        if task["data"] is not None:
            raise Refused(f"task `{task['task']}` is a group: `data` can replace the data set of a single task only")
        loaded = catalogue.manager.load([task["task"]])
    else:
        config = load_yaml(entry.yaml_path)
        if task["data"] is not None:
            config.update(replace_data(config, task["data"]))
        loaded = catalogue.manager.load([config])
    for built in loaded["tasks"].values():
        configure(built, task)
    return loaded


def replace_data(config, path):
    """The part of a task's configuration that reads its documents from a local file.

    The file is the split the task is scored on. Examples for the prompt are drawn from it too, unless the task carries
    its own list of them; they then come from a split of the same name, which makes lm_eval leave out the document that
    is being asked.
    """
    task = config.get("task")
    if "class" in config or config.get("custom_dataset"):
        raise Refused(f"task `{task}` loads its data set in Python code: `data` cannot replace it")
    if not Path(path).is_file():
        raise DataUnavailable(f"data: {path} is not a file")
    builder = FILE_BUILDERS.get(Path(path).suffix)
    if builder is None:
        raise Refused(f"task `{task}`: data: {path} is none of {', '.join(sorted(FILE_BUILDERS))}")
    split = config.get("test_split") or config.get("validation_split") or "test"
    fewshot = {key: value for key, value in (config.get("fewshot_config") or {}).items() if key != "split"}
    return {
        "dataset_path": builder,
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(path)}},
        "training_split": None,
        "validation_split": None,
        "test_split": split,
        "fewshot_split": None if fewshot.get("samples") else split,
        "fewshot_config": fewshot or None,
    }


def configure(built, task):
    """Shots, generation arguments and seeds, as `lm_eval` applies its own flags of those names."""
    if task["gen_kwargs"] and built.get_config("output_type") == "generate_until":
        built.set_config(key="generation_kwargs", value=dict(task["gen_kwargs"]), update=True)
    shots = built.get_config("num_fewshot")
    if task["num_fewshot"] is None:
        if shots is None:
            built.set_config(key="num_fewshot", value=0)
    elif shots == 0 and task["num_fewshot"] != 0:
        raise Refused(f"task `{task['task']}` fixes num_fewshot at 0 in its file, so {task['num_fewshot']} has no effect")
    else:
        built.set_config(key="num_fewshot", value=int(task["num_fewshot"]))
    built.set_fewshot_seed(seed=task["seed"])


def device_of(job, model):
    """`cpu`, `cuda` or `cuda:N`; what is said for the model comes before what is said for the job."""
    import torch

    device = model["speed_args"].get("device") or job["device"]
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


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
    return get_model(job["backend"])(pretrained=str(model["path"]), **arguments)


def unload_model(lm, backend):
    """Gives a model's memory back, so that the next one finds the device empty."""
    import gc

    import torch

    if backend == "vllm":
        shutdown = getattr(getattr(lm.model.llm_engine, "engine_core", None), "shutdown", None)
        if shutdown is not None:
            shutdown()
    del lm
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


def limit_of(task):
    """lm_eval reads a limit below 1 as a share, and 1.0 and more as a number of documents."""
    limit = task["limit"]
    return int(limit) if limit is not None and limit >= 1 else limit


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
    arguments = model_arguments(model)
    return {
        "task": task["task"],
        "configs": configs,
        "versions": {name: results["versions"][name] for name in sorted(results["versions"])},
        "n_shot": {name: results["n-shot"].get(name) for name in configs},
        "n_samples": {name: dict(results["n-samples"][name]) for name in configs},
        "data_sha256": None if task["data"] is None else sha256(task["data"]),
        "backend": job["backend"],
        "model_args": arguments,
        "limit": limit_of(task),
        "gen_kwargs": dict(task["gen_kwargs"] or {}),
        "apply_chat_template": task["apply_chat_template"] or False,
        "fewshot_as_multiturn": task["fewshot_as_multiturn"],
        "system_instruction": task["system_instruction"],
        "seed": task["seed"],
        "command": command(job, arguments, task),
    }


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
    if job.get("unsafe_code") == "allow":
        words.append("--confirm_run_unsafe_code")
    return shlex.join(words)


def pairs(values):
    return ",".join(f"{key}={value}" for key, value in values.items())


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


def write_item(out, metrics, task, samples):
    """Writes the three files of one item."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "metrics.json", metrics)
    write_json(out / "task.json", task)
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


class Run:
    """One job on its way: counts items, reports each."""

    def __init__(self, job, events):
        self.job = job
        self.events = events
        self.total = sum(len(model["tasks"]) for model in job["models"])
        self.done = 0
        self.failed = 0
        self.described = False

    def succeeded(self, task):
        """Facts go before the item: what is known by then is what its manifest remembers."""
        self.events.send("facts", facts={"peak_memory": peak_memory()})
        self.events.send("item", item=task["item"])
        self.progress()

    def describe(self, model):
        """Says once what the work is done with; a model is loaded by then, so that vLLM finds the GPU untouched."""
        if not self.described:
            self.described = True
            self.events.send("facts", facts={"device": device_name(self.job, model), "versions": versions(self.job)})

    def give_up(self, model, task, error):
        print("".join(traceback.format_exception(error)), file=sys.stderr, flush=True)
        message, fault = explain(error, model, task)
        self.failed += 1
        self.events.send("item-failed", item=task["item"], message=message, fault=fault)
        self.progress()

    def progress(self):
        self.done += 1
        self.events.send("progress", done=self.done, total=self.total, unit="tasks")

    def refuse_unsafe(self, catalogue):
        """Fails the items that the job does not allow, of every model, and takes them out of it."""
        for model in self.job["models"]:
            allowed = []
            for task in model["tasks"]:
                try:
                    check_unsafe_code(catalogue, self.job, task["task"])
                    allowed.append(task)
                except Exception as error:
                    self.give_up(model, task, error)
            model["tasks"] = allowed

    def model(self, catalogue, model):
        """Evaluates one model. Tasks are built first: one that cannot be had costs no loading of the model."""
        ready = []
        for task in model["tasks"]:
            try:
                ready.append((task, build(catalogue, task)))
            except Exception as error:
                self.give_up(model, task, error)
        if not ready:
            return
        try:
            lm = load_model(self.job, model)
            settings = task_settings(lm, self.job["backend"])
        except Exception as error:
            for task, _ in ready:
                self.give_up(model, task, error)
            return
        self.describe(model)
        for task, loaded in ready:
            try:
                results = evaluate(lm, settings, self.job, task, loaded)
                metrics, left_out = metrics_of(results, loaded, task)
                description = task_file(results, loaded, self.job, model, task)
                write_item(Path(self.job["out"]) / str(task["item"]), metrics, description, samples_of(results))
            except Exception as error:
                self.give_up(model, task, error)
            else:
                if left_out:
                    message = f"{where(model, task)}: left out, for it is no finite number: {', '.join(left_out)}"
                    self.events.send("note", message=message)
                self.succeeded(task)
        unload_model(lm, self.job["backend"])


def where(model, task):
    return f"{task['task']} on {model['name']}"


def explain(error, model, task):
    """A message that names model, task and the way out, and whose fault it is."""
    place = where(model, task)
    if isinstance(error, DataUnavailable):
        way_out = "" if task["data"] else "; name a local file with `data:`, or fetch the data set on a machine with network"
        return f"{place}: its data set cannot be had: {error}{way_out}", "stage"
    if isinstance(error, NoFigure):
        return f"{place}: {error}", "stage"
    if isinstance(error, Refused):
        return f"{place}: {error}{f'; {error.hint}' if error.hint else ''}", "experiment"
    if type(error).__name__ == "OutOfMemoryError":
        return f"{place}: out of memory on the device; set a smaller batch_size or max_length", "stage"
    return f"{place}: {type(error).__name__}: {one_line(error)}", "stage"


def one_line(error):
    text = " ".join(str(error).split())
    return text if len(text) <= 500 else text[:500] + " …"


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


def versions(job):
    packages = ["lm_eval", "transformers", "torch", "tokenizers", "datasets", *(["vllm"] if job["backend"] == "vllm" else [])]
    return {"python": sys.version.split()[0], **{package: version_of(package) for package in packages}}


def peak_memory():
    """The most memory that this process has held so far, in bytes (that of a GPU is not in it)."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def device_name(job, model):
    import torch

    device = device_of(job, model)
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def work(job, events):
    """Runs the job; the exit code."""
    require_packages(job["backend"])
    set_environment(job)
    skip_unused_imports()
    catalogue = Catalogue(job["task_dirs"])
    catalogue.find(task_names(job))
    import torch

    if job.get("threads"):
        torch.set_num_threads(job["threads"])
    out = Path(job["out"]).resolve()
    out.mkdir(parents=True, exist_ok=True)
    run = Run(job, events)
    run.refuse_unsafe(catalogue)
    with tempfile.TemporaryDirectory(prefix=".datasets-", dir=out.parent) as cache, DataSets(cache):
        for model in job["models"]:
            run.model(catalogue, model)
        events.send("facts", facts={"peak_memory": peak_memory()})
    return EXIT_FAILED if run.failed else 0


def main(arguments):
    if len(arguments) != 2:
        print("usage: python driver.py JOB.json", file=sys.stderr)
        return 2
    try:
        job = defaults(read_job(arguments[1]))
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_EXPERIMENT
    events = Events(job["events"])
    try:
        return work(job, events)
    except Refused as error:
        events.send("error", message=str(error), hint=error.hint, fault="experiment")
        print(f"error: {error}", file=sys.stderr)
        return EXIT_EXPERIMENT
    except MissingPackage as error:
        hint = "`make setup` fills .venv, or name a Python that has it under [python] path in mergelab.toml"
        events.send("error", message=str(error), hint=hint, fault="stage")
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    except Exception as error:
        traceback.print_exc()
        events.send("error", message=f"{type(error).__name__}: {one_line(error)}", hint=None, fault="stage")
        return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv))
