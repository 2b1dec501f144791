"""Fine-tunes all weights of a small chat model on rows of JSON Lines; the loss is on the answers only.

    python train.py --model DIR --template FILE --rows FILE --out DIR

45 steps of AdamW on 8 rows each, in the order of the file, every row once: 5 steps of warm-up to 1e-4, then a cosine to
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

STEPS, ROWS, WARM_UP, PEAK = 45, 8, 5, 1e-4
SEED = 0


def batches(rows: list[Encoded]):
    """`(ids, labels)` of each step, `[rows, longest]`; labels are -100 where nothing is to be learned."""
    for first in range(0, STEPS * ROWS, ROWS):
        batch = rows[first:first + ROWS]
        longest = max(len(row.ids) for row in batch)
        ids = torch.zeros(ROWS, longest, dtype=torch.long)
        labels = torch.full((ROWS, longest), -100)
        for place, row in enumerate(batch):
            ids[place, :len(row.ids)] = torch.tensor(row.ids)
            labels[place, row.answer:len(row.ids)] = ids[place, row.answer:len(row.ids)]
        yield ids, labels


def loss(model, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood of the labelled tokens. Padding is on the right and the model looks to the left only, so
    no mask is needed; logits are made where they count alone."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    labels = labels[:, 1:]
    counts = labels != -100
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[counts]).float(), labels[counts])


def rate(step: int) -> float:
    """Share of the peak rate at a step, from 0."""
    warm = min(1.0, (step + 1) / WARM_UP)
    done = max(0, step + 1 - WARM_UP) / (STEPS - WARM_UP)
    return warm * (0.5 + 0.5 * math.cos(math.pi * done))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "template", "rows", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    chat = Chat(options.model, options.template)
    rows = read(options.rows)[:STEPS * ROWS]
    if len(rows) < STEPS * ROWS:
        sys.exit(f"{options.rows}: {len(rows)} rows, and {STEPS * ROWS} are needed")
    encoded = [chat.encode(row) for row in rows]
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    started = time.monotonic()
    for step, (ids, labels) in enumerate(batches(encoded), start=1):
        value = loss(model, ids, labels)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        print(f"step {step} of {STEPS}, loss {value.item():.4f}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    model.save_pretrained(options.out)
    chat.tokenizer.save_pretrained(options.out)


if __name__ == "__main__":
    main()
