"""Reads the Grams that `mergelab-tensor` writes: index.json, and the upper triangle in square tiles, row by row.
Needs torch and safetensors, nothing else."""

import json
from pathlib import Path

import torch
from safetensors import safe_open


def index(directory: Path) -> dict:
    """Module -> {file, tensor, n, width, tile}."""
    return json.loads((directory / "index.json").read_text())["modules"]


def gram(directory: Path, entry: dict, device: str = "cpu") -> torch.Tensor:
    """One whole matrix `[width, width]`, fp32, a mean over tokens."""
    width, tile = entry["width"], entry["tile"]
    blocks = -(-width // tile)
    with safe_open(directory / entry["file"], "pt") as file:
        tiles = file.get_tensor(entry["tensor"])
    whole = torch.empty(blocks * tile, blocks * tile, device=device)
    for place, (row, column) in enumerate((i, j) for i in range(blocks) for j in range(i, blocks)):
        rows, columns = slice(row * tile, (row + 1) * tile), slice(column * tile, (column + 1) * tile)
        part = tiles[place].to(device)
        whole[rows, columns] = part
        whole[columns, rows] = part.T
    return whole[:width, :width]


def layer_bytes(directory: Path) -> int:
    """Bytes of the largest file, which is a layer's Grams as they are stored."""
    return max((directory / entry["file"]).stat().st_size for entry in index(directory).values())


def gap(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference of an entry over sqrt(gii gjj)."""
    scale = expected.diagonal().double().sqrt()
    return ((found.double() - expected.double()) / scale[:, None] / scale[None, :]).abs().max().item()
