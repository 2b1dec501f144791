//! Merges of slices: layers that are stacked, cut and merged across depths.

use std::fs;
use std::path::{Path, PathBuf};

use mergelab_tensor::checkpoint::Checkpoint;
use mergelab_wire::{Job, MergeJob, MergeSlice, MergeSource, NamedWeight, SliceSource, Weight};
use serde_json::{Value, json};
use tch::{Kind, Tensor};
use tempfile::TempDir;

use crate::depth::model;
use crate::support::{Outcome, merge_job, refused, run, source};

const LAYER: &str = "self_attn.q_proj.weight";

/// Models `a`, `b` and `base` of three layers, each with a list of what its layers are.
fn models() -> (TempDir, [PathBuf; 3]) {
    tch::manual_seed(3);
    let home = tempfile::tempdir().unwrap();
    let models = ["a", "b", "base"].map(|name| {
        let path = model(&home.path().join(name));
        let types: Vec<String> = (0..3).map(|layer| format!("{name}{layer}")).collect();
        write_config(&path, &json!({ "layer_types": types }));
        path
    });
    (home, models)
}

fn write_config(model: &Path, more: &Value) {
    let mut config = json!({ "model_type": "llama", "vocab_size": 10, "num_hidden_layers": 3, "mlp_only_layers": [1] });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    fs::write(model.join("config.json"), config.to_string()).unwrap();
}

fn from(name: &str, first: usize) -> SliceSource {
    SliceSource { name: name.to_owned(), first, weight: 1.0.into(), params: serde_json::from_str("{}").unwrap() }
}

fn slice(layers: usize, models: &[SliceSource]) -> MergeSlice {
    MergeSlice { layers, models: models.to_vec(), base: None, params: serde_json::from_str("{}").unwrap() }
}

fn job(method: &str, [a, b, base]: &[PathBuf; 3], slices: Vec<MergeSlice>) -> MergeJob {
    let sources: Vec<MergeSource> = vec![source("a", a, None), source("b", b, None)];
    let base = Some(source("base", base, None)).filter(|_| method != "average" && method != "passthrough");
    MergeJob { base, slices, ..merge_job(method, sources) }
}

fn tensor(model: &Path, name: &str) -> Tensor {
    Checkpoint::open(model).unwrap().load(name).unwrap()
}

fn layer(model: &Path, number: usize) -> Tensor {
    tensor(model, &format!("model.layers.{number}.{LAYER}"))
}

fn config(outcome: &Outcome) -> Value {
    serde_json::from_slice(&fs::read(outcome.out.join("config.json")).unwrap()).unwrap()
}

fn assert_near(found: &Tensor, expected: &Tensor, what: &str) {
    let apart = (found.to_kind(Kind::Double) - expected).abs().max().double_value(&[]);
    assert!(apart < 1e-6, "{what}: {apart}");
}

#[test]
fn layers_are_stacked_and_cut_with_what_is_before_them_and_behind_them() {
    let (_home, models) = models();
    let slices = vec![slice(2, &[from("a", 0)]), slice(2, &[from("b", 1)]), slice(1, &[from("b", 1)])];
    let outcome = run(Job::Merge(job("passthrough", &models, slices)), 2).ok();
    let [a, b, _] = &models;
    for (number, (model, own)) in [(a, 0), (a, 1), (b, 1), (b, 2), (b, 1)].into_iter().enumerate() {
        assert_eq!(layer(&outcome.out, number), layer(model, own), "{number}");
    }
    let of = |name: &str| tensor(&outcome.out, name);
    assert_eq!(of("model.embed_tokens.weight"), tensor(a, "model.embed_tokens.weight"));
    assert_eq!(of("model.norm.weight"), tensor(b, "model.norm.weight"));
    assert_eq!(of("lm_head.weight"), tensor(b, "lm_head.weight"));
    let names = Checkpoint::open(&outcome.out).unwrap().names().count();
    assert_eq!(names, 5 * 4 + 3);
    let config = config(&outcome);
    assert_eq!(config["num_hidden_layers"], 5);
    assert_eq!(config["layer_types"], json!(["a0", "a1", "b1", "b2", "b1"]));
    assert_eq!(config["mlp_only_layers"], json!([1, 2, 4]));
    let merge: Value = serde_json::from_slice(&fs::read(outcome.out.join("merge.json")).unwrap()).unwrap();
    assert_eq!((&merge["slices"][1]["models"][0]["first"], &merge["tensors"]), (&json!(1), &json!(23)));
}

#[test]
fn lists_run_over_a_slice_and_filters_of_a_model_see_its_own_names() {
    let (_home, models) = models();
    let rising = SliceSource { weight: Weight::Gradient(vec![1.0, 3.0]), ..from("b", 1) };
    let named = |filter: Option<&str>, value: f64| NamedWeight { filter: filter.map(Into::into), value: vec![value] };
    // In `b` it is layer 0, in the result layer 2.
    let by_name = Weight::ByName(vec![named(Some("layers.0."), 7.0), named(Some("layers.2."), 9.0), named(None, 1.0)]);
    let slices = vec![
        slice(2, &[from("a", 0), rising]),
        slice(1, &[from("a", 2), SliceSource { weight: by_name, ..from("b", 0) }]),
    ];
    let outcome = run(Job::Merge(job("average", &models, slices)), 2).ok();
    let [a, b, _] = &models;
    let mean = |name: &str, weight: f64| {
        let of = |model: &Path| tensor(model, name).to_kind(Kind::Double);
        (of(a) + of(b) * weight) / (1.0 + weight)
    };
    for (number, (of_a, of_b, weight)) in [(0, 1, 1.0), (1, 2, 3.0), (2, 0, 7.0)].into_iter().enumerate() {
        let of = |model: &Path, number| layer(model, number).to_kind(Kind::Double);
        let expected = (of(a, of_a) + of(b, of_b) * weight) / (1.0 + weight);
        assert_near(&layer(&outcome.out, number), &expected, &number.to_string());
    }
    // What is in no layer: the first value of the first slice, and what the last says of all others.
    let of = |name: &str| tensor(&outcome.out, name);
    assert_near(&of("model.embed_tokens.weight"), &mean("model.embed_tokens.weight", 1.0), "embeddings");
    assert_near(&of("lm_head.weight"), &mean("lm_head.weight", 1.0), "head");
}

#[test]
fn a_base_and_parameters_are_those_of_a_slice() {
    let (_home, models) = models();
    let of_base = |slice: MergeSlice, first: usize, lambda: f64| MergeSlice {
        base: Some(from("base", first)),
        params: [("lambda".to_owned(), json!(lambda))].into_iter().collect(),
        ..slice
    };
    let slices =
        vec![of_base(slice(1, &[from("a", 2), from("b", 0)]), 1, 0.5), of_base(slice(2, &[from("b", 1)]), 0, 2.0)];
    let outcome = run(Job::Merge(job("task_arithmetic", &models, slices)), 1).ok();
    let [a, b, base] = &models;
    let of = |model: &Path, number| layer(model, number).to_kind(Kind::Double);
    let first = of(base, 1) + (of(a, 2) - of(base, 1) + of(b, 0) - of(base, 1)) * 0.5;
    assert_near(&layer(&outcome.out, 0), &first, "the first slice");
    assert_near(&layer(&outcome.out, 2), &(of(base, 1) + (of(b, 2) - of(base, 1)) * 2.0), "the second slice");
    assert_eq!(config(&outcome)["layer_types"], json!(["base1", "base0", "base1"]));
}

#[test]
fn slices_that_cannot_be_are_refused() {
    let (_home, models) = models();
    let says = |job: MergeJob, parts: &[&str]| refused(&run(Job::Merge(job), 1), parts);
    let stack = |slices| job("passthrough", &models, slices);
    says(stack(vec![slice(2, &[from("b", 2)])]), &["a slice takes layers 2 to 4 of b, which has 3", "counted from 0"]);
    says(stack(vec![slice(1, &[from("c", 0)])]), &["c is in a slice, and is no model of the merge"]);
    says(stack(vec![slice(0, &[from("a", 0)])]), &["slice 1 has no layers or no models"]);
    let grams = MergeJob { rules: Vec::new(), ..stack(vec![slice(1, &[from("a", 0)])]) };
    let with_grams = grams.models.iter().cloned().map(|model| MergeSource { grams: Some(model.path.clone()), ..model });
    says(MergeJob { models: with_grams.collect(), ..grams.clone() }, &["slices have no rules, Gram matrices"]);
    write_config(&models[1], &json!({ "layer_types": ["b0", "b1"] }));
    let long = slice(3, &[from("b", 0)]);
    says(
        MergeJob { tokenizer: models[0].clone(), ..stack(vec![long.clone()]) },
        &["config.json: its `layer_types` has nothing of layer 2"],
    );
    write_config(&models[0], &json!({ "tie_word_embeddings": true }));
    says(
        stack(vec![slice(1, &[from("a", 0)]), slice(1, &[from("b", 0)])]),
        &["tie_word_embeddings is true, and b, which the last slice is of, has a head of its own"],
    );
    fs::write(models[0].join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
    says(stack(vec![slice(1, &[from("a", 0)])]), &["it does not say how many layers the model has"]);
}

#[test]
fn a_filter_that_matches_in_one_of_the_slices_is_not_noted() {
    let (_home, models) = models();
    let named = |filter: &str| NamedWeight { filter: Some(filter.to_owned()), value: vec![1.0] };
    let weight = Weight::ByName(["layers.2.", "layers.0.", "layers.5."].map(named).to_vec());
    let of = |first: usize| SliceSource { weight: weight.clone(), ..from("a", first) };
    let slices = vec![slice(1, &[of(2)]), slice(1, &[of(0)])];
    let notes = run(Job::Merge(job("average", &models, slices)), 1).ok().notes();
    let of_filters: Vec<&String> = notes.iter().filter(|note| note.starts_with("filter")).collect();
    assert_eq!(of_filters, [r#"filter "layers.5." of weight of a matches no tensor"#]);
}
