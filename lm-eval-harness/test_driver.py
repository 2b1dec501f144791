"""Tests of driver.py with the real lm_eval and a tiny random model, on the CPU. Run: make test"""

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from unittest import mock

import driver
from harness.environment import set_environment
from harness.job import WIRE
from harness.models import HF_BATCH_SIZE
from harness.progress import Bars

DRIVER = Path(__file__).with_name("driver.py")

GENERATE = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
output_type: generate_until
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
generation_kwargs:
  until: ["\\n"]
  max_gen_toks: 4
  do_sample: false
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata:
  version: 7
"""

CHOOSE = """\
task: choose
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: !function choose.target
doc_to_choice: ["1", "2", "3"]
num_fewshot: 0
metadata:
  version: 1
"""

SCORED = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
output_type: generate_until
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
process_results: !function scored.{name}
generation_kwargs: {{ max_gen_toks: 2 }}
metric_list:
  - {{ metric: right, aggregation: mean, higher_is_better: true }}
  - {{ metric: wrong, aggregation: mean, higher_is_better: false }}
"""

SCORES = """\
def partly(doc, results):
    return {"right": 1.0, "wrong": float("inf")}


def nowhere(doc, results):
    return {"right": float("nan"), "wrong": float("inf")}
"""

UNSAFE = GENERATE + "unsafe_code: true\n"


def make_model(directory):
    """A random Llama with one token a character."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate(["<pad>", "</s>", "<unk>", *"0123456789+= "])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(directory)
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=64,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
    ).save_pretrained(directory)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class DriverCase(unittest.TestCase):
    """A folder with a tiny model and a few tasks, and a driver that runs on them."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.root = Path(cls.folder.name)
        # Before anything reads it at import: no test may reach for a hub.
        set_environment({"threads": 1})
        make_model(cls.root / "model")
        tasks = cls.root / "tasks"
        tasks.mkdir()
        data = cls.root / "data.jsonl"
        write_rows(data, [{"question": f"{n}+1=", "answer": str(n + 1)} for n in range(6)])
        (tasks / "sum.yaml").write_text(GENERATE.format(name="sum", data=data))
        (tasks / "gone.yaml").write_text(GENERATE.format(name="gone", data=cls.root / "gone.jsonl"))
        (tasks / "unsafe.yaml").write_text(UNSAFE.format(name="unsafe", data=data))
        (tasks / "choose.yaml").write_text(CHOOSE.format(data=data))
        for name in ("partly", "nowhere"):
            (tasks / f"{name}.yaml").write_text(SCORED.format(name=name, data=data))
        (tasks / "scored.py").write_text(SCORES)
        (tasks / "choose.py").write_text("def target(doc):\n    return len(doc['question']) % 3\n")

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def run_driver(self, tasks, start=False, **changes):
        """Runs the driver; (exit code, events, folder with the results).

        In this process, because lm_eval takes many seconds to import; with `start`, as `mergelab` does it.
        """
        out = Path(tempfile.mkdtemp(dir=self.root))
        tasks = [{"item": item, **task} for item, task in enumerate(tasks)]
        job = {
            "wire": WIRE,
            "events": str(out / "events.jsonl"),
            "out": str(out / "out"),
            "backend": "hf",
            "device": "cpu",
            "threads": 1,
            "task_dirs": [str(self.root / "tasks")],
            "unsafe_code": "refuse",
            "models": [{"name": "tiny", "path": str(self.root / "model"), "model_args": {}, "tasks": tasks}],
            **changes,
        }
        (out / "job.json").write_text(json.dumps(job))
        if start:
            words = [sys.executable, DRIVER, out / "job.json"]
            ended = subprocess.run(words, cwd=self.root, capture_output=True, text=True, check=False)
            code, self.log = ended.returncode, ended.stderr
        else:
            with redirect_stderr(StringIO()) as log:
                code = driver.main(["driver.py", str(out / "job.json")])
            self.log = log.getvalue()
        events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
        return code, events, out / "out"

    @contextmanager
    def batch_sizes(self):
        """Collects `(size, schedule)` of each task that is run."""
        from lm_eval import evaluator

        sizes, real = [], evaluator.evaluate

        def evaluate(lm, **options):
            sizes.append((lm.batch_size_per_gpu, lm.batch_schedule))
            return real(lm=lm, **options)

        with mock.patch("lm_eval.evaluator.evaluate", evaluate):
            yield sizes

    def kinds(self, events):
        return [event["event"] for event in events if event["event"] not in ("progress", "facts")]


class DriverTest(DriverCase):
    def test_each_task_gets_its_metrics_configuration_and_samples(self):
        code, events, out = self.run_driver([{"task": "sum", "limit": 4.0, "command": "lm_eval run …"}, {"task": "choose"}], start=True)
        self.assertEqual((code, self.kinds(events)), (0, ["item", "item"]), self.log)
        (metric,) = json.loads((out / "0/metrics.json").read_text())
        self.assertEqual((metric["metric"], metric["filter"], metric["n_samples"]), ("exact_match", "none", 4))
        self.assertEqual((metric["n_shot"], metric["higher_is_better"]), (0, True))
        self.assertIsInstance(metric["stderr"], float)
        task = json.loads((out / "0/task.json").read_text())
        self.assertEqual(task["versions"], {"sum": 7})
        self.assertEqual(task["n_samples"], {"sum": {"original": 6, "effective": 4}})
        self.assertEqual(task["command"], "lm_eval run …")
        with gzip.open(out / "0/samples.jsonl.gz", "rt") as file:
            samples = [json.loads(line) for line in file]
        self.assertEqual([sample["doc"]["question"] for sample in samples], ["0+1=", "1+1=", "2+1=", "3+1="])
        answered = [sample["filtered"]["none"][0] == sample["target"] for sample in samples]
        self.assertEqual(metric["value"], sum(answered) / 4)
        choose = json.loads((out / "1/metrics.json").read_text())
        self.assertEqual([row["metric"] for row in choose], ["acc", "acc_norm"])
        self.assertIn("def target(doc)", json.loads((out / "1/task.json").read_text())["configs"]["choose"]["doc_to_target"])

    def test_facts_come_before_the_item_that_they_are_of(self):
        _, events, _ = self.run_driver([{"task": "sum", "limit": 1}, {"task": "choose", "limit": 1}])
        seen = [event["event"] for event in events if event["event"] != "progress"]
        self.assertEqual(seen, ["facts", "facts", "item", "facts", "item", "facts"], self.log)
        facts = [event["facts"] for event in events if event["event"] == "facts"]
        self.assertEqual(facts[0]["device"], "cpu")
        versions = facts[0]["versions"]
        self.assertTrue(versions["lm_eval"] and versions["torch"] and versions["transformers"])
        peaks = [each["peak_memory"] for each in facts[1:]]
        self.assertEqual(peaks, sorted(peaks))
        self.assertGreater(peaks[0], 50_000_000)

    def test_how_far_a_task_is_is_said_while_it_runs(self):
        with mock.patch.object(Bars.__init__, "__defaults__", (0.0,)):
            _, events, _ = self.run_driver([{"task": "sum"}])
        within = [event for event in events if event["event"] == "progress" and event["unit"] != "tasks"]
        self.assertEqual({event["unit"] for event in within}, {"requests of sum on tiny"}, self.log)
        self.assertEqual(within[-1]["done"], within[-1]["total"])

    def test_the_same_job_writes_the_same_bytes_and_no_path_of_this_machine(self):
        tasks = [{"task": "sum", "num_fewshot": 2, "seed": 3, "batch_size": 4}, {"task": "choose"}]
        first, second = (self.run_driver(tasks, start=start)[2] for start in (False, True))
        files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
        self.assertEqual(len(files), 6, self.log)
        for file in files:
            self.assertEqual((first / file).read_bytes(), (second / file).read_bytes(), file)
        metrics = (first / "0/metrics.json").read_text()
        self.assertEqual(json.loads(metrics)[0]["n_shot"], 2)
        self.assertNotIn(str(self.root), (first / "1/task.json").read_text().replace(str(self.root / "data.jsonl"), ""))

    def test_an_unknown_task_is_found_before_a_model_loads_and_near_names_are_shown(self):
        code, events, _ = self.run_driver([{"task": "sum"}, {"task": "gsm8kk"}])
        self.assertEqual((code, self.kinds(events)), (3, ["error"]))
        self.assertIn("no task `gsm8kk`", events[0]["message"])
        self.assertIn("`gsm8k`", events[0]["hint"])
        self.assertEqual(events[0]["fault"], "experiment")

    def test_a_task_that_runs_code_is_refused_by_itself_and_the_message_says_what_to_set(self):
        models = [
            {"name": "tiny", "path": str(self.root / "model"), "tasks": [{"item": 0, "task": "sum"}]},
            {"name": "gone", "path": str(self.root / "no-model"), "tasks": [{"item": 1, "task": "unsafe"}]},
        ]
        code, events, out = self.run_driver([], models=models)
        # Before the first model is loaded, and the second one, of which nothing is left, never is.
        self.assertEqual((code, self.kinds(events)), (1, ["item-failed", "item"]), self.log)
        self.assertEqual((events[0]["item"], events[0]["fault"]), (1, "experiment"))
        self.assertIn("`unsafe`", events[0]["message"])
        self.assertIn("unsafe_code: sandbox", events[0]["message"])
        self.assertFalse((out / "1").exists())

    def test_without_a_sandbox_a_task_that_is_to_run_in_one_fails_before_a_model_loads(self):
        models = [{"name": "gone", "path": str(self.root / "no-model"), "tasks": [{"item": 0, "task": "unsafe"}]}]
        with mock.patch("harness.sandbox.shutil.which", return_value=None):
            code, events, _ = self.run_driver([], models=models, unsafe_code="sandbox")
        self.assertEqual((code, self.kinds(events)), (1, ["item-failed"]))
        self.assertEqual(events[0]["fault"], "stage")
        self.assertIn("apt-get install bubblewrap", events[0]["message"])

    def test_in_the_open_and_in_the_sandbox_a_task_that_runs_code_gives_the_same_files(self):
        code, events, out = self.run_driver([{"task": "unsafe", "limit": 2}], unsafe_code="allow")
        self.assertEqual((code, self.kinds(events)), (0, ["item"]), self.log)
        if shutil.which("bwrap") is None:
            self.skipTest("bubblewrap is not installed (`make sandbox-deps`)")
        code, events, other = self.run_driver([{"task": "unsafe", "limit": 2}], unsafe_code="sandbox")
        self.assertEqual((code, self.kinds(events)), (0, ["item"]), self.log)
        for name in ("metrics.json", "task.json", "samples.jsonl.gz"):
            self.assertEqual((out / "0" / name).read_bytes(), (other / "0" / name).read_bytes(), name)

    def test_a_task_that_fails_leaves_the_others(self):
        code, events, out = self.run_driver([{"task": "gone"}, {"task": "sum"}, {"task": "gsm8k"}])
        self.assertEqual((code, self.kinds(events)), (1, ["item-failed", "item-failed", "item"]), self.log)
        self.assertIn("gone.jsonl", events[0]["message"])
        hub = next(event for event in events if event["event"] == "item-failed" and event["item"] == 2)
        self.assertIn("`data:`", hub["message"])
        self.assertEqual(hub["fault"], "stage")
        self.assertTrue((out / "1/metrics.json").exists())
        self.assertFalse((out / "0").exists())

    def test_data_replaces_a_shipped_tasks_data_set_and_is_read_anew_when_its_content_changes(self):
        path = self.root / "questions.jsonl"
        seen = []
        for answer in ("#### 12", "#### 34"):
            write_rows(path, [{"question": f"{n} + 1", "answer": answer} for n in range(3)])
            os.utime(path, (1, 1))
            code, _, out = self.run_driver(
                [{"task": "gsm8k", "data": str(path), "num_fewshot": 1, "gen_kwargs": {"max_gen_toks": 2}}]
            )
            self.assertEqual(code, 0, self.log)
            with gzip.open(out / "0/samples.jsonl.gz", "rt") as file:
                samples = [json.loads(line) for line in file]
            seen.append([sample["target"] for sample in samples])
            # One example of the same file, and never the question that is asked.
            for sample in samples:
                self.assertEqual(sample["arguments"][0][0].count(f"Question: {sample['doc']['question']}"), 1)
            task = json.loads((out / "0/task.json").read_text())
            self.assertEqual(len(task["data_sha256"]), 64)
            self.assertNotIn(str(path), (out / "0/task.json").read_text())
        self.assertEqual(seen, [["#### 12"] * 3, ["#### 34"] * 3])
        filters = {row["filter"] for row in json.loads((out / "0/metrics.json").read_text())}
        self.assertEqual(filters, {"strict-match", "flexible-extract"})

    def test_a_model_that_does_not_load_fails_its_items_only(self):
        models = [
            {"name": "gone", "path": str(self.root / "no-model"), "tasks": [{"item": 0, "task": "sum"}]},
            {"name": "tiny", "path": str(self.root / "model"), "tasks": [{"item": 1, "task": "sum"}]},
        ]
        code, events, _ = self.run_driver([], models=models)
        self.assertEqual((code, self.kinds(events)), (1, ["item-failed", "item"]), self.log)
        self.assertIn("no-model", events[0]["message"])

    def test_a_chat_template_that_the_model_lacks_is_an_error_of_the_experiment(self):
        code, events, _ = self.run_driver([{"task": "sum", "apply_chat_template": True}])
        self.assertEqual((code, self.kinds(events)), (1, ["item-failed"]), self.log)
        failed = next(event for event in events if event["event"] == "item-failed")
        self.assertIn("no chat template", failed["message"])
        self.assertEqual(failed["fault"], "experiment")

    def test_what_is_no_finite_number_is_left_out_and_a_task_without_any_has_failed(self):
        code, events, out = self.run_driver([{"task": "partly"}, {"task": "nowhere"}])
        self.assertEqual((code, self.kinds(events)), (1, ["note", "item", "item-failed"]), self.log)
        (row,) = json.loads((out / "0/metrics.json").read_text())
        self.assertEqual((row["metric"], row["value"]), ("right", 1.0))
        note = next(event for event in events if event["event"] == "note")
        self.assertIn("partly on tiny", note["message"])
        self.assertIn("wrong,none = inf", note["message"])
        failed = next(event for event in events if event["event"] == "item-failed")
        self.assertEqual((failed["item"], failed["fault"]), (1, "stage"))
        self.assertIn("(right,none = nan, wrong,none = inf)", failed["message"])
        self.assertFalse((out / "1").exists())

    def test_a_task_leaves_neither_its_chat_template_nor_its_batch_size_to_the_next(self):
        from transformers import AutoTokenizer

        model = self.root / "model-with-templates"
        shutil.copytree(self.root / "model", model)
        tokenizer = AutoTokenizer.from_pretrained(model)
        tokenizer.chat_template = {"default": "1{{ messages[0].content }}", "other": "2{{ messages[0].content }}"}
        tokenizer.save_pretrained(model)
        tasks = [
            {"task": "sum", "apply_chat_template": "other", "batch_size": 3},
            {"task": "sum", "apply_chat_template": True},
            {"task": "sum", "batch_size": "auto:2", "apply_chat_template": False},
            {"task": "sum", "apply_chat_template": "other"},
        ]
        items = [{"item": item, **task} for item, task in enumerate(tasks)]
        with self.batch_sizes() as sizes:
            code, _, out = self.run_driver([], models=[{"name": "tiny", "path": str(model), "tasks": items}])
        self.assertEqual(code, 0, self.log)
        self.assertEqual(sizes, [(3, 1), (HF_BATCH_SIZE, 1), ("auto", 2.0), (HF_BATCH_SIZE, 1)])
        starts = []
        for item in range(4):
            with gzip.open(out / f"{item}/samples.jsonl.gz", "rt") as file:
                starts.append(json.loads(file.readline())["arguments"][0][0])
        self.assertEqual(starts, ["20+1=", "10+1=", "0+1=", "20+1="])

    def test_arguments_that_decide_the_speed_only_reach_the_model_and_no_file(self):
        written = []
        with self.batch_sizes() as sizes:
            for speed_args in ({}, {"batch_size": 3}):
                tasks = [{"item": 0, "task": "sum"}]
                model = {"name": "tiny", "path": str(self.root / "model"), "speed_args": speed_args, "tasks": tasks}
                code, _, out = self.run_driver([], models=[model])
                self.assertEqual(code, 0, self.log)
                written.append({path.name: path.read_bytes() for path in (out / "0").iterdir()})
        self.assertEqual(sizes, [(HF_BATCH_SIZE, 1), (3, 1)])
        self.assertEqual(len(written[0]), 3)
        self.assertEqual(written[0], written[1])


if __name__ == "__main__":
    unittest.main()
