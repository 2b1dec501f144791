"""A second model: the first one after a few steps of training on source code."""

import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

# AdamW, as people tune; the learning rate is common for a model of this size.
STEPS, ROWS, LENGTH, RATE = 12, 4, 256, 1e-4


def make(model: Path, rows: list[str], out: Path) -> Path:
    """Trains once; a folder that is there is complete."""
    if out.exists():
        return out
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE)
    ids = [tokenizer(row)["input_ids"][:LENGTH] for row in rows]
    ids = [row for row in ids if len(row) == LENGTH][:STEPS * ROWS]
    for step in range(STEPS):
        batch = torch.tensor(ids[step * ROWS:(step + 1) * ROWS])
        loss = network(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        print(f"tuning: step {step + 1} of {STEPS}, loss {loss.item():.3f}", flush=True)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    network.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(out)
    return out
