"""MaTS in float64, from the files that `mergelab-tensor` reads, without its recursion.

    python mats.py CASES OUT.safetensors BASE MODEL:GRAMS:WEIGHT [MODEL:GRAMS:WEIGHT ...]

CASES is a JSON list of `{alpha, x0, iterations}`. For case `c` it writes, per linear layer, `c:<tensor>` in float64. After k
steps of conjugate gradient a row x is what comes nearest to the solution of x S = b, in the norm of S, in

    x0 + span(r, r S, ..., r S^(k-1)),    r = b - x0 S,

which is found here by an orthonormal basis V of that span: x = x0 + (V S V^T)^-1 V r.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from regmean import gram


def krylov(system, residual, steps):
    """Orthonormal rows `[steps, width]`, each orthogonalised twice."""
    basis = [residual / residual.norm()]
    while len(basis) < steps:
        row = basis[-1] @ system
        for _ in range(2):
            for other in basis:
                row = row - (row @ other) * other
        basis.append(row / row.norm())
    return torch.stack(basis)


def iterate(system, rhs, start, steps):
    rows = []
    for b, x in zip(rhs, start):
        residual = b - x @ system
        basis = krylov(system, residual, steps)
        rows.append(x + torch.linalg.solve(basis @ system @ basis.T, basis @ residual) @ basis)
    return torch.stack(rows)


if __name__ == "__main__":
    cases, out, base = json.loads(sys.argv[1]), sys.argv[2], load_file(Path(sys.argv[3]) / "model.safetensors")
    parts = [argument.rsplit(":", 2) for argument in sys.argv[4:]]
    models = [load_file(Path(model) / "model.safetensors") for model, _, _ in parts]
    scales = [float(weight) for _, _, weight in parts]
    modules = json.loads((Path(parts[0][1]) / "index.json").read_text())["modules"]
    result = {}
    for module in modules:
        name = module + ".weight"
        weights = [model[name].double() for model in models]
        grams = [gram(Path(directory), module) for _, directory, _ in parts]
        starts = {
            "average": sum(s * w for s, w in zip(scales, weights)) / sum(scales),
            "base": base[name].double(),
            "zeros": torch.zeros_like(weights[0]),
        }
        for number, case in enumerate(cases):
            alpha = case["alpha"]
            shrunk = [s * (alpha * g + (1 - alpha) * torch.diag(g.diagonal())) for s, g in zip(scales, grams)]
            rhs = sum(w @ g for g, w in zip(shrunk, weights))
            result[f"{number}:{name}"] = iterate(sum(shrunk), rhs, starts[case["x0"]], case["iterations"])
    save_file(result, out)
