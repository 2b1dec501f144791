"""RegMean of two models by the calls of published scripts, and how far they and mergelab's merge are from float64.

    python solvers.py --models DIR DIR --grams DIR DIR --alpha 0.1 --mergelab 0.1=DIR ... --bench DIR --out DIR

Everything is on the same Gram matrices: `torch.linalg.lstsq` with the drivers `gels` (which CUDA has) and `gelsy` (the CPU's
default), and `torch.linalg.inv`, in fp32; and the merge of that α which mergelab made of them. Each becomes a model directory in
OUT (`gels`, `gelsy`, `inverse`, `mergelab`) with a `solver.json`:

- `worst`, `median`: over all linear layers, ‖W - W*‖ / ‖W* - W̄‖ of the fp32 weights that are stored, with W* in float64 and W̄ the
  average;
- `seconds`: of the published calls, the solving alone, one call for all layers that share a matrix; none for mergelab.

`--bench` is the folder `benches` of mergelab, whose systems and reader of Grams these are.
"""

import argparse
import json
import shutil
import statistics
import sys
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

PUBLISHED = ("gels", "gelsy", "inverse")
OURS = "mergelab"


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model with one file, as fp32."""
    with safe_open(directory / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name).float() for name in file.keys()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, nargs=2, required=True)
    parser.add_argument("--grams", type=Path, nargs=2, required=True)
    parser.add_argument("--alpha", required=True)
    parser.add_argument("--mergelab", nargs="+", metavar="ALPHA=DIR", required=True)
    for name in ("bench", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    ours = Path(dict(merge.split("=", 1) for merge in options.mergelab)[options.alpha])
    alpha = float(options.alpha)
    for folder in ("solver", "gram"):
        sys.path.insert(0, str(options.bench / folder))
    import systems

    first, second = map(tensors, options.models)
    average = {name: ((first[name].double() + second[name].double()) / 2).float() for name in first}
    merged = {solver: dict(average) for solver in PUBLISHED} | {OURS: tensors(ours)}
    errors = {solver: [] for solver in merged}
    seconds = dict.fromkeys(PUBLISHED, 0.0)
    for shared in systems.inputs(options.grams):
        names = [f"{module}.weight" for module in shared.modules]
        pairs = [[first[name], second[name]] for name in names]
        for solver in PUBLISHED:
            started = time.perf_counter()
            found = systems.published(solver, shared.grams, pairs, alpha)
            seconds[solver] += time.perf_counter() - started
            # A solution is a view of one that all of these layers share.
            merged[solver] |= {name: weight.contiguous() for name, weight in zip(names, found)}
        halves = [(a.double() - b.double()) / 2 for a, b in pairs]
        exact, _ = systems.correction(shared.grams, halves, alpha)
        for name, (a, b), correction in zip(names, pairs, exact):
            target = (a.double() + b.double()) / 2 + correction
            for solver, weights in merged.items():
                errors[solver].append(systems.over(weights[name].double() - target, correction))
        print(f"{names[0]}: done", file=sys.stderr, flush=True)
    for solver, weights in merged.items():
        directory = options.out / solver
        directory.mkdir()
        for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copyfile(ours / name, directory / name)
        if solver == OURS:
            shutil.copyfile(ours / "model.safetensors", directory / "model.safetensors")
        else:
            save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
        figures = {"worst": max(errors[solver]), "median": statistics.median(errors[solver]), "seconds": seconds.get(solver)}
        (directory / "solver.json").write_text(json.dumps(figures) + "\n")
        print(f"{solver}: {figures}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
