"""Tests of what speaks against a score: the rules by themselves, and with the real lm_eval and a tiny model."""

import json
import math
import unittest
from types import SimpleNamespace

import test_driver
from harness.errors import Refused, Tripped
from harness.tripwires import TRIPWIRES, Count, chance, check_rules, judge, repeats, warnings_of
from harness.watch import Watch

TASK = {"tripwires": None, "apply_chat_template": None}


def counted(count, of):
    """A [`Count`] of so many, at the first documents of a task."""
    total = Count()
    for doc_id in range(of):
        total.add(doc_id < count, "t", doc_id)
    return total


class Model:
    """One token a character; answers what it is told to."""

    max_length = 60
    max_gen_toks = 20

    def __init__(self, answers, template=None):
        self.answers = answers
        self.tokenizer = SimpleNamespace(chat_template=template)
        self.asked = 0

    def tok_encode(self, text, add_special_tokens=None):
        return list(text)

    def answer(self, requests):
        self.asked += len(requests)
        return self.answers

    def generate_until(self, requests, disable_tqdm=False):
        return self.answer(requests)

    def loglikelihood(self, requests, disable_tqdm=False):
        pairs = [(request.args, list(request.args[0]), list(request.args[1])) for request in requests]
        return self._loglikelihood_tokens(pairs, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(self, requests, disable_tqdm=False):
        return self.answer(requests)

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        return self.answer(requests)


def requests(*arguments):
    return [SimpleNamespace(args=each, task_name="t", doc_id=doc_id) for doc_id, each in enumerate(arguments)]


def watched(model, ask, backend="hf", **task):
    """What is counted while `ask(model)` runs: `{name: (count, of)}`."""
    with Watch(model, backend, {**TASK, **task}) as watch:
        ask(model)
    return {name: (count.count, count.of) for name, count in watch.counts.items() if count.count}


class RulesTest(unittest.TestCase):
    def test_what_is_above_its_share_trips_and_says_how_to_accept_it(self):
        with self.assertRaises(Tripped) as caught:
            judge(warnings_of({"cut": counted(120, 200)}), None)
        self.assertEqual(
            str(caught.exception),
            "120 of 200 answers (60 %) were cut at the limit of new tokens, without a stop string (document 0 of t, for "
            "one); 50 % would pass",
        )
        self.assertIn("`tripwires: { cut: accept }`", caught.exception.hint)
        for rule in ("accept", 0.6, 1):
            judge(warnings_of({"cut": counted(120, 200)}), {"cut": rule})
        with self.assertRaises(Tripped):
            judge(warnings_of({"cut": counted(100, 200)}), {"cut": 0.49})
        judge(warnings_of({"cut": counted(100, 200)}), {"empty": 0})

    def test_all_that_trips_is_told_at_once(self):
        with self.assertRaises(Tripped) as caught:
            judge(warnings_of({"cut": counted(120, 200), "nan": counted(1, 9), "empty": counted(1, 200)}), None)
        self.assertIn("1 of 9 log-likelihoods (11.1 %) are no finite numbers (document 0 of t, for one) and 120 of", str(caught.exception))
        self.assertTrue(caught.exception.hint.endswith("accept it: `tripwires: { nan: accept, cut: accept }` on the task"))

    def test_of_few_answers_no_share_is_judged_but_one_nan_is(self):
        judge(warnings_of({"cut": counted(19, 19), "empty": counted(19, 19), "repeating": counted(19, 19)}), None)
        with self.assertRaises(Tripped):
            judge(warnings_of({"empty": counted(20, 20)}), None)
        with self.assertRaises(Tripped):
            judge(warnings_of({"nan": counted(1, 10_000)}), None)

    def test_what_was_not_found_is_no_warning_and_what_was_has_examples(self):
        self.assertEqual(warnings_of({"empty": counted(0, 10)}), [])
        (warning,) = warnings_of({"empty": counted(7, 10)})
        self.assertEqual((warning["count"], warning["of"], warning["share"]), (7, 10, 0.7))
        self.assertEqual(warning["examples"], [{"task": "t", "doc_id": doc_id} for doc_id in range(5)])
        self.assertEqual(warning["message"], "7 of 10 answers (70 %) are empty")

    def test_rules_that_are_none_are_refused(self):
        check_rules({name: 0.5 for name in TRIPWIRES})
        for rules in ({"cutt": 0.5}, {"cut": "yes"}, {"cut": 1.5}, {"cut": True}):
            with self.assertRaises(Refused):
                check_rules(rules)

    def test_a_text_repeats_itself_when_half_of_it_is_one_piece_over_and_over(self):
        for text in ("no no no no no no", "A beginning. " + "and then " * 9, "=" * 40, "x" + "The answer is 4.\n" * 3):
            self.assertTrue(repeats(text), text)
        for text in ("", "a", "To be or not to be", "1, 2, 3, 4, 5, 6, 7, 8", "The sum of 12 and 12 is 24, 24.....", "abab"):
            self.assertFalse(repeats(text), text)

    def test_chance_is_what_guessing_gives_and_needs_documents_enough(self):
        def found(right, of, choices=4, kind="multiple_choice"):
            arguments = [("question", str(choice)) for choice in range(choices)]
            samples = [{"filter": "none", "acc": float(at < right), "arguments": arguments, "doc_id": at} for at in range(of)]
            count = chance({"samples": {"t": samples}}, {"tasks": {"t": SimpleNamespace(OUTPUT_TYPE=kind)}})
            return count.count, count.of

        # Of 400 guesses among four, 100 are right, give or take 8.7.
        self.assertEqual(found(100, 400), (1, 1))
        self.assertEqual(found(117, 400), (1, 1))
        self.assertEqual(found(118, 400), (0, 1))
        self.assertEqual(found(60, 400), (1, 1))
        self.assertEqual(found(118, 400, choices=3), (1, 1))
        self.assertEqual(found(20, 99), (0, 0))
        self.assertEqual(found(100, 400, kind="generate_until"), (0, 0))


class WatchTest(unittest.TestCase):
    def test_answers_that_are_empty_cut_or_repeat_themselves_are_counted(self):
        answers = [" \n", "the answer is 4", "abcdefghijklmnopqrstuvw", "no no no no no no no no"]
        model = Model(answers)
        asked = requests(*[("2+2=", {"until": ["\n"]})] * 4)
        found = watched(model, lambda model: self.assertEqual(model.generate_until(asked), answers))
        self.assertEqual(found, {"empty": (1, 4), "cut": (2, 4), "repeating": (1, 4)})
        # A few tokens are a part of the task.
        asked = requests(*[("2+2=", {"max_gen_toks": 2})] * 4)
        self.assertEqual(watched(model, lambda model: model.generate_until(asked)), {"empty": (1, 4)})

    def test_a_log_likelihood_that_is_no_number_is_counted(self):
        model = Model([(-1.0, True), (math.nan, False), (-math.inf, False)])
        asked = requests(*[("2+2=", "4")] * 3)
        self.assertEqual(watched(model, lambda model: model.loglikelihood(asked)), {"nan": (2, 3)})
        model = Model([-3.0, math.nan])
        self.assertEqual(watched(model, lambda model: model.loglikelihood_rolling(asked[:2])), {"nan": (1, 2)})

    def test_a_prompt_longer_than_the_model_can_take_is_found_before_anything_is_computed(self):
        for length, backend, fits in ((61, "hf", True), (62, "hf", False), (59, "vllm", True), (60, "vllm", False)):
            model = Model([(-1.0, True)])
            asked = requests(("q" * (length - 1), "a"))
            if fits:
                self.assertEqual(watched(model, lambda model: model.loglikelihood(asked), backend), {})
                continue
            with self.assertRaises(Tripped) as caught:
                watched(model, lambda model: model.loglikelihood(asked), backend)
            self.assertEqual(model.asked, 0)
            self.assertIn("1 of 1 prompts (100 %) are longer than the model's max length allows", str(caught.exception))
        asked = requests(("q" * 40, {}), ("q" * 41, {}))
        with self.assertRaises(Tripped):
            watched(Model(["1", "2"]), lambda model: model.generate_until(asked))
        rules = {"truncated": 0.5}
        found = watched(Model(["1", "2"]), lambda model: model.generate_until(asked), tripwires=rules)
        self.assertEqual(found, {"truncated": (1, 2)})

    def test_a_limit_that_leaves_no_room_for_a_prompt_is_refused(self):
        with self.assertRaises(Refused) as caught:
            watched(Model(["1"]), lambda model: model.generate_until(requests(("q", {"max_gen_toks": 60}))))
        self.assertIn("the model's max length is 60", str(caught.exception))

    def test_a_chat_model_without_its_template_trips_unless_that_was_said(self):
        asked = requests(("q", {}))
        ask = lambda model: model.generate_until(asked)  # noqa: E731
        with self.assertRaises(Tripped) as caught:
            watched(Model(["1"], template="{{ messages }}"), ask)
        self.assertIn("`apply_chat_template: false`", caught.exception.hint)
        for said in (False, True):
            self.assertEqual(watched(Model(["1"], template="x"), ask, apply_chat_template=said), {})
        self.assertEqual(watched(Model(["1"], template="x"), ask, tripwires={"template": "accept"}), {"template": (1, 1)})
        self.assertEqual(watched(Model(["1"]), ask), {})

    def test_the_model_is_as_it_was_afterwards(self):
        model = Model(["1"])
        with Watch(model, "hf", TASK):
            self.assertIn("generate_until", vars(model))
        self.assertEqual(sorted(vars(model)), ["answers", "asked", "tokenizer"])


class TrippedTest(test_driver.DriverCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        data = cls.root / "many.jsonl"
        test_driver.write_rows(data, [{"question": f"{n}+1=", "answer": str(n + 1)} for n in range(120)])
        text = test_driver.GENERATE.format(name="long", data=data).replace("max_gen_toks: 4", "max_gen_toks: 24")
        (cls.root / "tasks/long.yaml").write_text(text)
        (cls.root / "tasks/guess.yaml").write_text(test_driver.CHOOSE.format(data=data).replace("task: choose", "task: guess"))

    def test_what_trips_fails_is_written_and_can_be_accepted_without_a_model(self):
        # The model is random: it answers anything, without an end, and guesses.
        code, events, out = self.run_driver([{"task": "long", "limit": 20}, {"task": "sum", "limit": 1}])
        kinds = [kind for kind in self.kinds(events) if kind != "note"]
        self.assertEqual((code, kinds), (1, ["item-failed", "item"]), self.log)
        failed = next(event for event in events if event["event"] == "item-failed")
        self.assertEqual((failed["item"], failed["fault"]), (0, "stage"))
        self.assertTrue(failed["message"].startswith("long on tiny: "), failed)
        self.assertIn("accept", failed["message"])
        # Some of the answers are in the log.
        self.assertIn("document 0 of long: '", self.log)
        warnings = json.loads((out / "0/warnings.json").read_text())
        tripped = {warning["tripwire"]: "accept" for warning in warnings}
        self.assertIn("cut", tripped)

        kept = str(out / "0")
        code, events, again = self.run_driver([{"task": "long", "limit": 20, "kept": kept, "tripwires": {"nan": 0}}])
        self.assertEqual((code, self.kinds(events)), (1, ["item-failed"]), self.log)
        self.assertFalse((again / "0").exists())
        model = {"name": "tiny", "path": "gone", "tasks": [{"item": 0, "task": "long", "kept": kept, "tripwires": tripped}]}
        code, events, again = self.run_driver([], models=[model])
        self.assertEqual((code, self.kinds(events)), (0, ["note", "item"]), self.log)
        for file in ("metrics.json", "samples.jsonl.gz", "task.json", "warnings.json"):
            self.assertEqual((again / "0" / file).read_bytes(), (out / "0" / file).read_bytes())

        code, events, out = self.run_driver([{"task": "long", "limit": 20, "tripwires": tripped}])
        self.assertEqual((code, self.kinds(events)[-1]), (0, "item"), self.log)
        self.assertEqual(json.loads((out / "0/warnings.json").read_text()), warnings)

    def test_a_score_at_chance_trips(self):
        code, events, _ = self.run_driver([{"task": "guess"}])
        self.assertEqual(code, 1, self.log)
        failed = next(event for event in events if event["event"] == "item-failed")
        self.assertIn("1 of 1 multiple-choice tasks (100 %) score no better than guessing (guess, for one)", failed["message"])


if __name__ == "__main__":
    unittest.main()
