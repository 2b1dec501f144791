//! mergekit's configurations: what they mean, and what is refused.

use std::io;
use std::path::Path;

use mergelab_wire::{NamedWeight, Weight};
use serde_json::json;

use crate::experiment::{Diagnostics, Experiment, Files, Loaded, Lora, Merge, Model, import, parse, parse_with};

/// A project in which every path under `models` and `/shared` is a directory, `shelf` is an empty one, and other files are these.
struct Disk<'a>(&'a [(&'a str, &'a str)]);

impl Files for Disk<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.0.iter().find(|(name, _)| Path::new(name) == path);
        file.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn is_directory(&self, path: &Path) -> bool {
        let is_model = path.starts_with("models") || path.starts_with("./models") || path.starts_with("/shared");
        is_model || [Path::new("shelf"), Path::new("configs/shelf/beside")].contains(&path)
    }
}

/// Reads sections with one configuration beside them.
fn read(sections: &str, config: &str) -> Result<Loaded, Diagnostics> {
    parse_with(Path::new("x.yaml"), &format!("name: x\n{sections}"), &Disk(&[("configs/m.yml", config)]))
}

const MERGE: &str = "merges: { m: { method: mergekit, config: configs/m.yml } }\n";

fn experiment(config: &str) -> Experiment {
    read(MERGE, config).unwrap_or_else(|errors| panic!("{errors}")).experiment
}

fn merge(config: &str) -> Merge {
    experiment(config).merges["m"].clone()
}

/// The merge of the same name in the words of this language, of `a`, `b` and `base`.
fn native(merge: &str) -> Merge {
    native_of("a b base", merge)
}

fn native_of(models: &str, merge: &str) -> Merge {
    let models: Vec<_> = models.split(' ').map(|name| format!("{name}: {{ path: models/{name} }}")).collect();
    let text = format!("name: x\nmodels: {{ {} }}\nmerges: {{ m: {merge} }}\n", models.join(", "));
    parse(Path::new("x.yaml"), &text).unwrap_or_else(|errors| panic!("{errors}")).experiment.merges["m"].clone()
}

const TIES: &str = "# a comment
merge_method: ties
models:
  - model: models/base # no parameters necessary
  - model: models/a
    parameters: { weight: 0.5, density: [1, 0.1] }
  - model: ./models/b/
    parameters:
      weight:
        - filter: mlp
          value: 0.25
        - value: [1e-1, 1]
base_model: models/base
parameters:
  normalize: 1.0
  int8_mask: true
  density: 0.75
dtype: float16
";

#[test]
fn a_configuration_is_a_merge_of_this_language() {
    let expected = native(
        "{ method: ties, base: base, density: 0.75, normalize: true, dtype: float16, tokenizer: { source: base, rows: ids }, models: [
           { model: a, weight: 0.5, density: [1, 0.1] },
           { model: b, weight: [{ filter: mlp, value: 0.25 }, { value: [0.1, 1] }] }] }",
    );
    assert_eq!(merge(TIES), expected);
}

#[test]
fn a_model_goes_before_its_slice_the_slice_before_the_module_and_that_before_the_file() {
    let text = |slice: &str, module: &str| {
        format!(
            "merge_method: ties
modules:
  default:
    slices:
      - sources:
          - {{ model: models/a, layer_range: [0, 2], parameters: {{ weight: [{{ filter: q_proj, value: 1 }}] }} }}
          - {{ model: models/b, layer_range: [0, 2], parameters: {{ weight: 2 }} }}
          - {{ model: models/base, layer_range: [0, 2] }}
        base_model: models/base
        parameters: {{ {slice} }}
    parameters: {{ {module} }}
parameters: {{ weight: 5, density: 0.5, lambda: 5 }}
"
        )
    };
    let read =
        merge(&text("weight: { filter: k_proj, value: 3 }, density: 0.25", "weight: 4, lambda: 4, density: 0.1"));
    let named = |filter: Option<&str>, value: f64| NamedWeight { filter: filter.map(Into::into), value: vec![value] };
    let all = vec![named(Some("q_proj"), 1.0), named(Some("k_proj"), 3.0), named(None, 4.0)];
    let slice = &read.slices[0];
    assert_eq!(slice.models[0].weight, Weight::ByName(all));
    assert_eq!(slice.models[1].weight, Weight::Number(2.0));
    assert_eq!((slice.models.len(), read.slices.len()), (2, 1));
    assert_eq!(json!(slice.params), json!({ "density": 0.25, "lambda": 4.0 }));
    assert_eq!(json!(read.params), json!({ "density": 0.1, "lambda": 4.0 }));
    let base = slice.base.as_ref().map(|base| (base.name.as_str(), base.first, slice.layers));
    assert_eq!((read.base.as_deref(), base), (None, Some(("base", 0, 2))));
    let read = merge(&text("", ""));
    let all = vec![named(Some("q_proj"), 1.0), named(None, 5.0)];
    assert_eq!(read.slices[0].models[0].weight, Weight::ByName(all));
    assert_eq!(json!(read.slices[0].params), json!({ "density": 0.5, "lambda": 5.0 }));
}

#[test]
fn filters_and_gradients_of_the_usual_slerp() {
    let read = merge(
        "slices:
  - sources:
      - { model: models/a, layer_range: [0, 32] }
      - { model: models/b, layer_range: [0, 32] }
merge_method: slerp
base_model: models/a
parameters:
  t:
    - { filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1] }
    - { filter: mlp, value: [1, 0.5, 0.7, 0.3, 0] }
    - value: 0.5
dtype: bfloat16
",
    );
    let expected = native(
        "{ method: slerp, base: a, slices: [{ models: [{ model: a, layers: [0, 32] }, { model: b, layers: [0, 32] }] }],
           dtype: bfloat16, tokenizer: { source: a, rows: ids }, t: [
           { filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1] }, { filter: mlp, value: [1, 0.5, 0.7, 0.3, 0] },
           { value: 0.5 }] }",
    );
    assert_eq!(read, expected);
}

#[test]
fn slices_are_those_of_this_language() {
    let read = merge(
        "merge_method: task_arithmetic
base_model: models/base
slices:
  - sources:
      - { model: models/a, layer_range: [0, 8], parameters: { weight: 0.5 } }
      - { model: models/base, layer_range: [0, 8] }
  - sources:
      - { model: models/c, layer_range: [4, 12] }
      - { model: models/b, layer_range: [8, 16] }
    base_model: models/c
    residual_weight: 0.5
    parameters: { lambda: [{ filter: mlp, value: 0.25 }], weight: [0.1, 0.9] }
parameters: { weight: 1, lambda: 2 }
",
    );
    let expected = native_of(
        "a b c base",
        "{ method: task_arithmetic, base: base, lambda: 2, tokenizer: { source: base, rows: ids }, slices: [
           { models: [{ model: a, layers: [0, 8], weight: 0.5 }, { model: base, layers: [0, 8] }] },
           { models: [{ model: c, layers: [4, 12] }, { model: b, layers: [8, 16], weight: [0.1, 0.9] }], base: c,
             lambda: [{ filter: mlp, value: 0.25 }] }] }",
    );
    assert_eq!(read, expected);
    assert_eq!(read.models.iter().map(|model| model.model.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    let second = &read.slices[1];
    assert_eq!(
        json!(second.params["lambda"]),
        json!([{ "filter": "mlp", "value": 0.25 }, { "filter": null, "value": 2.0 }])
    );
    assert_eq!(second.base.as_ref().map(|base| (base.name.as_str(), base.first)), Some(("c", 4)));
}

#[test]
fn a_model_with_an_adapter_is_one_of_this_language() {
    let config = "merge_method: linear
models:
  - { model: models/a+org/a-lora@v2 }
  - { model: models/a+models/adapters/lora }
  - { model: models/a }
parameters: { weight: 1 }
";
    let sections = "models: { math: { path: models/a, lora: models/adapters/lora } }\n";
    let experiment = read(&format!("{sections}{MERGE}"), config).unwrap_or_else(|errors| panic!("{errors}")).experiment;
    let merged: Vec<_> = experiment.merges["m"].models.iter().map(|model| model.model.as_str()).collect();
    assert_eq!(merged, ["a-a-lora-v2", "math", "a"]);
    let hub = Model::Hub { repo: "org/a-lora".into(), revision: Some("v2".into()) };
    let lora = Lora { base: Model::Path("models/a".into()), adapter: hub };
    assert_eq!(experiment.models["a-a-lora-v2"], Model::Lora(Box::new(lora)));
}

#[test]
fn the_base_is_a_model_only_to_methods_without_task_vectors() {
    let names = |config: &str| {
        let read = merge(config);
        (read.models.into_iter().map(|model| model.model).collect::<Vec<_>>().join(" "), read.base)
    };
    let models = |method: &str, models: &str| {
        let item = |name: &str| format!("{{ model: models/{name} }}");
        let items: Vec<_> = models.split(' ').map(item).collect();
        let (models, weight) = (items.join(", "), if method == "karcher" { "" } else { "weight: 1" });
        names(&format!(
            "merge_method: {method}\nmodels: [{models}]\nbase_model: models/base\nparameters: {{ {weight} }}\n"
        ))
    };
    let base = || Some("base".to_owned());
    assert_eq!(models("task_arithmetic", "a b"), ("a b".into(), base()));
    assert_eq!(models("task_arithmetic", "a base b"), ("a b".into(), base()));
    assert_eq!(models("nuslerp", "base a b"), ("a b".into(), base()));
    // mergekit adds it behind the others.
    assert_eq!(models("linear", "a b"), ("a b base".into(), None));
    assert_eq!(models("linear", "base a"), ("base a".into(), None));
    assert_eq!(models("karcher", "a"), ("a base".into(), None));
}

#[test]
fn models_that_the_experiment_has_not_become_entries_of_it() {
    let sections = "models:
  own: { path: ./models/own }
  hub: { hub: org/known, revision: v1 }
  a: { path: models/other }
";
    let config = "merge_method: linear
models:
  - { model: models/own/ }
  - { model: org/known@v1 }
  - { model: org/known }
  - { model: org/known@main, parameters: { weight: 2 } }
  - { model: models/a }
  - { model: /shared/b }
parameters: { weight: 1 }
";
    let wrong = read(&format!("{sections}{MERGE}"), config).expect_err("one model twice");
    assert_eq!(wrong.list()[0].message, "`known` is merged twice");
    let config = config.replace("  - { model: org/known@main, parameters: { weight: 2 } }\n", "");
    let evals = "evals: { e: { models: [m, models-a, b], tasks: [t] } }\n";
    let experiment =
        read(&format!("{sections}{MERGE}{evals}"), &config).unwrap_or_else(|errors| panic!("{errors}")).experiment;
    let merged: Vec<_> = experiment.merges["m"].models.iter().map(|model| model.model.as_str()).collect();
    assert_eq!(merged, ["own", "hub", "known", "models-a", "b"]);
    assert_eq!(experiment.models["known"], Model::Hub { repo: "org/known".into(), revision: None });
    assert_eq!(experiment.models["models-a"], Model::Path("models/a".into()));
    assert_eq!(experiment.models["b"], Model::Path("/shared/b".into()));
    assert_eq!(experiment.models.len(), 6);
}

#[test]
fn what_is_no_directory_and_looks_like_a_hub_id_is_one() {
    let of = |model: &str| {
        let config = format!("merge_method: passthrough\nmodels: [{{ model: '{model}' }}]\n");
        let experiment = experiment(&config);
        experiment.models[0].clone()
    };
    assert_eq!(of("gpt2"), Model::Hub { repo: "gpt2".into(), revision: None });
    assert_eq!(of("org/name@abc"), Model::Hub { repo: "org/name".into(), revision: Some("abc".into()) });
    assert_eq!(of("models/a"), Model::Path("models/a".into()));
    assert_eq!(of("./no/such"), Model::Path("no/such".into()));
    assert_eq!(of("./shelf/nope"), Model::Path("shelf/nope".into()));
    assert_eq!(of("shelf/nope@main"), Model::Hub { repo: "shelf/nope".into(), revision: None });
    assert_eq!(of("some/deeper/path"), Model::Path("some/deeper/path".into()));
}

#[test]
fn types_and_tokenizers() {
    let with = |keys: &str| {
        let config = format!(
            "merge_method: linear\nmodels: [{{ model: models/a }}, {{ model: models/b }}]\nparameters: {{ weight: 1 }}\n{keys}\n"
        );
        let merge = merge(&config);
        (merge.dtype, merge.tokenizer, merge.alignment.map(|alignment| alignment.union))
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(with(""), (None, None, None));
    assert_eq!(with("dtype: float32\nout_dtype: bfloat16"), (some("bfloat16"), None, None));
    assert_eq!(with("dtype: torch.float16\ntokenizer_source: union"), (some("float16"), some("union"), Some(true)));
    assert_eq!(with("tokenizer_source: models/b\nbase_model: ~"), (None, some("b"), Some(false)));
    assert_eq!(with("tokenizer_source: base"), (None, some("a"), Some(false)));
    assert_eq!(with("base_model: models/b"), (None, some("b"), None));
    assert_eq!(with("base_model: models/b\ntokenizer: {}"), (None, some("union"), Some(true)));
    assert_eq!(with("tokenizer: { source: base }\nbase_model: models/b"), (None, some("b"), Some(false)));
}

#[test]
fn a_tokenizer_block_is_that_of_this_language() {
    let read = merge(
        "merge_method: linear
models: [{ model: models/a }, { model: models/b }]
base_model: models/b
parameters: { weight: 1 }
tokenizer:
  source: union
  pad_to_multiple_of: 64
  tokens:
    <pad>: { source: { kind: zero }, force: true }
    <a>: { source: models/a }
    <d>: { source: { kind: model_token, model: models/b, token_id: 5 } }
",
    );
    let expected = native(
        "{ method: average, models: [a, b], tokenizer: { source: union, base: b, pad_to_multiple_of: 64, tokens: {
           <pad>: { source: { kind: zero }, force: true }, <a>: { source: a },
           <d>: { source: { kind: model_token, model: b, token_id: 5 } } } } }",
    );
    assert_eq!(read, expected);
}

#[test]
fn keys_of_the_merge_that_a_configuration_has_not_stand_beside_it() {
    let sections =
        "merges: { m: { method: mergekit, config: configs/m.yml, dtype: float32, shard_size: 1GB, keep: recipe } }\n";
    let merge = read(sections, TIES).unwrap_or_else(|errors| panic!("{errors}")).experiment.merges["m"].clone();
    assert_eq!((merge.dtype.as_deref(), merge.shard_size), (Some("float32"), Some(1_000_000_000)));
    assert_eq!(merge.keep, crate::experiment::Keep::Recipe);
    let wrong =
        read("merges: { m: { method: mergekit, config: configs/m.yml, models: [a] } }", TIES).expect_err("models");
    let message = "`models` has no meaning for `method: mergekit`, whose configuration says it";
    assert_eq!(wrong.list().iter().map(|wrong| wrong.message.as_str()).collect::<Vec<_>>(), [message]);
}

#[test]
fn a_sweep_goes_over_configurations() {
    let files = [("a.yml", TIES), ("b.yml", &TIES.replace("weight: 0.5", "weight: 0.9"))];
    let text = "name: x\nmerges: { m: { method: mergekit, sweep: { config: [a.yml, b.yml] } } }\n";
    let read = parse_with(Path::new("x.yaml"), text, &Disk(&files)).unwrap_or_else(|errors| panic!("{errors}"));
    let weight = |name: &str| read.experiment.merges[name].models[0].weight.clone();
    assert_eq!((weight("m-a.yml"), weight("m-b.yml")), (0.5.into(), 0.9.into()));
    assert_eq!(read.experiment.models.keys().collect::<Vec<_>>(), ["base", "a", "b"]);
}

#[test]
fn a_configuration_that_is_not_there_or_names_a_model_that_is_not() {
    let missing = parse(Path::new("x.yaml"), &format!("name: x\n{MERGE}")).expect_err("no file");
    assert_eq!(missing.list()[0].message, "cannot read configs/m.yml: entity not found");
    let loaded = read(MERGE, TIES).unwrap_or_else(|errors| panic!("{errors}"));
    let error = loaded.error_at(&["models", "b", "path"], "models/b: no such directory", None);
    insta::assert_snapshot!("a_model_that_is_not_there", error.render(false));
}

/// What is refused, by a name for the snapshot.
const REFUSED: &[(&str, &str)] = &[
    (
        "t of some tensors",
        "merge_method: slerp\nbase_model: models/base\nslices:\n  - sources:\n      - { model: models/a, layer_range: [0, 2] }\n      - { model: models/base, layer_range: [0, 2] }\nparameters: { t: [{ filter: mlp, value: 0.5 }] }\n",
    ),
    (
        "density beside a tokenizer",
        "merge_method: ties\nbase_model: models/base\nmodels: [{ model: models/a, parameters: { weight: 1, density: 5 } }]\ntokenizer_source: models/c\n",
    ),
    ("no models", "merge_method: passthrough\nmodels: []\n"),
    ("no slices", "merge_method: passthrough\nslices: []\n"),
    (
        "too few models",
        "merge_method: nuslerp\nbase_model: models/base\nparameters: { weight: 1 }\nmodels:\n  - model: models/a\n",
    ),
    ("missing directory", "merge_method: passthrough\nmodels: [{ model: shelf/nope }]\n"),
    ("missing directory that lies beside the file", "merge_method: passthrough\nmodels: [{ model: shelf/beside }]\n"),
    ("nearly a union", "merge_method: passthrough\nmodels: [{ model: models/a }]\ntokenizer_source: unions\n"),
    (
        "rows of words",
        "merge_method: passthrough\nmodels: [{ model: models/a }]\ntokenizer: { source: bsae, tokens: { <x>: { source: zero } } }\n",
    ),
    (
        "weights that cancel",
        "merge_method: linear\nmodels:\n  - { model: models/a, parameters: { weight: 1 } }\n  - model: models/b\n    parameters:\n      weight:\n        - { filter: mlp, value: -1 }\n        - value: 1\n",
    ),
    (
        "density without room",
        "merge_method: della\nbase_model: models/base\nmodels:\n  - model: models/a\n    parameters:\n      weight: 1\n      density:\n        - { filter: mlp, value: 0.9 }\n        - value: 0.5\n",
    ),
    ("moe", "base_model: models/a\ngate_mode: hidden\nexperts:\n  - source_model: models/b\n"),
    ("empty slice", "merge_method: passthrough\nslices:\n  - sources: [{ model: models/a, layer_range: [3, 3] }]\n"),
    ("no sources", "merge_method: passthrough\nslices:\n  - sources: []\n"),
    ("one end", "merge_method: passthrough\nslices:\n  - sources: [{ model: models/a, layer_range: [3] }]\n"),
    (
        "slice without its base",
        "merge_method: ties\nbase_model: models/base\nparameters: { weight: 1 }\nslices:\n  - sources:\n      - { model: models/a, layer_range: [0, 2] }\n",
    ),
    (
        "model twice in a slice",
        "merge_method: linear\nparameters: { weight: 1 }\nslices:\n  - sources:\n      - { model: models/a, layer_range: [0, 2] }\n      - { model: models/a, layer_range: [2, 4] }\n",
    ),
    (
        "two models in a slice of passthrough",
        "merge_method: passthrough\nslices:\n  - sources:\n      - { model: models/a, layer_range: [0, 2] }\n      - { model: models/b, layer_range: [0, 2] }\n",
    ),
    (
        "unequal slices",
        "merge_method: linear\nparameters: { weight: 1 }\nslices:\n  - sources:\n      - { model: models/a, layer_range: [0, 3] }\n      - { model: models/b, layer_range: [0, 4] }\n",
    ),
    (
        "modules",
        "merge_method: passthrough\nmodules:\n  text: { models: [{ model: models/a }] }\n  vision: { models: [{ model: models/a }] }\n",
    ),
    ("chat template", "merge_method: passthrough\nmodels: [{ model: models/a }]\nchat_template: auto\n"),
    (
        "two tokenizers",
        "merge_method: passthrough\nmodels: [{ model: models/a }]\ntokenizer: { source: union }\ntokenizer_source: base\n",
    ),
    (
        "tokenizer of another",
        "merge_method: passthrough\nmodels: [{ model: models/a }]\ntokenizer: { tokens: { <x>: { source: models/c } } }\n",
    ),
    (
        "key of a tokenizer",
        "merge_method: passthrough\nmodels: [{ model: models/a }]\ntokenizer: { pad_to_multiple: 64 }\n",
    ),
    ("lora", "merge_method: passthrough\nmodels: [{ model: models/a+models/one+models/two }]\n"),
    ("unknown key", "merge_method: passthrough\nmodels: [{ model: models/a }]\nparamters: { scale: 1 }\n"),
    (
        "unknown parameter",
        "merge_method: ties\nbase_model: models/base\nmodels:\n  - { model: models/a, parameters: { wieght: 1 } }\nparameters: { weight: 1, densty: 0.5 }\n",
    ),
    (
        "parameter of another method",
        "merge_method: linear\nmodels: [{ model: models/a }]\nparameters: { weight: 1, density: 0.5 }\n",
    ),
    (
        "parameter at one model",
        "merge_method: linear\nmodels: [{ model: models/a, parameters: { weight: 1, normalize: false } }]\n",
    ),
    ("unknown method", "merge_method: tise\nmodels: [{ model: models/a }]\n"),
    ("method of this program", "merge_method: regmean\nmodels: [{ model: models/a }]\n"),
    ("no base", "merge_method: ties\nmodels: [{ model: models/a }]\nparameters: { weight: 1 }\n"),
    (
        "no weight",
        "merge_method: linear\nmodels:\n  - { model: models/a, parameters: { weight: 1 } }\n  - model: models/b\n",
    ),
    (
        "weight for some",
        "merge_method: linear\nmodels:\n  - model: models/a\n    parameters:\n      weight: [{ filter: mlp, value: 1 }]\n",
    ),
    (
        "out of range",
        "merge_method: ties\nbase_model: models/base\nmodels: [{ model: models/a }]\nparameters: { weight: 1, density: 2 }\n",
    ),
    ("type", "merge_method: passthrough\nmodels: [{ model: models/a }]\ndtype: float64\n"),
    ("two ats", "merge_method: passthrough\nmodels: [{ model: 'org/a@b@c' }]\n"),
    ("revision of a directory", "merge_method: passthrough\nmodels: [{ model: models/a@v1 }]\n"),
    ("mapping as a model", "merge_method: passthrough\nmodels: [{ model: { model: { path: models/a } } }]\n"),
    (
        "models and slices",
        "merge_method: passthrough\nmodels: [{ model: models/a }]\nslices: [{ sources: [{ model: models/a, layer_range: [0, 2] }] }]\n",
    ),
    ("syntax", "merge_method: passthrough\nmodels: [{ model: models/a }\n"),
];

#[test]
fn what_is_not_supported_is_refused_by_name_and_line() {
    for (name, config) in REFUSED {
        let wrong = read(MERGE, config).expect_err(name);
        insta::assert_snapshot!(format!("refused_{}", name.replace(' ', "_")), wrong.render(false));
    }
}

/// Each with mistakes of many kinds, some of which make it impossible to say what the rest means.
const MANY: &[(&str, &str)] = &[
    (
        "models",
        "merge_method: ties
models:
  - model: x/y@1@2
    parameters: { weight: 1, density: 1.5 }
  - modle: org/b
    parameters: { wieght: 0.5, densty: 0.3 }
  - model: org/c
  - model: org/d
    paramters: { weight: 2 }
  - org/e
parameters: { lambda: many, normalise: true }
dtype: float64
chat_template: auto
tokenizer:
  source: bass
  pad_to_multiple_of: 0
  tokens:
    <a>: { source: { kind: zeros } }
    <b>: { sorce: org/c }
    <c>: 5
",
    ),
    (
        "slices",
        "merge_method: slerp
base_model: org/base
slices:
  - sources: []
    parameters: { t: 0.5 }
  - sources:
      - { model: org/a, layer_range: [3, 3] }
      - { model: org/base, layer_range: [0, 4], parameters: { t: 0.5 } }
    parameters: { tt: 1 }
  - sources:
      - { model: org/a, layer_range: [0, 2] }
      - { model: org/base, layer_range: [0, 4] }
    parameters: { t: 3 }
  - 5
  - sources:
      - { model: org/a, layer_range: [0, 2] }
      - { model: org/b, layer_range: [0, 2] }
tokenizer_source: unions
out_dtype: bf16
",
    ),
    (
        "method",
        "merge_method: tise
base_modle: org/base
models:
  - { model: org/a, parameters: { density: 0.5, weight: x } }
  - { model: org/base }
parameters: [1]
dtype: fp8
",
    ),
    ("key", "merge_mthod: ties\nmodles: [{ model: org/a }]\nparamters: { weight: 1 }\ndtype: fp8\n"),
    (
        "base",
        "merge_method: ties\nbase_model: [org/base]\nmodels: [{ model: org/a }, { model: org/a }]\nparameters: { density: 2 }\n",
    ),
];

#[test]
fn all_that_is_wrong_is_said_at_once_and_nothing_that_only_follows_from_it() {
    for (name, config) in MANY {
        let wrong = read(MERGE, config).expect_err(name);
        insta::assert_snapshot!(format!("many_{name}"), wrong.render(false));
    }
}

#[test]
fn layers_that_a_model_on_disk_has_not_are_refused_by_their_line() {
    let config = |range: &str| {
        format!(
            "merge_method: passthrough\nslices:\n  - sources:\n      - model: models/a\n        layer_range: {range}\n"
        )
    };
    let read = |config: &str| {
        let files = [("configs/m.yml", config), ("models/a/config.json", r#"{ "num_hidden_layers": 12 }"#)];
        parse_with(Path::new("x.yaml"), &format!("name: x\n{MERGE}"), &Disk(&files))
    };
    assert!(read(&config("[4, 12]")).is_ok());
    insta::assert_snapshot!("refused_layers", read(&config("[4, 13]")).expect_err("13 layers").render(false));
}

#[test]
fn an_imported_configuration_is_the_same_merge() {
    let nuslerp = "merge_method: nuslerp\nmodels: [{ model: org/a@v1.0, parameters: { weight: 1 } }, { model: models/b, parameters: { weight: [{ filter: \"a: b\", value: 3 }, { filter: '*', value: [0.5, 1] }] } }]\nparameters: { nuslerp_flatten: no }\n";
    let dare = "merge_method: dare_ties\nmodels: [{ model: models/a, parameters: { density: 0.5 } }, { model: models/true }]\nbase_model: 'models/with space'\nparameters: { weight: 1 }\ntokenizer_source: union\n";
    let tokens = "merge_method: passthrough\nmodels: [{ model: models/a }]\ntokenizer: { source: base, pad_to_multiple_of: 8, tokens: { 'a: b': { source: models/a }, <0>: { source: { kind: zero }, force: true }, <1>: {}, <2>: { source: { kind: model_token, model: models/a, token: 'no' } } } }\n";
    let slices = "merge_method: ties\nbase_model: models/base\nparameters: { weight: 1, density: 0.5 }\nslices:\n  - sources: [{ model: models/a, layer_range: [0, 2], parameters: { density: 0.25 } }, { model: models/base, layer_range: [2, 4] }]\n  - sources: [{ model: models/a, layer_range: [1, 2] }, { model: models/b+org/lora, layer_range: [0, 1] }]\n    base_model: models/a\n    parameters: { weight: 2, density: [{ filter: mlp, value: 1 }] }\n";
    for config in [TIES, nuslerp, dare, tokens, slices] {
        let files = Disk(&[("configs/m.yml", config)]);
        let text = import(Path::new("configs/m.yml"), "m", &files).unwrap_or_else(|errors| panic!("{errors}"));
        let printed = parse(Path::new("m.yaml"), &text).unwrap_or_else(|errors| panic!("{errors}\n{text}")).experiment;
        let read = experiment(config);
        assert_eq!((printed.merges, printed.models), (read.merges, read.models), "{text}");
    }
    let files = Disk(&[("configs/m.yml", TIES)]);
    let text = import(Path::new("configs/m.yml"), "m", &files).unwrap_or_else(|errors| panic!("{errors}"));
    insta::assert_snapshot!("imported", text);
    let files = Disk(&[("configs/m.yml", slices)]);
    let text = import(Path::new("configs/m.yml"), "m", &files).unwrap_or_else(|errors| panic!("{errors}"));
    insta::assert_snapshot!("imported_slices", text);
}

/// Configurations with slips in them, which stand in different places.
const SLIPS: &[(&str, &[(&str, &str)])] = &[
    (
        "merge_method: della
base_model: models/base
models:
  - model: models/a
    parameters: { weight: 1, density: 0.5 }
  - model: models/b
    parameters: { weight: [{ filter: mlp, value: 2 }, { value: 1 }] }
parameters: { lambda: 2, epsilon: 0.1 }
dtype: bfloat16
tokenizer: { source: models/a, tokens: { <x>: { source: models/b } }, pad_to_multiple_of: 8 }
",
        &[
            ("merge_method: della", "merge_method: dela"),
            ("merge_method: della", "merge_mthod: della"),
            ("base_model: models/base\n", ""),
            ("base_model: models/base", "base_modle: models/base"),
            ("base_model: models/base", "base_model: []"),
            ("  - model: models/a\n    parameters: { weight: 1, density: 0.5 }\n", "  - models/a\n"),
            ("model: models/a\n", "model: org/a@b@c\n"),
            ("model: models/a\n", "modle: models/a\n"),
            ("weight: 1, ", ""),
            ("weight: 1, ", "wieght: 1, "),
            ("weight: 1, ", "weight: x, "),
            ("density: 0.5", "density: 0.95"),
            ("density: 0.5", "density: 5"),
            ("density: 0.5", "densty: 0.5"),
            ("    parameters: { weight: 1, density: 0.5 }", "    parameters: [1]"),
            ("    parameters: { weight: 1, density: 0.5 }", "    paramters: { weight: 1 }"),
            (", { value: 1 }]", "]"),
            ("value: 2", "value: two"),
            ("lambda: 2, ", "lambda: [], "),
            ("epsilon: 0.1", "epsilon: 0.6"),
            ("parameters: { lambda: 2, epsilon: 0.1 }", "parameters: 5"),
            ("dtype: bfloat16", "dtype: bf16"),
            ("dtype: bfloat16", "dtpye: bfloat16"),
            ("source: models/a,", "source: unions,"),
            ("source: models/a,", "source: [],"),
            ("source: models/a,", "source: models/c,"),
            ("{ source: models/b }", "{ source: zero }"),
            ("{ source: models/b }", "5"),
            ("pad_to_multiple_of: 8", "pad_to_multiple_of: 0"),
            ("pad_to_multiple_of: 8", "pad_to: 8"),
        ],
    ),
    (
        "merge_method: slerp
base_model: models/base
slices:
  - sources:
      - { model: models/a, layer_range: [0, 2] }
      - { model: models/base, layer_range: [0, 2] }
    parameters: { t: 0.5 }
  - sources:
      - { model: models/b, layer_range: [4, 8] }
      - { model: models/base, layer_range: [0, 4] }
    base_model: models/base
parameters: { t: [{ filter: mlp, value: 0.1 }, { value: 1 }] }
out_dtype: float16
tokenizer_source: union
",
        &[
            ("merge_method: slerp", "merge_method: slrp"),
            ("base_model: models/base\nslices", "slices"),
            ("base_model: models/base\nslices", "base_model: 5@6@7\nslices"),
            ("    base_model: models/base\nparam", "    base_model: models/c\nparam"),
            ("    base_model: models/base\nparam", "    base_modl: models/base\nparam"),
            ("{ model: models/a, layer_range: [0, 2] }", "5"),
            ("models/a, layer_range: [0, 2]", "models/a, layer_range: [0, 3]"),
            ("models/a, layer_range: [0, 2]", "models/a, layer_range: [2, 2]"),
            ("models/a, layer_range: [0, 2]", "models/a"),
            ("models/a, layer_range: [0, 2]", "models/a+x+y, layer_range: [0, 2]"),
            ("    parameters: { t: 0.5 }", "    parameters: { t: 5 }"),
            ("    parameters: { t: 0.5 }", "    parameters: { tt: 0.5 }"),
            ("parameters: { t: [{ filter: mlp, value: 0.1 }, { value: 1 }] }\n", ""),
            (", { value: 1 }]", "]"),
            ("value: 0.1", "value: 7"),
            ("out_dtype: float16", "out_dtype: float64"),
            ("tokenizer_source: union", "tokenizer_source: unoin"),
            ("tokenizer_source: union", "tokenizer_source: models/d"),
        ],
    ),
];

#[test]
fn two_slips_give_no_error_that_neither_of_them_gives() {
    for (config, slips) in SLIPS {
        let of = |config: &str| -> Vec<String> {
            let wrong = read(MERGE, config).expect_err(config);
            wrong.list().iter().map(|wrong| wrong.message.clone()).collect()
        };
        let with = |config: &str, (from, to): &(&str, &str)| config.replacen(from, to, 1);
        assert!(read(MERGE, config).is_ok());
        for (index, one) in slips.iter().enumerate() {
            assert_ne!(with(config, one), *config, "{one:?}");
            for other in &slips[index + 1..] {
                // Two slips in one place are one.
                if !with(config, one).contains(other.0) || !with(config, other).contains(one.0) {
                    continue;
                }
                let alone = [of(&with(config, one)), of(&with(config, other))].concat();
                let both = of(&with(&with(config, one), other));
                // Of two values that do not go together the message has both.
                let is_new = |message: &&String| !alone.contains(message) && !message.contains("has no room for");
                let new: Vec<_> = both.iter().filter(is_new).collect();
                assert!(new.is_empty(), "{one:?} and {other:?}: {new:#?}");
            }
        }
    }
}
