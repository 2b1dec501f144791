"""Tests of our task files: the prompt as lm_eval renders it, and the scoring. Run: make test"""

import importlib.util
import json
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from harness import code_eval
from harness.build import DataSets, build
from harness.catalogue import Catalogue
from harness.environment import set_environment
from harness.job import defaults
from harness.programs import Programs

TASKS = Path(__file__).with_name("tasks")

# Prompts as lm_eval renders them, by task. Made once from what was published, never from the code.
GOLDEN = Path(__file__).with_name("golden")

PROBLEM = {
    "task_id": "Test/0",
    "prompt": 'def double(n):\n    """Twice n."""\n',
    "canonical_solution": "    return 2 * n\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
    "entry_point": "double",
}


def load(name):
    spec = importlib.util.spec_from_file_location(name, TASKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class HumanevalInstructRegmeanTest(unittest.TestCase):
    def setUp(self):
        self.task = load("humaneval_instruct_regmean")
        code_eval.use(Programs())
        self.addCleanup(code_eval.use, None)

    def score(self, response):
        (programs,) = self.task.build_predictions([[response]], [PROBLEM])
        return self.task.process_results(PROBLEM, [programs])["pass@1"]

    def test_the_prompt_is_the_published_one_and_builds_from_a_local_file(self):
        set_environment({})
        with tempfile.TemporaryDirectory() as folder, DataSets(folder):
            path = Path(folder) / "problems.jsonl"
            path.write_text(json.dumps(PROBLEM) + "\n")
            job = {"models": [{"name": "x", "path": "x", "tasks": [{"item": 0, "task": "humaneval_instruct_regmean"}]}]}
            (task,) = defaults(job)["models"][0]["tasks"]
            task["data"] = str(path)
            loaded = build(Catalogue([TASKS]), task)["tasks"]["humaneval_instruct_regmean"]
            loaded.build_all_requests()
            (request,) = loaded.instances
        prompt, generation = request.args
        golden = (GOLDEN / "humaneval_instruct_regmean.txt").read_text(encoding="utf-8")
        self.assertEqual(prompt, golden)
        self.assertEqual(generation["until"], ["\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n```"])
        self.assertEqual((generation["max_gen_toks"], generation["do_sample"]), (1024, False))

    def test_a_right_answer_passes_and_a_wrong_one_does_not(self):
        self.assertEqual(self.score("    return 2 * n\n"), 1.0)
        self.assertEqual(self.score("    return 3 * n\n"), 0.0)
        self.assertEqual(self.score("    return (\n"), 0.0)

    def test_code_is_taken_up_to_the_last_fence(self):
        self.assertEqual(self.score("    return 2 * n\n```\nThis doubles n."), 1.0)
        self.assertEqual(self.task.up_to_last_fence("a```b```c"), "a```b")
        self.assertEqual(self.task.up_to_last_fence("no fence"), "no fence")

    def test_ending_early_without_an_error_is_not_passing(self):
        self.assertEqual(self.score("    import os\n    os._exit(0)\n"), 0.0)
        self.assertEqual(self.score("    return 3 * n\nimport sys\nsys.exit(0)\n"), 0.0)

    def test_a_program_that_does_not_end_is_stopped(self):
        self.task.TIME_OUT = 0.5
        self.assertEqual(self.score("    while True: pass\n"), 0.0)

    def test_under_a_bare_lm_eval_it_scores_by_itself(self):
        with mock.patch.dict(sys.modules, {"harness.code_eval": None}):
            self.assertEqual(self.score("    return 2 * n\n"), 1.0)
            self.assertEqual(self.score("    import os\n    os._exit(0)\n"), 0.0)
            self.task.TIME_OUT = 0.5
            self.assertEqual(self.score("    while True: pass\n"), 0.0)


class TaskFilesTest(unittest.TestCase):
    def test_every_task_of_the_8b_experiment_is_found_offline(self):
        set_environment({})
        names = ["gsm8k", "mathqa", "humaneval_instruct_regmean", "mbpp"]
        catalogue = Catalogue([TASKS])
        self.assertEqual(list(catalogue.find(names)), names)
        self.assertFalse(catalogue.all_read)
        unsafe = [name for name in names if any(leaf.get("unsafe_code") for leaf in catalogue.leaves(name))]
        self.assertEqual(unsafe, ["humaneval_instruct_regmean", "mbpp"])


if __name__ == "__main__":
    unittest.main()
