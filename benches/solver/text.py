"""Two texts that every Python has: its language reference as `help()` prints it, and the source of its standard library.

Both are under the PSF license and are read from the running Python; nothing of them is kept in this repository.
"""

import json
import random
import sysconfig
from pathlib import Path
from pydoc_data import topics

# Characters of a row, about 250 to 300 tokens.
ROW = 1000
# Every tenth row is held out: no Gram and no training sees it.
HELD_OUT = 10


def prose() -> list[str]:
    """Rows of the language reference."""
    return [row for name in sorted(topics.topics) for row in rows(topics.topics[name])]


def source() -> list[str]:
    """Rows of the standard library's top-level modules."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    return [row for file in files for row in rows(file.read_text(encoding="utf-8", errors="replace"))]


def rows(text: str) -> list[str]:
    """Whole lines, up to ROW characters of them a row; what is shorter than a quarter of that is left out."""
    found, current = [], ""
    for line in text.splitlines(keepends=True):
        if current and len(current) + len(line) > ROW:
            found.append(current)
            current = ""
        current += line
    found.append(current)
    return [row for row in found if len(row.strip()) >= ROW // 4]


def split(all_rows: list[str]) -> tuple[list[str], list[str]]:
    """Rows for Grams and training, shuffled, and those held out."""
    used = [row for place, row in enumerate(all_rows) if place % HELD_OUT != HELD_OUT - 1]
    random.Random(0).shuffle(used)
    held_out = all_rows[HELD_OUT - 1::HELD_OUT]
    random.Random(1).shuffle(held_out)
    return used, held_out


def up_to(all_rows: list[str], tokens: int, tokenizer) -> list[str]:
    """The first rows that have so many tokens together."""
    chosen, total = [], 0
    for row in all_rows:
        if total >= tokens:
            return chosen
        chosen.append(row)
        total += len(tokenizer(row)["input_ids"])
    return chosen if total >= tokens else _too_few(total, tokens)


def _too_few(total: int, tokens: int) -> list[str]:
    raise SystemExit(f"this Python's text has {total} tokens, not {tokens}: ask for fewer (--tokens)")


def write(path: Path, chosen: list[str]) -> Path:
    """JSON Lines with one column `text`."""
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in chosen), encoding="utf-8")
    return path
