"""Runs mergekit through its Python interface, on the CPU. It has to be importable: `make parity` sees to that."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions

transformers.logging.set_verbosity_error()
OPTIONS = MergeOptions(device="cpu", copy_tokenizer=False, write_model_card=False, quiet=True)


@contextmanager
def first_ones() -> Iterator[None]:
    """Meanwhile the first of equal elements counts as the largest, in ascending order too. By itself torch sorts them as it
    happens to, which is another order on another processor."""
    sort = torch.sort

    def stable(values: torch.Tensor, dim: int = -1, descending: bool = False) -> SimpleNamespace:
        found = sort(values, dim=dim, descending=True, stable=True)
        return SimpleNamespace(**{name: getattr(found, name) if descending else getattr(found, name).flip(dim)
                                  for name in ("values", "indices")})

    def argsort(*arguments: object, **options: object) -> torch.Tensor:
        return stable(*arguments, **options).indices

    with mock.patch.multiple(torch, sort=stable, argsort=argsort):
        yield


def merge(config: dict, out: Path, *, stable: bool = False) -> None:
    """Merges as a mergekit file says, whose model paths are relative to the working directory. With `stable` the first of
    elements of one size is kept."""
    with torch.no_grad(), first_ones() if stable else nullcontext():
        run_merge(MergeConfiguration.model_validate(config), str(out), options=OPTIONS)
