//! Merges of the real `mergelab-tensor`, evaluated by the real `lm_eval` on the real vLLM, on the CPU: `make test-vllm`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::project::{MERGELAB, Project};

/// The environment that `make test-vllm` names, or `None`, said aloud.
fn environment() -> Option<PathBuf> {
    let found = std::env::var_os("MERGELAB_TEST_VLLM").map(PathBuf::from);
    if found.is_none() {
        println!("skipped: no environment with vLLM; `make test-vllm` makes one and runs this");
    }
    found
}

const EXPERIMENT: &str = "name: x
models: { a: { path: models/a }, b: { path: models/b } }
merges:
  average: { method: average, models: [a, b], shard_size: 100kB }
evals:
  vllm:
    models: [a, average]
    backend: vllm
    model_args: { dtype: float32 }
    task_dirs: [tasks]
    # Weights drawn at random trip over these.
    tripwires: { template: accept, cut: accept, repeating: accept, empty: accept }
    tasks: [add]
  hf:
    models: [average]
    backend: hf
    model_args: { dtype: float32 }
    task_dirs: [tasks]
    # Weights drawn at random trip over these.
    tripwires: { template: accept, cut: accept, repeating: accept, empty: accept }
    tasks: [{ task: add, name: add-hf }]
settings: { device: cpu }
";

const TASK: &str = r#"task: add
dataset_path: json
dataset_kwargs: { data_files: { test: rows.jsonl } }
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
target_delimiter: ""
generation_kwargs: { until: ["\n"], max_gen_toks: 16, do_sample: false }
metric_list:
  - { metric: exact_match, aggregation: mean, higher_is_better: true }
"#;

/// Two Llamas with random weights whose input and output embeddings are one tensor.
fn project(environment: &Path) -> Project {
    let tensor = Path::new(MERGELAB).with_file_name("mergelab-tensor");
    assert!(tensor.is_file(), "{} is not built", tensor.display());
    let rows: Vec<_> =
        (0..30).map(|n| format!("{{\"question\": \"{n}+{n}=\", \"answer\": \"{}\"}}\n", 2 * n)).collect();
    let project = Project::with(EXPERIMENT)
        .file("mergelab.toml", format!("[python]\npath = \"{}\"\n", environment.display()))
        .file("tasks/add.yaml", TASK)
        .file("rows.jsonl", rows.concat());
    for (model, seed) in [("models/a", "0"), ("models/b", "1")] {
        let made = Command::new(environment.join("bin/python"))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("lm-eval-harness/tiny_model.py"))
            .arg(project.path(model))
            .args(["--tied", "--seed", seed])
            .status();
        assert!(made.unwrap().success());
    }
    project
}

/// `samples.jsonl.gz` of an evaluation, as text.
fn samples(project: &Project, stage: &str) -> String {
    let path = project.output("x", stage, "samples.jsonl.gz");
    let output = Command::new("gzip").arg("-dc").arg(path).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_merge_in_shards_with_tied_embeddings_loads_in_vllm_and_in_transformers_as_it_is() {
    let Some(environment) = environment() else { return };
    let project = project(&environment);
    // Not by `run`, whose patience is that of programs that do next to nothing.
    let output = project.command(&["run", "x.yaml"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let index = fs::read_to_string(project.output("x", "merges.average", "model.safetensors.index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let map = index["weight_map"].as_object().unwrap();
    let files: std::collections::BTreeSet<_> = map.values().map(|file| file.as_str().unwrap()).collect();
    assert!(files.len() > 2 && !map.contains_key("lm_head.weight"), "{index}");

    let [by_vllm, by_hf] = ["evals.vllm/average/add", "evals.hf/average/add-hf"].map(|stage| samples(&project, stage));
    assert_eq!(by_vllm.lines().count(), 30);
    assert_eq!(by_vllm, by_hf, "prompts, answers and scores");
    assert_ne!(by_vllm, samples(&project, "evals.vllm/a/add"), "the merge answers as one of its sources does");
    let key = project.mergelab(&["key", "evals.vllm/average/add", "x.yaml"]).exits(0).json();
    assert_eq!(key["tools"]["vllm"], "0.24.0+cpu");
}

/// A process, told apart from a later one of the same number by when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    id: u32,
    parent: u32,
    started: u64,
}

/// All that have not ended.
fn processes() -> Vec<Process> {
    let read = |entry: fs::DirEntry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // number (name) state parent …, the start as the 22nd; the name may hold anything.
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        (fields[0] != "Z").then_some(())?;
        Some(Process { id, parent: fields[1].parse().ok()?, started: fields[19].parse().ok()? })
    };
    fs::read_dir("/proc").unwrap().filter_map(|entry| read(entry.ok()?)).collect()
}

/// Those that a process started, and those that they started.
fn descendants(of: u32) -> Vec<Process> {
    let all = processes();
    let mut found = Vec::new();
    let mut pending = vec![of];
    while let Some(parent) = pending.pop() {
        let children = all.iter().filter(|process| process.parent == parent);
        pending.extend(children.clone().map(|process| process.id));
        found.extend(children);
    }
    found
}

fn command_line(process: &Process) -> String {
    fs::read_to_string(format!("/proc/{}/cmdline", process.id)).unwrap_or_default()
}

fn wait_until(what: &str, patience: u64, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(patience), "{what}: not within {patience} s");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_engines_own_process_ends_with_a_killed_mergelab() {
    let Some(environment) = environment() else { return };
    // On a CPU the engine has a process of its own only if it is told to; on a GPU it always has.
    let project = project(&environment).variable("VLLM_ENABLE_V1_MULTIPROCESSING", "1");
    let run = project.start(&["run", "x.yaml", "--only", "evals.vllm/a/add"]);
    let mut started = Vec::new();
    wait_until("the engine starts", 300, || {
        started = descendants(run.id());
        started.iter().any(|process| command_line(process).contains("EngineCore"))
    });
    run.kill();
    wait_until("all have ended", 30, || processes().iter().all(|process| !started.contains(process)));
}
