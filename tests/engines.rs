//! Which engine captures a model, by its family.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::project::{MERGELAB, Project};
use crate::science;

/// A Python with `transformers`, and `mergelab-tensor` beside the program; or `None`, said aloud.
pub(crate) fn real_programs() -> Option<PathBuf> {
    let tensor = Path::new(MERGELAB).with_file_name("mergelab-tensor");
    let stated = std::env::var_os("MERGELAB_PYTHON").map(PathBuf::from);
    let active = std::env::var_os("VIRTUAL_ENV").map(|root| Path::new(&root).join("bin/python"));
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let python = stated.or(active).unwrap_or(own);
    let asks = ["-c", "import importlib.util as u; exit(not (u.find_spec('transformers') and u.find_spec('torch')))"];
    let found = tensor.is_file() && Command::new(&python).args(asks).status().is_ok_and(|status| status.success());
    if !found {
        println!("skipped: no {} or no Python with transformers ({})", tensor.display(), python.display());
    }
    found.then_some(python)
}

/// Two GPT-2s with random weights under `models/`, made by the reference programs of `mergelab-tensor`'s own tests.
const MODELS: &str = "import sys, torch
from engine import FAMILIES, random_model
from models import tokenizer
for seed, home in enumerate(sys.argv[1:]):
    torch.manual_seed(seed)
    random_model(FAMILIES['gpt2']).save_pretrained(home)
    tokenizer(home)
";

const EXPERIMENT: &str = r#"name: x
models: { a: { path: models/a }, b: { path: models/b } }
data: { rows: { path: rows.jsonl, text: "{{ text }}" } }
grams:
  a: { model: a, data: rows, max_length: 16 }
  b: { model: b, data: rows, max_length: 16, skip_first: 1 }
merges:
  regmean: { method: regmean, models: [a, b], grams: [a, b], alpha: 0.5 }
  mats: { method: mats, models: [a, b], grams: [a, b], base: a, x0: base, iterations: 3 }
settings: { device: cpu }
"#;

#[test]
fn a_gpt2_is_captured_by_the_engine_transformers_and_merged() {
    let Some(python) = real_programs() else { return };
    let rows: Vec<_> = (0..40).map(|row| format!("{{\"text\": \"row {row}: {}\"}}\n", row * row * 7919)).collect();
    let project = Project::with(EXPERIMENT)
        .file("mergelab.toml", format!("[python]\npath = {:?}\n", python.parent().unwrap().parent().unwrap()))
        .file("rows.jsonl", rows.concat());
    let made = Command::new(&python)
        .args(["-c", MODELS])
        .args([project.path("models/a"), project.path("models/b")])
        .env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/tensor/tests/reference"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .status();
    assert!(made.unwrap().success());

    // Not by `run`, whose patience is that of programs that do next to nothing.
    let output = project.command(&["run", "x.yaml"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("no native forward pass for model_type \"gpt2\": captured by `engine: transformers`"),
        "{said}"
    );
    let shown = project.mergelab(&["show", "grams.b", "x.yaml", "--json"]).exits(0).json();
    let facts = &shown["manifest"]["facts"];
    assert_eq!(
        (&facts["engine"], &facts["family"], &facts["rows"]),
        (&"transformers".into(), &"gpt2".into(), &40.into())
    );
    let key = project.mergelab(&["key", "grams.a", "x.yaml"]).exits(0).json();
    assert_eq!(key["params"]["engine"], "transformers");
    let tools: Vec<_> = key["tools"].as_object().unwrap().keys().collect();
    assert_eq!(tools, ["torch", "transformers"]);
    let figures = project.output("x", "merges.regmean", "layers.json");
    let figures: serde_json::Value = serde_json::from_slice(&std::fs::read(figures).unwrap()).unwrap();
    assert_eq!(figures["layers"].as_array().unwrap().len(), 8);
    assert_eq!(figures["layers"][2]["shape"].as_array().unwrap().len(), 2);
    let figures = project.output("x", "merges.mats", "layers.json");
    let figures: serde_json::Value = serde_json::from_slice(&std::fs::read(figures).unwrap()).unwrap();
    let layers = figures["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 8);
    for layer in layers {
        assert_eq!((&layer["iterations"], &layer["alpha"]), (&3.into(), &1.0.into()), "{layer}");
    }

    let again = project.run(&[]);
    assert_eq!((again.said.code, again.in_state("hit").len()), (0, 7), "{}", again.said.stderr);
}

const FLOWING: &str = r#"name: x
models: { a: { path: made/a }, b: { path: made/b } }
data:
  a: { path: made/rows-a.jsonl, text: "{{ text }}" }
  b: { path: made/rows-b.jsonl, text: "{{ text }}" }
grams:
  a: { model: a, data: a, max_length: 100, shards: 2 }
  b: { model: b, data: b, max_length: 100 }
merges:
  flow: { method: regmean++, models: [a, b], grams: [a, b] }
settings: { device: cpu }
"#;

#[test]
fn regmean_plus_plus_captures_by_itself_what_its_gram_entries_say() {
    let Some(python) = real_programs() else { return };
    let project = Project::with(FLOWING);
    std::fs::create_dir_all(project.path("made")).unwrap();
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/tensor/tests/reference/regmean_plus_plus.py");
    let made = Command::new(&python)
        .arg(program)
        .args(["models".as_ref(), project.path("made").as_os_str(), "llama".as_ref()])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .status();
    assert!(made.unwrap().success());

    let output = project.command(&["run", "x.yaml", "--only", "merges.flow"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let figures = project.output("x", "merges.flow", "layers.json");
    let figures: serde_json::Value = serde_json::from_slice(&std::fs::read(figures).unwrap()).unwrap();
    let layers = figures["layers"].as_array().unwrap();
    assert_eq!((layers.len(), &layers[0]["alpha"]), (3 * 7 + 1, &0.1.into()));
    let shown = project.mergelab(&["show", "merges.flow", "x.yaml", "--json"]).exits(0).json();
    let captures = shown["manifest"]["facts"]["captures"].as_array().unwrap();
    let rows: Vec<_> = captures.iter().map(|capture| (&capture["model"], &capture["rows_used"])).collect();
    assert_eq!(rows, [(&"a".into(), &18.into()), (&"b".into(), &18.into())]);
    let status = project.mergelab(&["status", "x.yaml", "--json"]).exits(0).json();
    let state = |stage: &str| {
        let stages = status.as_array().unwrap();
        stages.iter().find(|one| one["stage"] == stage).unwrap()["state"].as_str().unwrap().to_owned()
    };
    assert_eq!((&*state("merges.flow"), &*state("grams.b")), ("up-to-date", "run"));
}

#[test]
fn without_transformers_a_model_that_needs_it_is_not_captured_and_others_are() {
    let project = science::project();
    let config = "{\"architectures\": [\"Gemma2ForCausalLM\"], \"model_type\": \"gemma2\", \"vocab_size\": 4}";
    let project = project.file("models/a/config.json", config);
    std::fs::remove_dir_all(project.path("env/lib/python3.11/site-packages/transformers-5.14.1.dist-info")).unwrap();
    let run = project.run(&["--only", "grams.a", "--only", "grams.b", "--keep-going"]).failed(1, &["grams.a"], &[]);
    assert!(run.in_state("ran").contains(&"grams.b"));
    run.says("transformers is not installed in the Python that `engine: transformers` uses")
        .says("hint: `make setup` installs it");
    project.edit("x.yaml", "model: b, data: rows-b,", "model: b, data: rows-b, engine: transformers,");
    let said = project.mergelab(&["run", "x.yaml", "--only", "grams.b"]).exits(1);
    said.says("grams.b needs transformers, which is not installed in ");
}
