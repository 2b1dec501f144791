//! Checkpoints that `torch.save` wrote, by torch itself.

use std::fs;
use std::path::Path;
use std::process::Command;

use mergelab_tensor::checkpoint::Checkpoint;
use mergelab_wire::Job;
use tch::Kind;

use crate::support::{merge_job, python, run, source};

/// Runs lines of Python in a directory, after `import torch`.
fn torch(python: &Path, directory: &Path, lines: &str) {
    let program = format!("import json, torch\n{lines}");
    let output = Command::new(python).args(["-c", &program]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_torch_saved_is_read_as_torch_reads_it_and_nothing_is_run() {
    let Some(python) = python() else {
        println!("skipped: no Python with transformers (MERGELAB_PYTHON, VIRTUAL_ENV, .venv)");
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    torch(
        &python,
        home.path(),
        r#"
import os
from safetensors.torch import save_file
torch.manual_seed(0)
table = torch.randn(9, 4)
state = torch.nn.Module().state_dict()
state["model.embed_tokens.weight"] = torch.nn.Parameter(table)
state["model.transposed.weight"] = torch.randn(5, 3).t()
state["model.part.weight"] = torch.randn(6, 8)[1:4, 2:7]
state["model.half.weight"] = torch.randn(4, 4).to(torch.bfloat16)
state["model.count"] = torch.arange(3)
state["lm_head.weight"] = table
for folder in ["whole", "shards", "safe", "old", "hostile", "nested"]:
    os.mkdir(folder)
    with open(folder + "/config.json", "w") as file:
        json.dump({"model_type": "llama", "vocab_size": 9}, file)
torch.save(state, "whole/pytorch_model.bin")
names = list(state)
parts = {"pytorch_model-00001-of-00002.bin": names[:3], "pytorch_model-00002-of-00002.bin": names[3:]}
for part, held in parts.items():
    torch.save({name: state[name] for name in held}, "shards/" + part)
with open("shards/pytorch_model.bin.index.json", "w") as file:
    json.dump({"metadata": {}, "weight_map": {name: part for part, held in parts.items() for name in held}}, file)
save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, "safe/model.safetensors")
torch.save(state, "old/pytorch_model.bin", _use_new_zipfile_serialization=False)
class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)
torch.save({"model.embed_tokens.weight": Evil()}, "hostile/pytorch_model.bin")
torch.save({"state_dict": dict(state)}, "nested/pytorch_model.bin")
"#,
    );
    let expected = Checkpoint::open(&at("safe")).unwrap();
    for folder in ["whole", "shards", "old"] {
        let found = Checkpoint::open(&at(folder)).unwrap();
        assert_eq!(found.names().count(), 6);
        for name in expected.names() {
            let (found, expected) = (found.load(name).unwrap(), expected.load(name).unwrap());
            assert_eq!((found.kind(), found.size()), (expected.kind(), expected.size()), "{folder}: {name}");
            assert_eq!(found, expected, "{folder}: {name}");
        }
    }
    // The mean of one model in three forms is that model.
    let models = ["whole", "shards", "safe"].map(|name| source(name, &at(name), None)).to_vec();
    let merged = run(Job::Merge(merge_job("average", models)), 2).ok();
    let merged = Checkpoint::open(&merged.out).unwrap();
    for name in expected.names() {
        let gap = merged.load(name).unwrap().to_kind(Kind::Double) - expected.load(name).unwrap().to_kind(Kind::Double);
        assert!(gap.abs().max().double_value(&[]) < 1e-12, "{name}");
    }
    for (folder, said) in [
        ("hostile", "it asks for posix.system, which no dictionary of tensors needs"),
        ("nested", "\"state_dict\" in it is no tensor"),
    ] {
        let outcome = run(Job::Merge(merge_job("average", vec![source("x", &at(folder), None)])), 1);
        assert_eq!(outcome.code, 3);
        assert!(outcome.stderr.contains(said) && outcome.stderr.contains("pytorch_model.bin"), "{}", outcome.stderr);
        assert!(
            outcome.stderr.contains("hint: only dictionaries from names to tensors are read"),
            "{}",
            outcome.stderr
        );
    }
    assert!(!at("ran").exists() && !fs::exists("ran").unwrap());
}

#[test]
fn a_model_that_is_there_in_both_forms_is_read_as_safetensors() {
    let home = tempfile::tempdir().unwrap();
    let part = "model-00001-of-00001.safetensors";
    let header = r#"{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[7]].concat();
    fs::write(home.path().join(part), bytes).unwrap();
    let index = format!(r#"{{"weight_map":{{"w":"{part}"}}}}"#);
    fs::write(home.path().join("model.safetensors.index.json"), index).unwrap();
    fs::write(home.path().join("pytorch_model.bin"), "not even a pickle").unwrap();
    let checkpoint = Checkpoint::open(home.path()).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["w"]);
}
