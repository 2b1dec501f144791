"""Starts a program and says how long it ran, from start to exit, and how much memory it took."""

import dataclasses
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Measured:
    """One run of a program."""

    seconds: float
    # Resident pages at the peak (VmHWM, sampled): with those of mapped files, libtorch's own code among them. What wait4
    # reports will not do: it counts the pages of the parent, which the child had until it became the program.
    peak: int
    # Of these the ones that are no file's, sampled: what the program itself allocated.
    anonymous: int


def run(command: list, **environment: str) -> Measured:
    """Runs a command, which must succeed. Memory is that of the process, not of children, which neither program has."""
    started = time.perf_counter()
    child = subprocess.Popen([str(part) for part in command], env=os.environ | environment, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, peaks = [], {"VmHWM": 0, "RssAnon": 0}
    ended = threading.Event()

    def read() -> None:
        said.append(child.stdout.read())

    def sample() -> None:
        while not ended.wait(0.02):
            for name, kibibytes in re.findall(r"(VmHWM|RssAnon):\s*(\d+) kB", status_of(child.pid)):
                peaks[name] = max(peaks[name], int(kibibytes) * 1024)

    helpers = [threading.Thread(target=read), threading.Thread(target=sample)]
    for helper in helpers:
        helper.start()
    child.wait()
    seconds = time.perf_counter() - started
    ended.set()
    for helper in helpers:
        helper.join()
    if child.returncode != 0:
        sys.exit(f"{command[0]} ended with {child.returncode}:\n{said[0].decode(errors='replace')}")
    return Measured(seconds, peaks["VmHWM"], peaks["RssAnon"])


def status_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""


def median(runs: list[Measured]) -> Measured:
    """Each figure's own median."""
    fields = [field.name for field in dataclasses.fields(Measured)]
    return Measured(*(statistics.median(getattr(run, field) for run in runs) for field in fields))


class Capture:
    """`mergelab-tensor` on a Gram job, each run in a folder of its own."""

    def __init__(self, program: Path, scratch: Path, device: str, threads: int) -> None:
        self.program, self.scratch, self.device, self.threads = program, scratch, device, threads
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        self.version = said.strip()
        self.wire = int(re.search(r"wire (\d+)", said)[1])

    def run(self, name: str, model: Path, rows: Path, dtype: str | None = None) -> tuple[Measured, Path]:
        """Captures, forward in the checkpoint's type or in `dtype`; the artifact lies in the folder that is given back,
        until the next run of that name."""
        home = self.scratch / name
        shutil.rmtree(home, ignore_errors=True)
        for part in ("out", "partial"):
            (home / part).mkdir(parents=True)
        job = {
            "model": str(model), "data": str(rows), "rows": {"text": "{{ text }}"}, "strict": True, "max_length": None,
            "add_special_tokens": True, "tokens": "all", "skip_first": 0, "chat_template": None, "exclude": [],
            "dtype": dtype, "engine": "native",
        }
        stage = {
            "wire": self.wire, "stage": "grams.bench", "out": str(home / "out"), "partial": str(home / "partial"),
            "events": str(home / "events.jsonl"), "device": self.device, "threads": self.threads, "memory": None,
            "job": {"gram": job},
        }
        (home / "stage.json").write_text(json.dumps(stage))
        return run([self.program, home / "stage.json"]), home / "out"


def processor() -> str:
    """What the machine calls its processor."""
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else "unknown processor"


def memory() -> int:
    """Bytes of memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
