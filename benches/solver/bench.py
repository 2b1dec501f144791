"""RegMean by `mergelab-tensor` and by the calls of published scripts, on a real model's Grams, against fp64.

    python bench.py --program MERGELAB_TENSOR --real target/real [--tokens 1000 50000] [--alphas 0.1 0.5 0.9 1]
                    [--layers 4] [--loss-tokens 1500] [--solvers gels gelsy inverse] [--threads 2]

Two models: SmolLM2-135M-Instruct (`make real` made it), and the same after a few steps of training on source code (made once,
kept beside it, as are the Grams). Grams of the first on the Python language reference, of the second on the standard
library's source. Prints Markdown: the error of every compared layer over the size of its correction, seconds, and the
merged models' bits per byte on rows of both texts that nothing has seen.

`--layers N` compares the weights of N decoder layers spread evenly, since the fp64 reference takes eigenvalues; 0 is all.
Losses are of whole models; `--loss-tokens 0` leaves them out, and then published solvers run on the compared layers alone.
"""

import argparse
import functools
import math
import platform
import statistics
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "gram"))

import artifact
import program
import systems
import text
import tuned
from loss import Rows
from measure import Capture, processor
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

# What a merge of full rank may be off by, and one at α = 1.
MUST = {True: 1e-3, False: 1e-5}


class Weights:
    """The linear weights of a model directory with one file, by module, as fp32."""

    def __init__(self, directory: Path) -> None:
        self.file = safe_open(directory / "model.safetensors", "pt")

    def __getitem__(self, module: str) -> torch.Tensor:
        return self.file.get_tensor(f"{module}.weight").float()


def halves(models: list[Path], modules: list[str], out: Path) -> list[Path]:
    """Two models `±(W₁ - W₂)/2` in fp32. Their average is zero, so that their merge is the correction itself: what fp32
    rounds of it is small beside it, and what is left is the solver's own error."""
    directories = [out / "plus", out / "minus"]
    if (out / "complete").exists():
        return directories
    first, second = map(Weights, models)
    half = {module: (first[module].double() - second[module].double()).mul(0.5).float() for module in modules}
    for directory, sign in zip(directories, (1, -1)):
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {name: first.file.get_tensor(name).float() for name in first.file.keys()}
        tensors |= {f"{module}.weight": sign * value for module, value in half.items()}
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            (directory / name).write_bytes((models[0] / name).read_bytes())
    (out / "complete").touch()
    return directories


def figure(value: float | None) -> str:
    if value is None:
        return "—"
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.1e}" if value < 0.01 or value >= 1000 else f"{value:.2g}" if value < 100 else f"{value:.0f}"


class Row:
    """One line of the table: a solver at one setting."""

    def __init__(self, name: str) -> None:
        self.name, self.errors, self.seconds, self.bits = name, [], 0.0, []

    def line(self, tokens: int, alpha: float) -> str:
        bits = [f"{value:.3f}" if math.isfinite(value) else "not finite" for value in self.bits] or ["—", "—"]
        worst, median = max(self.errors), statistics.median(self.errors)
        return (f"| {tokens:,} | {alpha:g} | {self.name} | {figure(worst)} | {figure(median)} | {self.seconds:.1f} | "
                f"{bits[0]} | {bits[1]} |")


class Bench:
    """What all settings share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.home = options.real.resolve() / "solver"
        self.home.mkdir(parents=True, exist_ok=True)
        self.capture = Capture(options.program.resolve(), self.home, "cpu", options.threads)
        first = options.real.resolve() / "model"
        self.tokenizer = AutoTokenizer.from_pretrained(first)
        self.texts = [text.split(text.prose()), text.split(text.source())]
        self.models = [first, tuned.make(first, self.texts[1][0], self.home / "tuned")]
        self.weights = [Weights(model) for model in self.models]
        self.network = AutoModelForCausalLM.from_pretrained(first, dtype=torch.float32).eval()
        self.held_out = []
        if options.loss_tokens:
            self.held_out = [Rows(text.up_to(held_out, options.loss_tokens, self.tokenizer), self.tokenizer)
                             for _, held_out in self.texts]
        count = self.network.config.num_hidden_layers
        wanted = options.layers or count
        self.compared = {round(place * (count - 1) / max(wanted - 1, 1)) for place in range(wanted)}

    def grams(self, tokens: int) -> list[Path]:
        """Grams of both models on about so many tokens of their texts; kept."""
        directories = []
        for place, (used, _) in enumerate(self.texts):
            name = f"grams-{place}-{tokens}"
            out = self.home / name / "out"
            if not (out / "index.json").exists():
                rows = text.write(self.home / f"{name}.jsonl", text.up_to(used, tokens, self.tokenizer))
                print(f"capturing {name}", flush=True)
                self.capture.run(name, self.models[place], rows, dtype="float32")
            directories.append(out)
        return directories

    def loss(self, tensors: dict[str, torch.Tensor]) -> list[float]:
        """Bits per byte on both texts of the first model with these tensors in place of its own."""
        if not self.held_out:
            return []
        missing = self.network.load_state_dict(tensors, strict=False)
        if missing.unexpected_keys:
            sys.exit(f"not tensors of the model: {missing.unexpected_keys}")
        return [rows.bits_per_byte(self.network) for rows in self.held_out]

    def average(self) -> dict[str, torch.Tensor]:
        """Every tensor's mean, fp32."""
        first, second = (weights.file for weights in self.weights)
        return {name: ((first.get_tensor(name).double() + second.get_tensor(name).double()) / 2).float()
                for name in first.keys()}

    def exact(self, grams: list[Path], alpha: float) -> tuple[dict, dict, int]:
        """Exact corrections of compared modules: of the models, of their fp32 halves; and the eigenvalues cut in all."""
        real, half, cut = {}, {}, 0
        for shared in systems.inputs(grams, self.compared):
            differences = [(self.weights[0][m].double() - self.weights[1][m].double()) / 2 for m in shared.modules]
            both = differences + [difference.float().double() for difference in differences]
            found, dropped = systems.correction(shared.grams, both, alpha)
            cut += dropped
            real |= dict(zip(shared.modules, found))
            half |= dict(zip(shared.modules, found[len(differences):]))
        return real, half, cut

    def setting(self, tokens: int, alpha: float) -> tuple[list[str], int]:
        """Every solver at one setting: lines of the table, printed as they come, and the eigenvalues cut."""
        grams = self.grams(tokens)
        exact, exact_half, cut = self.exact(grams, alpha)
        average = self.average()
        work = [lambda: self.ours(grams, alpha, exact), lambda: self.ours_alone(grams, alpha, exact_half)]
        work += [functools.partial(self.published, solver, grams, alpha, exact, average) for solver in self.options.solvers]
        lines = []
        for solve in work:
            lines.append(solve().line(tokens, alpha))
            print(lines[-1], flush=True)
        return lines, cut

    def ours(self, grams: list[Path], alpha: float, exact: dict) -> Row:
        """The merge as it is stored."""
        row = Row("mergelab, as stored in fp32")
        measured, out = program.merge(self.capture, "merge", self.models, grams, alpha)
        row.seconds = measured.seconds
        with safe_open(out / "model.safetensors", "pt") as file:
            for module, correction in exact.items():
                name = f"{module}.weight"
                mean = (self.weights[0][module].double() + self.weights[1][module].double()) / 2
                row.errors.append(systems.over(file.get_tensor(name).double() - mean - correction, correction))
            row.bits = self.loss({name: file.get_tensor(name) for name in file.keys()})
        return row

    def ours_alone(self, grams: list[Path], alpha: float, exact: dict) -> Row:
        """The correction by itself."""
        row = Row("mergelab, the correction")
        models = halves(self.models, list(artifact.index(grams[0])), self.home / "halves")
        measured, out = program.merge(self.capture, "merge", models, grams, alpha)
        row.seconds = measured.seconds
        found = Weights(out)
        row.errors = [systems.over(found[module].double() - correction, correction) for module, correction in exact.items()]
        must = MUST[alpha == 1]
        for module, error in zip(exact, row.errors):
            if error > must:
                print(f"over {must:g}: {module}: {error:.2e}", flush=True)
        return row

    def published(self, solver: str, grams: list[Path], alpha: float, exact: dict, average: dict) -> Row:
        """A published solver: seconds are those of its solves alone, without reading or writing anything."""
        row = Row("fp32 inverse" if solver == "inverse" else f"fp32 lstsq, {solver}")
        merged = dict(average)
        for shared in systems.inputs(grams, None if self.held_out else self.compared):
            pairs = [[weights[module] for weights in self.weights] for module in shared.modules]
            started = time.perf_counter()
            found = systems.published(solver, shared.grams, pairs, alpha)
            row.seconds += time.perf_counter() - started
            for module, pair, weight in zip(shared.modules, pairs, found):
                merged[f"{module}.weight"] = weight
                if module in exact:
                    mean = (pair[0].double() + pair[1].double()) / 2
                    row.errors.append(systems.over(weight.double() - mean - exact[module], exact[module]))
        row.bits = self.loss(merged)
        return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1000, 50000])
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.1, 0.5, 0.9, 1.0])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--loss-tokens", type=int, default=1500)
    parser.add_argument("--solvers", nargs="*", default=["gels", "gelsy", "inverse"], choices=["gels", "gelsy", "inverse"])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    started = time.perf_counter()
    bench = Bench(options)
    lines, notes = [], []
    for tokens in options.tokens:
        for alpha in options.alphas:
            found, cut = bench.setting(tokens, alpha)
            lines += found
            if cut:
                notes.append(f"{tokens:,} tokens, α = {alpha:g}: {cut} eigenvalues of the compared inputs are cut.")
    print(f"\n{processor()}, {options.threads} threads, torch {torch.__version__}, Python {platform.python_version()}, "
          f"{bench.capture.version}; {len(bench.compared)} decoder layers compared; "
          f"{(time.perf_counter() - started) / 60:.0f} minutes.\n")
    print("| tokens | α | solver | worst error / correction | median | seconds | bits/byte, reference | bits/byte, source |")
    print("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    print("\n".join(lines))
    if bench.held_out:
        print()
        for name, tensors in (("the first model", bench.weights[0]), ("the second", bench.weights[1])):
            bits = bench.loss({key: tensors.file.get_tensor(key).float() for key in tensors.file.keys()})
            print(f"- {name}: {bits[0]:.3f} and {bits[1]:.3f}")
        bits = bench.loss(bench.average())
        print(f"- their average: {bits[0]:.3f} and {bits[1]:.3f}")
    for note in notes:
        print(f"- {note}")


if __name__ == "__main__":
    main()
