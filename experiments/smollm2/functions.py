"""Python functions as rows of JSON Lines: `prompt` (signature and docstring) and `body` (the rest, from its line break on).

    python functions.py --human-eval HumanEval.jsonl --out DIR

Writes `train.jsonl`, functions of the standard library of the Python that runs this (PSF license; nothing of it is kept
in this repository), shuffled by a seed; and `human-eval.jsonl`, the 164 problems of HumanEval (Chen et al. 2021, arXiv 2107.03374;
MIT) with their reference solutions in the same form.

A function is taken if it has a docstring and then 3 to 30 lines, and signature and docstring have up to 1,000 characters. What
overlaps HumanEval is dropped: functions with the name of one of its functions, and those that share 13 words or signs in
a row with it (the measure of Brown et al. 2020, arXiv 2005.14165). One of several with the same body is enough.
"""

import argparse
import ast
import json
import random
import re
import sys
import sysconfig
import textwrap
from pathlib import Path

LINES = range(3, 31)
PROMPT = 1000
OVERLAP = 13
SEED = 0
# Tests, programs rather than libraries, and what is not the standard library's.
NOT_LIBRARY = {"test", "tests", "idlelib", "turtledemo", "lib2to3", "ensurepip", "site-packages", "dist-packages"}


def functions(source: str):
    """`(name, prompt, body)` of each function in a module's source that has a docstring and something after it."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef) or len(node.body) < 2 or ast.get_docstring(node) is None:
            continue
        first, docstring = node.lineno - 1, node.body[0]
        if docstring.end_lineno == node.body[1].lineno:
            continue
        text = textwrap.dedent("\n".join(lines[first:node.end_lineno])).splitlines()
        split = docstring.end_lineno - first
        prompt, body = text[:split], [line.rstrip() for line in text[split:]]
        while body and not body[0]:
            del body[0]
        if prompt[0].startswith("def ") and body and body[0].startswith("    "):
            yield node.name, "\n".join(prompt).rstrip(), "\n" + "\n".join(body)


def grams(text: str) -> set[tuple[str, ...]]:
    """All runs of 13 words or signs in a text."""
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    return {tuple(words[place:place + OVERLAP]) for place in range(len(words) - OVERLAP + 1)}


def library(problems: list[dict]) -> list[dict]:
    """The rows to train on."""
    names = {problem["entry_point"] for problem in problems}
    known = set().union(*(grams(problem["prompt"] + problem["canonical_solution"]) for problem in problems))
    root = Path(sysconfig.get_paths()["stdlib"])
    rows, bodies, dropped = [], set(), 0
    for file in sorted(root.rglob("*.py")):
        place = file.relative_to(root)
        if NOT_LIBRARY & set(place.parts):
            continue
        for name, prompt, body in functions(file.read_text(encoding="utf-8", errors="replace")):
            if body.count("\n") not in LINES or len(prompt) > PROMPT or body in bodies:
                continue
            bodies.add(body)
            if name in names or known & grams(f"{prompt}\n{body}"):
                dropped += 1
                continue
            rows.append({"module": place.as_posix(), "name": name, "prompt": prompt, "body": body})
    print(f"{len(rows)} functions of Python {sys.version.split()[0]}; {dropped} that overlap HumanEval are dropped", file=sys.stderr)
    random.Random(SEED).shuffle(rows)
    return rows


def reference(problem: dict) -> dict:
    """A problem of HumanEval as a row."""
    return {"task_id": problem["task_id"], "prompt": problem["prompt"].rstrip(),
            "body": "\n" + problem["canonical_solution"].rstrip()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--human-eval", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    problems = [json.loads(line) for line in options.human_eval.read_text(encoding="utf-8").splitlines()]
    for name, rows in (("train", library(problems)), ("human-eval", [reference(problem) for problem in problems])):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (options.out / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
