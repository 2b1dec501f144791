"""Fine-tunes all weights of a small chat model on rows of JSON Lines; the loss is on the answers only.

    python train.py --model DIR --template FILE --rows FILE --steps 45 --peak 1e-4 --out DIR

Steps of AdamW on 8 rows each, in the order of the file, every row once: 5 steps of warm-up to the peak rate, then a cosine to
zero. Weights, gradients and the optimizer are fp32, and so is the checkpoint that is written. The same arguments give the
same bytes on one machine.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import torch
from chat import Chat, Encoded, read
from transformers import AutoModelForCausalLM

ROWS, WARM_UP = 8, 5
# Rows that go through the model at once: rows of like length together need little padding, and little memory.
TOGETHER = 2
SEED = 0


def parts(rows: list[Encoded]):
    """`(ids, labels)` of a step's rows by length, some at a time, `[rows, longest]`; labels are -100 where nothing is to be learned."""
    rows = sorted(rows, key=lambda row: len(row.ids))
    for first in range(0, len(rows), TOGETHER):
        part = rows[first:first + TOGETHER]
        ids = torch.zeros(len(part), len(part[-1].ids), dtype=torch.long)
        labels = torch.full_like(ids, -100)
        for place, row in enumerate(part):
            ids[place, :len(row.ids)] = torch.tensor(row.ids)
            labels[place, row.answer:len(row.ids)] = ids[place, row.answer:len(row.ids)]
        yield ids, labels


def loss(model, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of the labelled tokens, summed. Padding is on the right and the model looks to the left only, so
    no mask is needed; logits are made where they count alone."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    labels = labels[:, 1:]
    counts = labels != -100
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[counts]).float(), labels[counts], reduction="sum")


def backward(model, rows: list[Encoded]) -> float:
    """Adds the gradients of the mean loss over all labelled tokens of a step, and gives that loss."""
    tokens = sum(len(row.ids) - row.answer for row in rows)
    total = 0.0
    for ids, labels in parts(rows):
        share = loss(model, ids, labels) / tokens
        share.backward()
        total += share.item()
    return total


def rate(step: int, steps: int) -> float:
    """Share of the peak rate at one of all steps, from 0."""
    warm = min(1.0, (step + 1) / WARM_UP)
    done = max(0, step + 1 - WARM_UP) / (steps - WARM_UP)
    return warm * (0.5 + 0.5 * math.cos(math.pi * done))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "template", "rows", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--peak", type=float, required=True)
    options = parser.parse_args()
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    chat = Chat(options.model, options.template)
    rows = read(options.rows)[:options.steps * ROWS]
    if len(rows) < options.steps * ROWS:
        sys.exit(f"{options.rows}: {len(rows)} rows, and {options.steps * ROWS} are needed")
    encoded = [chat.encode(row) for row in rows]
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.peak, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, options.steps))
    started = time.monotonic()
    for step in range(options.steps):
        value = backward(model, encoded[step * ROWS:(step + 1) * ROWS])
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        print(f"step {step + 1} of {options.steps}, loss {value:.4f}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    model.save_pretrained(options.out)
    chat.tokenizer.save_pretrained(options.out)


if __name__ == "__main__":
    main()
