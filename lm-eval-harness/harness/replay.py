"""Scores responses of a model that is elsewhere: a process of its own, in a sandbox (`scoring.py` starts it).

    python -m harness.replay FOLDER

The folder holds `order.json` (the task with its settings, where its files are, the limits of this process),
`responses.jsonl`, and the task's data sets as they were loaded, under `data/`.

It speaks with who started it by standard input and output, one JSON object a line. It asks for programs to be run
(`{"programs": [...], "timeout": 3.0}`) and is told what became of them (`{"outcomes": [...]}`): they run in sandboxes of
their own, not in this one. It ends with `{"results": ...}`, lm_eval's, or `{"error": ..., "kind": ...}`.
"""

import json
import os
import sys
import traceback
from pathlib import Path

from . import code_eval, responses
from .build import build
from .catalogue import Catalogue
from .environment import set_environment, skip_unused_imports
from .errors import one_line
from .evaluate import arguments, set_seeds
from .job import defaults
from .program import confine
from .results import plain

# What is handed over of lm_eval's results.
PARTS = ("results", "groups", "versions", "n-shot", "n-samples", "higher_is_better", "samples")


class Channel:
    """Standard input and output, taken away from whatever else here would use them."""

    def __init__(self):
        self.heard = os.fdopen(os.dup(0), "rb")
        self.said = os.fdopen(os.dup(1), "wb")
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(2, 1)

    def say(self, **message):
        self.said.write(json.dumps(message).encode() + b"\n")
        self.said.flush()

    def run(self, sources, timeout):
        """What `code_eval` needs of who runs programs."""
        if not sources:
            return []
        self.say(programs=sources, timeout=timeout)
        return json.loads(self.heard.readline())["outcomes"]


class Asked:
    """Programs that were asked for once already are answered from memory.

    lm_eval scores one sample after the other. So it is first gone through with nothing run, to learn of all programs and
    have them run side by side; then once more with what became of them.
    """

    def __init__(self, channel):
        self.channel = channel
        self.wanted = {}
        self.known = {}

    def learn(self):
        for timeout, sources in self.wanted.items():
            outcomes = self.channel.run(list(sources), timeout)
            self.known.update({(timeout, source): end for source, end in zip(sources, outcomes, strict=True)})

    def run(self, sources, timeout):
        unknown = [source for source in dict.fromkeys(sources) if (timeout, source) not in self.known]
        outcomes = self.channel.run(unknown, timeout)
        self.known.update({(timeout, source): end for source, end in zip(unknown, outcomes, strict=True)})
        return [self.known[timeout, source] for source in sources]


class Learning:
    """Takes programs down and runs none."""

    def __init__(self, asked):
        self.asked = asked

    def run(self, sources, timeout):
        self.asked.wanted.setdefault(timeout, {}).update(dict.fromkeys(sources))
        return [code_eval.NOT_RUN for _ in sources]


class Stored:
    """Stands in for `datasets.load_dataset`: gives what was loaded where the model is, in the same order."""

    def __init__(self, folder, loads):
        self.folder = folder
        self.loads = iter(enumerate(loads))

    def load(self, path=None, name=None, **_):
        import datasets

        index, load = next(self.loads, (None, None))
        if load != [path, name]:
            raise responses.Differs(f"data set {path}: another one was loaded where the model is")
        return datasets.load_from_disk(str(self.folder / str(index)))


def score(folder, order, channel):
    """lm_eval's results."""
    import datasets
    from lm_eval.evaluator import evaluate

    job = defaults(order["job"])
    (task,) = job["models"][0]["tasks"]
    asked = Asked(channel)
    code_eval.install()
    code_eval.use(asked, order["timeout"])
    catalogue = Catalogue(job["task_dirs"])
    catalogue.find([task["task"]])
    datasets.disable_caching()
    datasets.load_dataset = Stored(folder / "data", order["loads"]).load
    loaded = build(catalogue, task)
    given = arguments(task, unsafe=True)
    records = responses.read(folder / "responses.jsonl")

    def scored(**more):
        set_seeds(task["seed"])
        model = responses.Replay([dict(record) for record in records])
        return evaluate(lm=model, task_dict=loaded, **given, **more)

    code_eval.use(Learning(asked), order["timeout"])
    try:
        scored(bootstrap_iters=0)
    except Exception:
        # It was scored without figures, which a task need not bear; the second time counts.
        traceback.print_exc()
    asked.learn()
    code_eval.use(asked, order["timeout"])
    watch = code_eval.Watch(loaded)
    results = watch.add_to(scored())
    return {part: plain(results.get(part, {})) for part in PARTS}


def main(arguments):
    channel = Channel()
    folder = Path(arguments[1])
    order = json.loads((folder / "order.json").read_text(encoding="utf-8"))
    confine(order["limits"])
    set_environment({})
    skip_unused_imports()
    try:
        channel.say(results=score(folder, order, channel))
    except Exception as error:
        traceback.print_exc()
        channel.say(error=f"{type(error).__name__}: {one_line(error)}", kind=type(error).__name__)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
