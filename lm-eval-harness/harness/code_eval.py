"""The metric `code_eval`, and the one place where programs that a model wrote are run from.

Tasks that run code take this metric from a hub (`evaluate.load("code_eval")`, when their module is imported), whose
script runs programs in children of the process that calls it. Here it is ours, under the same interface: no download, and
programs run wherever [`use`] says.

pass@k is the estimator of Chen et al. 2021, "Evaluating Large Language Models Trained on Code", section 2.1.
"""

import math

from .programs import PASSED, TIME_OUT

NOT_RUN = "not run"


class Nowhere:
    """Runs nothing: for the process that holds the model. Whatever is computed from it is no number."""

    def run(self, sources, timeout):
        return [NOT_RUN for _ in sources]


class State:
    """What runs programs, how long each may take (None: as the task says), and what became of all so far."""

    runner = None
    timeout = None
    outcomes = []


def use(runner, timeout=None):
    """Programs go to `runner` from now on, in this process."""
    State.runner, State.timeout = runner, timeout


def check(programs, timeout=TIME_OUT):
    """What became of each program."""
    if State.runner is None:
        raise RuntimeError("nothing says where programs that a model wrote may run")
    outcomes = State.runner.run(programs, timeout if State.timeout is None else State.timeout)
    State.outcomes += outcomes
    return outcomes


def pass_at(k, total, passed):
    """The chance that one of k programs passes, drawn from `total` of which `passed` do, without putting back."""
    if total - passed < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / n for n in range(total - passed + 1, total + 1))


class CodeEval:
    """Takes the place of the metric of that name."""

    name = "code_eval"

    def compute(self, *, predictions, references, k=(1, 10, 100), num_workers=None, timeout=TIME_OUT):
        """`predictions`: a list of programs for each of the tests in `references`.

        Gives pass@k by name, over those k for which every test has programs enough; and for each test its programs.
        """
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} lists of programs for {len(references)} tests")
        pairs = [(index, program) for index, programs in enumerate(predictions) for program in programs]
        outcomes = check([f"{program}\n{references[index]}" for index, program in pairs], timeout)
        details = {index: [] for index in range(len(references))}
        for (index, _), outcome in zip(pairs, outcomes, strict=True):
            number = len(details[index])
            told = {"task_id": index, "passed": outcome == PASSED, "result": outcome, "completion_id": number}
            details[index].append((number, told))
        if NOT_RUN in outcomes:
            return {f"pass@{size}": math.nan for size in k}, details
        counts = [(len(told), sum(each["passed"] for _, each in told)) for told in details.values()]
        scores = {}
        for size in k:
            if counts and all(total >= size for total, _ in counts):
                scores[f"pass@{size}"] = sum(pass_at(size, *count) for count in counts) / len(counts)
        return scores, details


def install():
    """Makes `evaluate.load("code_eval")` ours; every other metric is still theirs."""
    import evaluate

    if getattr(evaluate.load, "is_ours", False):
        return
    theirs = evaluate.load

    def load(path, *arguments, **options):
        return CodeEval() if path == CodeEval.name else theirs(path, *arguments, **options)

    load.is_ours = True
    evaluate.load = load


class Watch:
    """Notes, while lm_eval scores, which programs belong to which sample."""

    def __init__(self, loaded):
        self.noted = {}
        for name, task in loaded["tasks"].items():
            task.process_results = self.noting(task.process_results, self.noted.setdefault(name, []))

    @staticmethod
    def noting(process_results, noted):
        def note(doc, results):
            before = len(State.outcomes)
            scores = process_results(doc, results)
            noted.append(State.outcomes[before:])
            return scores

        return note

    def add_to(self, results):
        """Puts `outcomes` beside each sample; lm_eval scores samples in the order in which it lists them."""
        for name, samples in results["samples"].items():
            for sample, outcomes in zip(samples, self.noted[name], strict=True):
                sample["outcomes"] = outcomes
        return results
