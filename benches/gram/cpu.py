"""Gram capture by `mergelab-tensor` beside forward hooks (hooks.py), on a CPU: the same weights and rows, in one run, in turn.

    python cpu.py --program PATH_OF_MERGELAB_TENSOR [--repeats 5] [--threads 2] [--small]

Prints Markdown tables. What is timed is a whole command, from start to exit, tokenisation and writing of the result included; files
are in the page cache. Figures are medians. Each round measures everything once, the machine's matrix-multiply rate
first, so that a machine whose speed wanders changes all figures alike. `--small` tries the program, not the machine.
"""

import argparse
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import artifact
from measure import Capture, Measured, median, memory, processor, run
from model import Shape, write_model, write_rows

HERE = Path(__file__).parent

FULL = Shape(hidden=2048, mlp=8192, layers=2, heads=32, kv_heads=8, vocab=32000, head_dim=64)
SMALL = Shape(hidden=128, mlp=512, layers=2, heads=4, kv_heads=2, vocab=1000, head_dim=32)

# Rows of equal length, and lengths of real rows: those of real/chat.jsonl and real/text.jsonl as SmolLM2 tokenises them.
EQUAL = [256] * 16
REAL = [88, 52, 51, 98, 61, 78, 147, 61, 153, 44, 96, 96, 182, 50, 88, 60, 98, 62, 196, 83, 54, 196, 44, 91, 67, 66,
        126, 44, 5, 34, 113, 121, 191, 328, 781]

# bf16 has 8 bits: two correct passes differ by some roundings of 2^-9 in every activation. A Gram entry sums thousands of them.
ALIKE = 2e-2

# DESIGN: beyond hidden states, two layers' weights and one layer's Grams.
ALLOWANCE = 500e6


def mixed() -> list[int]:
    """The real lengths in a random order, as in a shuffled data set."""
    lengths = REAL.copy()
    random.Random(0).shuffle(lengths)
    return lengths


def padded(lengths: list[int], batch: int = 8) -> int:
    """Tokens with padding, in batches of the rows' order."""
    batches = [lengths[start:start + batch] for start in range(0, len(lengths), batch)]
    return sum(max(part) * len(part) for part in batches)


def compare(out: Path, saved: Path) -> float:
    """The largest difference between both results over sqrt(gii gjj); both must have the same modules and tokens."""
    theirs, ours = torch.load(saved), artifact.index(out)
    if set(theirs["grams"]) != set(ours):
        sys.exit(f"not the same modules: {sorted(set(theirs['grams']) ^ set(ours))}")
    worst = 0.0
    for name, entry in ours.items():
        if entry["n"] != theirs["tokens"]:
            sys.exit(f"{name}: {entry['n']} tokens here, {theirs['tokens']} there")
        worst = max(worst, artifact.gap(artifact.gram(out, entry), theirs["grams"][name] / theirs["tokens"]))
    if worst > ALIKE:
        sys.exit(f"the Grams differ by {worst:.1e} of an entry's scale: one of the two is wrong, and times mean nothing")
    return worst


def bound(shape: Shape, tokens: int, out: Path) -> float:
    """Bytes: the hidden states, two layers' weights and one layer's Grams (as stored, half of each) in bf16, bf16 and
    fp32, and the allowance."""
    return 2 * tokens * shape.hidden + 2 * 2 * shape.layer_parameters() + artifact.layer_bytes(out) + ALLOWANCE


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    shape = SMALL if arguments.small else FULL
    sets = {"rows of 256": EQUAL, "rows of real lengths": mixed()}
    with tempfile.TemporaryDirectory(prefix="bench-gram-") as scratch:
        measure(arguments, shape, sets, Path(scratch))


def measure(arguments: argparse.Namespace, shape: Shape, sets: dict[str, list[int]], scratch: Path) -> None:
    threads = arguments.threads
    capture = Capture(arguments.program.resolve(), scratch, "cpu", threads)
    model = write_model(scratch / "model", shape)
    rows = {name: write_rows(scratch / f"rows-{index}.jsonl", shape, lengths)
            for index, (name, lengths) in enumerate(sets.items())}
    saved = scratch / "hooks.pt"

    def hooks(name: str, *flags: str) -> Measured:
        return run([sys.executable, HERE / "hooks.py", model, rows[name], saved, "--threads", threads, *flags],
                   HF_HUB_OFFLINE="1")

    ours = {name: [] for name in sets}
    theirs = {name: [] for name in sets}
    starts, rates, alike, limits = [], [], {}, {}
    for number in range(arguments.repeats):
        side = "512" if arguments.small else "4096"
        said = subprocess.run([sys.executable, HERE / "rate.py", "cpu", side, str(threads)], capture_output=True, text=True,
                              check=True).stdout
        rates.append(json.loads(said))
        starts.append(hooks(next(iter(sets)), "--start-only"))
        for name, lengths in sets.items():
            measured, out = capture.run("capture", model, rows[name])
            ours[name].append(measured)
            theirs[name].append(hooks(name))
            if number == 0:
                alike[name] = compare(out, saved)
                limits[name] = bound(shape, sum(lengths), out)
            print(f"round {number + 1}, {name}: {measured.seconds:.2f} s, hooks {theirs[name][-1].seconds:.2f} s",
                  file=sys.stderr)

    rate = {dtype: statistics.median(found[dtype] for found in rates) for dtype in ("bfloat16", "float32")}
    print(f"{processor()}, {threads} threads, {memory() / 2**30:.0f} GiB of memory, Linux {platform.release()}, "
          f"{capture.version}, torch {rates[0]['torch']}; medians of {arguments.repeats}.")
    print(f"Llama with hidden {shape.hidden}, MLP {shape.mlp}, {shape.layers} layers, bf16 weights. One product of "
          f"{side}³: {rate['bfloat16'] / 1e9:.0f} GFLOP/s in bf16, {rate['float32'] / 1e9:.0f} in fp32.\n")
    start = median(starts)
    print("| | mergelab-tensor | hooks | ratio |\n|---|---|---|---|")
    for name, lengths in sets.items():
        a, b, tokens = median(ours[name]), median(theirs[name]), sum(lengths)
        print(f"| **{name}**: {tokens} tokens, {padded(lengths)} with the hooks' padding | | | |")
        print(f"| seconds | {a.seconds:.2f} | {b.seconds:.2f} | {b.seconds / a.seconds:.2f} |")
        print(f"| seconds, without Python's start | | {b.seconds - start.seconds:.2f} | {(b.seconds - start.seconds) / a.seconds:.2f} |")
        print(f"| tokens a second | {tokens / a.seconds:.0f} | {tokens / b.seconds:.0f} | |")
        print(f"| peak memory, MB | {a.peak / 1e6:.0f} | {b.peak / 1e6:.0f} | {b.peak / a.peak:.2f} |")
        print(f"| of it not mapped from files, MB | {a.anonymous / 1e6:.0f} | {b.anonymous / 1e6:.0f} | |")
        shares = [(shape.forward_operations(lengths) / rate["bfloat16"] + shape.gram_operations(lengths) / rate[dtype])
                  for dtype in ("bfloat16", "float32")]
        cells = [" / ".join(f"{share / each.seconds:.0%}" for share in shares) for each in (a, b)]
        print(f"| share of the machine's rate, Grams taken as bf16 / as fp32 products | {cells[0]} | {cells[1]} | |")
    print()
    for name, lengths in sets.items():
        operations = shape.forward_operations(lengths) / 1e12, shape.gram_operations(lengths) / 1e12
        print(f"- {name}: {operations[0]:.2f} TFLOP forward and {operations[1]:.2f} for half of each Gram are needed. Memory may "
              f"be {limits[name] / 1e6:.0f} MB. Largest difference of an entry between the two results: "
              f"{alike[name]:.1e} of its scale.")
    print(f"- Of the hooks' time, {start.seconds:.2f} s pass until Python has imported torch and transformers and loaded the model.")


if __name__ == "__main__":
    main()
