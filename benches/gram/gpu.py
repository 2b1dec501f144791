"""Gram capture at the full width of Llama-3-8B on a GPU, on random layers made on the spot.

    python gpu.py --program PATH_OF_MERGELAB_TENSOR [--tokens 65536] [--repeats 3] [--device cuda] [--small]

Needs a Python with torch (CUDA) and safetensors, and `mergelab-tensor` built against that torch; where the program does not
find its libraries, set LD_LIBRARY_PATH to torch/lib. Without a GPU it says so and ends. `--small --device cpu` tries the
program, not the machine.

A capture's time is a + b layers + c tokens + d layers tokens: the program's start, a layer's weights and Grams to and from
disk, text and embedding, and the products. One and two layers with half of the tokens and all of them give the four
numbers, and these the time of 32 layers and 2.6 million tokens. Beside it stands what plain proportion gives, which
counts the start and each layer's disk time 40 times over for the many tokens.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import artifact
import exact
from measure import Capture, memory, processor
from model import Shape, write_config, write_model, write_rows, write_tokenizer
from rate import rates

# Llama-3-8B, but for its vocabulary: the embedding is looked up and takes no time, and the logits are not needed.
FULL = dict(hidden=4096, mlp=14336, heads=32, kv_heads=8, vocab=1024, head_dim=128)
SMALL = dict(hidden=128, mlp=448, heads=4, kv_heads=2, vocab=512, head_dim=32)

ROW = 256
LAYERS = 32
TOKENS = 2_600_000

# Rows that the float64 pass runs.
EXACT_ROWS = 16


def models(scratch: Path, sizes: dict) -> dict[int, tuple[Shape, Path]]:
    """Models of two layers and of one, which reads the same weights."""
    made = {}
    for layers in (2, 1):
        shape, directory = Shape(layers=layers, **sizes), scratch / f"model-{layers}"
        if layers == 2:
            write_model(directory, shape)
        else:
            directory.mkdir()
            (directory / "model.safetensors").symlink_to(made[2][1] / "model.safetensors")
            write_config(directory, shape)
            write_tokenizer(directory, shape)
        made[layers] = (shape, directory)
    return made


def extrapolate(times: dict[tuple[int, int], float], layers: int, tokens: int) -> float:
    """Seconds for so many layers and tokens, by the plane product through the four corners `(1 | 2 layers, tokens)`."""
    low, high = sorted({tokens for _, tokens in times})
    share = (tokens - low) / (high - low)
    one, two = (times[count, low] + share * (times[count, high] - times[count, low]) for count in (1, 2))
    return one + (layers - 1) * (two - one)


def errors(capture: Capture, model: Path, shape: Shape, scratch: Path, device: str) -> dict[str, dict[str, float]]:
    """The first layer's Grams against float64, per type of the forward pass: the largest difference of an entry over its
    scale. In bf16 it is that of rounded activations; in fp32 it is that of the sums as well."""
    rows = write_rows(scratch / "exact.jsonl", shape, [ROW] * EXACT_ROWS, seed=1)
    texts = [json.loads(line)["text"] for line in rows.read_text().splitlines()]
    ids = torch.tensor([[int(word[1:]) for word in text.split()] for text in texts], device=device)
    expected = exact.first_layer(model, shape, ids)
    gaps = {}
    for dtype in ("bfloat16", "float32"):
        _, out = capture.run("exact", model, rows, dtype)
        found = artifact.index(out)
        gaps[dtype] = {name: artifact.gap(artifact.gram(out, found[name], device), gram)
                       for name, gram in expected.items()}
    return gaps


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=65536, help=f"in rows of {ROW}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scratch", type=Path, help="where the model goes: 1 GB, and 4 GB of Grams")
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print("skipped: torch finds no GPU here")
        return
    with tempfile.TemporaryDirectory(prefix="bench-gram-gpu-", dir=arguments.scratch) as scratch:
        measure(arguments, Path(scratch))


def measure(arguments: argparse.Namespace, scratch: Path) -> None:
    device = arguments.device
    found = models(scratch, SMALL if arguments.small else FULL)
    shape, model = found[2]
    capture = Capture(arguments.program.resolve(), scratch, device, arguments.threads)
    side = 512 if arguments.small else 8192
    rate = rates(side, device)
    worst = errors(capture, model, shape, scratch, device)
    if device != "cpu":
        # The program is to have the whole card.
        torch.cuda.empty_cache()

    many = max(arguments.tokens // ROW, 2)
    lengths = {rows * ROW: [ROW] * rows for rows in (many // 2, many)}
    data = {tokens: write_rows(scratch / f"rows-{tokens}.jsonl", shape, rows) for tokens, rows in lengths.items()}
    runs = {(layers, tokens): [] for layers in found for tokens in data}
    for number in range(arguments.repeats):
        for layers, tokens in runs:
            measured, _ = capture.run("capture", found[layers][1], data[tokens])
            runs[layers, tokens].append(measured)
            print(f"round {number + 1}, {layers} layers, {tokens} tokens: {measured.seconds:.2f} s", file=sys.stderr)

    times = {corner: statistics.median(run.seconds for run in of) for corner, of in runs.items()}
    tokens = max(data)
    peak = statistics.median(run.peak for run in runs[2, tokens])
    report(rate, side, shape, times, lengths[tokens], peak, capture.version, worst)


def report(rate: dict, side: int, shape: Shape, times: dict[tuple[int, int], float], lengths: list[int], peak: float,
           version: str, worst: dict[str, dict[str, float]]) -> None:
    tokens, seconds = sum(lengths), times[2, sum(lengths)]
    whole = Shape(**{**vars(shape), "layers": LAYERS})
    rows = [ROW] * (TOKENS // ROW)
    needed = shape.forward_operations(lengths) + shape.gram_operations(lengths)
    all_needed = whole.forward_operations(rows) + whole.gram_operations(rows)
    fitted = extrapolate(times, LAYERS, TOKENS)
    plain = seconds * LAYERS / 2 * TOKENS / tokens
    print(f"{rate['device']}, {processor()}, {memory() / 2**30:.0f} GiB of memory, {version}, torch {rate['torch']}{driver(rate)}; "
          f"medians. One product of {side}³: {rate['bfloat16'] / 1e12:.1f} TFLOP/s in bf16.\n")
    print("| | seconds | PFLOP needed | share of the bf16 rate |\n|---|---|---|---|")

    def line(name: str, taken: float, operations: float) -> None:
        print(f"| {name} | {taken:.2f} | {operations / 1e15:.3f} | {operations / rate['bfloat16'] / taken:.0%} |")

    line(f"2 layers, {tokens} tokens, whole command", seconds, needed)
    line(f"{LAYERS} layers, {TOKENS / 1e6:.1f} M tokens, extrapolated from four measurements", fitted, all_needed)
    line("the same, in plain proportion to the first line", plain, all_needed)
    corners = "; ".join(f"{layers} × {count}: {taken:.2f} s" for (layers, count), taken in sorted(times.items()))
    print(f"\n- Layers × tokens: {corners}.")
    print(f"- Peak memory of the host: {peak / 1e6:.0f} MB.")
    for dtype, gaps in worst.items():
        said = ", ".join(f"{name.rsplit('.', 1)[1]} {gap:.1e}" for name, gap in gaps.items())
        print(f"- Largest difference of an entry from float64, over sqrt(gii gjj), first layer, {EXACT_ROWS * ROW} tokens, "
              f"forward in {dtype}: {said}.")


def driver(rate: dict) -> str:
    """The GPU driver's version, for the machine's description."""
    if rate["device"] == "cpu":
        return ""
    said = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True)
    return f", driver {said.stdout.split()[0]}" if said.returncode == 0 and said.stdout else ""


if __name__ == "__main__":
    main()
