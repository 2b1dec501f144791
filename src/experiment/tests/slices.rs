//! `slices:` of a merge.

use std::io;
use std::path::Path;

use mergelab_wire::Weight;
use serde_json::json;

use super::{BASE, errors, valid};
use crate::experiment::{Files, parse_with};

fn merge(keys: &str, slices: &str) -> String {
    format!("merges: {{ m: {{ {keys}, slices: [{slices}] }} }}")
}

fn one(keys: &str, slices: &str) -> String {
    let found = errors(&merge(keys, slices));
    assert_eq!(found.len(), 1, "{found:#?}");
    found.into_iter().next().expect("one")
}

const A: &str = "{ models: [{ model: a, layers: [0, 2] }] }";

#[test]
fn slices_name_the_models_of_a_merge() {
    let slices =
        "{ models: [{ model: base, layers: [0, 2] }, { model: b, layers: [1, 3], weight: [0, 1], density: 0.5 }] },
                  { models: [{ model: a, layers: [4, 5] }, { model: base, layers: [0, 1] }], lambda: 0.5 }";
    let merge = valid(&merge("method: ties, base: base, lambda: 2", slices)).merges["m"].clone();
    assert_eq!(merge.models.iter().map(|model| model.model.as_str()).collect::<Vec<_>>(), ["b", "a"]);
    let [first, second] = merge.slices.as_slice() else { panic!("{:?}", merge.slices) };
    assert_eq!((first.layers, second.layers), (2, 1));
    let source = &first.models[0];
    assert_eq!((source.name.as_str(), source.first, &source.weight), ("b", 1, &Weight::Gradient(vec![0.0, 1.0])));
    assert_eq!(json!(source.params), json!({ "density": 0.5 }));
    assert_eq!((json!(first.params), json!(second.params)), (json!({ "lambda": 2.0 }), json!({ "lambda": 0.5 })));
    let bases: Vec<_> = merge.slices.iter().flat_map(|slice| &slice.base).map(|base| base.first).collect();
    assert_eq!((bases, merge.models[0].weight.clone()), (vec![0, 0], 1.0.into()));
}

#[test]
fn a_slice_that_draws_has_the_seed_of_the_experiment() {
    let slices = "{ models: [{ model: base, layers: [0, 2] }, { model: a, layers: [0, 2] }] }";
    let text = format!("{}\nsettings: {{ seed: 7 }}\n", merge("method: dare_ties, base: base", slices));
    assert_eq!(valid(&text).merges["m"].slices[0].params["seed"], 7);
}

#[test]
fn slices_that_cannot_be_are_refused() {
    let passthrough = "method: passthrough";
    for (keys, slices, says) in [
        (passthrough, "{ models: [{ model: a, layers: [2, 2] }] }", "layers 2 to 2 are none"),
        (passthrough, "{ models: [{ model: a, layers: [2] }] }", "layers are the first of them and one past the last"),
        (passthrough, "{ models: [{ model: a }] }", "a model of a slice needs `layers`"),
        (passthrough, "{ models: [] }", "`models` is an empty list"),
        (passthrough, "{ models: [{ model: a, layers: [0, 2] }], scal: 2 }", "a slice has no key `scal`"),
        (passthrough, "{ models: [{ model: a, layers: [0, 2] }], t: 2 }", "a slice has no key `t`"),
        ("method: regmean, grams: [ga]", A, "`regmean` merges no slices"),
        (
            "method: passthrough, models: [a]",
            A,
            "`models` has no meaning beside `slices`, which name the models of each",
        ),
        (
            "method: passthrough, rules: []",
            A,
            "`rules` has no meaning for slices, which are merged by what models are and nothing else",
        ),
        (
            "method: passthrough, base: base",
            A,
            "`base` has no meaning for slices of `passthrough`, whose models are all alike",
        ),
        ("method: ties", A, "`ties` needs a `base` model"),
        ("method: ties, base: base", A, "this slice has no layers of `base`, the base"),
        (
            "method: slerp, base: base",
            "{ models: [{ model: a, layers: [0, 2] }, { model: base, layers: [0, 2] }] }",
            "`slerp` needs the parameter `t`",
        ),
        (
            "method: average",
            "{ models: [{ model: a, layers: [0, 2] }, { model: b, layers: [0, 3] }] }",
            "3 layers of `b` in a slice of 2",
        ),
        (
            "method: average",
            "{ models: [{ model: a, layers: [0, 2] }, { model: a, layers: [2, 4] }] }",
            "`a` is in this slice twice",
        ),
        (
            "method: average",
            "{ models: [{ model: a, layers: [0, 2], weight: -1 }, { model: b, layers: [0, 2] }] }",
            "the weights add up to 0",
        ),
        (
            "method: ties, base: base",
            "{ models: [{ model: a, layers: [0, 2] }, { model: base, layers: [0, 2], weight: 2 }] }",
            "`base` is the base of this slice: it has no weight and no parameters",
        ),
    ] {
        let found = errors(&merge(keys, slices));
        assert!(found.iter().any(|message| message == says), "{says:?} is not in {found:#?}");
    }
    let slerp = "{ models: [{ model: a, layers: [0, 2] }, { model: base, layers: [0, 2] }] }";
    assert_eq!(one("method: slerp, base: base, t: 7", slerp), "`t` must be from 0 to 1, not 7");
    let found = errors(&merge("method: passthrough, tokenizer: b", "{ models: [{ model: a, layers: [2, 2] }] }"));
    assert_eq!(found, ["`b` is not a model of this merge", "layers 2 to 2 are none"]);
    assert_eq!(one(passthrough, "{ models: [{ model: c, layers: [0, 2] }] }"), "there is no model or merge called `c`");
}

/// A project with the configurations of `a`, which has twelve layers, and of `b`, which has four in a part of its own.
struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match path.to_str() {
            Some("models/a/config.json") => Ok(br#"{ "num_hidden_layers": 12 }"#.to_vec()),
            Some("models/b/config.json") => Ok(br#"{ "text_config": { "num_hidden_layers": 4 } }"#.to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn is_directory(&self, path: &Path) -> bool {
        path.starts_with("models")
    }
}

#[test]
fn layers_that_a_model_on_disk_has_not_are_refused_at_their_place() {
    let read = |a: &str, b: &str| {
        let slices = format!(
            "slices: [{{ models: [{{ model: a, layers: {a} }}] }}, {{ models: [{{ model: tuned, layers: {b} }}] }}]"
        );
        let models = "models:\n  tuned: { path: models/b, lora: adapters/b }\n";
        let text =
            format!("{}merges:\n  m:\n    method: passthrough\n    {slices}\n", BASE.replace("models:\n", models));
        parse_with(Path::new("x.yaml"), &text, &Disk)
    };
    assert!(read("[4, 12]", "[0, 4]").is_ok());
    insta::assert_snapshot!(read("[4, 13]", "[4, 6]").expect_err("layers").render(false));
}

#[test]
fn a_density_over_the_layers_of_a_model_on_disk_is_known_at_each_of_them() {
    let text = |model: &str| {
        let keys = format!("method: della, base: base, models: [{model}], density: [0.5, 0.95, 0.5]");
        format!("{BASE}merges: {{ m: {{ {keys} }} }}\n")
    };
    // Of four layers the densities are 0.5, 0.8, 0.8 and 0.5.
    assert!(parse_with(Path::new("x.yaml"), &text("b"), &Disk).is_ok());
    let wrong = parse_with(Path::new("x.yaml"), &text("a"), &Disk).expect_err("12 layers");
    let messages: Vec<_> = wrong.list().iter().map(|wrong| wrong.message.as_str()).collect();
    // The sixth of twelve layers is 5/11 of the way: 0.5 + 0.45 · 10/11.
    assert_eq!(messages, ["`density` 0.909091 has no room for an `epsilon` of 0.15"]);
}
