"""Small Parquet files and the rows that are in them, as pyarrow sees them.

    python make.py DIRECTORY

writes, beside each NAME.parquet, NAME.jsonl with what a reader must give. Needs pyarrow. What is in tests/data was made
by it; a newer pyarrow may write other bytes for the same rows.
"""

import datetime
import decimal
import json
import sys
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

UTC = datetime.timezone.utc
DAY = datetime.date(2024, 2, 29)
MOMENT = datetime.datetime(2024, 2, 29, 12, 30, 5, 250_000)

CHATS = [
    {"id": 1, "messages": [{"role": "user", "content": "Hi ☃"}, {"role": "assistant", "content": None}]},
    {"id": 2, "messages": []},
    {"id": 3, "messages": None},
    {"id": None, "messages": [{"role": "user", "content": ""}, None, {"role": None, "content": "x\ny"}]},
]

CODECS = {"plain": "NONE", "snappy": "SNAPPY", "gzip": "GZIP", "zstd": "ZSTD", "brotli": "BROTLI", "lz4": "LZ4"}


def text(value):
    """JSON as mergelab has it: no spaces, not ASCII only."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def write(directory: Path, name: str, table: pa.Table, rows: list, **options) -> None:
    pq.write_table(table, directory / f"{name}.parquet", **options)
    (directory / f"{name}.jsonl").write_text("".join(text(row) + "\n" for row in rows))


def chats(directory: Path) -> None:
    """A chat column under every codec, with and without a dictionary, in both versions of data pages."""
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    schema = pa.schema([("id", pa.int64()), ("messages", pa.list_(message))])
    table = pa.Table.from_pylist(CHATS, schema=schema)
    for name, codec in CODECS.items():
        write(directory, f"chats-{name}", table, CHATS, compression=codec, use_dictionary=name != "plain",
              data_page_version="2.0" if name == "zstd" else "1.0")


def groups(directory: Path) -> None:
    """More rows than are decoded at once, in row groups and pages that end elsewhere; nulls and lists of every length."""
    rows = [{"i": None if i % 7 == 0 else i, "s": f"row {i % 5}", "l": list(range(i % 4)) if i % 3 else None}
            for i in range(1200)]
    schema = pa.schema([("i", pa.int32()), ("s", pa.string()), ("l", pa.list_(pa.int16()))])
    write(directory, "groups", pa.Table.from_pylist(rows, schema=schema), rows, row_group_size=700,
          data_page_size=400, write_batch_size=50, compression="ZSTD")


def nested(directory: Path) -> None:
    """Lists in lists, objects in objects, maps, nulls at every depth."""
    rows = [
        {"ll": [[1, None], [], None], "deep": {"a": {"b": [{"c": [True]}]}}, "map": {"k": [1.5], "z": None}},
        {"ll": [], "deep": {"a": None}, "map": {}},
        {"ll": None, "deep": None, "map": None},
        {"ll": [[]], "deep": {"a": {"b": []}}, "map": {"only": []}},
    ]
    schema = pa.schema([
        ("ll", pa.list_(pa.list_(pa.int32()))),
        ("deep", pa.struct([("a", pa.struct([("b", pa.list_(pa.struct([("c", pa.list_(pa.bool_()))])))]))])),
        ("map", pa.map_(pa.string(), pa.list_(pa.float32()))),
    ])
    as_pairs = [{**row, "map": None if row["map"] is None else list(row["map"].items())} for row in rows]
    write(directory, "nested", pa.Table.from_pylist(as_pairs, schema=schema), rows)


def types(directory: Path) -> None:
    """A column of every type that can be written; the second row is all null."""
    columns = {
        "z_first": (pa.large_string(), "é", "é"),
        "flag": (pa.bool_(), False, False),
        "i8": (pa.int8(), -128, -128),
        "u8": (pa.uint8(), 255, 255),
        "u32": (pa.uint32(), 2**32 - 1, 2**32 - 1),
        "i64": (pa.int64(), -2**63, -2**63),
        "u64": (pa.uint64(), 2**64 - 1, 2**64 - 1),
        "f16": (pa.float16(), 1.5, 1.5),
        "f32": (pa.float32(), 0.25, 0.25),
        "f64": (pa.float64(), 0.1, 0.1),
        "not_a_number": (pa.float64(), float("nan"), None),
        "money": (pa.decimal128(9, 2), decimal.Decimal("-12.50"), "-12.50"),
        "large_money": (pa.decimal128(38, 4), decimal.Decimal("1234567890123456789012345678901234.5678"),
                        "1234567890123456789012345678901234.5678"),
        "day": (pa.date32(), DAY, "2024-02-29"),
        "clock": (pa.time64("us"), MOMENT.time(), "12:30:05.250"),
        "local": (pa.timestamp("ms"), MOMENT, "2024-02-29T12:30:05.250"),
        "utc": (pa.timestamp("us", tz="UTC"), MOMENT.replace(tzinfo=UTC), "2024-02-29T12:30:05.250Z"),
        "nanos": (pa.timestamp("ns"), MOMENT, "2024-02-29T12:30:05.250"),
        "bytes": (pa.binary(), "bytes ☃".encode(), "bytes ☃"),
        "fixed": (pa.binary(3), b"abc", "abc"),
        "uuid": (pa.uuid(), uuid.UUID(int=0x0123456789abcdef0123456789abcdef), "01234567-89ab-cdef-0123-456789abcdef"),
        "category": (pa.dictionary(pa.int32(), pa.string()), "cat", "cat"),
        "nothing": (pa.null(), None, None),
    }
    schema = pa.schema([(name, kind) for name, (kind, _, _) in columns.items()])
    arrays = [pa.array([value, None], kind) if not isinstance(kind, pa.DictionaryType)
              else pa.array([value, None]).dictionary_encode() for kind, value, _ in columns.values()]
    rows = [{name: shown for name, (_, _, shown) in columns.items()}, dict.fromkeys(columns)]
    table = pa.Table.from_arrays(arrays, names=schema.names)
    write(directory, "types", table, rows)
    old = pa.table({"moment": pa.array([MOMENT, None], pa.timestamp("us"))})
    write(directory, "int96", old, [{"moment": "2024-02-29T12:30:05.250"}, {"moment": None}],
          use_deprecated_int96_timestamps=True)


def refused(directory: Path) -> None:
    """Bytes that are no text, in the third row of a nested column."""
    rows = [{"image": {"bytes": data, "path": "x"}} for data in (b"text", None, b"\x89PNG")]
    pq.write_table(pa.Table.from_pylist(rows), directory / "bytes.parquet")
    pq.write_table(pa.table({"x": pa.array([1.0, float("inf")])}), directory / "infinite.parquet")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for make in (chats, groups, nested, types, refused):
        make(target)
