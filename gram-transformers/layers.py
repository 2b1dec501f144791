"""Which modules of a model are linear layers, and under which names their weights are stored."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from report import Refused
from safetensors import safe_open
from torch import nn
from transformers.pytorch_utils import Conv1D

DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


class Checkpoint:
    """What is stored: names, shapes and values, as they are before `transformers` renames or converts anything."""

    def __init__(self, directory: Path) -> None:
        single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
        if not single.exists() and not index.exists():
            raise Refused(f"{directory} has no safetensors weights", "convert them: `save_pretrained` writes safetensors")
        files = [single] if single.exists() else sorted(
            {directory / name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})  # fmt: skip
        self.directory = directory
        self.tensors = {name: file for path in files for file in [safe_open(path, "pt")] for name in file.keys()}
        self.shapes = {name: tuple(file.get_slice(name).get_shape()) for name, file in self.tensors.items()}
        self.types = {name: DTYPES.get(file.get_slice(name).get_dtype()) for name, file in self.tensors.items()}

    def dtype(self) -> str:
        return next((name for name in self.types.values() if name), "float32")

    def matrices(self) -> list[str]:
        return [name for name, shape in self.shapes.items() if is_matrix(shape) and self.types[name]]

    def name_of(self, name: str, value: torch.Tensor, prefix: str) -> str | None:
        """The name under which a loaded tensor is stored: that in the class, with or without its prefix, or the one that ends
        most like it; of those, the first with the same numbers."""
        near = (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}")
        return next((near for near in near if self.holds(near, value)), None) or next(
            (far for far in sorted(self.tensors, key=lambda far: -alike(far, name)) if self.holds(far, value)), None
        )

    def holds(self, name: str, value: torch.Tensor) -> bool:
        if self.shapes.get(name) != tuple(value.shape):
            return False
        stored = self.tensors[name].get_slice(name)
        same = lambda a, b: bool((a.to(b.dtype).nan_to_num() == b.nan_to_num()).all())  # noqa: E731
        return same(stored[:1], value[:1]) and same(stored[-1:], value[-1:])


def alike(one: str, other: str) -> int:
    """How many parts two names have in common at their ends."""
    pairs = zip(reversed(one.split(".")), reversed(other.split(".")), strict=False)
    return next((count for count, (a, b) in enumerate(pairs) if a != b), min(one.count("."), other.count(".")) + 1)


def is_matrix(shape: tuple[int, ...]) -> bool:
    return sum(side > 1 for side in shape) >= 2


@dataclass(frozen=True)
class Layers:
    """The linear modules by the names of their stored weights, and why what else may be a linear layer has no Gram."""

    modules: dict[str, torch.nn.Module]
    without: dict[str, str]

    @classmethod
    def of(cls, model: Any, checkpoint: Checkpoint, exclude: list[str]) -> Layers:
        known = (nn.Embedding, nn.EmbeddingBag, nn.modules.conv._ConvNd)  # Matrices that are no linear layers'.
        embeddings = {m.weight.data_ptr() for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))}
        layers, others = cls({}, {}), set()
        for place, module in model.named_modules():
            for own, value in module.named_parameters(recurse=False):
                name = f"{place}.{own}".removeprefix(".")
                linear = own == "weight" and isinstance(module, (nn.Linear, Conv1D))
                tied = value.data_ptr() in embeddings
                if not linear and not isinstance(module, known):
                    continue
                stored = checkpoint.name_of(name, value, model.base_model_prefix)
                if tied or not linear:
                    others.add(stored)
                elif stored is None or not stored.endswith(".weight") or stored.removesuffix(".weight") in layers.modules:
                    raise Refused(f"{checkpoint.directory}: the weight of {place} is not stored there under a name of its own",
                                  "only weights that transformers loads as they are stored can be merged", "stage")  # fmt: skip
                else:
                    layers.modules[stored.removesuffix(".weight")] = module
        prefix = f"{model.base_model_prefix}."
        for name, _ in model.named_buffers():
            others |= {name, name.removeprefix(prefix), prefix + name}
        for tensor in checkpoint.matrices():
            if tensor not in others and tensor.removesuffix(".weight") not in layers.modules:
                layers.without[tensor] = f"it is no linear module of {type(model).__name__}"
        for name in [name for name in layers.modules if any(re.fullmatch(glob, name) for glob in exclude)]:
            del layers.modules[name]
            layers.without[f"{name}.weight"] = "it is under `exclude`"
        return layers
