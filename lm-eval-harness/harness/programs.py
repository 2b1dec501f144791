"""Runs programs that a model wrote, each in a process of its own, and says what became of each.

The word that a program's process says at the end (`program.py`) is drawn anew for each. Printing, exiting early or
leaving with code 0 is no passing. A program that searches its own interpreter for the word can find it, as it can replace
the tests, which run in its process: what it gains is its own item.
"""

import os
import queue
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from json import dumps
from pathlib import Path

from .errors import one_line
from .program import READY

PASSED, FAILED, TIMED_OUT = "passed", "failed", "timed out"

# Seconds that a program may take: what the authors of HumanEval and the `code_eval` metric use.
TIME_OUT = 3.0

# Seconds until a process must say that it is ready.
START_UP = 60.0

# Seconds between two lines in the log.
REPORT = 5.0

# More at once would only wait for the same memory.
MOST_WORKERS = 32


class NotStarted(Exception):
    """The process of a program did not come to run it, through no fault of the program."""


@dataclass(frozen=True)
class Limits:
    """What one program may take; bytes, and processes at once."""

    memory: int = 2 << 30
    processes: int = 16
    file: int = 64 << 20


class Programs:
    """Runs programs, several at once.

    `wrap` makes the command that is started of the one that runs a program: itself, or one inside a sandbox. `alone`
    says that nothing else can be seen from there; limits that count a whole user's processes hold only so.
    """

    def __init__(self, wrap=list, alone=False, limits=Limits()):
        self.wrap = wrap
        self.alone = alone
        self.limits = limits
        self.workers = min(processors(), MOST_WORKERS)
        self.users = queue.SimpleQueue()
        for index in range(self.workers):
            self.users.put(user_of(index) if alone and os.geteuid() == 0 else None)

    def run(self, sources, timeout):
        """What became of each program, in their order; `timeout` in seconds.

        Raises [`NotStarted`].
        """
        stop = threading.Event()
        with ThreadPoolExecutor(min(self.workers, max(1, len(sources)))) as pool:
            ends = [pool.submit(self.one, source, timeout, stop) for source in sources]
            try:
                return list(reporting(ends))
            except BaseException:
                stop.set()
                raise

    def one(self, source, timeout, stop):
        if stop.is_set():
            return FAILED
        user = self.users.get()
        try:
            return self.run_as(user, source, timeout)
        finally:
            self.users.put(user)

    def run_as(self, user, source, timeout):
        word = secrets.token_hex(16)
        order = {
            "source": source,
            "word": word,
            "memory": self.limits.memory,
            "processes": self.limits.processes if self.alone else None,
            "file": self.limits.file,
            # Against what loses who would have stopped it.
            "processor": 4 * int(timeout + 1),
            "user": user,
        }
        with (
            tempfile.TemporaryDirectory(prefix="program-") as folder,
            tempfile.TemporaryFile() as told,
            tempfile.TemporaryFile() as complaints,
        ):
            told.write(dumps(order).encode())
            told.seek(0)
            process = subprocess.Popen(
                self.wrap([PYTHON, "-s", "-P", "-c", PROGRAM]),
                stdin=told,
                stdout=subprocess.PIPE,
                stderr=complaints,
                cwd=folder,
                env=ENVIRONMENT,
                start_new_session=True,
            )
            try:
                said, _ = listen(process.stdout, len(READY), START_UP)
                if said != READY:
                    end_group(process)
                    raise NotStarted(f"a program's process did not start: {one_line(last_of(complaints)) or 'it said nothing'}")
                said, is_late = listen(process.stdout, len(word), timeout)
            finally:
                end_group(process)
                process.stdout.close()
        if said == word.encode():
            return PASSED
        return TIMED_OUT if is_late else FAILED


def processors():
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def reporting(ends):
    """Results in their order; every few seconds the log says how far they are, which also shows that this lives."""
    told = time.monotonic()
    for number, end in enumerate(ends):
        yield end.result()
        if time.monotonic() - told > REPORT:
            told = time.monotonic()
            print(f"programs: {number + 1} of {len(ends)}", file=sys.stderr, flush=True)


def user_of(index):
    """A user for a worker where we are root: no other process has it, so that a limit on its processes is one on its own."""
    return 1_000_000_000 + os.getpid() % (1 << 22) * 64 + index


def listen(pipe, length, seconds):
    """Up to `length` bytes of what is said within some seconds, and whether time ran out."""
    deadline = time.monotonic() + seconds
    poll = select.poll()
    poll.register(pipe, select.POLLIN | select.POLLHUP)
    said = b""
    while len(said) < length:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return said, True
        piece = os.read(pipe.fileno(), length - len(said))
        if not piece:
            break
        said += piece
    return said, False


def end_group(process):
    """Ends a process that leads its group, and the group with it. Once ended, its number may be another's."""
    if process.returncode is not None:
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def last_of(file, size=16384):
    """What was written last to a file."""
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - size))
    return file.read().decode(errors="replace").strip()


# Nothing of our own environment: it may hold secrets, and it would decide results. One thread for libraries that start
# one for each processor, which would meet the limit on processes.
ENVIRONMENT = {
    "HOME": "/tmp",
    "USER": "nobody",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}

# Without the `..` that it may have been started by, which leads through folders that a sandbox lacks.
PYTHON = os.path.abspath(sys.executable)

# Handed over as text, so that no file of ours has to be seen from inside a sandbox.
PROGRAM = Path(__file__).with_name("program.py").read_text(encoding="utf-8")
