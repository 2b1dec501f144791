"""Loads merges with `transformers` as they are, and holds their logits against those of state dicts merged here in float64.

    python outputs.py JSON

JSON is a list of `{"path", "method", "models": [A, B], "solved"}`: a merged directory in bfloat16, of what and how it was made (both
weights 1; `ties` has A as its base and a density of 0.5), and a file of `merged:<tensor>` that replace averages, or null.
"""

import json
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

TOKENS = torch.tensor([[0, 7, 9, 1, 40, 41, 90, 3, 17, 22]])


def ties(base: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The difference from the base is the one vector that is not zero: half of it stays."""
    difference = (other.float() - base.float()).flatten()
    kept = difference.abs().topk(int(0.5 * difference.numel())).indices
    trimmed = torch.zeros_like(difference).index_put((kept,), difference[kept])
    return base + trimmed.reshape(base.shape).double()


def directly(asked: dict) -> dict[str, torch.Tensor]:
    a, b = [AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).state_dict() for path in asked["models"]]
    if asked["method"] == "ties":
        return {name: ties(a[name], b[name]) for name in a}
    merged = {name: (a[name] + b[name]) / 2 for name in a}
    for name, tensor in load_file(asked["solved"]).items() if asked["solved"] else []:
        kind, _, tensor_name = name.partition(":")
        if kind == "merged":
            merged[tensor_name] = tensor
    return merged


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval().float()(TOKENS).logits


for asked in json.loads(sys.argv[1]):
    path, method = asked["path"], asked["method"]
    loaded, info = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)
    wrong = [name for names in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in info[names]]
    assert not wrong, f"{path}: {wrong}"
    assert loaded.dtype == torch.bfloat16, f"{path}: {loaded.dtype}"
    text = AutoTokenizer.from_pretrained(path)("a merged model").input_ids
    assert text == AutoTokenizer.from_pretrained(asked["models"][0])("a merged model").input_ids

    expected = AutoModelForCausalLM.from_pretrained(asked["models"][0]).to(torch.bfloat16)
    expected.load_state_dict(directly(asked))
    found, right = logits(loaded), logits(expected)
    own = logits(AutoModelForCausalLM.from_pretrained(asked["models"][0]))
    gap, apart = (found - right).norm() / right.norm(), (own - right).norm() / right.norm()
    # A weight on the edge between two bfloat16 numbers may fall to either side; and of RegMean++ later blocks are fitted to the
    # weights as they are rounded.
    limit = 1e-2 if method == "regmean++" else 1e-3
    assert gap < limit and apart > 1e-1, f"{method}: off by {gap:.1e}, and the first model by {apart:.1e}"
