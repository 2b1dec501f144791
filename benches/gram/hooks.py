"""Grams as people capture them today: `transformers`, a forward hook on every linear layer, fp32 `x.T @ x` a batch.

    python hooks.py MODEL ROWS OUT [--threads N] [--start-only]

Rows (JSON Lines with `text`) are taken in their order, 8 to a batch, padded to the longest of the batch with an attention
mask. The sums, one for each module, are saved by `torch.save` with the number of tokens.

Scripts in use let padding into the sums. Here the hook leaves it out, which is right, lets the results be compared, and is
the faster of the two, since the products are shorter.
"""

import argparse
import json

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("rows")
    parser.add_argument("out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--start-only", action="store_true", help="end when the model is loaded")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype="auto").eval()
    if arguments.start_only:
        return
    with open(arguments.rows, encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]

    grams = {}
    real = None

    def hook(name):
        def accumulate(_module, inputs, _output):
            x = inputs[0].detach()
            x = x.float().reshape(-1, x.shape[-1])
            if real is not None:
                x = x[real]
            if name not in grams:
                grams[name] = torch.zeros(x.shape[1], x.shape[1])
            grams[name] += x.T @ x

        return accumulate

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(hook(name))

    tokens = 0
    with torch.no_grad():
        for start in range(0, len(texts), BATCH):
            batch = tokenizer(texts[start:start + BATCH], padding=True, return_tensors="pt")
            mask = batch.attention_mask.bool().reshape(-1)
            real = None if mask.all() else mask
            tokens += int(mask.sum())
            model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    torch.save({"tokens": tokens, "grams": grams}, arguments.out)


if __name__ == "__main__":
    main()
