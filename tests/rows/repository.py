"""Data sets as repositories on the hub have them, and what `datasets` gives as their first rows.

    python repository.py make ROOT                          makes ROOT/chats and ROOT/lines
    python repository.py first ROOT/NAME CONFIG SPLIT COUNT

The second prints JSON Lines, with times as mergelab writes them. Needs pyarrow and datasets.
"""

import gzip
import json
import os
import sys
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path

CHATS = """---
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train-*
  - split: test
    path: [main/test-b.parquet, main/test-a.parquet]
---
# Chats
"""

LINES = """---
configs:
- config_name: plain
  data_files: "*.jsonl.gz"
  default: true
- config_name: declared
  data_files: 1.jsonl.gz
dataset_info:
- config_name: declared
  features:
  - name: answer
    dtype: string
  - name: id
    dtype: float64
  - name: note
    dtype: string
---
# Lines
"""


def make(root):
    import pyarrow as pa
    import pyarrow.parquet as pq

    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    turned = pa.struct([("content", pa.string()), ("role", pa.string())])
    begin = datetime(2024, 2, 29, 12, tzinfo=timezone.utc)

    def rows(first, count):
        return [{"id": at, "score": at / 8, "when": begin + timedelta(milliseconds=at * 250),
                 "turns": [{"role": "user", "content": f"{at} + 1 = ?"}, {"role": "assistant", "content": str(at + 1)}],
                 "info": {"level": at % 3, "tags": ["a"] * (at % 4)} if at % 5 else None}
                for at in range(first, first + count)]

    fields = {"id": pa.int64(), "score": pa.float64(), "when": pa.timestamp("ms", "UTC"), "turns": pa.list_(turn),
              "info": pa.struct([("level", pa.int64()), ("tags", pa.list_(pa.string()))])}

    def write(name, table, **options):
        file = root / "chats" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, file, **options)

    def table(first, count, **other):
        return pa.Table.from_pylist(rows(first, count), pa.schema({**fields, **other}))

    write("main/train-0.parquet", table(0, 7), row_group_size=3)
    # Columns and fields in another order, narrower integers, whole numbers for floating-point ones.
    whole = [{**row, "score": row["id"]} for row in rows(7, 5)]
    other = pa.schema({"turns": pa.list_(turned), "when": fields["when"], "id": pa.int32(), "info": fields["info"],
                       "score": pa.int64()})
    write("main/train-1.parquet", pa.Table.from_pylist(whole, other))
    # Without a column, and without a field of another.
    fewer = {"id": pa.int64(), "turns": pa.list_(turn), "info": pa.struct([("tags", pa.list_(pa.string()))])}
    write("main/train-2.parquet", pa.Table.from_pylist(rows(12, 4), pa.schema(fewer)))
    write("main/test-a.parquet", table(100, 2))
    write("main/test-b.parquet", table(200, 2))
    lines = [[{"id": 1, "answer": "a"}, {"answer": "b", "id": 2, "note": None}, {"id": 3}], [{"answer": "c", "id": 4}]]
    (root / "lines").mkdir()
    for at, part in enumerate(lines):
        text = "".join(json.dumps(row) + "\n" for row in part)
        (root / f"lines/{at}.jsonl.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    (root / "chats/README.md").write_text(CHATS)
    (root / "lines/README.md").write_text(LINES)


def said(value):
    if isinstance(value, datetime):
        parts = "" if not value.microsecond else f".{value.microsecond // 1000:03}"
        return value.strftime("%Y-%m-%dT%H:%M:%S") + parts + ("Z" if value.tzinfo else "")
    raise TypeError(value)


def first(root, config, split, count):
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.update(HF_HUB_OFFLINE="1", HF_HOME=scratch)
        import datasets

        datasets.disable_progress_bars()
        rows = datasets.load_dataset(str(root), config, split=split, cache_dir=scratch)
        for row in rows.select(range(min(count, len(rows)))):
            print(json.dumps(row, default=said, separators=(",", ":"), ensure_ascii=False))


match sys.argv[1:]:
    case ["make", root]:
        make(Path(root))
    case ["first", root, config, split, count]:
        first(Path(root), config, split, int(count))
