//! A capture needs the memory of a layer, not of the model.

use std::fs;
use std::path::Path;
use std::process::Command;

use mergelab_tensor::checkpoint::{NewTensor, Writer};
use mergelab_tensor::gram::GramSet;
use mergelab_wire::{GramJob, Job, Rows};
use safetensors::Dtype;
use tch::{Device, Kind, Tensor};

use crate::support::{PROGRAM, gram_job, references, run_by};

const HIDDEN: usize = 512;
const MLP: usize = 4096;
const LAYERS: usize = 48;

/// A Llama in bfloat16, tokenizer and all.
fn model(directory: &Path, tokenizer: &Path) -> u64 {
    fs::create_dir_all(directory).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(tokenizer.join(file), directory.join(file)).unwrap();
    }
    let config: serde_json::Value = serde_json::from_slice(&fs::read(tokenizer.join("config.json")).unwrap()).unwrap();
    let vocab = config["vocab_size"].as_u64().unwrap() as usize;
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": MLP, "num_hidden_layers": LAYERS,
        "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": vocab, "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
    });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocab, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..LAYERS {
        let name = |module: &str| format!("model.layers.{layer}.{module}.weight");
        shapes.extend(["input_layernorm", "post_attention_layernorm"].map(|norm| (name(norm), vec![HIDDEN])));
        let attention =
            ["q", "k", "v", "o"].map(|part| (name(&format!("self_attn.{part}_proj")), vec![HIDDEN, HIDDEN]));
        shapes.extend(attention);
        shapes.extend(["gate", "up"].map(|part| (name(&format!("mlp.{part}_proj")), vec![MLP, HIDDEN])));
        shapes.push((name("mlp.down_proj"), vec![HIDDEN, MLP]));
    }
    let plan =
        shapes.iter().map(|(name, shape)| NewTensor { name: name.clone(), dtype: Dtype::BF16, shape: shape.clone() });
    let writer = Writer::model(directory, plan.collect(), usize::MAX).unwrap();
    let numbers = Tensor::randn([(HIDDEN * MLP) as i64], (Kind::Float, Device::Cpu)) * 0.02;
    for (name, shape) in shapes {
        let count = shape.iter().product::<usize>() as i64;
        writer.write(&name, 0, &numbers.narrow(0, 0, count)).unwrap();
    }
    writer.finish() as u64
}

#[test]
fn a_model_is_captured_under_a_limit_of_half_its_size() {
    let Some(references) = references() else { return };
    let home = tempfile::tempdir().unwrap();
    let bytes = model(&home.path().join("model"), &references.join("llama/model"));
    let data = home.path().join("rows.jsonl");
    fs::write(&data, "{\"t\": \"one and two\"}\n{\"t\": \"three\"}\n").unwrap();
    // All but one Gram a layer are left out, for the sake of the disk.
    let job = GramJob {
        rows: Rows::Text("{{ t }}".to_owned()),
        exclude: vec!["*.mlp.*".to_owned(), "*.o_proj".to_owned()],
        ..gram_job(&home.path().join("model"), &data)
    };
    // RLIMIT_DATA: everything that is not a file's own pages. A program that holds the model cannot run under it.
    let limited = |limit: u64| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -d {} && exec \"$0\" \"$1\"", limit / 1024), PROGRAM]);
        run_by(command, Job::Gram(job.clone()), 2, "cpu", None)
    };
    let outcome = limited(bytes / 2).ok();
    assert_eq!(GramSet::open(&outcome.out).unwrap().modules().count(), 3 * LAYERS);
    // The limit is one: not even a layer goes into a twentieth.
    assert_ne!(limited(bytes / 20).code, 0);
}
