"""RegMean as one writes it down: everything in memory, one torch.linalg.lstsq for each linear layer.

    python regmean.py make DIRECTORY     two models of two layers (hidden 2048, MLP 8192) and their Gram matrices
    python regmean.py lstsq DIRECTORY    the merge, alpha 0.1
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HIDDEN, MLP, LAYERS, ALPHA, TOKENS = 2048, 8192, 2, 0.1, 4096
# Grams lie in their files as mergelab keeps them: the tiles of the upper triangle, row by row.
TILE = 512
LINEAR = {
    "self_attn.q_proj": (HIDDEN, HIDDEN, "attention"),
    "self_attn.k_proj": (HIDDEN // 4, HIDDEN, "attention"),
    "self_attn.v_proj": (HIDDEN // 4, HIDDEN, "attention"),
    "self_attn.o_proj": (HIDDEN, HIDDEN, "output"),
    "mlp.gate_proj": (MLP, HIDDEN, "mlp"),
    "mlp.up_proj": (MLP, HIDDEN, "mlp"),
    "mlp.down_proj": (HIDDEN, MLP, "down"),
}


def make(home: Path) -> None:
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        model, grams = home / name, home / f"grams-{name}"
        model.mkdir()
        grams.mkdir()
        weights, modules = {}, {}
        for layer in range(LAYERS):
            tiles = {}
            for linear, (rows, width, shared) in LINEAR.items():
                module = f"model.layers.{layer}.{linear}"
                weights[f"{module}.weight"] = (torch.randn(rows, width) * 0.02).bfloat16()
                if shared not in tiles:
                    # Features of scales over four orders, as real ones have.
                    x = torch.randn(TOKENS, width) * torch.logspace(-2, 2, width)[torch.randperm(width)]
                    tiles[shared] = upper(x.T @ x / TOKENS)
                file = f"layer-{layer}.safetensors"
                modules[module] = {"file": file, "tensor": shared, "n": TOKENS, "width": width, "tile": TILE}
            save_file(tiles, grams / f"layer-{layer}.safetensors")
        save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
        (model / "config.json").write_text(json.dumps({"model_type": "llama", "torch_dtype": "bfloat16"}))
        (grams / "index.json").write_text(json.dumps({"format": 1, "modules": modules}))


def upper(gram: torch.Tensor) -> torch.Tensor:
    blocks = gram.shape[0] // TILE
    cut = gram.view(blocks, TILE, blocks, TILE).transpose(1, 2)
    return torch.stack([cut[i, j] for i in range(blocks) for j in range(i, blocks)])


def whole(tiles: torch.Tensor, width: int) -> torch.Tensor:
    blocks, gram, at = width // TILE, torch.empty(width, width), 0
    for i in range(blocks):
        for j in range(i, blocks):
            gram[i * TILE : (i + 1) * TILE, j * TILE : (j + 1) * TILE] = tiles[at]
            gram[j * TILE : (j + 1) * TILE, i * TILE : (i + 1) * TILE] = tiles[at].T
            at += 1
    return gram


def lstsq(home: Path) -> None:
    models = [load_file(home / name / "model.safetensors") for name in "ab"]
    grams = []
    for name in "ab":
        modules = json.loads((home / f"grams-{name}" / "index.json").read_text())["modules"]
        files = {entry["file"]: load_file(home / f"grams-{name}" / entry["file"]) for entry in modules.values()}
        found = {(e["file"], e["tensor"]): whole(files[e["file"]][e["tensor"]], e["width"]) for e in modules.values()}
        grams.append({module: found[entry["file"], entry["tensor"]] for module, entry in modules.items()})
    merged = {}
    for name in models[0]:
        left, right = 0, 0
        for weights, gram in zip(models, grams):
            g = gram[name.removesuffix(".weight")]
            scaled = ALPHA * g + (1 - ALPHA) * torch.diag(torch.diag(g))
            left = left + scaled
            right = right + scaled @ weights[name].float().T
        merged[name] = torch.linalg.lstsq(left, right).solution.T.bfloat16().contiguous()
    (home / "lstsq").mkdir(exist_ok=True)
    save_file(merged, home / "lstsq" / "model.safetensors", metadata={"format": "pt"})


{"make": make, "lstsq": lstsq}[sys.argv[1]](Path(sys.argv[2]))
