"""Tests of what the experiment's data and training rest on: `make test` runs them."""

import itertools
import json
import tempfile
import unittest
from pathlib import Path

import cut  # noqa: F401  (that it imports without a model is part of the test)
import figures
import functions
import problems
import torch
import train
from chat import Chat, Encoded, messages
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TEMPLATE = HERE / "chat_template.jinja"


class Problems(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.functions = problems.templates(ROOT / "target" / "reasoning-gym")
        cls.splits = {split: list(itertools.islice(problems.problems(cls.functions, split), 300)) for split in problems.SEEDS}

    def test_the_committed_test_is_what_the_generator_makes(self):
        rows = [json.loads(line) for line in (HERE / "data" / "gsm-symbolic-test.jsonl").read_text().splitlines()]
        self.assertEqual(rows, self.splits["test"][:problems.ROWS["test"]])

    def test_templates_that_are_held_out_are_in_no_other_split(self):
        used = {split: {row["template"] for row in rows} for split, rows in self.splits.items()}
        self.assertEqual(sorted(used["held-out"]), sorted(self.functions)[problems.HELD_OUT])
        self.assertFalse(used["held-out"] & (used["train"] | used["dev"] | used["test"]))

    def test_half_of_what_is_trained_on_and_all_of_the_test_are_simple_problems(self):
        simple = {row["template"] for row in self.splits["test"]}
        self.assertEqual(len(simple), problems.SIMPLE)
        self.assertEqual({row["template"] for row in self.splits["dev"]}, simple)
        among = [row["template"] in simple for row in self.splits["train"]]
        self.assertAlmostEqual(sum(among) / len(among), 0.5, delta=0.1)

        def longest(split, these):
            return max(row["answer"].count("\n") for row in self.splits[split] if (row["template"] in simple) == these)

        self.assertLessEqual(longest("test", True), 4)
        self.assertGreater(longest("train", False), 4)

    def test_no_problem_of_the_test_stands_in_train_or_dev(self):
        questions = {split: {row["question"] for row in rows} for split, rows in self.splits.items()}
        self.assertFalse(questions["test"] & (questions["train"] | questions["dev"]))
        self.assertEqual(len(questions["test"]), 300)

    def test_an_answer_ends_with_what_is_asked_for(self):
        for row in itertools.chain(*self.splits.values()):
            self.assertTrue(row["answer"].endswith(f"#### {row['target']}"), row)


SOURCE = '''
class Stack:
    def push(self, item):
        """Put it on top."""

        self.items.append(item)
        return self
    def bare(self):
        return 1
    def documented(self):
        """Nothing else."""
    def joined(self): """On one line."""; return 1
'''


class Functions(unittest.TestCase):
    def test_signature_and_docstring_and_then_the_body(self):
        body = "\n    self.items.append(item)\n    return self"
        self.assertEqual(list(functions.functions(SOURCE)), [("push", 'def push(self, item):\n    """Put it on top."""', body)])

    def test_thirteen_words_in_a_row_are_an_overlap(self):
        words = [f"w{place}" for place in range(20)]
        known = functions.grams(" ".join(words))
        self.assertTrue(known & functions.grams("x " + " ".join(words[3:16])))
        self.assertFalse(known & functions.grams("x " + " ".join(words[3:15]) + " y"))

    def test_functions_that_overlap_human_eval_are_dropped(self):
        def rows(problem):
            return {(row["module"], row["name"]) for row in functions.library([problem])}

        apart = {"entry_point": "no_such_name", "prompt": "", "canonical_solution": ""}
        every = rows(apart)
        # One by its name, one by its text.
        module, name = sorted(every)[0]
        self.assertNotIn((module, name), rows(apart | {"entry_point": name}))
        chosen = functions.library([apart])[0]
        left = rows(apart | {"prompt": chosen["prompt"], "canonical_solution": chosen["body"]})
        self.assertNotIn((chosen["module"], chosen["name"]), left)

    def test_bodies_have_three_to_thirty_lines(self):
        apart = {"entry_point": "no_such_name", "prompt": "", "canonical_solution": ""}
        lines = {row["body"].count("\n") for row in functions.library([apart])}
        self.assertEqual((min(lines), max(lines)), (3, 30))


def characters() -> PreTrainedTokenizerFast:
    """A tokenizer with a token for each character."""
    vocabulary = {chr(code): code for code in range(128)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?")


class Rows(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        characters().save_pretrained(cls.folder.name)
        cls.chat = Chat(Path(cls.folder.name), TEMPLATE)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def rendered(self, row):
        text = self.chat.tokenizer.apply_chat_template(messages(row), chat_template=self.chat.template, tokenize=False)
        found = self.chat.encode(row)
        return text, text[found.answer:]

    def test_the_answer_to_a_problem_is_the_assistants_turn(self):
        text, answer = self.rendered({"question": "1+1?", "answer": "2\n#### 2"})
        self.assertEqual(answer, "2\n#### 2<|im_end|>\n")
        self.assertTrue(text.endswith("<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n" + answer))

    def test_the_answer_to_a_function_begins_with_its_body_and_closes_the_fence(self):
        text, answer = self.rendered({"prompt": 'def f():\n    """F."""', "body": "\n    return 1"})
        self.assertEqual(answer, "\n    return 1\n```<|im_end|>\n")
        self.assertIn('<|im_start|>assistant\nHere is the completed function:\n```python\ndef f():\n    """F."""\n    return 1\n```', text)

    def test_the_experiment_says_the_same_messages(self):
        text = (ROOT / "experiments" / "smollm2.yaml").read_text()
        for message in messages({"prompt": "{{ prompt }}", "body": "{{ body }}"}):
            self.assertIn(f'role: {message["role"]}, content: {json.dumps(message["content"])}', text)


class Training(unittest.TestCase):
    def test_labels_are_the_answers_alone(self):
        rows = [Encoded(list(range(10 + place)), 4) for place in (5, 0, 7, 1)]
        (ids, labels), (longer, _) = train.parts(rows)
        self.assertEqual((ids.shape, longer.shape), ((2, 11), (2, 17)))
        self.assertEqual(labels[0].tolist(), [-100] * 4 + list(range(4, 10)) + [-100])

    def test_the_rate_warms_up_and_falls_to_zero(self):
        rates = [train.rate(step, 45) for step in range(45)]
        self.assertEqual(max(rates), rates[train.WARM_UP - 1])
        self.assertAlmostEqual(rates[train.WARM_UP - 1], 1.0)
        self.assertAlmostEqual(rates[-1], 0.0)
        self.assertEqual(rates[:train.WARM_UP], sorted(rates[:train.WARM_UP]))

    def test_a_step_takes_the_mean_over_all_its_labelled_tokens(self):
        torch.manual_seed(0)

        class Tiny(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.embed, self.lm_head = torch.nn.Embedding(20, 8), torch.nn.Linear(8, 20, bias=False)

            def model(self, input_ids, use_cache):
                return type("Out", (), {"last_hidden_state": self.embed(input_ids)})

        tiny = Tiny()
        rows = [Encoded([1, 2, 3, 4], 2), Encoded([5, 6], 1), Encoded([7, 8, 9], 2)]
        logits = tiny.lm_head(tiny.embed.weight)
        expected = -torch.stack([logits[a].log_softmax(-1)[b] for a, b in ((2, 3), (3, 4), (5, 6), (8, 9))]).mean()
        expected.backward()
        gradient = tiny.embed.weight.grad.clone()
        tiny.zero_grad()
        self.assertAlmostEqual(train.backward(tiny, rows), expected.item(), places=6)
        self.assertLess((tiny.embed.weight.grad - gradient).abs().max().item(), 1e-6)


class Figures(unittest.TestCase):
    def test_what_is_not_known_is_left_out(self):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "solver.json").write_text('{"worst": Infinity, "median": 0.5, "seconds": null}')
            figures.main(Path(folder), Path(folder))
            found = json.loads(Path(folder, "metrics.json").read_text())
        self.assertEqual(found, [{"metric": "median", "value": 0.5, "higher_is_better": False}])


if __name__ == "__main__":
    unittest.main()
