"""Word problems from the templates of GSM-Symbolic, as rows of JSON Lines: `question`, `answer` (worked, ending `#### N`), `target`.

    python problems.py --packages DIR (--out DIR | --test FILE)

Writes `train.jsonl` and `held-out.jsonl` into a folder, or the problems of the test, which lie in this repository, into a file.

The templates are those of reasoning-gym 0.1.25 (Apache-2.0; after Mirzadeh et al., arXiv 2410.05229), which draw names and
numbers by a seed. DIR is a folder with that package unpacked; its other dependencies are not needed. The same
arguments give the same rows.

| split | templates | seed |
|---|---|---|
| train | for half of the problems the simple ones, for the other half the rest | 1 |
| dev | the simple ones | 2 |
| test | the simple ones; what is in train or dev is left out | 3 |
| held-out | every eighth template, of which neither training nor Grams see a problem | 4 |

Simple are the sixteen of those that are not held out whose worked answers are shortest: one to three steps.
"""

import argparse
import importlib
import itertools
import json
import random
import statistics
import sys
import types
from pathlib import Path

SEEDS = {"train": 1, "dev": 2, "test": 3, "held-out": 4}
# How many are written.
ROWS = {"train": 480, "test": 200, "held-out": 100}
# Problems of train and dev that test keeps clear of: more than anybody takes.
APART = 2000
# Every eighth of the templates in order, from the fourth on.
HELD_OUT = slice(3, None, 8)
SIMPLE = 16
GYM = "reasoning_gym.arithmetic.gsm_symbolic"


def templates(packages: Path) -> dict[int, object]:
    """The templates that reasoning-gym takes for sound, by number: functions of a random generator and a difficulty."""
    # Their packages' own `__init__` would import all of reasoning-gym and what it depends on.
    for name in itertools.accumulate(GYM.split("."), lambda parent, child: f"{parent}.{child}"):
        package = types.ModuleType(name)
        package.__path__ = [str(packages / name.replace(".", "/"))]
        sys.modules[name] = package
    functions = {}
    for part in ("generators_00_49", "generators_50_99"):
        module = importlib.import_module(f"{GYM}.{part}")
        functions |= {int(name.removeprefix("generate_")): function
                      for name, function in vars(module).items() if name.startswith("generate_")}
    return {number: functions[number] for number in sound(packages)}


def sound(packages: Path) -> list[int]:
    """The list `tasks_ok` of the package, read without importing the module, which needs the rest of it."""
    import ast

    source = (packages / GYM.replace(".", "/") / "gsm_symbolic.py").read_text(encoding="utf-8")
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and statement.targets[0].id == "tasks_ok":
            return ast.literal_eval(statement.value)
    sys.exit(f"{packages}: this reasoning-gym has no list `tasks_ok`; version 0.1.25 is needed")


def simple(functions: dict[int, object], numbers: list[int]) -> list[int]:
    """Those of some templates whose worked answers are shortest, over 30 problems of each."""
    def length(number: int) -> float:
        return statistics.mean(len(functions[number](random.Random(seed), 1.0)["metadata"]["answer_cot"]) for seed in range(30))

    return sorted(sorted(numbers, key=length)[:SIMPLE])


def problems(functions: dict[int, object], split: str):
    """Endless problems of a split, each once."""
    held_out = sorted(functions)[HELD_OUT]
    others = [number for number in sorted(functions) if number not in held_out]
    short = simple(functions, others)
    long = [number for number in others if number not in short]
    pools = {"train": (short, long), "held-out": (held_out,)}.get(split, (short,))
    rng = random.Random(SEEDS[split])
    seen = set()
    if split == "test":
        for other in ("train", "dev"):
            seen |= {row["question"] for row in itertools.islice(problems(functions, other), APART)}
    while True:
        number = rng.choice(rng.choice(pools))
        made = functions[number](rng, 1.0)
        answer = made["metadata"]["answer_cot"].strip()
        question = made["question"].strip()
        # What the worked answer ends with is what is asked for; a template that says otherwise is not one to learn from.
        if question in seen or answer.rpartition("#### ")[2] != made["answer"]:
            continue
        seen.add(question)
        yield {"template": number, "question": question, "answer": answer, "target": made["answer"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path)
    where.add_argument("--test", type=Path)
    options = parser.parse_args()
    functions = templates(options.packages)
    files = {"test": options.test} if options.test else {name: options.out / f"{name}.jsonl" for name in ("train", "held-out")}
    for split, file in files.items():
        rows = itertools.islice(problems(functions, split), ROWS[split])
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
