//! How two models differ, against `tests/reference/diff.py`.

use std::fs;
use std::path::{Path, PathBuf};

use mergelab_wire::{Compared, DIFFERENCE, DiffJob, DiffSide, Difference, Job};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::support::{Outcome, made_by, refused, run, run_by, save, toy_model};

fn job(a: &Path, b: &Path) -> Job {
    let side = |name: &str, path: &Path| DiffSide { name: name.to_owned(), path: path.to_path_buf() };
    Job::Diff(DiffJob { sides: [side("merges.a", a), side("merges.b", b)] })
}

fn of(outcome: &Outcome) -> Difference {
    serde_json::from_slice(&fs::read(outcome.out.join(DIFFERENCE)).unwrap()).unwrap()
}

fn difference(a: &Path, b: &Path) -> Difference {
    of(&run(job(a, b), 2).ok())
}

fn cases() -> Option<PathBuf> {
    made_by("diff.py", &[include_str!("../reference/diff.py")])
}

/// A model directory with these tensors.
fn model(directory: &Path, tensors: &[(&str, Tensor)]) -> PathBuf {
    fs::create_dir_all(directory).unwrap();
    save(&directory.join("model.safetensors"), tensors);
    directory.to_path_buf()
}

fn ones(rows: i64, factor: f64) -> Tensor {
    Tensor::ones([rows, 4], (Kind::Float, Device::Cpu)) * factor
}

#[test]
fn every_tensor_is_told_as_torch_computes_it_whatever_the_files_order_and_types() {
    let Some(cases) = cases() else { return };
    let found = difference(&cases.join("a"), &cases.join("b"));
    let expected: Value = serde_json::from_slice(&fs::read(cases.join("expected.json")).unwrap()).unwrap();
    assert_eq!(found.tensors.len(), expected.as_object().unwrap().len());
    for tensor in &found.tensors {
        let (name, expected) = (&tensor.name, &expected[&tensor.name]);
        match &tensor.compared {
            Compared::Not => assert_eq!(expected["not"], true, "{name}"),
            Compared::Bytes { differing } => assert_eq!(expected, &json!({ "differing": differing }), "{name}"),
            Compared::Numbers(sums) => {
                let near = |found: Option<f64>, expected: &Value| {
                    let (found, expected) = (found.unwrap(), expected.as_f64().unwrap());
                    assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{name}: {found} and {expected}");
                };
                near(sums.squares[0], &expected["squares"][0]);
                near(sums.squares[1], &expected["squares"][1]);
                near(sums.products, &expected["products"]);
                near(sums.difference, &expected["difference"]);
                let exact = json!([sums.differing, sums.not_finite, sums.largest]);
                let wanted = ["differing", "not_finite", "largest"].map(|key| expected[key].clone());
                assert_eq!(exact, json!(wanted), "{name}");
            }
        }
    }
    let tensor = |name: &str| found.tensors.iter().find(|tensor| tensor.name == name).unwrap();
    let embedding = tensor("model.embed_tokens.weight");
    assert_eq!(embedding.dtypes, ["BF16", "F32"]);
    assert_eq!(tensor("model.layers.1.mlp.up_proj.weight").shapes, [vec![4, 6], vec![6, 4]]);
    let only =
        found.only.each_ref().map(|only| only.iter().map(|lone| (&*lone.name, &*lone.dtype)).collect::<Vec<_>>());
    assert_eq!(only, [vec![("model.only_a", "F32")], vec![("model.only_b", "BF16")]]);
    assert_eq!(found.only[1][0].shape, [3]);
}

#[test]
fn the_sums_are_the_same_on_any_number_of_threads_and_a_model_does_not_differ_from_itself() {
    let Some(cases) = cases() else { return };
    let (a, b) = (cases.join("a"), cases.join("b"));
    let file = |threads| fs::read(run(job(&a, &b), threads).ok().out.join(DIFFERENCE)).unwrap();
    assert_eq!(file(1), file(3));
    for model in [&a, &b] {
        for tensor in difference(model, model).tensors {
            let differing = match tensor.compared {
                Compared::Numbers(sums) => {
                    assert_eq!((sums.difference, sums.largest), (Some(0.0), None), "{}", tensor.name);
                    sums.differing
                }
                Compared::Bytes { differing } => differing,
                Compared::Not => panic!("{} is not compared with itself", tensor.name),
            };
            assert_eq!(differing, 0, "{}", tensor.name);
        }
    }
}

#[test]
fn a_head_that_is_the_embedding_is_no_tensor_of_its_own() {
    let home = tempfile::tempdir().unwrap();
    let (embedding, head) = ("model.embed_tokens.weight", "lm_head.weight");
    let at = |name: &str| home.path().join(name);
    let bare = model(&at("bare"), &[(embedding, ones(6, 1.0))]);
    let saved = model(&at("saved"), &[(embedding, ones(6, 1.0)), (head, ones(6, 1.0))]);
    let own = model(&at("own"), &[(embedding, ones(6, 1.0)), (head, ones(6, 2.0))]);
    let names = |difference: &Difference| {
        let names = difference.tensors.iter().map(|tensor| tensor.name.clone()).collect::<Vec<_>>();
        (names, difference.only.each_ref().map(Vec::len), difference.tied)
    };
    // Saved beside the embedding with its numbers, it is the embedding; a configuration may say so too.
    assert_eq!(names(&difference(&bare, &saved)), (vec![embedding.to_owned()], [0, 0], [false, true]));
    assert_eq!(names(&difference(&bare, &own)), (vec![embedding.to_owned()], [0, 1], [false, false]));
    fs::write(bare.join("config.json"), r#"{"tie_word_embeddings": true}"#).unwrap();
    let outcome = run(job(&bare, &own), 1).ok();
    assert_eq!(names(&of(&outcome)), (vec![embedding.to_owned()], [0, 1], [true, false]));
    assert_eq!(outcome.notes(), ["the head of merges.a is its embedding, that of merges.b is not"]);
    // Where both save one it is compared, and a configuration that ties it counts before what is saved.
    assert_eq!(difference(&saved, &own).tensors.len(), 2);
    fs::write(own.join("config.json"), r#"{"tie_word_embeddings": true}"#).unwrap();
    assert_eq!(names(&difference(&bare, &own)), (vec![embedding.to_owned()], [0, 0], [true, true]));
}

#[test]
fn what_is_no_model_or_cut_short_is_named_with_the_way_out() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let whole = toy_model(&at("whole"), 1, 8, 6, 10);
    let short = toy_model(&at("short"), 2, 8, 6, 10);
    let file = short.join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 5]).unwrap();
    fs::create_dir(at("empty")).unwrap();
    let file = file.to_str().unwrap();
    refused(&run(job(&whole, &short), 1), &[file, "truncated or has a tail", "hint: the file is truncated or damaged"]);
    refused(&run(job(&at("empty"), &whole), 1), &["empty has neither model.safetensors", "the directory of a model?"]);
    fs::write(at("empty").join("model.safetensors.index.json"), r#"{"weight_map": {"a": "gone.safetensors"}}"#)
        .unwrap();
    refused(&run(job(&at("empty"), &whole), 1), &["shard gone.safetensors is missing"]);
}

#[test]
fn memory_does_not_grow_with_the_models() {
    let home = tempfile::tempdir().unwrap();
    let large = |name: &str, factor: f64| {
        let tensor = Tensor::ones([24, 1 << 20], (Kind::Float, Device::Cpu)) * factor;
        model(&home.path().join(name), &[("model.layers.0.mlp.up_proj.weight", tensor)])
    };
    let small = |name: &str| model(&home.path().join(name), &[("model.layers.0.mlp.up_proj.weight", ones(6, 1.0))]);
    let peak = |a: &Path, b: &Path| {
        let outcome = run_by(std::process::Command::new(crate::support::PROGRAM), job(a, b), 2, "cpu", None).ok();
        outcome.facts()["peak_memory"].as_u64().unwrap()
    };
    let (a, b, one, two) = (large("a", 1.0), large("b", 2.0), small("one"), small("two"));
    let (least, most) = (peak(&one, &two), peak(&a, &b));
    // The two files have 96 MiB each.
    assert!(most < least + (48 << 20), "{most} bytes, and {least} for models of a few");
}
