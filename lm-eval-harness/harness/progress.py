"""How far a task is, from the progress bars that lm_eval and vLLM draw."""

import time

# Seconds between two reports: often enough for a person, and for telling a slow task from one that hangs.
EVERY = 2.0


class Bars:
    """While it is entered, what progress bars have counted goes to `report(done, total)` as well, now and then."""

    def __init__(self, report, every=EVERY):
        self.report = report
        self.every = every
        self.last = time.monotonic()

    def __enter__(self):
        from tqdm import std

        self.real = real = std.tqdm.update

        def update(bar, n=1):
            drawn = real(bar, n)
            now = time.monotonic()
            if bar.total and not bar.disable and now - self.last >= self.every:
                self.last = now
                self.report(int(bar.n), int(bar.total))
            return drawn

        std.tqdm.update = update

    def __exit__(self, *_):
        from tqdm import std

        std.tqdm.update = self.real
