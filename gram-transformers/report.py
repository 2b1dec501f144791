"""What a run says of itself: events for mergelab, and the error that ends it."""

from __future__ import annotations

import json
import os
import sys
from typing import Any


class Refused(Exception):
    """What cannot be done as it is asked, and whose fault that is: of the `experiment`, or of the `stage` at work."""

    def __init__(self, message: str, hint: str | None = None, fault: str = "experiment") -> None:
        super().__init__(message)
        self.hint, self.fault = hint, fault


class Events:
    """Appends events, one line and one write each, so that a reader never sees half of one it takes for whole."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def send(self, event: str, **fields: Any) -> None:
        os.write(self.descriptor, (json.dumps({"event": event, **fields}) + "\n").encode())

    def note(self, message: str) -> None:
        print(f"note: {message}", file=sys.stderr, flush=True)
        self.send("note", message=message)


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]
