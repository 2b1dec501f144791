"""Rows as token ids: what training and the choice of rows for Grams share.

A word problem has the columns `question` and `answer`, a function `prompt` and `body`. The messages that they become are those of
`experiments/smollm2.yaml`.
"""

import dataclasses
import json
from pathlib import Path

from transformers import AutoTokenizer

# Tokens of a row at most; the rest is cut off.
LONGEST = 512
TASK = "Write a solution to the following problem and make sure that it passes the tests:\n```{prompt}\n"
PREFILL = "Here is the completed function:\n```python\n{prompt}"


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Token ids of a conversation, and where the answer in it begins: the assistant's words, up to the end of the turn."""

    ids: list[int]
    answer: int


def messages(row: dict) -> list[dict]:
    """A row's conversation."""
    if "question" in row:
        return [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
    return [{"role": "user", "content": TASK.format(prompt=row["prompt"])},
            {"role": "prefill", "content": PREFILL.format(prompt=row["prompt"])},
            {"role": "assistant", "content": row["body"]}]


class Chat:
    """A model's tokenizer with the experiment's chat template."""

    def __init__(self, model: Path, template: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.template = template.read_text(encoding="utf-8")

    def encode(self, row: dict) -> Encoded:
        """The row's ids, at most LONGEST of them."""
        found = self.tokenizer.apply_chat_template(
            messages(row), chat_template=self.template, return_dict=True, return_assistant_tokens_mask=True)
        return Encoded(found["input_ids"][:LONGEST], found["assistant_masks"].index(1))


def read(path: Path) -> list[dict]:
    """JSON Lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: list[dict]) -> None:
    """JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
