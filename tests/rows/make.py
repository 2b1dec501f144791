"""Two rows in every format and compression that data is read from.

    python make.py

writes the files beside it. Needs pyarrow; another version of it may write other bytes for the same rows.
"""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
# What stands in a file; each part is a member (gzip) or frame (zstd) of its own.
PARTS = {"x.jsonl": [b'{"a":1}\n', b'{"a":2}\n'], "x.json": [b'[{"a":1},{"a":2}]\n'], "x.csv": [b"a\n1\n2\n"]}

zstd = pa.Codec("zstd")
for name, parts in PARTS.items():
    (HERE / f"{name}.gz").write_bytes(b"".join(gzip.compress(part, 9, mtime=0) for part in parts))
    (HERE / f"{name}.zst").write_bytes(b"".join(zstd.compress(part, asbytes=True) for part in parts))
pq.write_table(pa.Table.from_pylist([{"a": 1}, {"a": 2}]), HERE / "x.parquet")
