"""How well a model predicts held-out rows: bits per byte."""

import math

import torch


class Rows:
    """Held-out rows of one text, as token ids; the first token of each is context alone."""

    def __init__(self, rows: list[str], tokenizer) -> None:
        found = [tokenizer(row, return_offsets_mapping=True) for row in rows]
        self.ids = [torch.tensor([encoded["input_ids"]]) for encoded in found]
        # Bytes of what is predicted: a row from where its first token ends.
        self.bytes = sum(len(row[encoded["offset_mapping"][0][1]:].encode()) for row, encoded in zip(rows, found))

    @torch.inference_mode()
    def bits_per_byte(self, network) -> float:
        total = 0.0
        for ids in self.ids:
            logits = network(input_ids=ids, use_cache=False).logits[0, :-1].float()
            total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        return total / math.log(2) / self.bytes
