"""Gram matrices in pickles, as people make and publish them.

    python grams.py OUT                    writes OUT/{a,b}/model and OUT/{a,b}/*.pkl
    python grams.py repack GRAMS OUT.pkl   whole matrices of an artifact, pickled

Two tiny models of one shape. A hook on every `nn.Linear` keeps the running mean of X^T X over tokens in fp32 under the module's
name, each module for itself. The same matrices then lie in OUT/<model>/

    plain.pkl      pickle.dump of the dictionary, protocol 4
    three.pkl      the same, protocol 3
    zip.pkl        torch.save
    old.pkl        torch.save before 1.6
    wrapped.pkl    pickle.dump, names as of `DataParallel` around `torch.compile`, of weights
    shared.pkl     pickle.dump, modules with equal matrices holding one tensor
    half.pkl, bfloat.pkl, double.pkl   in another type

OUT/large.pkl holds 32 layers of a matrix of 4 MB, OUT/small.pkl two of them, and OUT/hostile/ has files that a reader must refuse, each named by what is wrong with it.
"""

import pickle
import sys
from pathlib import Path

import numpy
import torch
from models import FAMILIES, ROWS, SMALL, tokenizer
from regmean import gram
from transformers import AutoConfig, AutoModelForCausalLM


def model(seed: int, directory: Path):
    torch.manual_seed(seed)
    config = AutoConfig.for_model(**SMALL, **FAMILIES["llama"])
    made = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    made.save_pretrained(directory)
    return made, tokenizer(directory)


def capture(made, fast) -> dict[str, torch.Tensor]:
    grams, counts = {}, {}

    def hook(name):
        def run(_, inputs, __):
            x = inputs[0].detach().float().view(-1, inputs[0].shape[-1])
            before = counts.get(name, 0)
            counts[name] = before + len(x)
            grams[name] = (grams.get(name, 0) * before + x.T @ x) / counts[name]

        return run

    for name, module in made.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(hook(name))
    with torch.no_grad():
        for row in ROWS:
            messages = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
            text = fast.apply_chat_template(messages, tokenize=False)
            made(fast(text, truncation=True, max_length=100, return_tensors="pt").input_ids)
    return {name: matrix.cpu() for name, matrix in grams.items()}


def dump(grams, path: Path, protocol: int = 4) -> None:
    with open(path, "wb") as file:
        pickle.dump(grams, file, protocol=protocol)


def publish(grams: dict[str, torch.Tensor], out: Path) -> None:
    dump(grams, out / "plain.pkl")
    dump(grams, out / "three.pkl", 3)
    torch.save(grams, out / "zip.pkl")
    torch.save(grams, out / "old.pkl", _use_new_zipfile_serialization=False)
    dump({f"module._orig_mod.{name}.weight": matrix for name, matrix in grams.items()}, out / "wrapped.pkl")
    distinct: list[torch.Tensor] = []
    shared = {}
    for name, matrix in grams.items():
        twin = next((other for other in distinct if torch.equal(other, matrix)), None)
        if twin is None:
            distinct.append(twin := matrix)
        shared[name] = twin
    dump(shared, out / "shared.pkl")
    for name, dtype in [("half", torch.float16), ("bfloat", torch.bfloat16), ("double", torch.float64)]:
        dump({key: matrix.to(dtype) for key, matrix in grams.items()}, out / f"{name}.pkl")


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch ran",)


def hostile(out: Path) -> None:
    good = torch.eye(4)
    with_nan, skewed, negative = good.clone(), good.clone(), good.clone()
    with_nan[1, 2], skewed[0, 3], negative[2, 2] = float("nan"), 0.5, -1.0
    storage = torch.ones(2520)
    for name, value in {
        "system": {"m": Evil()},
        "numpy": {"m": numpy.eye(4)},
        "class": {"m": torch.nn.Linear(2, 2)},
        "list": [good],
        "nested": {"state": {"m": good}},
        "empty": {},
        "nan": {"m": with_nan},
        "infinite": {"m": good / 0},
        "skewed": {"m": skewed},
        "negative": {"m": negative},
        "oblong": {"m": torch.ones(4, 5)},
        "vector": {"m": torch.ones(4)},
        "integers": {"m": torch.eye(4, dtype=torch.int64)},
        "expanded": {"m": torch.ones(1, 1).expand(3000, 3000)},
        "number-as-name": {0: good},
    }.items():
        dump(value, out / f"{name}.pkl")
    # torch.save keeps a storage once, whoever looks at which part of it.
    torch.save({f"m.{at}": storage[at:at + 2500].view(50, 50) for at in range(5)}, out / "overlapping.pkl")
    dump({"m": good}, out / "protocol-2.pkl", 2)
    whole = pickle.dumps({"m": good}, protocol=4)
    (out / "cut.pkl").write_bytes(whole[:-40])
    (out / "zero.pkl").write_bytes(b"")


if __name__ == "__main__":
    if sys.argv[1] == "repack":
        directory = Path(sys.argv[2])
        import json

        modules = json.loads((directory / "index.json").read_text())["modules"]
        dump({module: gram(directory, module).float() for module in modules}, Path(sys.argv[3]))
        sys.exit()
    target = Path(sys.argv[1])
    for number, which in enumerate("ab"):
        made, fast = model(number + 1, target / which / "model")
        publish(capture(made, fast), target / which)
    x = torch.randn(1200, 1024)
    layers = {f"layers.{number}.m": x.T @ x / (number + 1) for number in range(32)}
    dump(layers, target / "large.pkl")
    dump(dict(list(layers.items())[:2]), target / "small.pkl")
    (target / "hostile").mkdir()
    hostile(target / "hostile")
