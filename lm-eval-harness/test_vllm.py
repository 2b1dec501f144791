"""Tests of the driver on the real vLLM, on the CPU, with tiny models. Run: make test-vllm

Where there is no vLLM they are skipped, and say so; `make test-vllm` sets MERGELAB_TEST_VLLM, under which that is a
failure. The last needs the quickstart's models: those of MERGELAB_QUICKSTART, else of this checkout's last run.
"""

import gzip
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from harness.engine import is_cpu_build
from harness.environment import set_environment
from harness.job import WIRE
from harness.tripwires import ACCEPT, TRIPWIRES
from tiny_model import make_model
from wider_heads import widen

DRIVER = Path(__file__).with_name("driver.py")
ROOT = DRIVER.parent.parent
# How far two log-likelihoods may be apart in fp32 that was summed in another order.
LOGLIKELIHOOD_TOLERANCE = 1e-3

TASK = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
"""

GENERATE = (
    TASK
    + """\
output_type: generate_until
generation_kwargs: {{ until: ["\\n"], max_gen_toks: 16, do_sample: false }}
metric_list:
  - {{ metric: exact_match, aggregation: mean, higher_is_better: true }}
"""
)

SAMPLE = GENERATE.replace("do_sample: false", "do_sample: true, temperature: 1.0") + "repeats: 2\n"

CHOOSE = (
    TASK
    + """\
output_type: multiple_choice
doc_to_choice: ["1", "23", "456"]
"""
).replace("{{{{answer}}}}", "{{{{choice}}}}")

ROLLING = (
    TASK
    + """\
output_type: loglikelihood_rolling
metric_list:
  - {{ metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false }}
"""
).replace('doc_to_text: "{{{{question}}}}"', 'doc_to_text: ""')

TASKS = [
    {"task": "generate"},
    {"task": "generate", "num_fewshot": 3, "apply_chat_template": True, "system_instruction": "add", "batch_size": 5},
    {"task": "choose"},
    {"task": "choose", "num_fewshot": 2, "limit": 10},
    {"task": "rolling"},
]

# Of one seed, in batches of different sizes and after other tasks, and of another seed.
SAMPLED = [{"task": "sample", "seed": 1}, {"task": "sample", "seed": 1, "batch_size": 7}, {"task": "sample", "seed": 2}]


def setUpModule():
    if not is_cpu_build():
        if os.environ.get("MERGELAB_TEST_VLLM"):
            raise AssertionError(f"{sys.executable} has no CPU build of vLLM")
        raise unittest.SkipTest("no CPU build of vLLM in this environment; `make test-vllm` makes one and runs these")


def processes_of_session(session):
    """Process ids of all that belong to a session and have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # pid (name) state parent group session …; the name may hold anything.
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] != "Z" and int(fields[3]) == session:
            found.append(int(stat.parent.name))
    return found


class Evaluation:
    """The driver on one job, in a process of its own and a session of its own, as `mergelab` starts it."""

    def __init__(self, root, backend, models, variables=None, cwd=None, **changes):
        self.out = Path(tempfile.mkdtemp(dir=root))
        item = 0
        for model in models:
            for task in model["tasks"]:
                task["item"] = item
                item += 1
        job = {
            "wire": WIRE,
            "events": str(self.out / "events.jsonl"),
            "out": str(self.out / "out"),
            "backend": backend,
            "device": "cpu",
            "threads": 2,
            "task_dirs": [str(root / "tasks")],
            "unsafe_code": "refuse",
            "models": models,
            **changes,
        }
        (self.out / "job.json").write_text(json.dumps(job))
        # Whatever the variables of the machine, the driver sets those that vLLM needs.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("VLLM_", "HF_", "OMP_"))}
        with open(self.out / "log", "w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, DRIVER, self.out / "job.json"],
                cwd=cwd or root,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**kept, **(variables or {})},
            )
            # How many processes there were at most; what a session has left when the driver has ended.
            self.most = 0
            while (code := process.poll()) is None:
                self.most = max(self.most, len(processes_of_session(process.pid)))
                time.sleep(0.2)
            self.code = code
        self.left = processes_of_session(process.pid)
        self.log = (self.out / "log").read_text(encoding="utf-8")
        self.events = [json.loads(line) for line in (self.out / "events.jsonl").read_text().splitlines()]

    def metrics(self, item):
        rows = json.loads((self.out / f"out/{item}/metrics.json").read_text())
        return {f"{row['metric']},{row['filter']}": row for row in rows}

    def samples(self, item):
        return read_samples(self.out / f"out/{item}")

    def facts(self):
        merged = {}
        for event in self.events:
            merged.update(event.get("facts", {}))
        return merged

    def bytes(self, item):
        return {path.name: path.read_bytes() for path in (self.out / f"out/{item}").iterdir()}


class VllmTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.root = Path(cls.folder.name)
        set_environment({})
        make_model(cls.root / "one")
        make_model(cls.root / "two", seed=1)
        tasks = cls.root / "tasks"
        tasks.mkdir()
        data = cls.root / "data.jsonl"
        rows = [
            {"question": f"{n}+{7 * n % 31}=", "answer": f"{n + 7 * n % 31}", "choice": n % 3} for n in range(40)
        ]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        for name, text in {"generate": GENERATE, "sample": SAMPLE, "choose": CHOOSE, "rolling": ROLLING}.items():
            (tasks / f"{name}.yaml").write_text(text.format(name=name, data=data))
        make_model(cls.root / "odd", head=24)
        cls.hf = Evaluation(cls.root, "hf", [cls.model("one", TASKS)])
        cls.vllm = Evaluation(cls.root, "vllm", [cls.model("one", TASKS + SAMPLED)])

    @classmethod
    def model(cls, name, tasks):
        # Weights drawn at random trip over most of them.
        tasks = [{**task, "tripwires": dict.fromkeys(TRIPWIRES, ACCEPT)} for task in tasks]
        return {"name": name, "path": str(cls.root / name), "model_args": {"dtype": "float32"}, "tasks": tasks}

    def kinds(self, run):
        """What became of each item, in order."""
        return [event["event"] for event in run.events if event["event"] in ("item", "item-failed", "error")]

    def test_generation_and_log_likelihoods_run_and_no_process_is_left(self):
        self.assertEqual((self.vllm.code, self.vllm.left), (0, []), self.vllm.log)
        self.assertEqual(self.kinds(self.vllm), ["item"] * len(TASKS + SAMPLED), self.vllm.log)
        facts = self.vllm.facts()
        self.assertEqual(facts["device"], "cpu")
        self.assertRegex(facts["versions"]["vllm"], r"^0\.24\.\d+\+cpu$")

    def test_both_backends_see_the_same_prompts(self):
        for item in range(len(TASKS)):
            prompts = [[sample["arguments"] for sample in run.samples(item)] for run in (self.hf, self.vllm)]
            self.assertEqual(*prompts)
        (context, _), *_ = self.vllm.samples(1)[0]["arguments"]
        self.assertTrue(context.startswith("s=add\nu=") and context.endswith("\na="), context)
        self.assertEqual(context.count("\nu="), 4)

    def test_both_backends_generate_the_same_text_and_score_alike(self):
        for item in (0, 1):
            texts = [[sample["responses"] for sample in run.samples(item)] for run in (self.hf, self.vllm)]
            self.assertEqual(*texts)
            self.assertGreater(len({text for ((text,),) in texts[0]}), 10)
            self.assertEqual(self.hf.metrics(item), self.vllm.metrics(item))

    def test_both_backends_give_the_same_log_likelihoods(self):
        for item in (2, 3, 4):
            pairs = zip(self.hf.samples(item), self.vllm.samples(item), strict=True)
            for hf, vllm in pairs:
                for ours, theirs in zip(flat(hf["responses"]), flat(vllm["responses"]), strict=True):
                    self.assertAlmostEqual(ours, theirs, delta=LOGLIKELIHOOD_TOLERANCE)
        self.assertEqual(self.hf.metrics(2)["acc,none"], self.vllm.metrics(2)["acc,none"])
        self.assertEqual(self.vllm.metrics(3)["acc,none"]["n_samples"], 10)


    def test_a_sampled_answer_hangs_on_its_seed_and_not_on_what_ran_before_nor_on_the_batch_size(self):
        first, again, other = (
            [sample["responses"] for sample in self.vllm.samples(len(TASKS) + item)] for item in range(len(SAMPLED))
        )
        self.assertEqual(first, again)
        self.assertNotEqual(first, other)
        # Two answers to each question, which are drawn apart.
        self.assertGreater(sum(one != two for ((one, two),) in first), 30)

    def test_a_second_model_in_one_process_gives_the_bytes_that_it_gives_alone_and_one_that_is_refused_stops_none(self):
        models = [self.model("odd", TASKS[:1]), self.model("two", TASKS[:1]), self.model("one", TASKS)]
        run = Evaluation(self.root, "vllm", models)
        self.assertEqual((run.code, run.left), (1, []), run.log)
        self.assertEqual(self.kinds(run), ["item-failed", *["item"] * (1 + len(TASKS))], run.log)
        failed = next(event for event in run.events if event["event"] == "item-failed")
        self.assertRegex(failed["message"], "^generate on odd: .*head_dim=24")
        for item in range(len(TASKS)):
            self.assertEqual(self.vllm.bytes(item), run.bytes(2 + item))
        self.assertNotEqual(run.samples(1), run.samples(2))

    def test_an_engine_in_a_process_of_its_own_answers_alike_and_ends_with_the_driver(self):
        variables = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
        run = Evaluation(self.root, "vllm", [self.model("one", TASKS[:3])], variables)
        self.assertEqual((run.code, run.left), (0, []), run.log)
        self.assertGreater(run.most, 1)
        for item in (0, 1):
            self.assertEqual(*([sample["responses"] for sample in each.samples(item)] for each in (self.vllm, run)))
        self.assertEqual(self.vllm.metrics(2), run.metrics(2))


class QuickstartTest(unittest.TestCase):
    """The quickstart's trained models, whose heads vLLM on a CPU takes once they are wider (`wider_heads.py`)."""

    TASKS = [{"task": "addition", "batch_size": 200}, {"task": "reversal", "batch_size": 200}]

    def test_both_backends_agree_on_the_quickstarts_models_within_paired_noise(self):
        runs = Path(os.environ.get("MERGELAB_QUICKSTART", ROOT / "runs/quickstart"))
        sources = sorted([*runs.glob("models.*"), *runs.glob("merges.*")])
        if not sources:
            raise unittest.SkipTest("the quickstart's models are not there; `make quickstart` trains them")
        with tempfile.TemporaryDirectory() as folder:
            models = []
            for source in sources:
                name = source.name.partition(".")[2]
                widen(source, Path(folder) / name)
                tasks = [dict(task) for task in self.TASKS]
                arguments = {"dtype": "float32"}
                models.append({"name": name, "path": str(Path(folder) / name), "model_args": arguments, "tasks": tasks})
            directories = [str(ROOT / "experiments/quickstart/tasks")]
            run = Evaluation(Path(folder), "vllm", models, cwd=ROOT, task_dirs=directories)
            self.assertEqual((run.code, run.left), (0, []), run.log)
            print("\nmodel         task       items   hf only  vllm only  p (exact McNemar)")
            for model in models:
                for task in model["tasks"]:
                    stored = read_samples(runs / "evals.suite" / model["name"] / task["task"])
                    hf, vllm = ([right(sample) for sample in each] for each in (stored, run.samples(task["item"])))
                    pairs = list(zip(hf, vllm, strict=True))
                    only = pairs.count((True, False)), pairs.count((False, True))
                    p = mcnemar(*only)
                    print(f"{model['name']:<13} {task['task']:<9} {len(pairs):>6} {only[0]:>9} {only[1]:>10}  {p:.3g}")
                    self.assertEqual(len(pairs), 400)
                    with self.subTest(model=model["name"], task=task["task"]):
                        self.assertGreater(p, 0.01)


def right(sample):
    return sample["metrics"]["none"]["exact_match"] == 1


def mcnemar(one, other):
    """Two-sided p of an exact McNemar test, from the numbers of items that only one of two got right."""
    count = one + other
    tail = sum(math.comb(count, wins) for wins in range(min(one, other) + 1)) / 2**count
    return min(1.0, 2 * tail)


def read_samples(folder):
    with gzip.open(folder / "samples.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def flat(value):
    """The numbers in nested lists, `true` and `false` among them as 1 and 0."""
    if isinstance(value, list):
        return [number for inner in value for number in flat(inner)]
    return [float(value == "True" if value in ("True", "False") else value)]


if __name__ == "__main__":
    unittest.main()
