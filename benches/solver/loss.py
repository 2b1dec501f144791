"""How well a model predicts held-out rows: bits per byte."""

import math

import torch


class Rows:
    """Held-out rows of one text, as token ids; the first token of each is context alone."""

    def __init__(self, rows: list[str], tokenizer) -> None:
        self.ids = [torch.tensor([tokenizer(row)["input_ids"]]) for row in rows]
        # Bytes of what is predicted: the row without its first token.
        first = (len(tokenizer.decode(ids[0, :1]).encode()) for ids in self.ids)
        self.bytes = sum(len(row.encode()) for row in rows) - sum(first)
        self.tokens = sum(ids.shape[1] for ids in self.ids)

    @torch.inference_mode()
    def bits_per_byte(self, network) -> float:
        total = 0.0
        for ids in self.ids:
            logits = network(input_ids=ids, use_cache=False).logits[0, :-1].float()
            total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        return total / math.log(2) / self.bytes
