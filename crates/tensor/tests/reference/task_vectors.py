"""Task arithmetic and TIES in float64, one tensor at a time, written from the papers.

    python task_vectors.py CASES OUT.safetensors BASE MODEL:WEIGHT [MODEL:WEIGHT ...]

CASES is a JSON list of [method, parameters]; tensors are named `<number of the case>:<tensor>`.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def task_arithmetic(base, vectors, weights, normalize=False, **params):
    total = sum(vector * weight for vector, weight in zip(vectors, weights))
    divisor = sum(weights) if normalize else 1.0
    return base + params.get("lambda", 1.0) * total / divisor


def trim(vector, density, rescale):
    kept = int(density * vector.numel())
    order = torch.sort(vector.abs().flatten(), descending=True, stable=True).indices
    mask = torch.zeros(vector.numel(), dtype=torch.bool)
    mask[order[:kept]] = True
    trimmed = vector * mask.view(vector.shape)
    if rescale and trimmed.abs().sum() > 0:
        trimmed = trimmed * (vector.abs().sum() / trimmed.abs().sum())
    return trimmed


def ties(base, vectors, weights, density=1.0, normalize=True, rescale=False, **params):
    parts = torch.stack([trim(vector, density, rescale) * weight for vector, weight in zip(vectors, weights)])
    elected = torch.where(parts.sum(0) >= 0, 1.0, -1.0).double()
    mask = parts.sign() == elected
    shape = [-1] + [1] * base.dim()
    divisor = (mask * torch.tensor(weights, dtype=torch.float64).view(shape)).sum(0)
    divisor[divisor.abs() < 1e-8] = 1.0
    merged = (parts * mask).sum(0)
    return base + params.get("lambda", 1.0) * (merged / divisor if normalize else merged)


def main():
    cases, out, base = json.loads(sys.argv[1]), sys.argv[2], load_file(Path(sys.argv[3]) / "model.safetensors")
    models = [argument.rsplit(":", 1) for argument in sys.argv[4:]]
    weights = [float(weight) for _, weight in models]
    tensors = [load_file(Path(path) / "model.safetensors") for path, _ in models]
    methods = {"task_arithmetic": task_arithmetic, "ties": ties}
    merged = {}
    for name, start in base.items():
        # The differences are those of float32: what is trimmed depends on them.
        vectors = [(tensor[name].float() - start.float()).double() for tensor in tensors]
        for number, (method, params) in enumerate(cases):
            merged[f"{number}:{name}"] = methods[method](start.double(), vectors, weights, **params)
    save_file(merged, out)


main()
