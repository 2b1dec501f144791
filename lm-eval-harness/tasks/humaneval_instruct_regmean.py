"""Prompt and scoring of `humaneval_instruct_regmean`; nothing is fetched, and nothing runs at import.

Under mergelab's driver programs run where the suite's `unsafe_code` says. Under a bare `lm_eval` each runs in a process
of its own, as the user who runs the evaluation.
"""

import secrets
import subprocess
import sys
import tempfile

FENCE = "```"

# What a solution may take, in seconds; the data set's authors use the same.
TIME_OUT = 3.0


def doc_to_text(doc):
    return f"Write a solution to the following problem and make sure that it passes the tests:\n{FENCE}{doc['prompt']}"


def doc_to_target(doc):
    return f"{doc['test']}\ncheck({doc['entry_point']})"


def build_predictions(resps, docs):
    """Whole programs: the problem, and the response up to its last fence."""
    return [[doc["prompt"] + up_to_last_fence(response) for response in answers] for answers, doc in zip(resps, docs)]


def up_to_last_fence(response):
    code, fence, _ = response.rpartition(FENCE)
    return code if fence else response


def process_results(doc, results):
    """pass@1: the share of the document's programs (one, unless the task repeats) that pass its tests."""
    (programs,) = results
    test = doc_to_target(doc)
    return {"pass@1": sum(passed(programs, test)) / len(programs)}


def passed(programs, test):
    """Whether each program passes."""
    try:
        from harness.code_eval import check
    except ImportError:
        return [passes(program, test) for program in programs]
    return [outcome == "passed" for outcome in check([f"{program}\n\n{test}" for program in programs], TIME_OUT)]


def passes(program, test):
    """Whether the tests run to their end after the program.

    A word that the program cannot know is printed last: ending early with exit code 0 is not passing. This keeps
    scores honest and is no protection: the program runs as the user who runs the evaluation.
    """
    word = secrets.token_hex(16)
    source = f"{program}\n\n{test}\nprint({word!r})\n"
    with tempfile.TemporaryDirectory() as folder:
        try:
            ended = subprocess.run(
                [sys.executable, "-I", "-"],
                input=source,
                cwd=folder,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=TIME_OUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
    return ended.returncode == 0 and ended.stdout.rstrip().endswith(word)
