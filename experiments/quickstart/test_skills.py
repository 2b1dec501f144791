"""Tests of the quickstart's data. Run: make test"""

import itertools
import json
import tempfile
import unittest
from pathlib import Path

import skills

DATA = Path(__file__).with_name("data")


def questions(name):
    return [json.loads(line)["question"] for line in (DATA / name).read_text().splitlines()]


class SkillsTest(unittest.TestCase):
    def test_the_files_in_the_repository_are_the_ones_the_script_writes(self):
        with tempfile.TemporaryDirectory() as folder:
            skills.write_all(Path(folder))
            made = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        self.assertEqual(made, {path.name: path.read_bytes() for path in DATA.iterdir()})

    def test_no_tested_problem_is_trained_or_calibrated_on(self):
        for skill in skills.SKILLS:
            tested = set(questions(f"{skill}-test.jsonl"))
            self.assertEqual(len(tested), 400)
            self.assertFalse(tested & set(questions(f"{skill}-calibration.jsonl")))
            trained = itertools.islice(skills.problems(skill, seed=3), 20_000)
            self.assertFalse(tested & {question for question, _ in trained})

    def test_answers_are_right(self):
        for question, answer in itertools.islice(skills.problems("addition", seed=4), 100):
            left, right = question.rstrip("=").split("+")
            self.assertEqual(int(answer), int(left) + int(right))
        for question, answer in itertools.islice(skills.problems("reversal", seed=4), 100):
            self.assertEqual(answer + "~", question.rstrip("~")[::-1] + "~")


if __name__ == "__main__":
    unittest.main()
