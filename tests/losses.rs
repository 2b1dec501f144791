//! `backend: loss`: with a stand-in for the program that computes, and once with the real one.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::engines::real_programs;
use crate::project::Project;

const EXPERIMENT: &str = r#"name: x
models: { a: { path: models/a }, b: { path: models/b } }
data:
  text: { path: text.jsonl, text: "{{ text }}" }
  chat:
    path: chat.jsonl
    messages: [{ role: user, content: "{{ question }}" }, { role: assistant, content: "{{ answer }}" }]
grams: { a: { model: a, data: text }, b: { model: b, data: text } }
merges:
  m: { method: regmean, models: [a, b], grams: [a, b], keep: recipe, sweep: { alpha: [0.1, 0.9] } }
evals:
  loss: { models: [a, m], backend: loss, data: [text, chat], max_length: 60 }
tables:
  main:
    rows: [a, m]
    columns:
      - { task: text, metric: bits_per_byte, label: Text, digits: 4 }
      - { task: chat, metric: kl/b, label: Chat, digits: 4 }
settings: { device: cpu }
"#;

const LOSSES: [&str; 6] = [
    "evals.loss/a/text",
    "evals.loss/a/chat",
    "evals.loss/m-0.1/text",
    "evals.loss/m-0.1/chat",
    "evals.loss/m-0.9/text",
    "evals.loss/m-0.9/chat",
];

/// With the stand-in for the tensor program, and a Python that may not be started.
fn project() -> Project {
    let project = Project::with(EXPERIMENT)
        .with_fakes()
        .model("models/a", "one")
        .model("models/b", "two")
        .file("text.jsonl", "{\"text\":\"a\"}\n")
        .file("chat.jsonl", "{\"question\":\"a\",\"answer\":\"b\"}\n");
    project.script("env/bin/python", "#!/bin/sh\necho started >> started\nexit 1\n");
    project
}

fn show(project: &Project, stage: &str) -> Value {
    project.mergelab(&["show", stage, "x.yaml", "--json"]).exits(0).json()
}

#[test]
fn a_sweep_of_recipes_is_looked_at_without_python_and_shown_in_a_table() {
    let project = project();
    let summary = project.run(&[]);
    assert_eq!(summary.said.code, 0, "{}", summary.said.stderr);
    let mut losses = summary.in_state("ran");
    losses.retain(|stage| stage.starts_with("evals."));
    assert_eq!(losses, LOSSES);
    assert!(!project.has("started"));
    assert!(!project.output("x", "merges.m-0.1", "model.safetensors").exists(), "read, and dropped");
    let results = project.read("results/x/results.csv");
    for row in ["a,text,bits_per_byte,none,,1.5,0.25,1,measured,", "m-0.9,chat,kl/b,none,,0.125,,1,measured,"] {
        assert!(results.lines().any(|line| line.starts_with(row)), "{row}\n{results}");
    }
    let table = project.read("results/x/table.md");
    assert!(table.contains("| m-0.1 | **1.5000** ± 0.2500 | **0.1250** |"), "{table}");
    assert!(table.contains("the evaluation did not give this figure"), "a model by itself has no sources: {table}");
    project.run(&[]).ran(&[]);
}

#[test]
fn how_rows_run_reruns_the_losses_and_makes_the_merges_again_that_they_read() {
    let project = project();
    project.run(&[]);
    project.edit("x.yaml", "data: [text, chat], max_length: 60", "data: [text, chat], max_length: 61");
    let said = project.mergelab(&["status", "x.yaml"]).exits(0);
    assert!(said.stdout.contains("max_length: 60 -> 61"), "{}", said.stdout);
    assert!(said.stdout.contains("made again because evals.loss/m-0.1/chat needs it"), "{}", said.stdout);
    let summary = project.run(&[]);
    assert_eq!(summary.said.code, 0, "{}", summary.said.stderr);
    let ran = summary.in_state("ran");
    assert_eq!(ran[..2], ["merges.m-0.1", "merges.m-0.9"]);
    assert_eq!(ran[2..8], LOSSES);
}

#[test]
fn a_table_that_asks_for_a_divergence_from_no_source_is_refused_with_what_there_is() {
    let project = project();
    project.edit("x.yaml", "metric: kl/b", "metric: kl/c");
    let said = project.mergelab(&["run", "x.yaml"]).exits(3);
    said.says("kl/c").says("kl/b");
}

/// Two llamas with random weights, made by the reference programs of `mergelab-tensor`'s own tests.
const MODELS: &str = "import sys, torch
from models import FAMILIES, SMALL, tokenizer
from transformers import AutoConfig, AutoModelForCausalLM
for seed, home in enumerate(sys.argv[1:]):
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**SMALL, **FAMILIES['llama'])).save_pretrained(home)
    tokenizer(home)
";

#[test]
fn both_programs_measure_two_models_and_their_merges() {
    let Some(python) = real_programs() else { return };
    let text = |row: usize| format!("{{\"text\": \"row {row}: {}\"}}\n", row * row * 7919);
    let chat = |row: usize| format!("{{\"question\": \"{row} + 1?\", \"answer\": \"It is {}.\"}}\n", row + 1);
    let project = Project::with(EXPERIMENT)
        .file("mergelab.toml", "[python]\npath = \"env\"\n")
        .file("text.jsonl", (0..20).map(text).collect::<String>())
        .file("chat.jsonl", (0..9).map(chat).collect::<String>());
    project.script("env/bin/python", "#!/bin/sh\necho started >> started\nexit 1\n");
    let made = Command::new(&python)
        .args(["-c", MODELS])
        .args([project.path("models/a"), project.path("models/b")])
        .env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/tensor/tests/reference"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .status();
    assert!(made.unwrap().success());
    project.edit("x.yaml", "max_length: 60 }", "max_length: 60, tokens: assistant }");
    let said = project.mergelab(&["run", "x.yaml"]).exits(3);
    said.says("`text` is plain text, in which no token is the assistant's");
    project.edit("x.yaml", ", tokens: assistant", "");

    // Not by `run`, whose patience is that of programs that do next to nothing.
    let output = project.command(&["run", "x.yaml"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!project.has("started"), "no Python");
    let shown = show(&project, "evals.loss/m-0.1/chat");
    let metrics = shown["metrics"].as_array().unwrap();
    let names: Vec<_> = metrics.iter().map(|metric| metric["metric"].as_str().unwrap()).collect();
    assert_eq!(names, ["bits_per_byte", "kl/a", "kl/b", "nll"]);
    for metric in metrics {
        assert_eq!(metric["n_samples"], 9);
        assert!(metric["value"].as_f64().unwrap() > 0.0 && metric["stderr"].as_f64().unwrap() > 0.0, "{metric}");
    }
    let facts = &shown["manifest"]["facts"];
    assert_eq!((&facts["rows"], &facts["forward_dtype"]), (&9.into(), &"float32".into()));
    let own = show(&project, "evals.loss/a/chat");
    assert_eq!(own["metrics"].as_array().unwrap().len(), 2, "no sources");
    // A loss for each row, so that two models can be held against each other on the same rows.
    let pair = ["samples", "evals.loss/m-0.1/text", "x.yaml", "--against", "a"];
    let said = project.mergelab(&pair).exits(0);
    assert!(said.stdout.contains("bits_per_byte (none): m-0.1 against a"), "{}", said.stdout);
    assert!(said.stdout.contains("over 20 documents"), "{}", said.stdout);
    let said = project.mergelab(&["samples", "evals.loss/m-0.1/text", "x.yaml", "--limit", "1"]).exits(0);
    assert!(said.stdout.contains("loss 0  bits_per_byte (none) "), "{}", said.stdout);
    // Of a family that only transformers runs it is said what else there is.
    project.edit("models/a/config.json", "\"model_type\": \"llama\"", "\"model_type\": \"gpt2\"");
    let output = project.command(&["run", "x.yaml", "--only", "evals.loss/a/chat"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("the model has model_type \"gpt2\"") && said.contains("hint: native families are"), "{said}");
}
