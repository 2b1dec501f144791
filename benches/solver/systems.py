"""RegMean's systems on two models: the exact solution in fp64, and the calls that published scripts make in fp32.

Everything is plain PyTorch; weights are `[out, in]`.
"""

import dataclasses
import math
from pathlib import Path

import torch

import artifact

EPS32 = torch.finfo(torch.float32).eps


@dataclasses.dataclass(frozen=True)
class Input:
    """Linear layers that share an input: their Grams of both models, whole and fp32."""

    modules: list[str]
    grams: list[torch.Tensor]


def inputs(directories: list[Path], layers: set[int] | None = None):
    """Every shared input of the models whose Grams lie there, one after another; of these decoder layers, if they are
    stated."""
    indices = [artifact.index(directory) for directory in directories]
    shared: dict[tuple, list[str]] = {}
    for module, entry in indices[0].items():
        if layers is None or int(module.split(".")[2]) in layers:
            shared.setdefault((entry["file"], entry["tensor"]), []).append(module)
    for modules in shared.values():
        grams = [artifact.gram(directory, index[modules[0]]) for directory, index in zip(directories, indices)]
        yield Input(modules, grams)


def scaled(gram: torch.Tensor, alpha: float) -> torch.Tensor:
    """`α G + (1-α) diag G`, in the Gram's type."""
    return alpha * gram + (1 - alpha) * torch.diag(gram.diagonal())


def over(error: torch.Tensor, correction: torch.Tensor) -> float:
    """‖error‖ / ‖correction‖; infinite where the error is no number."""
    share = (error.norm() / correction.norm()).item()
    return share if math.isfinite(share) else math.inf


def correction(grams: list[torch.Tensor], halves: list[torch.Tensor], alpha: float) -> tuple[list[torch.Tensor], int]:
    """The exact `W - W̄` for each `half = (W₁ - W₂) / 2`, and how many eigenvalues were cut: of the scaled system, those
    under `4 √d eps32`, so that it is the least change from the average in the norm of D."""
    first, second = (scaled(gram.double(), alpha) for gram in grams)
    total = first + second
    root = total.diagonal().rsqrt()
    root = torch.where(root.isfinite(), root, 0)
    matrix = root[:, None] * total * root[None, :]
    matrix.fill_diagonal_(1)
    rhs = [(half.double() @ (first - second)) * root for half in halves]
    cut = 4 * math.sqrt(len(root)) * EPS32
    # `(1-α) I` is part of the matrix, so that no eigenvalue is smaller.
    if 1 - alpha > cut:
        factor = torch.linalg.cholesky(matrix)
        return [torch.cholesky_solve(b.T, factor).T * root for b in rhs], 0
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > cut
    vectors, values = vectors[:, kept], values[kept]
    return [(b @ vectors / values) @ vectors.T * root for b in rhs], int((~kept).sum())


def published(solver: str, grams: list[torch.Tensor], weights: list[list[torch.Tensor]], alpha: float) -> list[torch.Tensor]:
    """`Wᵀ` from the plain system in fp32, for `[first, second]` weights of each module: `inverse`, or a driver of
    `torch.linalg.lstsq`. Scripts make a call for each linear layer; one for all that share the matrix is kinder to them."""
    first, second = (scaled(gram, alpha) for gram in grams)
    total = first + second
    rhs = torch.cat([first @ a.T + second @ b.T for a, b in weights], dim=1)
    if solver == "inverse":
        try:
            merged = torch.linalg.inv(total) @ rhs
        except torch.linalg.LinAlgError:
            merged = torch.full_like(rhs, math.nan)
    else:
        merged = torch.linalg.lstsq(total, rhs, driver=solver).solution
    return list(merged.T.split([len(a) for a, _ in weights]))
