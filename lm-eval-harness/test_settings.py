"""Tests that every setting of an evaluation has its effect, with the real lm_eval and a tiny model. Run: make test"""

import ast
import gzip
import json
import unittest
from contextlib import contextmanager
from importlib import util
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import driver
import test_driver
from harness.build import DataSets, build
from harness.catalogue import Catalogue
from harness.errors import DataUnavailable, MissingPackage, Refused
from harness.models import by_loading, load_model, model_arguments, restore, set_template_variables, task_settings
from harness.packages import require_packages

TEMPLATE = (
    "{% for message in messages %}{{ {'system': '7', 'user': '8', 'assistant': '9'}[message.role] }}{{ message.content }}"
    "{% endfor %}{{ digit }}"
)

GROUP = """\
group: both
task: [sum, choose]
aggregate_metric_list:
  - { metric: acc, aggregation: mean, weight_by_size: true }
"""


def make_chat_model(source, directory):
    """The tiny model with a chat template, and a token that begins a text where that is asked for."""
    from tokenizers import processors
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.add_special_tokens({"bos_token": "="})
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="= $A", special_tokens=[("=", tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = TEMPLATE
    AutoModelForCausalLM.from_pretrained(source).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


class SettingsTest(test_driver.DriverCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        make_chat_model(cls.root / "model", cls.root / "chat")
        (cls.root / "tasks/both.yaml").write_text(GROUP)
        text = test_driver.GENERATE.format(name="tagged", data=cls.root / "data.jsonl") + "tag: alone\n"
        (cls.root / "tasks/tagged.yaml").write_text(text)

    @contextmanager
    def loaded_models(self):
        """Collects what is asked of each model that evaluates, while it is there."""
        from lm_eval import evaluator

        seen, real = [], evaluator.evaluate

        def evaluate(lm, **options):
            seen.append(
                {
                    "dtype": str(lm.model.dtype),
                    "max_length": lm.max_length,
                    "tokens": lm.tok_encode("1"),
                    "tokenizer": lm.tokenizer.name_or_path,
                    "limit": options["limit"],
                }
            )
            return real(lm=lm, **options)

        with mock.patch("lm_eval.evaluator.evaluate", evaluate):
            yield seen

    def run_models(self, *models):
        """Runs models `(settings of the model, tasks)`; exit code, events, folder of the results."""
        item, job = 0, []
        for number, (settings, tasks) in enumerate(models):
            entries = []
            for task in tasks:
                entries.append({"item": item, "apply_chat_template": False, **task})
                item += 1
            job.append({"name": f"m{number}", "path": str(self.root / "chat"), "tasks": entries, **settings})
        return self.run_driver([], models=job)

    def samples(self, out, item):
        with gzip.open(out / f"{item}/samples.jsonl.gz", "rt") as file:
            return [json.loads(line) for line in file]

    def prompt(self, out, item):
        return self.samples(out, item)[0]["arguments"][0][0]

    def test_settings_of_a_task_are_in_its_prompt_and_its_answers(self):
        chat = {"task": "sum", "apply_chat_template": True}
        tasks = [
            {"task": "sum", "wanted": [{"metric": "exact_match", "filter": "none"}]},
            {"task": "sum", "num_fewshot": 2},
            {"task": "sum", "num_fewshot": 2, "seed": 1},
            chat,
            {**chat, "system_instruction": "000"},
            {**chat, "chat_template_args": {"digit": 6}},
            {**chat, "num_fewshot": 1},
            {**chat, "num_fewshot": 1, "fewshot_as_multiturn": False},
            {"task": "sum", "gen_kwargs": {"max_gen_toks": 2}},
            {"task": "sum", "limit": 2},
            {"task": "sum", "limit": 0.5},
            {**chat},
        ]
        code, _, out = self.run_models(({}, tasks))
        self.assertEqual(code, 0, self.log)
        prompts = [self.prompt(out, item) for item in range(len(tasks))]
        self.assertEqual(prompts[0], "0+1=")
        self.assertRegex(prompts[1], r"\A(\d\+1=\d\s+){2}0\+1=\Z")
        self.assertNotEqual(prompts[1], prompts[2])
        self.assertEqual(prompts[3], "80+1=")
        self.assertEqual(prompts[4], "700080+1=")
        self.assertEqual(prompts[5], "80+1=6")
        self.assertRegex(prompts[6], r"\A8\d\+1=9\d80\+1=\Z")
        self.assertRegex(prompts[7], r"\A8\d\+1=\d\s+0\+1=\Z")
        self.assertEqual({len(sample["responses"][0][0]) for sample in self.samples(out, 8)}, {2})
        self.assertEqual([len(self.samples(out, item)) for item in (9, 10, 11)], [2, 3, 6])
        # What one task said to the template is gone for the next.
        self.assertEqual(prompts[11], prompts[3])
        told = json.loads((out / "5/task.json").read_text())
        self.assertEqual(told["chat_template_args"], {"digit": 6})

    def test_arguments_of_the_model_reach_it_and_what_is_written(self):
        arguments = [
            {},
            {"add_bos_token": True},
            {"dtype": "bfloat16"},
            {"max_length": 32},
            {"tokenizer": str(self.root / "model")},
            {"chat_template_args": {"digit": 4}},
        ]
        template = {"task": "sum", "apply_chat_template": True, "limit": 1}
        models = [({"model_args": given}, [{"task": "choose"}]) for given in arguments[:5]]
        models.append(({"model_args": arguments[5]}, [template, {**template, "chat_template_args": {"digit": 5}}]))
        with self.loaded_models() as seen:
            code, _, out = self.run_models(*models)
        self.assertEqual(code, 0, self.log)
        plain = seen[0]
        self.assertEqual((plain["dtype"], plain["max_length"], len(plain["tokens"])), ("torch.float32", 64, 1))
        self.assertEqual(len(seen[1]["tokens"]), 2)
        self.assertEqual(seen[2]["dtype"], "torch.bfloat16")
        self.assertEqual(seen[3]["max_length"], 32)
        self.assertTrue(seen[4]["tokenizer"].endswith("/model"), seen[4])
        answers = [self.samples(out, item)[0]["responses"] for item in range(3)]
        self.assertNotEqual(answers[0], answers[1])
        self.assertNotEqual(answers[0], answers[2])
        self.assertEqual([self.prompt(out, item) for item in (5, 6)], ["80+1=4", "80+1=5"])
        for item, given in enumerate(arguments):
            told = json.loads((out / f"{item}/task.json").read_text())["model_args"]
            self.assertEqual(told, {"add_bos_token": False, "dtype": "auto", **given})

    def test_settings_that_contradict_each_other_or_fit_nothing_are_refused_before_a_model_loads(self):
        gone = {"path": "gone"}
        wrong = [
            ({"fewshot_as_multiturn": True}, "`apply_chat_template` is not set"),
            ({"chat_template_args": {"digit": 1}}, "`apply_chat_template` is not set"),
            ({"tripwires": {"cutt": 1}}, "there is no `cutt`"),
            ({"data": str(self.root / "data.txt")}, "is not a file"),
            ({"wanted": [{"metric": "exactmatch", "filter": None}]}, "did you mean `exact_match`?"),
            ({"wanted": [{"metric": "exact_match", "filter": "strict"}]}, "asks for the filter `strict`, and the task has `none`"),
        ]
        code, events, _ = self.run_models((gone, [{"task": "sum", **task} for task, _ in wrong]))
        self.assertEqual(code, 1)
        failed = [event for event in events if event["event"] == "item-failed"]
        self.assertEqual(len(failed), len(wrong))
        for event, (_, said) in zip(failed, wrong):
            self.assertIn(said, event["message"])
        code, events, _ = self.run_models(({}, [{"task": "sum", "apply_chat_template": "other"}]))
        (failed,) = [event for event in events if event["event"] == "item-failed"]
        self.assertEqual((code, failed["fault"]), (1, "experiment"))
        self.assertIn("no chat template `other`; it has default", failed["message"])

    def test_a_group_and_a_tag_are_evaluated_whole(self):
        code, events, out = self.run_models(({}, [{"task": "both", "limit": 3}, {"task": "alone", "limit": 3}]))
        self.assertEqual(code, 0, self.log)
        metrics = json.loads((out / "0/metrics.json").read_text())
        self.assertEqual([(row["metric"], row["filter"]) for row in metrics], [("acc", "none")])
        self.assertEqual(sorted(json.loads((out / "0/task.json").read_text())["configs"]), ["choose", "sum"])
        self.assertEqual({sample["task"] for sample in self.samples(out, 0)}, {"choose", "sum"})
        self.assertEqual(json.loads((out / "1/metrics.json").read_text())[0]["metric"], "exact_match")

    def test_how_long_a_task_took_is_a_fact_and_no_part_of_its_result(self):
        _, events, out = self.run_models(({}, [{"task": "sum"}]))
        facts = {key: value for event in events if event["event"] == "facts" for key, value in event["facts"].items()}
        self.assertGreater(facts["seconds"], 0)
        self.assertNotIn("seconds", (out / "0/task.json").read_text())


class DataTest(test_driver.DriverCase):
    """Tasks are built; no model answers."""

    def built(self, task, **settings):
        job = {"models": [{"name": "x", "path": "x", "tasks": [{"item": 0, "task": task, **settings}]}]}
        (task,) = driver.defaults(job)["models"][0]["tasks"]
        catalogue = Catalogue([str(self.root / "tasks")])
        catalogue.find([task["task"]])
        with DataSets(str(self.root / "cache")):
            return build(catalogue, task)

    def prompts(self, task, **settings):
        loaded = self.built(task, **settings)
        (built,) = loaded["tasks"].values()
        built.build_all_requests()
        return [instance.args[0] for instance in built.instances]

    def test_a_local_file_of_any_format_gives_the_same_prompts(self):
        import pyarrow
        import pyarrow.parquet

        rows = [{"question": f"What is {n}, \"and\" 1?", "answer": f"It is {n + 1}.\n#### {n + 1}"} for n in range(3)]
        files = {suffix: self.root / f"gsm8k{suffix}" for suffix in (".jsonl", ".json", ".csv", ".parquet")}
        test_driver.write_rows(files[".jsonl"], rows)
        files[".json"].write_text(json.dumps(rows))
        quoted = [",".join('"' + row[key].replace('"', '""') + '"' for key in ("question", "answer")) for row in rows]
        files[".csv"].write_text("\n".join(["question,answer", *quoted]) + "\n")
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), files[".parquet"])
        prompts = {suffix: self.prompts("gsm8k", data=str(file), num_fewshot=0) for suffix, file in files.items()}
        self.assertEqual(prompts[".jsonl"][1], 'Question: What is 1, "and" 1?\nAnswer:')
        for suffix, found in prompts.items():
            self.assertEqual(found, prompts[".jsonl"], suffix)

    def test_a_data_set_that_is_not_there_says_which_file_would_do(self):
        with self.assertRaises(DataUnavailable) as caught:
            self.built("gsm8k")
        message = str(caught.exception)
        self.assertIn("openai/gsm8k (main)", message)
        self.assertIn("with `data:`, its `test` split (.csv, .json, .jsonl, .parquet)", message)
        self.assertIn("with the columns `answer`, `question`", message)

    def test_a_task_file_that_says_the_same_as_data_can_be_used_by_lm_eval(self):
        from lm_eval.tasks import TaskManager
        from lm_eval.tasks._yaml_loader import load_yaml

        data = self.root / "replacement.jsonl"
        test_driver.write_rows(data, [{"question": f"{n} and 1?", "answer": f"#### {n + 1}"} for n in range(2)])
        loaded = self.built("gsm8k", data=str(data), num_fewshot=0)
        catalogue = Catalogue([])
        catalogue.find(["gsm8k"])
        text = loaded["task_file"].replace("TASK_YAML", str(catalogue.entry("gsm8k").yaml_path)).replace("DATA", str(data))
        file = self.root / "gsm8k.yaml"
        file.write_text(text)
        with DataSets(str(self.root / "cache")):
            (same,) = TaskManager(include_defaults=False).load([load_yaml(file)])["tasks"].values()
        self.assertEqual(list(same.test_docs()), list(loaded["tasks"]["gsm8k"].test_docs()))
        self.assertEqual(same.config.task, "gsm8k")


class EngineTest(unittest.TestCase):
    """What vLLM's class of lm_eval is given, without vLLM."""

    @staticmethod
    def task(**settings):
        return {"seed": 0, "chat_template_args": None, **settings}

    def test_arguments_reach_the_engine_and_its_seed_is_the_tasks(self):
        given = {}

        def vllm(**arguments):
            given.update(arguments)
            arguments["chat_template_args"].clear()

        model = {
            "name": "m",
            "path": str(Path(__file__).parent),
            "model_args": {"max_model_len": 512, "dtype": "bfloat16", "chat_template_args": {"enable_thinking": False}},
            "speed_args": {"tensor_parallel_size": 2, "data_parallel_size": 1, "gpu_memory_utilization": 0.5},
        }
        with mock.patch("lm_eval.api.registry.get_model", lambda name: {"vllm": vllm}[name]):
            load_model({"backend": "vllm", "device": "auto"}, model, self.task(seed=5))
        self.assertEqual((given["seed"], given["max_model_len"], given["dtype"]), (5, 512, "bfloat16"))
        self.assertEqual((given["tensor_parallel_size"], given["gpu_memory_utilization"]), (2, 0.5))
        self.assertIs(given["add_bos_token"], False)
        # lm_eval takes `enable_thinking` out of what it is given; the job's own arguments stay as they are.
        self.assertEqual(model["model_args"]["chat_template_args"], {"enable_thinking": False})
        self.assertEqual(model_arguments("vllm", {"model_args": {"seed": 9}}, self.task(seed=5))["seed"], 9)
        self.assertNotIn("seed", model_arguments("hf", {"model_args": {}}, self.task(seed=5)))

    def test_an_engine_is_loaded_for_each_seed(self):
        ready = [({"seed": seed}, name) for seed, name in ((0, "a"), (1, "b"), (0, "c"))]
        names = [[name for _, name in group] for group in by_loading("vllm", ready)]
        self.assertEqual(names, [["a", "c"], ["b"]])
        self.assertEqual(by_loading("hf", ready), [ready])
        self.assertEqual(by_loading("hf", []), [])

    def test_enable_thinking_is_said_to_vllm_where_it_listens(self):
        lm = SimpleNamespace(chat_template_args={"x": 1}, enable_thinking=None, batch_size="auto", hf_chat_template="t")
        settings = task_settings(lm, "vllm")
        model = {"model_args": {"chat_template_args": {"enable_thinking": False, "x": 1}}}
        set_template_variables(lm, "vllm", model, self.task())
        self.assertEqual((lm.enable_thinking, lm.chat_template_args), (False, {"x": 1}))
        restore(settings)
        set_template_variables(lm, "vllm", model, self.task(chat_template_args={"enable_thinking": True, "y": 2}))
        self.assertEqual((lm.enable_thinking, lm.chat_template_args), (True, {"x": 1, "y": 2}))

    def test_the_names_that_we_rely_on_are_those_of_lm_evals_class(self):
        file = Path(util.find_spec("lm_eval").origin).parent / "models/vllm_causallms.py"
        tree = ast.parse(file.read_text(encoding="utf-8"))
        (made,) = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.name == "__init__" and any(a.arg == "pretrained" for a in node.args.args)
        ]
        names = {argument.arg for argument in made.args.args}
        wanted = {"dtype", "tokenizer", "add_bos_token", "tensor_parallel_size", "data_parallel_size", "batch_size", "seed"}
        self.assertLessEqual(wanted | {"max_length", "max_model_len", "chat_template_args", "enable_thinking"}, names)
        set_there = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
        self.assertLessEqual({"batch_size", "hf_chat_template", "enable_thinking", "chat_template_args"}, set_there)


class PackagesTest(unittest.TestCase):
    def check(self, backend, **found):
        versions = {"lm_eval": "0.4.13", "torch": "2.11.0+cpu", "transformers": "5.14.1", "vllm": "0.24.0+cpu", **found}
        with mock.patch("harness.packages.version_of", versions.get):
            require_packages(backend)

    def test_what_is_missing_or_too_old_is_named_with_the_versions_found_and_wanted(self):
        self.check("vllm")
        self.check("vllm", lm_eval="0.5", vllm="0.24.0rc1")
        self.check("hf", vllm=None)
        for backend, package, found, said in (
            ("hf", "lm_eval", "0.4.9.2", "has lm_eval 0.4.9.2, which is too old; 0.4.13 or newer is wanted"),
            ("hf", "lm_eval", None, "has no package lm_eval; 0.4.13 or newer is wanted"),
            ("vllm", "vllm", "0.9.1", "has vllm 0.9.1, which is too old; 0.24 or newer is wanted"),
        ):
            with self.assertRaises(MissingPackage) as caught:
                self.check(backend, **{package: found})
            self.assertIn(said, str(caught.exception))
            self.assertIn(f"pip install '{package.replace('_', '-')}>=", caught.exception.hint)


if __name__ == "__main__":
    unittest.main()
