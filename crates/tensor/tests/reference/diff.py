"""Two checkpoints that differ in every way that two can, and how they do, by torch in float64.

    python diff.py OUT

Writes OUT/a (one file), OUT/b (two shards, other tensors in each than the order says) and OUT/expected.json: by name what is
to be told of each tensor.
"""

import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file


def pairs() -> dict[str, tuple[torch.Tensor | None, torch.Tensor | None]]:
    torch.manual_seed(7)
    wide = torch.randn(1100, 1000)
    near = wide + 1e-3 * torch.randn(1100, 1000)
    near[1099, 998] += 0.25
    embedding = torch.randn(40, 8)
    norm = torch.randn(8)
    broken, whole = norm.clone(), norm.clone()
    broken[[1, 2, 3, 4]] = torch.tensor([math.nan, math.inf, math.inf, 1.5])
    whole[[1, 2, 3, 5]] = torch.tensor([math.nan, math.inf, -math.inf, math.nan])
    double = torch.randn(5, 3, dtype=torch.float64)
    ids = torch.arange(12).reshape(3, 4)
    return {
        "model.embed_tokens.weight": (embedding.bfloat16(), embedding),
        "model.layers.0.self_attn.q_proj.weight": (embedding[:8], embedding[:8].clone()),
        "model.layers.0.mlp.up_proj.weight": (wide.half(), near.half()),
        "model.layers.0.mlp.zero.weight": (torch.zeros(3, 3), torch.ones(3, 3)),
        "model.layers.0.mlp.zeros.weight": (torch.zeros(3, 3), torch.zeros(3, 3)),
        "model.layers.0.mlp.empty.weight": (torch.zeros(0, 4), torch.zeros(0, 4)),
        "model.layers.1.mlp.up_proj.weight": (torch.ones(4, 6), torch.ones(6, 4)),
        "model.norm.weight": (broken, whole),
        "model.double": (double, double + 1e-12),
        "model.scale": (torch.tensor(2.0), torch.tensor(-2.0)),
        "model.ids": (ids, ids + (ids % 5 == 1).long()),
        "model.kinds": (ids.clone(), ids.float()),
        "model.only_a": (torch.ones(2), None),
        "model.only_b": (None, torch.ones(3, dtype=torch.bfloat16)),
    }


def expected(a: torch.Tensor, b: torch.Tensor) -> dict:
    if a.shape != b.shape or a.is_floating_point() != b.is_floating_point():
        return {"not": True}
    if not a.is_floating_point():
        return {"differing": int((a != b).sum())}
    a, b = a.double(), b.double()
    finite = a.isfinite() & b.isfinite()
    same = (a == b) | (a.isnan() & b.isnan())
    zero = torch.zeros((), dtype=torch.float64)
    clean_a, clean_b = torch.where(finite, a, zero), torch.where(finite, b, zero)
    gap = (clean_b - clean_a).abs()
    largest = None
    if gap.numel() and gap.max() > 0:
        at = torch.unravel_index(gap.argmax(), gap.shape)
        largest = {"index": [int(i) for i in at], "values": [clean_a[at].item(), clean_b[at].item()]}
    return {
        "squares": [(clean_a * clean_a).sum().item(), (clean_b * clean_b).sum().item()],
        "products": (clean_a * clean_b).sum().item(),
        "difference": (gap * gap).sum().item(),
        "differing": int((~same).sum()),
        "not_finite": [int((~a.isfinite()).sum()), int((~b.isfinite()).sum())],
        "largest": largest,
    }


def main() -> None:
    out = Path(sys.argv[1])
    made = pairs()
    sides = [{name: pair[side].contiguous() for name, pair in made.items() if pair[side] is not None} for side in (0, 1)]
    for side in ("a", "b"):
        (out / side).mkdir(parents=True)
    save_file(sides[0], out / "a/model.safetensors")
    weight_map = {}
    for number in (0, 1):
        name = f"model-0000{number + 1}-of-00002.safetensors"
        shard = {key: sides[1][key] for key in sorted(sides[1])[number::2]}
        save_file(shard, out / "b" / name)
        weight_map |= dict.fromkeys(shard, name)
    (out / "b/model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    told = {name: expected(*pair) for name, pair in made.items() if pair[0] is not None and pair[1] is not None}
    (out / "expected.json").write_text(json.dumps(told, indent=2))


main()
