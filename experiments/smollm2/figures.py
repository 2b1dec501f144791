"""Hands over what solvers.py measured of a model, as the metrics of an evaluation: `python figures.py MODEL OUT`."""

import json
import math
import sys
from pathlib import Path


def main(model: Path, out: Path) -> None:
    figures = json.loads((model / "solver.json").read_text())
    known = {name: value for name, value in figures.items() if value is not None and math.isfinite(value)}
    metrics = [{"metric": name, "value": value, "higher_is_better": False} for name, value in known.items()]
    (out / "metrics.json").write_text(json.dumps(metrics) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
