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
    warnings.json      what speaks against the score, if anything does: [{tripwire, count, of, share, message, examples}]

Events (JSON Lines) are appended to the job's `events` file. Exit codes: 0 done, 1 something failed, 3 the job names a
task that is not there, or is not a job.
"""

import multiprocessing
import os
import sys
import tempfile
import traceback
from pathlib import Path

from harness.build import DataSets
from harness.catalogue import Catalogue
from harness.engine import set_engine_environment
from harness.environment import peak_memory, set_environment, skip_unused_imports
from harness.errors import MissingPackage, Refused, one_line
from harness.events import Events
from harness.job import defaults, read_job, task_names
from harness.packages import require_packages
from harness.run import Run

EXIT_FAILED, EXIT_EXPERIMENT = 1, 3


def work(job, events):
    """Runs the job; the exit code."""
    require_packages(job["backend"])
    set_environment(job)
    if job["backend"] == "vllm":
        set_engine_environment(job)
    skip_unused_imports()
    catalogue = Catalogue(job["task_dirs"])
    catalogue.find(task_names(job))
    import torch

    if job.get("threads"):
        torch.set_num_threads(job["threads"])
    out = Path(job["out"]).resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".datasets-", dir=out.parent) as cache, DataSets(cache) as data_sets:
        run = Run(job, events, data_sets)
        run.refuse_unsafe(catalogue)
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
        events.send("error", message=str(error), hint=error.hint, fault="stage")
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    except Exception as error:
        traceback.print_exc()
        events.send("error", message=f"{type(error).__name__}: {one_line(error)}", hint=None, fault="stage")
        return EXIT_FAILED


def leave(code):
    """Ends this process at once, with its children.

    Everything is written by now. Winding down the interpreter as well would run the destructors of an engine's threads,
    one of which now and then is still running (`terminate called without an active exception`) and takes the exit code
    of an evaluation that went well with it.
    """
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main(sys.argv))
