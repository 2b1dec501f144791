//! `keep: recipe`, with stand-ins for the programs that compute.

use std::fs;

use crate::project::{Project, wait_until};

/// Three merges by sweep, each evaluated on a task, and a table.
const EXPERIMENT: &str = r#"name: x
models: { a: { path: models/a }, b: { path: models/b } }
data: { rows: { path: rows.jsonl, text: "{{ text }}" } }
grams: { a: { model: a, data: rows }, b: { model: b, data: rows } }
merges:
  m: { method: regmean, models: [a, b], grams: [a, b], keep: recipe, sweep: { alpha: [0.1, 0.5, 0.9] } }
evals:
  suite: { models: [m], backend: hf, task_dirs: [tasks], tasks: [add] }
"#;

const MERGES: [&str; 3] = ["merges.m-0.1", "merges.m-0.5", "merges.m-0.9"];
const EVALS: [&str; 3] = ["evals.suite/m-0.1/add", "evals.suite/m-0.5/add", "evals.suite/m-0.9/add"];

fn project() -> Project {
    Project::with(EXPERIMENT)
        .with_fakes()
        .model("models/a", "one")
        .model("models/b", "two")
        .file("rows.jsonl", "{\"text\":\"a\"}\n")
        .file("tasks/add.yaml", "task: add\n")
        .file("tasks/sort.yaml", "task: sort\n")
}

/// As [`project`], done.
fn done() -> Project {
    let project = project();
    assert_eq!(project.run(&[]).in_state("ran").len(), 11);
    project
}

fn has_weights(project: &Project, merge: &str) -> bool {
    project.output("x", merge, "model.safetensors").exists()
}

fn manifest(project: &Project, merge: &str) -> serde_json::Value {
    project.mergelab(&["show", merge, "x.yaml", "--json"]).exits(0).json()["manifest"].clone()
}

#[test]
fn weights_go_when_all_that_reads_them_is_done_and_the_merge_stays_up_to_date() {
    let project = project();
    let summary = project.run(&[]);
    summary.says("merges.m-0.1: everything that reads it is up to date; dropped ");
    for merge in MERGES {
        assert!(!has_weights(&project, merge), "{merge}");
        assert!(project.output("x", merge, "config.json").exists(), "what is small stays");
    }
    project.run(&[]).ran(&[]);
    project.mergelab(&["verify"]).exits(0);
    let shown = project.mergelab(&["show", MERGES[0], "x.yaml"]).exits(0);
    assert!(
        shown.stdout.contains("model.safetensors (") && shown.stdout.contains(" bytes, dropped)"),
        "{}",
        shown.stdout
    );
    let explained = project.mergelab(&["explain", MERGES[0], "x.yaml"]).exits(0);
    let says = "its weights were dropped, and are made again when something needs them";
    assert!(explained.stdout.contains(says), "{}", explained.stdout);
    let status = project.mergelab(&["status", "x.yaml"]).exits(0);
    assert!(!status.stdout.contains("run "), "{}", status.stdout);
}

#[test]
fn a_new_evaluation_makes_what_it_reads_again_and_nothing_else() {
    let project = done();
    let digests = MERGES.map(|merge| manifest(&project, merge)["digest"].clone());
    project.edit("x.yaml", "tasks: [add]", "tasks: [add, sort]");
    let status = project.mergelab(&["status", "x.yaml"]).exits(0);
    let line = "run         merges.m-0.1            made again because evals.suite/m-0.1/sort needs it\n";
    assert!(status.stdout.contains(line), "{}", status.stdout);
    let explained = project.mergelab(&["explain", MERGES[0], "x.yaml"]).exits(0);
    explained.prints("merges.m-0.1: run\n  made again because evals.suite/m-0.1/sort needs it\n");
    let only = ["--only", "evals.suite/m-0.5/sort"];
    let dry = project.mergelab(&[&["run", "x.yaml", "--dry-run"], &only[..]].concat()).exits(0);
    assert!(dry.stdout.contains("made again because evals.suite/m-0.5/sort needs it"), "{}", dry.stdout);
    project.run(&only).ran(&["merges.m-0.5", "evals.suite/m-0.5/sort"]);
    assert!(!has_weights(&project, "merges.m-0.5"));
    let sorts = ["evals.suite/m-0.1/sort", "evals.suite/m-0.9/sort"];
    project.run(&[]).ran(&[&["merges.m-0.1", "merges.m-0.9"], &sorts[..]].concat());
    assert_eq!(MERGES.map(|merge| manifest(&project, merge)["digest"].clone()), digests);
    project.run(&[]).ran(&[]);
    project.mergelab(&["verify"]).exits(0);
}

#[test]
fn a_merge_of_merges_makes_them_again_as_well() {
    let project = done();
    let more = "merges:\n  all: { method: average, models: [m] }\n";
    project.edit("x.yaml", "merges:\n", more);
    project.run(&[]).ran(&[&MERGES[..], &["merges.all"]].concat());
    project.edit("x.yaml", "method: average, models: [m]", "method: average, models: [m], keep: recipe");
    project.run(&[]).ran(&[]);
    assert!(!has_weights(&project, "merges.all"));
    project.edit("x.yaml", "suite: { models: [m]", "suite: { models: [m, all]");
    project.run(&[]).ran(&[&MERGES[..], &["merges.all", "evals.suite/all/add"]].concat());
    assert!(MERGES.iter().chain(&["merges.all"]).all(|merge| !has_weights(&project, merge)));
}

#[test]
fn a_merge_that_is_to_keep_its_weights_is_made_again_for_itself() {
    let project = done();
    project.edit("x.yaml", "keep: recipe", "keep: weights");
    let status = project.mergelab(&["status", "x.yaml"]).exits(0);
    let reason = "merges.m-0.1           its weights were dropped, and `keep: weights` keeps them";
    assert!(status.stdout.contains(reason), "{}", status.stdout);
    project.run(&[]).ran(&MERGES);
    assert!(MERGES.iter().all(|merge| has_weights(&project, merge)));
    project.run(&[]).ran(&[]);
}

#[test]
fn the_setting_is_for_all_merges_that_do_not_say() {
    let project = project();
    project.edit("x.yaml", "keep: recipe, ", "");
    project.edit("x.yaml", "evals:\n", "settings: { keep: recipe }\nevals:\n");
    project.run(&[]);
    assert!(MERGES.iter().all(|merge| !has_weights(&project, merge)));
}

#[test]
fn weights_stay_as_long_as_a_reader_is_not_up_to_date() {
    let project = project();
    project.run(&["--only", "merges.m"]);
    assert!(MERGES.iter().all(|merge| has_weights(&project, merge)), "nothing read them yet");
    project.run(&["--only", EVALS[1]]).ran(&[EVALS[1]]);
    assert_eq!(MERGES.map(|merge| has_weights(&project, merge)), [true, false, true]);
    // The reader of another was removed: now nothing needs it.
    project.edit("x.yaml", "models: [m], backend", "models: [m-0.5, m-0.9], backend");
    project.run(&[]).ran(&[EVALS[2]]);
    assert!(MERGES.iter().all(|merge| !has_weights(&project, merge)));
}

#[test]
fn a_reader_that_failed_keeps_the_weights_for_the_next_run() {
    let project = project().variable("DIE_AFTER", "0");
    let summary = project.run(&["--keep-going"]);
    assert_eq!(summary.in_state("failed"), EVALS);
    assert!(MERGES.iter().all(|merge| has_weights(&project, merge)));
    let project = project.variable("DIE_AFTER", "none");
    project.run(&[]).ran(&EVALS);
    assert!(MERGES.iter().all(|merge| !has_weights(&project, merge)));
}

#[test]
fn what_is_made_again_on_the_same_device_must_be_what_it_was() {
    let project = done();
    project.edit("x.yaml", "tasks: [add]", "tasks: [add, sort]");
    let program = project.read("bin/mergelab-tensor");
    let other =
        |text: &str| project.script("bin/mergelab-tensor", &program.replace("> \"$out/model.safetensors\"", text));
    other("> \"$out/model.safetensors\"; echo other >> \"$out/model.safetensors\"");
    let evals = ["evals.suite/m-0.1/sort", "evals.suite/m-0.5/sort", "evals.suite/m-0.9/sort"];
    let summary = project.run(&["--keep-going"]).failed(1, &MERGES, &evals);
    summary
        .says("merges.m-0.1: made again, it is not what it was: its digest is [digest] and was [digest]")
        .says("hint: the device is the same, so something else changed");
    // On another device it is reported, and what rests on it follows.
    let elsewhere = program.replace("\"device\":\"cpu\"", "\"device\":\"cuda\"");
    let weights = "> \"$out/model.safetensors\"";
    project.script(
        "bin/mergelab-tensor",
        &elsewhere.replace(weights, &format!("{weights}; echo other >> \"$out/model.safetensors\"")),
    );
    let summary = project.run(&["--only", "evals.suite/m-0.1"]);
    summary.says("merges.m-0.1: made again on cuda of ").ran(&[
        "merges.m-0.1",
        "evals.suite/m-0.1/add",
        "evals.suite/m-0.1/sort",
    ]);
    project.run(&["--only", "evals.suite/m-0.1"]).ran(&[]);
    project.mergelab(&["verify"]).exits(0);
}

#[test]
fn two_entries_that_are_the_same_merge_drop_it_when_both_are_read() {
    let project = project();
    project.edit(
        "x.yaml",
        "merges:\n",
        "merges:\n  same: { method: regmean, models: [a, b], grams: [a, b], alpha: 0.5 }\n",
    );
    project.run(&[]);
    assert!(has_weights(&project, "merges.same") && has_weights(&project, MERGES[1]), "one of them keeps its weights");
    assert!(!has_weights(&project, MERGES[0]));
    project.edit("x.yaml", "alpha: 0.5 }\n", "alpha: 0.5, keep: recipe }\n");
    project.run(&[]).ran(&[]);
    assert!(!has_weights(&project, MERGES[1]));
}

#[test]
fn a_kill_while_a_merge_is_made_again_leaves_a_sound_store() {
    let project = done();
    project.edit("x.yaml", "tasks: [add]", "tasks: [add, sort]");
    let program = project.read("bin/mergelab-tensor");
    project.script("bin/mergelab-tensor", &program.replace("echo \"tensor stage\"", "echo $$ > started; sleep 60"));
    let running = project.start(&["run", "x.yaml", "--jobs", "1"]);
    let child = project.wait_for("started");
    running.kill();
    wait_until("the program is gone", || !crate::project::is_alive(&child));
    project.mergelab(&["verify"]).exits(0);
    project.script("bin/mergelab-tensor", &program);
    assert_eq!(project.run(&[]).in_state("ran").len(), 6);
    project.mergelab(&["verify"]).exits(0);
    assert_eq!(project.in_store("tmp"), [""; 0]);
    assert_eq!(fs::read_dir(project.path(".mergelab/quarantine")).unwrap().count(), 0);
}

/// The real tensor program beside the one under test, if it was built and speaks the same language.
fn real_tensor_program() -> Option<()> {
    let program = std::path::Path::new(crate::project::MERGELAB).with_file_name("mergelab-tensor");
    let output = std::process::Command::new(program).arg("--version").output().ok()?;
    let is_ours = String::from_utf8_lossy(&output.stdout).contains(&format!("(wire {})", mergelab_wire::VERSION));
    is_ours.then_some(())
}

/// A checkpoint of three tensors of fp32 numbers, counted up from `first`.
fn checkpoint(first: u8) -> Vec<u8> {
    let tensors = [("model.embed_tokens.weight", 8, 4), ("model.layers.0.self_attn.o_proj.weight", 4, 4)];
    let (mut header, mut numbers) = (serde_json::Map::new(), Vec::new());
    for (name, rows, columns) in tensors {
        let start = numbers.len() * 4;
        numbers.extend((0..rows * columns).map(|index| f32::from(first) + f32::from(index as u8) / 8.0));
        let place = serde_json::json!([start, numbers.len() * 4]);
        header.insert(
            name.to_owned(),
            serde_json::json!({ "dtype": "F32", "shape": [rows, columns], "data_offsets": place }),
        );
    }
    let header = serde_json::Value::from(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    bytes
}

#[test]
fn the_real_tensor_program_makes_a_dropped_merge_again_to_the_byte() {
    if real_tensor_program().is_none() {
        println!("skipped: no mergelab-tensor beside mergelab (`cargo build -p mergelab-tensor`)");
        return;
    }
    let config = r#"{"model_type": "llama", "vocab_size": 8, "torch_dtype": "float32"}"#;
    let mut project = Project::with(
        r#"name: x
models: { a: { path: a }, b: { path: b } }
merges:
  avg: { method: average, models: [a, { model: b, weight: 3 }], keep: recipe }
evals:
  one: { models: [avg], backend: command, run: [sh, score.sh, "{model}", "{out}"] }
"#,
    )
    .file(
        "score.sh",
        "printf '[{\"metric\": \"bytes\", \"value\": %d}]' $(wc -c < \"$1/model.safetensors\") > \"$2/metrics.json\"\n",
    );
    for (model, first) in [("a", 1), ("b", 2)] {
        project = project
            .file(&format!("{model}/config.json"), config)
            .file(&format!("{model}/tokenizer.json"), "{}")
            .file(&format!("{model}/model.safetensors"), checkpoint(first));
    }
    let summary = project.run(&[]);
    summary.ran(&["models.a", "models.b", "merges.avg", "evals.one/avg/one"]);
    assert!(!has_weights(&project, "merges.avg"));
    let digest = manifest(&project, "merges.avg")["digest"].clone();
    project.edit(
        "x.yaml",
        "evals:\n",
        "evals:\n  two: { models: [avg], backend: command, run: [sh, score.sh, \"{model}\", \"{out}\", again] }\n",
    );
    project.run(&[]).ran(&["merges.avg", "evals.two/avg/two"]);
    assert!(!has_weights(&project, "merges.avg"));
    assert_eq!(manifest(&project, "merges.avg")["digest"], digest);
    project.mergelab(&["verify"]).exits(0);
}
