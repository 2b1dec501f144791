"""The first rows that have so many tokens together, of rows that are trained on.

    python cut.py --model DIR --template FILE --rows FILE --tokens 1000 50000 --out DIR

Writes `1000.jsonl` and `50000.jsonl`. The last row of each goes over the number.
"""

import argparse
import itertools
import sys
from pathlib import Path

from chat import Chat, read, write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "template", "rows", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--tokens", type=int, nargs="+", required=True)
    options = parser.parse_args()
    chat = Chat(options.model, options.template)
    rows = read(options.rows)
    totals = list(itertools.accumulate(len(chat.encode(row).ids) for row in rows))
    for tokens in options.tokens:
        enough = next((count for count, total in enumerate(totals, start=1) if total >= tokens), None)
        if enough is None:
            sys.exit(f"{options.rows}: {totals[-1]} tokens in all, and {tokens} are asked for")
        write(options.out / f"{tokens}.jsonl", rows[:enough])
        print(f"{tokens}: {enough} rows, {totals[enough - 1]} tokens", file=sys.stderr)


if __name__ == "__main__":
    main()
