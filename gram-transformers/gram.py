"""Gram matrices: sums of `X^T X`, and the artifact that they are written into, in the layout of the native engine."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from transformers.pytorch_utils import Conv1D

if TYPE_CHECKING:
    from layers import Layers
    from record import Recorder

WIDEST = 512  # Rows and columns of a tile, at most; as in crates/tensor/src/gram/tiles.rs.


class Gram:
    """The sum of `X^T X` in fp32: strip i holds block row i, from the diagonal block on."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.width, self.tile = width, math.ceil(width / math.ceil(width / WIDEST))
        self.starts = range(0, width, self.tile)
        self.strips = [torch.zeros(min(self.tile, width - s), width - s, device=device) for s in self.starts]
        self.tokens, self.first_energy = 0, 0.0

    def add(self, x: torch.Tensor, first: torch.Tensor, done: int) -> Iterator[int]:
        """Adds x [n, width] strip by strip from strip `done` on, and gives the number of strips done after each."""
        if done == len(self.strips):
            return
        x = x.float()
        energy = x[first].square().sum(dtype=torch.float64).item()
        for index in range(done, len(self.strips)):
            start = self.starts[index]
            self.strips[index].addmm_(x[:, start : start + self.tile].T, x[:, start:])
            yield index + 1
        self.tokens += len(x)
        self.first_energy += energy

    def energy(self) -> float:
        return sum(strip.diagonal().double().sum().item() for strip in self.strips)

    def tiles(self) -> torch.Tensor:
        """The mean over tokens as [tiles, tile, tile]: (i, j) with i <= j, row by row, zeros past the edge."""
        packed = []
        for index, strip in enumerate(self.strips):
            count = len(self.strips) - index
            wide = torch.zeros(self.tile, count * self.tile)
            wide[: strip.shape[0], : strip.shape[1]] = (strip / self.tokens).cpu()
            diagonal = wide[:, : self.tile].triu()
            wide[:, : self.tile] = diagonal + diagonal.triu(1).T
            packed.append(wide.view(self.tile, count, self.tile).transpose(0, 1))
        return torch.cat(packed).contiguous()


def write(out: Path, layers: Layers, recorder: Recorder) -> list[dict[str, Any]]:
    """Writes the artifact; what `layers.json` says of each matrix."""
    index, figures, files = {}, {}, {}
    for name, module in layers.modules.items():
        leader = recorder.leader.get(name)
        gram = recorder.grams.get(leader)
        if gram is None or leader in recorder.unclear:
            reason = "it never ran" if leader is None else "none of its tokens counts, as far as can be told"
            layers.without[f"{name}.weight"] = reason
            continue
        number = re.search(r"(?:^|\.)(\d+)\.", leader)
        file = f"layer-{int(number[1]):05}.safetensors" if number else "others.safetensors"
        files.setdefault(file, {})[leader] = gram
        entry = {"file": file, "tensor": leader, "n": gram.tokens, "width": gram.width, "tile": gram.tile}
        index[name] = {**entry, "transposed": True} if isinstance(module, Conv1D) else entry
        energy = gram.energy()
        share = gram.first_energy / energy if energy > 0 else 0.0
        figure = {"modules": [], "width": gram.width, "trace": energy / gram.tokens, "first_token_share": share}
        figures.setdefault(leader, figure)["modules"].append(name)
    for file, grams in files.items():
        save_file({leader: gram.tiles() for leader, gram in grams.items()}, out / file)
    write_json(out / "index.json", {"format": 1, "modules": index, "without": layers.without})
    write_json(out / "layers.json", {"format": 1, "inputs": list(figures.values())})
    return list(figures.values())


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
