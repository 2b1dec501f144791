"""Tasks that run code which a model wrote: generated here, scored elsewhere.

Where the model is, only requests are made and answered. A second process (`replay.py`) scores the stored responses in a
sandbox, with the task's own code, and asks this one to run programs; each of them runs in a sandbox of its own, so that
it can reach neither the scoring process nor another program. What comes back is data, and is taken for no more: sizes,
types and counts are checked, and what is known here already is not taken from there.
"""

import json
import math
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import code_eval, responses, sandbox
from .catalogue import refuse_code
from .errors import Refused
from .programs import ENVIRONMENT, MOST_WORKERS, PYTHON, Programs, end_group, last_of, user_of

# The scoring process itself: lm_eval and torch are imported there, and a task may start processes of its own.
LIMITS = {"memory": 32 << 30, "processes": 512, "file": 1 << 30, "processor": None}
DISK = 1 << 30

# Seconds that it may work without a word; programs that it waits for do not count.
SILENCE = 900.0

# Bytes of one message.
LONGEST = 1 << 30


class ScoringFailed(Exception):
    """The scoring process gave no result, or one that cannot be."""


class CodeTasks:
    """What the tasks of a job that run code are evaluated with: which they are, and what runs their programs."""

    def __init__(self, rule):
        self.rule = rule
        self.items = set()
        self.loads = {}
        self.programs = None

    def add(self, task):
        """Takes a task in; raises [`Refused`] where the job does not say how its code may run, [`NoSandbox`] where it
        says so and there is no sandbox."""
        if self.rule == "refuse":
            raise refuse_code(task["task"])
        if self.programs is None:
            code_eval.install()
            if self.rule == "sandbox":
                self.programs = sandbox.check()
                # Nothing that a model wrote runs in this process, nor from it but in a sandbox.
                code_eval.use(code_eval.Nowhere())
            else:
                self.programs = Programs()
                code_eval.use(self.programs)
        self.items.add(task["item"])

    def has(self, task):
        return task["item"] in self.items

    def keep_loads(self, task, loads):
        """Data sets that were loaded to build a task: `(path, name, data set)` in their order."""
        self.loads[task["item"]] = loads

    def evaluate(self, run, lm, job, model, task, loaded):
        """lm_eval's results, with what became of each program beside its sample. `run` evaluates in this process."""
        if self.rule != "sandbox":
            code_eval.use(self.programs, task["code_timeout"])
            watch = code_eval.Watch(loaded)
            return watch.add_to(run())
        records = responses.generate(lm, loaded, run)
        with tempfile.TemporaryDirectory(prefix=".scoring-", dir=Path(job["out"]).parent) as folder:
            order = fill(Path(folder), job, model, task, records, self.loads[task["item"]])
            most = sum(len(record.get("responses", ())) for record in records)
            results = Scorer(self.programs, most).score(Path(folder), order)
        return known_here(results, loaded)


def fill(folder, job, model, task, records, loads):
    """Puts what the scoring process needs into a folder; gives folders that it needs besides, as [`sandbox.wrap`] does."""
    shutil.copytree(
        Path(__file__).parent, folder / "harness", ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copyfile
    )
    responses.write(folder / "responses.jsonl", records)
    for index, (_, _, data_set) in enumerate(loads):
        data_set.save_to_disk(str(folder / "data" / str(index)))
    there = dict(task, item=0)
    if task["data"] is not None:
        # Its rows are among the data sets; the task only looks whether there is a file of that kind.
        there["data"] = f"/scoring/rows{Path(task['data']).suffix}"
        (folder / Path(there["data"]).name).touch()
    folders = {f"/tasks/{index}": Path(directory).resolve() for index, directory in enumerate(job["task_dirs"])}
    if os.geteuid() == 0:
        for directory in folders.values():
            if directory.stat().st_mode & 0o5 != 0o5:
                raise Refused(
                    f"task_dirs: {directory} is closed to other users, and scoring does not run as root",
                    f"`chmod -R o+rX {directory}`, or run as another user",
                )
    order = {
        "job": {
            "backend": job["backend"],
            "task_dirs": list(folders),
            "models": [{"name": model["name"], "path": "", "tasks": [there]}],
        },
        "timeout": task["code_timeout"],
        "loads": [[path, name] for path, name, _ in loads],
        "limits": {**LIMITS, "user": user_of(MOST_WORKERS) if os.geteuid() == 0 else None},
    }
    (folder / "order.json").write_text(json.dumps(order), encoding="utf-8")
    open_to_all(folder)
    return [(folder, "/scoring"), *((directory, place) for place, directory in folders.items())]


def open_to_all(folder):
    """Makes a folder readable for the user that scoring runs as."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


class Scorer:
    """Our side of the scoring process. `most` is how many programs there can be, a filter at most four times over."""

    def __init__(self, programs, most):
        self.programs = programs
        self.left = 4 * most + 100
        self.buffer = bytearray()

    def score(self, folder, readable):
        command = [PYTHON, "-s", "-P", "-m", "harness.replay", "/scoring"]
        environment = {**ENVIRONMENT, "PYTHONPATH": "/scoring", "HF_HOME": "/tmp/hf", "CUDA_VISIBLE_DEVICES": ""}
        with tempfile.TemporaryFile() as complaints:
            process = subprocess.Popen(
                sandbox.wrap(command, readable, DISK),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )
            try:
                return self.follow(process)
            except ScoringFailed:
                end_group(process)
                print(last_of(complaints), file=sys.stderr, flush=True)
                raise
            finally:
                end_group(process)
                process.stdin.close()
                process.stdout.close()

    def follow(self, process):
        """Runs programs for the scoring process until it has a result."""
        while True:
            message = self.hear(process.stdout)
            if "results" in message:
                return message["results"]
            if "error" in message:
                raise ScoringFailed(f"scoring failed: {message['error']}")
            sources, timeout = message.get("programs"), message.get("timeout")
            if not (is_list_of(sources, str) and isinstance(timeout, (int, float)) and 0 < timeout <= 3600):
                raise ScoringFailed("the scoring process asked for something that is not to be had")
            self.left -= len(sources)
            if self.left < 0:
                raise ScoringFailed("the scoring process asked for more programs than there are responses")
            reply = json.dumps({"outcomes": self.programs.run(sources, timeout)})
            try:
                process.stdin.write(reply.encode() + b"\n")
                process.stdin.flush()
            except BrokenPipeError:
                raise ScoringFailed("the scoring process ended while its programs ran") from None

    def hear(self, pipe):
        """The next message."""
        deadline = time.monotonic() + SILENCE
        poll = select.poll()
        poll.register(pipe, select.POLLIN | select.POLLHUP)
        searched = 0
        while (end := self.buffer.find(b"\n", searched)) < 0:
            searched = len(self.buffer)
            if searched > LONGEST:
                raise ScoringFailed("the scoring process says more than there can be to say")
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise ScoringFailed(f"the scoring process said nothing for {SILENCE:.0f} s")
            piece = os.read(pipe.fileno(), 1 << 20)
            if not piece:
                raise ScoringFailed("the scoring process ended without a result")
            self.buffer += piece
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ScoringFailed("the scoring process says what is no JSON") from error
        if not isinstance(message, dict):
            raise ScoringFailed("the scoring process says what is no message")
        return message


def is_list_of(value, kind):
    return isinstance(value, list) and all(isinstance(each, kind) for each in value)


def known_here(results, loaded):
    """Results of the scoring process, as far as they can be held against what is known here; the rest is its word.

    A sample for every document and filter, no other, with the documents, prompts and responses that are here.
    """
    try:
        if set(results["samples"]) != set(loaded["tasks"]):
            raise ScoringFailed("the scoring process has samples of other tasks")
        for name, task in loaded["tasks"].items():
            documents = {}
            for instance in task.instances:
                documents.setdefault(instance.doc_id, []).append(instance)
            filters = {}
            for sample in results["samples"][name]:
                filters.setdefault(str(sample["filter"]), []).append(sample["doc_id"])
                instances = sorted(documents[sample["doc_id"]], key=lambda instance: instance.idx)
                sample["doc"] = instances[0].doc
                sample["arguments"] = [instance.args for instance in instances]
                sample["resps"] = [instance.resps for instance in instances]
                if not is_list_of(sample["outcomes"], str):
                    raise ScoringFailed("outcomes of programs are no list")
                for metric in sample["metrics"]:
                    sample[metric]
            if not filters or any(sorted(scored) != sorted(documents) for scored in filters.values()):
                raise ScoringFailed(f"the scoring process has not just one sample for each document of {name}")
            if results["n-samples"][name]["effective"] != len(documents):
                raise ScoringFailed(f"the scoring process counts {results['n-samples'][name]} documents of {name}")
        for scores in (*results["results"].values(), *results["groups"].values()):
            for value in scores.values():
                if isinstance(value, (int, float)) and not math.isfinite(value):
                    raise ScoringFailed("a score is no finite number")
    except (KeyError, TypeError, AttributeError) as error:
        raise ScoringFailed(f"the scoring process has results of another form: {type(error).__name__} {error}") from error
    return results
