"""A model for tests that says what it is told to."""

import json
import tempfile
from pathlib import Path

from lm_eval.api.model import LM

from harness.build import DataSets, build
from harness.catalogue import Catalogue
from harness.environment import set_environment
from harness.evaluate import arguments
from harness.job import defaults
from harness.scoring import CodeTasks

TASKS = Path(__file__).with_name("tasks")


class Scripted(LM):
    """Answers the n-th document with the n-th response, or with the n-th list of them where a task repeats."""

    def __init__(self, responses):
        super().__init__()
        self.responses = responses
        self.asked = {}

    def generate_until(self, requests):
        return [self.next(request) for request in requests]

    def next(self, request):
        response = self.responses[request.doc_id]
        if isinstance(response, str):
            return response
        number = self.asked[request.doc_id] = self.asked.get(request.doc_id, -1) + 1
        return response[number]

    def loglikelihood(self, requests):
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood

    def apply_chat_template(self, chat_history, add_generation_prompt=True):
        turns = "".join(f"<{turn['role']}>{turn['content']}" for turn in chat_history)
        return turns + "<assistant>" * add_generation_prompt

    @property
    def tokenizer_name(self):
        return "scripted"


def job_of(folder, name, **options):
    """A job of one task on one model."""
    directories = options.pop("task_dirs", [TASKS])
    task = {"item": 0, "task": name, **options}
    job = {"backend": "hf", "out": str(folder / "out"), "task_dirs": directories}
    return defaults({**job, "models": [{"name": "scripted", "path": "", "tasks": [task]}]})


def score(name, rows, responses, rule="sandbox", meddle=None, **options):
    """lm_eval's results for a model with these responses to these rows; `meddle` may change the built task."""
    set_environment({})
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        data = folder / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        job = job_of(folder, name, data=str(data), **options)
        (model,) = job["models"]
        (task,) = model["tasks"]
        code = CodeTasks(rule)
        code.add(task)
        with DataSets(folder / "cache") as data_sets:
            loaded = build(Catalogue(job["task_dirs"]) if job["task_dirs"] else catalogue_of(name), task)
        code.keep_loads(task, data_sets.loads)
        if meddle is not None:
            meddle(loaded)
        lm = Scripted(responses)

        def run():
            from lm_eval.evaluator import evaluate

            return evaluate(lm=lm, task_dict=loaded, **arguments(task, True))

        return code.evaluate(run, lm, job, model, task, loaded)


def catalogue_of(name):
    catalogue = Catalogue([])
    catalogue.find([name])
    return catalogue
