"""Runs mergekit through its Python interface, on the CPU. It has to be importable: `make parity` sees to that."""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions

transformers.logging.set_verbosity_error()
OPTIONS = MergeOptions(device="cpu", copy_tokenizer=False, write_model_card=False, quiet=True)


def merge(config: dict, out: Path) -> None:
    """Merges as a mergekit file says, whose model paths are relative to the working directory."""
    with torch.no_grad():
        run_merge(MergeConfiguration.model_validate(config), str(out), options=OPTIONS)
