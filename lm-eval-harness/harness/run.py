"""One job on its way."""

import sys
import traceback
from pathlib import Path

from .build import build
from .catalogue import check_unsafe_code
from .engine import shut_down
from .environment import device_name, peak_memory, versions
from .errors import explain, where
from .evaluate import evaluate
from .models import free_memory, load_model, task_settings
from .results import metrics_of, samples_of, task_file, write_item


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
        shut_down(lm)
        del lm, settings
        free_memory()
