"""Writes a Llama checkpoint again with wider attention heads, as the same function, for what takes heads of some sizes only.

    python wider_heads.py FROM TO [--size N]

vLLM's attention on a CPU knows heads of 32, 64, 80 and more, and the quickstart's models have heads of 24. Between the
numbers of a head of d stand zeros up to w, in the queries, keys and values, and in what the output projection reads:

- Rotary position embeddings turn number i of a head together with number i + d/2, by position · θ^(−2i/d). The first
  half of a head stays at its beginning and the second goes to w/2, and with θ' = θ^(w/d) the angles θ'^(−2i/w) are those
  of before. The angles of the numbers that are 0 do not matter.
- Attention divides scores by √w in place of √d, so the queries are √(w/d) times as large.

What the model computes is the same but for rounding.
"""

import argparse
import json
import math
import shutil
from pathlib import Path


def widen(source, target, size=32):
    """Copies the checkpoint `source` to `target`, with attention heads of `size`."""
    from safetensors.torch import load_file, save_file

    source, target = Path(source), Path(target)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    if config["model_type"] != "llama" or width % 2 or size % 2 or width > size:
        raise SystemExit(f"{source}: heads of {width} in a {config['model_type']} cannot be made heads of {size}")
    target.mkdir(parents=True)
    for file in source.iterdir():
        if file.suffix != ".safetensors" and file.name not in ("config.json", "model.safetensors.index.json"):
            shutil.copyfile(file, target / file.name)
    config["head_dim"] = size
    config["rope_parameters"]["rope_theta"] **= size / width
    (target / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    tensors = {}
    for file in sorted(source.glob("*.safetensors")):
        tensors.update(load_file(file))
    for name in tensors:
        module = name.split(".")[-2]
        if module == "o_proj":
            tensors[name] = spread(tensors[name].T, width, size).T.contiguous()
        elif module in ("q_proj", "k_proj", "v_proj"):
            factor = math.sqrt(size / width) if module == "q_proj" else 1
            tensors[name] = factor * spread(tensors[name], width, size)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


def spread(rows, width, size):
    """`[heads · width, n]` to `[heads · size, n]`: the halves of each head at the beginnings of the halves of a wider one."""
    halves = rows.reshape(-1, 2, width // 2, rows.shape[-1])
    wider = halves.new_zeros(halves.shape[0], 2, size // 2, rows.shape[-1])
    wider[:, :, : width // 2] = halves
    return wider.reshape(-1, rows.shape[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="FROM")
    parser.add_argument("target", metavar="TO")
    parser.add_argument("--size", type=int, default=32)
    arguments = parser.parse_args()
    widen(arguments.source, arguments.target, arguments.size)


if __name__ == "__main__":
    main()
