"""Holds mergelab's merges against those of mergekit 0.1.5, on random tiny models and random configurations.

    python parity.py --mergelab PROGRAM [--seed N] [--cases N] [--method NAME ...] [--as mergekit|native] [--keep DIR]

mergekit must be importable; `make parity` unpacks it. With `--as mergekit` mergelab gets mergekit's own files, with `--as native`
the same merges in the experiment language, as far as that can say them. Prints a table, then each case that is not the same with
its configuration, and exits with 1 if there is one.

The same seed gives the same models and cases, also where `--method` or `--cases` takes fewer of them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml

import cases
import families
import native
from comparison import LIMIT, Merge, compare


class Mergelab:
    """The program, in a project that is the working directory."""

    def __init__(self, program: Path, language: str) -> None:
        self.program = program
        self.language = language
        Path("mergelab.toml").touch()

    def experiment(self, case: cases.Case) -> dict:
        """An experiment of one merge, `merges.case`."""
        if self.language == "native":
            models = {native.name(model): {"path": model} for model in case.models()}
            return {"name": case.name, "models": models, "merges": {"case": native.merge(case.config, case.out)}}
        file = Path("configs", f"{case.name}.yml")
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump(case.file(), sort_keys=False))
        return {"name": case.name, "merges": {"case": {"method": "mergekit", "config": str(file)}}}

    def merge(self, case: cases.Case) -> Path:
        """Runs the experiment; the directory of the merged model."""
        file = Path(f"{case.name}.yaml")
        file.write_text(yaml.safe_dump(self.experiment(case), sort_keys=False))
        self.call("run", file)
        return Path(json.loads(self.call("show", "--json", "merges.case", file))["path"])

    def call(self, *arguments: object) -> str:
        done = subprocess.run([self.program, *map(str, arguments)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotMade(done.stderr)
        return done.stdout


class NotMade(Exception):
    """mergelab did not make a merge; what it said."""


@dataclass
class Row:
    """One line of the table: what became of a method's cases."""

    method: str
    merges: dict[str, list[Merge]] = field(default_factory=lambda: {"float32": [], "bfloat16": []})
    not_made: int = 0
    unsaid: int = 0
    failures: list[str] = field(default_factory=list)

    HEAD = ("| method | cases | float32: from mergekit | mergekit from its float64 | from its float64 | bfloat16: elements "
            "| one step off | near zero | by float64 | |\n|---|---|---|---|---|---|---|---|---|---|")

    def line(self) -> str:
        float32, bfloat16 = self.merges.values()
        cells = [self.method, str(len(float32) + len(bfloat16) + self.not_made)]
        for figure in ("float32", "itself", "float64"):
            cells.append(f"{max(merge.worst[figure] for merge in float32):.1e}" if float32 else "—")
        for count in ("elements", "one", "near_zero"):
            cells.append(f"{sum(getattr(merge, count) for merge in bfloat16):,}" if bfloat16 else "—")
        cells.append(str(sum(merge.by_float64 for merge in float32 + bfloat16)))
        verdict = "same" if float32 or bfloat16 else ""
        if self.failures:
            verdict = f"**{len(self.failures)} not the same**"
        unsaid = f"{self.unsaid} not in the language" if self.unsaid else ""
        cells.append(", ".join(filter(None, (verdict, unsaid))))
        return f"| {' | '.join(cells)} |"

    def fail(self, case: cases.Case, why: list[str]) -> None:
        config = yaml.safe_dump(case.file(), sort_keys=False, default_flow_style=None, width=120)
        self.failures.append(f"{case.name}\n{textwrap.indent(chr(10).join(why), '  ')}\n{textwrap.indent(config, '    ')}")


def hold(method: str, drawn: list[cases.Case], mergelab: Mergelab) -> Row:
    """Merges each case with both programs, and compares."""
    import reference

    row = Row(method)
    for case in drawn:
        try:
            merged = mergelab.merge(case)
        except native.Unsaid:
            row.unsaid += 1
            continue
        except NotMade as error:
            row.not_made += 1
            row.fail(case, ["mergelab did not make it:", *str(error).splitlines()[-20:]])
            continue
        outputs = {computed: Path("mergekit", case.name, computed) for computed in ("float32", "float64")}
        for computed, output in outputs.items():
            reference.merge(case.file(computed), output, stable=case.stable)
        try:
            references = [families.by_token(output, merged) for output in outputs.values()]
        except families.OtherTokens as error:
            row.fail(case, [str(error)])
            continue
        found = compare(families.tensors(merged), *references)
        ours, theirs = map(families.depth, (merged, outputs["float32"]))
        if ours != theirs:
            found.wrong.append(f"config.json: {ours} layers, mergekit's has {theirs}")
        row.merges[case.out].append(found)
        if found.wrong:
            row.fail(case, found.wrong)
    return row


def run(options: argparse.Namespace) -> int:
    drawn = families.make(Path(), options.seed)
    mergelab = Mergelab(options.mergelab, options.language)
    print(f"mergelab beside mergekit 0.1.5, seed {options.seed}, {options.cases} cases a method\n\n{Row.HEAD}", flush=True)
    failures = []
    for method in options.method or cases.METHODS:
        row = hold(method, cases.draw(method, drawn, options.seed, options.cases), mergelab)
        print(row.line(), flush=True)
        failures += row.failures
    if not failures:
        return 0
    print(f"\nNot the same (a float32 tensor may be {LIMIT:g} off, a bfloat16 element one unit in the last place):\n")
    print("\n".join(failures))
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergelab", type=Path, required=True, help="the program")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=6, help="configurations of each method")
    parser.add_argument("--method", action="append", choices=cases.METHODS, help="this one only; may be given several times")
    parser.add_argument("--as", dest="language", choices=("mergekit", "native"), default="mergekit")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new directory in which everything is left")
    options = parser.parse_args()
    options.mergelab = options.mergelab.resolve()
    torch.set_num_threads(1)
    if options.keep:
        options.keep.mkdir(parents=True)
        os.chdir(options.keep)
        return run(options)
    with tempfile.TemporaryDirectory(prefix="mergelab-parity-") as directory:
        os.chdir(directory)
        try:
            return run(options)
        finally:
            os.chdir("/")


if __name__ == "__main__":
    sys.exit(main())
