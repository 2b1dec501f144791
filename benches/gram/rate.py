"""The machine's own matrix-multiply rate: one large square product by the same libtorch, in operations a second.

    python rate.py cpu|cuda SIDE [THREADS]

prints {"bfloat16": ..., "float32": ..., "device": ..., "torch": ...}. The best of several products, since this is the
ground that a share is taken of. TF32 is off, as it is in `mergelab-tensor`.
"""

import json
import sys
import time

import torch


def rate(side: int, dtype: torch.dtype, device: str, repeats: int) -> float:
    """The best rate of `repeats` products after one that does not count."""
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(side, side, generator=generator, device=device).to(dtype) for _ in range(2))
    out = torch.empty(side, side, dtype=dtype, device=device)
    best = float("inf")
    for repeat in range(repeats + 1):
        if device != "cpu":
            torch.cuda.synchronize()
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        if device != "cpu":
            torch.cuda.synchronize()
        if repeat:
            best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def rates(side: int, device: str) -> dict:
    """Both types, and what computed."""
    torch.backends.cuda.matmul.allow_tf32 = False
    repeats = 3 if device == "cpu" else 20
    name = "cpu" if device == "cpu" else torch.cuda.get_device_name()
    return {"bfloat16": rate(side, torch.bfloat16, device, repeats), "float32": rate(side, torch.float32, device, repeats),
            "device": name, "torch": torch.__version__}


if __name__ == "__main__":
    if len(sys.argv) > 3:
        torch.set_num_threads(int(sys.argv[3]))
    print(json.dumps(rates(int(sys.argv[2]), sys.argv[1])))
