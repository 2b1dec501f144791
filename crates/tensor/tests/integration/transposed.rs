//! Layers that a family stores as `[in, out]`: methods that look at rows and columns see the same layers.

use std::fs;
use std::path::{Path, PathBuf};

use mergelab_tensor::checkpoint::Checkpoint;
use mergelab_wire::{Job, MergeJob, MergeSource};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::support::{merge_job, run, save, source};

const LAYER: &str = "transformer.h.0.mlp.c_fc.weight";

fn model(directory: &Path, family: &str, layer: &Tensor) -> PathBuf {
    fs::create_dir_all(directory).unwrap();
    save(&directory.join("model.safetensors"), &[(LAYER, layer.contiguous())]);
    fs::write(directory.join("config.json"), json!({ "model_type": family }).to_string()).unwrap();
    directory.to_path_buf()
}

#[test]
fn a_transposed_layer_is_merged_as_the_same_layer_is() {
    tch::manual_seed(5);
    let layers: Vec<Tensor> = (0..3).map(|_| Tensor::randn([9, 14], (Kind::Float, Device::Cpu)) * 0.1).collect();
    let home = tempfile::tempdir().unwrap();
    let path = |family: &str, turn: fn(&Tensor) -> Tensor, index: usize| {
        model(&home.path().join(format!("{family}{index}")), family, &turn(&layers[index]))
    };
    let stored = [0, 1, 2].map(|index| path("gpt_bigcode", Tensor::shallow_clone, index));
    let turned = [0, 1, 2].map(|index| path("gpt2", Tensor::tr, index));
    for method in ["wudi", "tsv", "iso_c"] {
        let merged = |[base, a, b]: &[PathBuf; 3]| {
            let models: Vec<MergeSource> = vec![source("a", a, None), source("b", b, None)];
            let mut job = MergeJob { base: Some(source("base", base, None)), ..merge_job(method, models) };
            if method == "wudi" {
                job.params.insert("learning_rate".to_owned(), json!(1e-3));
            }
            let outcome = run(Job::Merge(job), 1).ok();
            Checkpoint::open(&outcome.out).unwrap().load(LAYER).unwrap()
        };
        let (stored, turned) = (merged(&stored), merged(&turned).tr());
        let apart = (&stored - &turned).norm().double_value(&[]) / stored.norm().double_value(&[]);
        assert!(apart < 1e-6, "{method}: {apart}");
    }
}
