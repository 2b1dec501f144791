"""`mergelab-tensor` on RegMean jobs."""

import json
import shutil
from pathlib import Path

from measure import Capture, Measured, run


def merge(capture: Capture, name: str, models: list[Path], grams: list[Path], alpha: float) -> tuple[Measured, Path]:
    """Merges two models into fp32; the model lies in the folder that is given back, until the next run of that name."""
    home = capture.scratch / name
    shutil.rmtree(home, ignore_errors=True)
    for part in ("out", "partial"):
        (home / part).mkdir(parents=True)
    sources = [{"name": f"m{place}", "path": str(model), "weight": 1.0, "grams": str(gram), "held_out": None}
               for place, (model, gram) in enumerate(zip(models, grams))]
    job = {
        "method": "regmean", "models": sources, "base": None, "alpha": {"number": alpha}, "params": {}, "rules": [],
        "normalize": "none", "solver": "auto", "dtype": "float32", "shard_size": None, "tokenizer": str(models[0]),
        "card": "",
    }
    stage = {
        "wire": capture.wire, "stage": "merges.bench", "out": str(home / "out"), "partial": str(home / "partial"),
        "events": str(home / "events.jsonl"), "device": capture.device, "threads": capture.threads, "memory": None,
        "job": {"merge": job},
    }
    (home / "stage.json").write_text(json.dumps(stage))
    return run([capture.program, home / "stage.json"]), home / "out"
