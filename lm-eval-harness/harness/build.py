"""Tasks made ready to run: their data, shots and settings."""

import difflib
import json
from pathlib import Path

from .errors import DataUnavailable, Refused, one_line
from .tripwires import check_rules

# Builders of `datasets` that read files; everything else comes from a hub repository.
FILE_BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


class DataSets:
    """Stands in for `datasets.load_dataset` while tasks are built.

    Files are read through a cache of this process's own: the one in the home directory goes by a file's name and time,
    and a file whose content changed while neither did would be evaluated with its old rows. Within one process a data
    set is read once, however many models are evaluated on it. A failure becomes [`DataUnavailable`].
    """

    def __init__(self, cache):
        self.cache = cache
        self.known = {}
        # What was asked for since this was last emptied, in its order: `(path, name, data set)`.
        self.loads = []

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
        self.loads.append((path, name, self.known[key]))
        return self.known[key]


def build(catalogue, task):
    """Builds one task of the job: `{"tasks": ..., "groups": ...}` as `TaskManager.load` gives it.

    Where a local file replaces the data set, `task_file` is the text of a task file that says the same. Raises
    [`DataUnavailable`] or [`Refused`].
    """
    from lm_eval.tasks._index import Kind
    from lm_eval.tasks._yaml_loader import load_yaml

    check_options(task)
    entry = catalogue.entry(task["task"])
    if entry.kind in (Kind.GROUP, Kind.TAG):
        if task["data"] is not None:
            raise Refused(f"task `{task['task']}` is a group: `data` can replace the data set of a single task only")
        loaded = load(catalogue, task["task"], GROUP_WAY_OUT)
    else:
        config = load_yaml(entry.yaml_path)
        if task["data"] is None:
            loaded = load(catalogue, config, way_out(config))
        else:
            replacement = replace_data(config, task["data"])
            loaded = load(catalogue, {**config, **replacement}, "")
            loaded["task_file"] = task_file_text(config, replacement)
    for name, built in loaded["tasks"].items():
        configure(name, built, task)
    if len(loaded["tasks"]) == 1:
        check_wanted(built, task["wanted"] or [])
    return loaded


GROUP_WAY_OUT = (
    "; fetch it on a machine with network, or name the group's tasks one by one and give each a local file with `data:`"
)


def load(catalogue, wanted, advice):
    try:
        return catalogue.manager.load([wanted])
    except DataUnavailable as error:
        raise DataUnavailable(f"{error}{advice}") from error


def way_out(config):
    """Which file would serve in place of a data set that is not there."""
    split = config.get("test_split") or config.get("validation_split") or "test"
    columns = columns_of(config)
    with_columns = f" with the columns {', '.join(f'`{column}`' for column in columns)}" if columns else ""
    formats = ", ".join(sorted(FILE_BUILDERS))
    return (
        f"; name a local file with `data:`, its `{split}` split ({formats}){with_columns}, or fetch the data set on a "
        "machine with network"
    )


def columns_of(config):
    """Columns that the task's templates name, sorted; those that only its functions read are not seen."""
    from jinja2 import Environment, TemplateError, meta

    columns = set()
    for key in ("doc_to_text", "doc_to_target", "doc_to_choice", "gen_prefix"):
        template = config.get(key)
        if not isinstance(template, str):
            continue
        if "{" not in template:
            # The name of a column by itself is one too.
            columns |= {template} if template.isidentifier() and key != "gen_prefix" else set()
            continue
        try:
            columns |= meta.find_undeclared_variables(Environment().parse(template))
        except TemplateError:
            continue
    return sorted(columns - {"is_fewshot"})


def check_options(task):
    """Refuses settings that contradict each other, before anything is loaded for them."""
    if task["fewshot_as_multiturn"] and not task["apply_chat_template"]:
        raise Refused("`fewshot_as_multiturn` makes turns of a conversation, and `apply_chat_template` is not set")
    if task["chat_template_args"] and not task["apply_chat_template"]:
        raise Refused("`chat_template_args` are variables of the chat template, and `apply_chat_template` is not set")
    check_rules(task["tripwires"])


def check_wanted(built, wanted):
    """Refuses figures `[{metric, filter}]` that a task does not give. What a group gives is known when it has run."""
    metrics = list(built.aggregation())
    if any(callable(entry.get("metric")) for entry in built.get_config("metric_list") or []):
        # A function may give its figures under other names than its own, as that of `humaneval` does: `pass@1`.
        metrics = []
    filters = [ensemble.name for ensemble in getattr(built, "_filters", [])]
    for figure in wanted:
        for kind, name, known in (("metric", figure["metric"], metrics), ("filter", figure["filter"], filters)):
            if name is not None and known and name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise Refused(
                    f"a table asks for the {kind} `{name}`, and the task has {', '.join(f'`{each}`' for each in known)}",
                    f"did you mean `{near[0]}`?" if near else "change the table's column",
                )


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


def task_file_text(config, replacement, yaml_path="TASK_YAML", data="DATA"):
    """A task file that takes in the one of `config` and reads its documents from a local file; JSON is YAML.

    `replacement` is what is put in place of parts of `config`.
    """
    changed = {key: value for key, value in replacement.items() if value != config.get(key)}
    (split,) = replacement["dataset_kwargs"]["data_files"]
    changed["dataset_kwargs"] = {"data_files": {split: data}}
    return json.dumps({"include": yaml_path, **changed}, ensure_ascii=False, indent=1) + "\n"


def configure(name, built, task):
    """Shots, generation arguments and seeds, as `lm_eval` applies its own flags of those names."""
    if task["gen_kwargs"] and built.get_config("output_type") == "generate_until":
        built.set_config(key="generation_kwargs", value=dict(task["gen_kwargs"]), update=True)
    shots = built.get_config("num_fewshot")
    if task["num_fewshot"] is None:
        if shots is None:
            built.set_config(key="num_fewshot", value=0)
    elif shots == 0 and task["num_fewshot"] != 0:
        raise Refused(f"task `{name}` fixes num_fewshot at 0 in its file, so {task['num_fewshot']} has no effect")
    else:
        built.set_config(key="num_fewshot", value=int(task["num_fewshot"]))
    built.set_fewshot_seed(seed=task["seed"])
