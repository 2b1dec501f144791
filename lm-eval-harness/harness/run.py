"""One job on its way."""

import json
import shutil
import sys
import time
import traceback
from pathlib import Path

from .build import build
from .catalogue import runs_code
from .engine import shut_down
from .environment import device_name, peak_memory, versions
from .errors import Tripped, explain, where
from .evaluate import evaluate
from .models import by_loading, free_memory, load_model, task_settings
from .progress import Bars
from .results import metrics_of, samples_of, task_file, tripped, write_item
from .scoring import CodeTasks
from .tripwires import check_rules, judge
from .watch import Watch


class Run:
    """One job on its way: counts items, reports each."""

    def __init__(self, job, events, data_sets):
        self.job = job
        self.events = events
        self.data_sets = data_sets
        self.code = CodeTasks(job.get("unsafe_code", "refuse"))
        self.total = sum(len(model["tasks"]) for model in job["models"])
        self.done = 0
        self.failed = 0
        self.described = False

    def succeeded(self, task):
        self.events.send("item", item=task["item"])
        self.progress()

    def describe(self, model):
        """Says once what the work is done with; a model is loaded by then, so that vLLM finds the GPU untouched."""
        if not self.described:
            self.described = True
            self.events.send("facts", facts={"device": device_name(self.job, model), "versions": versions(self.job)})

    def give_up(self, model, task, error):
        if not isinstance(error, Tripped):
            print("".join(traceback.format_exception(error)), file=sys.stderr, flush=True)
        message, fault = explain(error, model, task)
        self.failed += 1
        self.events.send("item-failed", item=task["item"], message=message, fault=fault)
        self.progress()

    def progress(self):
        self.done += 1
        self.events.send("progress", done=self.done, total=self.total, unit="tasks")

    def within(self, model, task, done, total):
        """How far the task is that runs; also the sign that it runs."""
        self.events.send("progress", done=done, total=total, unit=f"requests of {where(model, task)}")

    def refuse_unsafe(self, catalogue):
        """Fails the items that the job or this machine does not allow, of every model, and takes them out of it."""
        for model in self.job["models"]:
            allowed = []
            for task in model["tasks"]:
                try:
                    if runs_code(catalogue, task["task"]):
                        self.code.add(task)
                    allowed.append(task)
                except Exception as error:
                    self.give_up(model, task, error)
            model["tasks"] = allowed

    def model(self, catalogue, model):
        """Evaluates one model. Tasks are built first: one that cannot be had costs no loading of the model."""
        ready = []
        for task in model["tasks"]:
            try:
                if task["kept"] is not None:
                    self.accept(model, task)
                else:
                    self.data_sets.loads = []
                    ready.append((task, build(catalogue, task)))
                    self.code.keep_loads(task, self.data_sets.loads)
            except Exception as error:
                self.give_up(model, task, error)
        for group in by_loading(self.job["backend"], ready):
            self.loaded_model(model, group)

    def loaded_model(self, model, ready):
        """Loads a model and evaluates it on tasks `(task, built)`."""
        try:
            lm = load_model(self.job, model, ready[0][0])
            settings = task_settings(lm, self.job["backend"])
        except Exception as error:
            for task, _ in ready:
                self.give_up(model, task, error)
            return
        self.describe(model)
        for task, loaded in ready:
            try:
                self.one(lm, settings, model, task, loaded)
            except Exception as error:
                self.give_up(model, task, error)
            else:
                self.succeeded(task)
        shut_down(lm)
        del lm, settings
        free_memory()

    def one(self, lm, settings, model, task, loaded):
        """Evaluates one task. What trips is written all the same: its author may accept it."""
        started = time.monotonic()
        bars = Bars(lambda done, total: self.within(model, task, done, total))
        with Watch(lm, self.job["backend"], task) as watch, bars:
            results = self.evaluate(lm, settings, model, task, loaded)
        metrics, left_out = metrics_of(results, loaded, task)
        description = task_file(results, loaded, self.job, model, task)
        warnings = tripped(results, loaded, watch.counts)
        write_item(self.out(task), metrics, description, samples_of(results), warnings)
        # Before the item: what is known by then is what its manifest remembers. None of it is part of the result.
        self.events.send("facts", facts={"seconds": round(time.monotonic() - started, 3), "peak_memory": peak_memory()})
        if left_out:
            message = f"{where(model, task)}: left out, for it is no finite number: {', '.join(left_out)}"
            self.events.send("note", message=message)
        for warning in warnings:
            message = f"{where(model, task)}: {warning['message']}"
            self.events.send("note", message=message)
            print("\n".join([message, *watch.examples(warning["tripwire"])]), file=sys.stderr, flush=True)
        judge(warnings, task["tripwires"])

    def evaluate(self, lm, settings, model, task, loaded):
        def run():
            return evaluate(lm, settings, self.job, model, task, loaded)

        return self.code.evaluate(run, lm, self.job, model, task, loaded) if self.code.has(task) else run()

    def out(self, task):
        return Path(self.job["out"]) / str(task["item"])

    def accept(self, model, task):
        """Takes a result that tripped before, where the task now accepts what it tripped over."""
        check_rules(task["tripwires"])
        kept = Path(task["kept"])
        warnings = kept / "warnings.json"
        judge(json.loads(warnings.read_text(encoding="utf-8")), task["tripwires"])
        shutil.copytree(kept, self.out(task), dirs_exist_ok=True)
        self.events.send("note", message=f"{where(model, task)}: the answers of an earlier run are accepted")
        self.succeeded(task)
