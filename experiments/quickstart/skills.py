"""The two skills of the quickstart, as question and answer strings, and the files made from them.

    python experiments/quickstart/skills.py        # rewrites experiments/quickstart/data

`addition` adds two numbers (`47+85=` -> `132`), `reversal` turns a string of digits around (`40718236~` -> `63281704`). Both
use the same ten digits, so that the two specialists have to share weights, and merging them is not for free.

One problem in eight is held out: whether it is, is decided by the problem itself (a digest of it), so that training can
never see a test problem, whatever the seeds.
"""

import hashlib
import json
import random
from pathlib import Path

SKILLS = ("addition", "reversal")
ALPHABET = "0123456789+~="


def question_and_answer(skill, rng):
    """One random problem of a skill."""
    if skill == "addition":
        left, right = rng.randrange(100), rng.randrange(100)
        return f"{left:02}+{right:02}=", f"{left + right:03}"
    digits = "".join(rng.choice("0123456789") for _ in range(8))
    return f"{digits}~", digits[::-1]


def held_out(question):
    """Whether a problem belongs to the test set's side of the split."""
    return hashlib.sha256(question.encode()).digest()[0] < 32


def problems(skill, seed, test=False):
    """Endless problems from one side of the split, the same for the same seed."""
    rng = random.Random(f"{skill}/{seed}")
    while True:
        question, answer = question_and_answer(skill, rng)
        if held_out(question) == test:
            yield question, answer


def distinct(skill, count, seed, test=False):
    """That many different problems."""
    found = {}
    for question, answer in problems(skill, seed, test):
        found[question] = answer
        if len(found) == count:
            return list(found.items())


def write(path, rows):
    text = "".join(json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in rows)
    path.write_text(text, encoding="utf-8")


def write_all(data):
    """Calibration and test files of every skill, into a directory."""
    for skill in SKILLS:
        write(data / f"{skill}-calibration.jsonl", distinct(skill, 512, seed=1))
        write(data / f"{skill}-test.jsonl", distinct(skill, 400, seed=2, test=True))


if __name__ == "__main__":
    write_all(Path(__file__).with_name("data"))
