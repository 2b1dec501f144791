"""RegMean in float64, from the files that `mergelab-tensor` reads.

    python regmean.py ALPHA OUT.safetensors MODEL:GRAMS:WEIGHT [MODEL:GRAMS:WEIGHT ...]

writes, per linear layer, `merged:<tensor>` and `average:<tensor>` in float64:

    W^T = Wbar^T + D^-1/2 (D^-1/2 S D^-1/2)^+ D^-1/2 sum_i u_i Gt_i (W_i - Wbar)^T

with eigenvalues of the scaled matrix under 4 sqrt(d) eps32 cut. At full rank that is the solution of the plain system, which is
checked here.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

EPS32 = 2.0**-23


def gram(directory: Path, module: str) -> torch.Tensor:
    """The full matrix, from upper-triangle tiles row by row."""
    entry = json.loads((directory / "index.json").read_text())["modules"][module]
    tiles, width, tile = load_file(directory / entry["file"])[entry["tensor"]].double(), entry["width"], entry["tile"]
    blocks = -(-width // tile)
    full = torch.zeros(blocks * tile, blocks * tile, dtype=torch.float64)
    place = iter(tiles)
    for i in range(blocks):
        for j in range(i, blocks):
            t = next(place)
            full[i * tile:(i + 1) * tile, j * tile:(j + 1) * tile] = t
            full[j * tile:(j + 1) * tile, i * tile:(i + 1) * tile] = t.T
    return full[:width, :width]


def regmean(alpha, grams, weights, scales):
    total = sum(scales)
    average = sum(s * w for s, w in zip(scales, weights)) / total
    shrunk = [s * (alpha * g + (1 - alpha) * torch.diag(g.diagonal())) for s, g in zip(scales, grams)]
    system = sum(shrunk)
    diagonal = system.diagonal()
    root = torch.where(diagonal > 0, diagonal.clamp_min(1e-300).rsqrt(), torch.zeros_like(diagonal))
    scaled = root[:, None] * system * root
    scaled.fill_diagonal_(1)
    rhs = root[:, None] * sum(g @ (w - average).T for g, w in zip(shrunk, weights))
    values, vectors = torch.linalg.eigh(scaled)
    kept = values > 4 * len(values) ** 0.5 * EPS32
    correction = (root[:, None] * (vectors[:, kept] / values[kept] @ (vectors[:, kept].T @ rhs))).T
    if kept.all() and (root > 0).all():
        plain = torch.linalg.solve(system, sum(g @ w.T for g, w in zip(shrunk, weights))).T
        assert torch.dist(plain, average + correction) <= 1e-8 * correction.norm(), "the two forms disagree"
    return average + correction, average


if __name__ == "__main__":
    alpha, out, parts = float(sys.argv[1]), sys.argv[2], [argument.rsplit(":", 2) for argument in sys.argv[3:]]
    models = [load_file(Path(model) / "model.safetensors") for model, _, _ in parts]
    scales = [float(weight) for _, _, weight in parts]
    modules = json.loads((Path(parts[0][1]) / "index.json").read_text())["modules"]
    result = {}
    for module, entry in modules.items():
        name = module + ".weight"
        # Stored [in, out] where the index says so, as in GPT-2.
        turned = (lambda weight: weight.T) if entry.get("transposed") else (lambda weight: weight)
        merged, average = regmean(alpha, [gram(Path(directory), module) for _, directory, _ in parts],
                                  [turned(model[name].double()) for model in models], scales)
        result["merged:" + name], result["average:" + name] = turned(merged).contiguous(), turned(average).contiguous()
    save_file(result, out)
