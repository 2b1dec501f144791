"""Repositories of data sets, and which files `datasets` reads of each, in order: `python layouts.py > layouts.json`.

Of every repository only names count here, so its files are made of as little as their endings ask for. `chosen` is null
where `datasets` refuses.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.load import load_dataset_builder

datasets.logging.set_verbosity(datasets.logging.CRITICAL)


def header(text):
    return f"---\n{text}---\n# Title\n"


SHARDS = [f"data/{split}-{at:05}-of-00003.parquet" for split in ("train", "test") for at in range(3)]
DIRECTORIES = ["train/b.csv", "train/a.csv", "test/c.csv", "README.md"]
MIXED = ["a.json", "b.json", "c.csv", "LICENSE", ".gitattributes"]
TWO = header("""configs:
- config_name: main
  data_files:
  - split: train
    path: main/train-*
  - split: test
    path: [main/test-b*, main/test-a*]
- config_name: other
  data_files: other/*.parquet
""")
TWO_FILES = ["main/train-1.parquet", "main/train-0.parquet", "main/test-a.parquet", "main/test-b.parquet",
             "other/x.parquet", "other/sub/y.parquet"]

# Files, README, and the (config, split) pairs that are asked for.
LAYOUTS = [
    (SHARDS, None, [(None, "train"), (None, "test"), (None, "validation"), ("default", "train"), ("main", "train")]),
    (["data/b-00000-of-00001-0123.parquet", "data/train-00000-of-00001.parquet", "test.parquet"], None,
     [(None, "b"), (None, "train"), (None, "test")]),
    (DIRECTORIES, None, [(None, "train"), (None, "test")]),
    (["x/train/a.jsonl", "x/train_2/b.jsonl", "my-train/c.jsonl", "x/dev/d.jsonl", "valid/e.jsonl", "eval.jsonl"], None,
     [(None, "train"), (None, "validation"), (None, "test")]),
    (["train.csv", "dev.csv", "test.csv", "trainable.csv"], None,
     [(None, "train"), (None, "validation"), (None, "test")]),
    (["train.csv", "val.csv", "valid_1.csv", "validation 2.csv", "x.evaluation.csv"], None,
     [(None, "train"), (None, "validation"), (None, "test")]),
    (["a.train.train.jsonl", "train-10.jsonl", "train-9.jsonl"], None, [(None, "train")]),
    (["b.jsonl", "A.jsonl", "a.jsonl", "z/c.jsonl"], None, [(None, "train"), (None, "test")]),
    (["b.jsonl.gz", "a.json.gz"], None, [(None, "train")]),
    (MIXED, None, [(None, "train")]),
    (["a.json", "c.csv"], None, [(None, "train")]),
    (["a.parquet", "b.jsonl", "config.json", "dataset_infos.json"], None, [(None, "train")]),
    ([".hidden/a.csv", "__special/b.csv", "c.csv"], None, [(None, "train")]),
    (["test-results/x.csv", "y.csv"], None, [(None, "test"), (None, "train")]),
    (["en/train.jsonl", "fr/train.jsonl"], None, [(None, "train")]),
    (TWO_FILES, TWO, [(None, "train"), ("main", "train"), ("main", "test"), ("other", "train"), ("other", "test")]),
    (["a.jsonl", "b.jsonl"], header("configs:\n- config_name: x\n  data_files: a.jsonl\n"),
     [(None, "train"), ("x", "train"), ("default", "train")]),
    (["a.jsonl", "b.jsonl"],
     header("configs:\n- {config_name: x, data_files: a.jsonl}\n- {config_name: y, data_files: b.jsonl, default: true}\n"),
     [(None, "train"), ("x", "train")]),
    (["a.jsonl", "b.jsonl"],
     header("configs:\n- {config_name: default, data_files: a.jsonl}\n- {config_name: y, data_files: b.jsonl}\n"),
     [(None, "train"), ("y", "train")]),
    (["en/train.jsonl", "en/test.jsonl", "fr/data/train-00000-of-00001.jsonl"],
     header("configs:\n- {config_name: en, data_dir: en}\n- {config_name: fr, data_dir: fr}\n"),
     [("en", "train"), ("en", "test"), ("fr", "train"), (None, "train")]),
    (["en/a.jsonl", "en/b.jsonl", "b.jsonl"],
     header("configs:\n- {config_name: en, data_dir: en, data_files: [{split: s, path: b.*}]}\n"),
     [("en", "s"), ("en", "train")]),
    (["d/a.jsonl", "d/e/b.jsonl", "c.jsonl"],
     header("configs:\n- config_name: x\n  data_files:\n  - {split: all, path: '**'}\n  - {split: deep, path: '**/*.jsonl'}\n"
            "  - {split: d, path: 'd/**'}\n  - {split: one, path: 'd/*'}\n  - {split: class, path: 'd/[!x].jsonl'}\n"),
     [("x", "all"), ("x", "deep"), ("x", "d"), ("x", "one"), ("x", "class")]),
    (["b.jsonl", "a.jsonl"],
     header("configs:\n- {config_name: x, data_files: [b.jsonl, a.jsonl, '*.jsonl']}\n"), [("x", "train")]),
    (["a.jsonl", "b.jsonl"],
     header("configs:\n- {config_name: x, data_files: [{split: train, path: a.jsonl}, {split: test, path: gone.jsonl}]}\n"),
     [("x", "test")]),
    (["a.jsonl"],
     header("configs:\n- {config_name: x, data_files: a.jsonl, default: true}\n- {config_name: default, data_files: a.jsonl}\n"),
     [(None, "train")]),
    (["README.md"], None, [(None, "train")]),
    (["x.parquet", "sums.py"], None, [(None, "train")]),
]


def make(root, path):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    if path.endswith(".parquet"):
        pq.write_table(pa.table({"a": [1]}), file)
    else:
        text = "{}" if file.name == "dataset_infos.json" else '{"a": 1}\n'
        file.write_text("a\n1\n" if path.endswith(".csv") else text)


def chosen(root, config, split):
    try:
        builder = load_dataset_builder(str(root), config)
        files = builder.config.data_files[split]
    except Exception as error:
        print(f"  {config} {split}: {type(error).__name__}: {str(error).splitlines()[0][:100]}", file=sys.stderr)
        return None
    return {"config": builder.config.name, "files": [str(Path(file).relative_to(root.resolve())) for file in files]}


def main():
    said = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HF_DATASETS_CACHE"] = scratch
        for at, (files, readme, asked) in enumerate(LAYOUTS):
            root = Path(scratch) / str(at) / "sums"
            for path in files:
                make(root, path)
            if readme is not None:
                (root / "README.md").write_text(readme)
                files = [*files, "README.md"]
            for config, split in asked:
                said.append({"files": sorted(files), "readme": readme, "config": config, "split": split,
                             "chosen": chosen(root, config, split)})
    print("[\n" + ",\n".join(json.dumps(layout) for layout in said) + "\n]")


main()
