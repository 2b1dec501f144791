//! What a mergekit configuration says counts, and not how it is written.

use std::io;

use super::*;
use crate::experiment::{Files, parse_with};

struct Config<'a>(&'a str);

impl Files for Config<'_> {
    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Ok(self.0.as_bytes().to_vec())
    }

    fn is_directory(&self, _: &Path) -> bool {
        true
    }
}

const CONFIG: &str = "\
merge_method: ties
models:
  - model: models/a
    parameters: { weight: 1.0, density: 0.5 }
base_model: models/b
parameters: { normalize: true, lambda: 0.5 }
";

fn key(config: &str) -> Key {
    let text = "name: x\nmerges: { m: { method: mergekit, config: m.yml } }\n";
    let loaded = parse_with(Path::new("x.yaml"), text, &Config(config)).unwrap_or_else(|errors| panic!("{errors}"));
    World::default().keys_of(loaded.experiment)["merges.m"].key()
}

#[test]
fn comments_and_the_order_of_keys_rerun_nothing() {
    let written_anew = "\
# From a model card.
parameters: { lambda: 0.5, normalize: yes, int8_mask: true }
base_model: ./models/b
models:
  - model: models/b
  - { parameters: { density: 0.5, weight: 1 }, model: models/a }
merge_method: \"ties\"
";
    assert_eq!(key(written_anew), key(CONFIG));
}

#[test]
fn the_same_merge_in_this_language_has_the_same_key() {
    let native = "name: y
models: { one: { path: models/a }, two: { path: models/b } }
merges:
  m:
    method: ties
    models: [{ model: one, density: 0.5 }]
    base: two
    tokenizer: { source: base, rows: ids }
    normalize: true
    lambda: 0.5
";
    assert_eq!(World::default().keys(native)["merges.m"].key(), key(CONFIG));
}

#[test]
fn what_it_says_reruns_the_merge() {
    for (from, to) in [
        ("weight: 1.0", "weight: 2"),
        ("density: 0.5", "density: 0.25"),
        ("lambda: 0.5", "lambda: 1"),
        ("ties", "dare_ties"),
        ("models/a", "models/c"),
        ("base_model: models/b", "base_model: models/c"),
        ("normalize: true", "normalize: false"),
        ("lambda: 0.5 }", "lambda: 0.5 }\ndtype: float32"),
    ] {
        assert_ne!(key(&CONFIG.replace(from, to)), key(CONFIG), "{from} becomes {to}");
    }
}

#[test]
fn slices_in_this_language_have_the_key_of_mergekits() {
    let config = "merge_method: ties
base_model: models/base
slices:
  - sources: [{ model: models/a, layer_range: [0, 2] }, { model: models/base, layer_range: [1, 3] }]
    parameters: { density: 0.5 }
  - sources: [{ model: models/base, layer_range: [0, 1] }, { model: models/b, layer_range: [3, 4] }]
parameters: { weight: 2 }
";
    let native = "name: y
models: { one: { path: models/a }, two: { path: models/b }, three: { path: models/base } }
merges:
  m:
    method: ties
    base: three
    tokenizer: { source: base, rows: ids }
    slices:
      - { models: [{ model: one, layers: [0, 2], weight: 2 }, { model: three, layers: [1, 3] }], density: 0.5 }
      - { models: [{ model: two, layers: [3, 4], weight: 2 }, { model: three, layers: [0, 1] }] }
";
    let loaded = parse_with(Path::new("y.yaml"), native, &Config("")).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(World::default().keys_of(loaded.experiment)["merges.m"].key(), key(config));
}

#[test]
fn layers_that_a_slice_takes_are_a_part_of_the_key() {
    let slices = |layers: u64| {
        key(&format!(
            "merge_method: passthrough\nslices: [{{ sources: [{{ model: models/a, layer_range: [0, {layers}] }}] }}]\n"
        ))
    };
    assert_ne!(slices(2), slices(3));
    let whole = "merge_method: passthrough\nmodels: [{ model: models/a }]\n";
    assert_ne!(key(whole), slices(3), "nobody knows that these are all of its layers");
}

#[test]
fn a_base_that_is_one_more_model_gives_the_tokenizer_under_its_name() {
    let linear = |base: &str| {
        key(&format!(
            "merge_method: linear\nmodels: [{{ model: models/a, parameters: {{ weight: 1 }} }}, {{ model: {base}, parameters: {{ weight: 2 }} }}]\n\
             base_model: {base}\n"
        ))
    };
    // An entry that is called `base` is a model here, and no base.
    assert_ne!(linear("models/base"), linear("models/b"));
}

#[test]
fn what_mergekit_takes_and_makes_nothing_of_changes_nothing() {
    let config = |more: &str| {
        format!(
            "merge_method: task_arithmetic\nmodels: [{{ model: models/a }}]\nbase_model: models/b\nparameters: {{ weight: 1{more} }}\n"
        )
    };
    assert_eq!(key(&config(", rescale: true, density: 0.3")), key(&config("")));
}
