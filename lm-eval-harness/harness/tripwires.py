"""Signs that a score does not mean what it seems to.

Each is counted over the answers of one task and stands beside its score in `warnings.json`. Above a share of the answers
it is an error, unless the task (or its suite) says otherwise: `tripwires: { cut: accept, repeating: 0.5 }`.
"""

from dataclasses import dataclass

from .errors import Refused, Tripped
from .programs import TIMED_OUT

# How many places are named where something was counted.
EXAMPLES = 5

ACCEPT = "accept"


@dataclass(frozen=True)
class Tripwire:
    """What is counted, and how much of it passes without a word."""

    # What the counted ones are and what happened to them, as in "12 of 200 answers (6 %) are empty".
    counted: str
    happened: str
    # The largest share that is no error, unless the task says another.
    share: float
    # Out of fewer than this a share says nothing, and nothing is an error.
    least: int
    # What may be done about it.
    way_out: str


TRIPWIRES = {
    "nan": Tripwire(
        "log-likelihoods",
        "are no finite numbers",
        0.0,
        1,
        "look at the merge and at `dtype`: weights that are not finite, or a type too narrow for the model, do this",
    ),
    "truncated": Tripwire(
        "prompts",
        "are longer than the model's max length allows and would lose their beginning",
        0.0,
        1,
        "set a larger `max_length` in model_args, fewer shots, or fewer new tokens (`gen_kwargs: { max_gen_toks: … }`)",
    ),
    "template": Tripwire(
        "prompts",
        "went without the chat template that the model has",
        0.0,
        1,
        "set `apply_chat_template: true`, or `apply_chat_template: false` where it is meant",
    ),
    "empty": Tripwire("answers", "are empty", 0.2, 20, "look at the prompt's end, its stop strings and the chat template"),
    "repeating": Tripwire(
        "answers", "repeat themselves until they are cut", 0.2, 20, "look at the merge, and at what should end an answer"
    ),
    "cut": Tripwire(
        "answers",
        "were cut at the limit of new tokens, without a stop string",
        0.5,
        20,
        "raise it (`gen_kwargs: { max_gen_toks: … }`), or look at what should end an answer",
    ),
    "timeout": Tripwire(
        "programs",
        "ran out of time, which is not passing",
        0.5,
        20,
        "give them longer (`code_timeout`, in seconds), or look at what should end an answer",
    ),
    "chance": Tripwire(
        "multiple-choice tasks", "score no better than guessing", 0.5, 1, "look at the merge and at the prompt"
    ),
}

# Under this many documents chance and skill are not told apart.
CHANCE_DOCUMENTS = 100

# How far from the share that guessing gives a score still counts as guessing, in standard errors of guessing.
CHANCE_WIDTH = 2.0


@dataclass
class Count:
    """How many of how many, and where to look."""

    count: int = 0
    of: int = 0
    examples: tuple = ()

    def add(self, found, task, doc_id):
        self.of += 1
        if found:
            self.count += 1
            example = {"task": task, "doc_id": doc_id}
            if len(self.examples) < EXAMPLES and example not in self.examples:
                self.examples += (example,)


def warnings_of(counts):
    """warnings.json: what was counted at all, in the order of [`TRIPWIRES`]. `counts` holds a [`Count`] by name."""
    return [
        {
            "tripwire": name,
            "count": counts[name].count,
            "of": counts[name].of,
            "share": counts[name].count / counts[name].of,
            "message": sentence(name, counts[name]),
            "examples": list(counts[name].examples),
        }
        for name in TRIPWIRES
        if name in counts and counts[name].count > 0
    ]


def sentence(name, count):
    """`12 of 200 answers (6 %) are empty`."""
    wire = TRIPWIRES[name]
    return f"{count.count:,} of {count.of:,} {wire.counted} ({percent(count.count / count.of)}) {wire.happened}"


def percent(share):
    return f"{100 * share:.3g} %"


def judge(warnings, rules):
    """Raises [`Tripped`] where a warning is above its share, with all that are.

    `rules` holds, by name, what the task says in place of the default: a share, or `accept`.
    """
    told, names = [], []
    for warning in warnings:
        name = warning["tripwire"]
        wire = TRIPWIRES[name]
        allowed = (rules or {}).get(name, wire.share)
        if allowed == ACCEPT or warning["of"] < wire.least or warning["share"] <= allowed:
            continue
        example = warning["examples"][0]
        document = "" if example["doc_id"] is None else f"document {example['doc_id']} of "
        limit = f"; {percent(allowed)} would pass" if allowed else ""
        told.append(f"{warning['message']} ({document}{example['task']}, for one){limit}")
        names.append(name)
    if names:
        accepted = ", ".join(f"{name}: accept" for name in names)
        ways_out = "; ".join(TRIPWIRES[name].way_out for name in names)
        raise Tripped(" and ".join(told), f"{ways_out}; or accept it: `tripwires: {{ {accepted} }}` on the task")


def check_rules(rules):
    """Refuses rules that are none; `mergelab` reads them with their line and column before."""
    for name, rule in (rules or {}).items():
        if name not in TRIPWIRES:
            raise Refused(f"tripwires: there is no `{name}`; there are {', '.join(TRIPWIRES)}")
        is_share = isinstance(rule, (int, float)) and not isinstance(rule, bool) and 0 <= rule <= 1
        if rule != ACCEPT and not is_share:
            raise Refused(f"tripwires: {name}: {rule!r} is neither a share from 0 to 1 nor `{ACCEPT}`")


def chance(results, loaded):
    """A [`Count`] of the multiple-choice tasks whose accuracy is what guessing gives, or less.

    Guessing among k choices is right with 1/k; over documents with k₁, k₂, … choices the number of right guesses has the
    mean Σ 1/kᵢ and the variance Σ (1 - 1/kᵢ)/kᵢ.
    """
    count = Count()
    for name in loaded["tasks"]:
        samples = first_filter(results["samples"].get(name, []))
        if loaded["tasks"][name].OUTPUT_TYPE != "multiple_choice" or len(samples) < CHANCE_DOCUMENTS:
            continue
        if not all(isinstance(sample.get("acc"), (int, float)) for sample in samples):
            continue
        # With `acc_mutual_info` each choice is asked for twice, with its question and without.
        guess = [1 / len({arguments[1] for arguments in sample["arguments"]}) for sample in samples]
        spread = sum(share * (1 - share) for share in guess) ** 0.5
        right = sum(float(sample["acc"]) for sample in samples)
        count.add(spread > 0 and right <= sum(guess) + CHANCE_WIDTH * spread, name, None)
    return count


def time_outs(results):
    """A [`Count`] of the programs that ran out of time, of those that were run to score samples."""
    count = Count()
    for name, samples in results["samples"].items():
        for sample in samples:
            for outcome in sample.get("outcomes", ()):
                count.add(outcome == TIMED_OUT, name, sample["doc_id"])
    return count


def first_filter(samples):
    """lm_eval gives every document once per filter."""
    return [sample for sample in samples if sample["filter"] == samples[0]["filter"]]


def repeats(text, least=3, window=2000):
    """Whether the second half of a text, or more, is one piece said over and over, at least `least` times.

    A text that ends in a piece of length p, said again and again, agrees with itself moved by p over that whole end. How
    far the end agrees, for all p at once, is the Z function of the text read backwards.
    """
    back = text[-window:][::-1]
    size = len(back)
    agrees = [0] * size
    left = right = 0
    for start in range(1, size):
        length = min(agrees[start - left], right - start) if start < right else 0
        while start + length < size and back[length] == back[start + length]:
            length += 1
        agrees[start] = length
        if start + length > right:
            left, right = start, start + length
    return any(
        period + agrees[period] >= max(least * period, (size + 1) // 2) for period in range(1, size // least + 1)
    )
