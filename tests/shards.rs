//! Gram capture in shards, with stand-ins for the programs that compute.

use std::fs;

use crate::project::Project;

const EXPERIMENT: &str = r#"name: x
models: { a: { path: models/a }, b: { path: models/b } }
data:
  rows: { path: rows.jsonl, text: "{{ text }}" }
grams:
  a: { model: a, data: rows, shards: 3 }
  b: { model: b, data: rows }
merges:
  regmean: { method: regmean, models: [a, b], grams: [a, b] }
"#;

const SHARDS: [&str; 3] = ["grams.a/shard-0", "grams.a/shard-1", "grams.a/shard-2"];

fn rows(count: usize) -> String {
    let lines: Vec<_> = (0..count).map(|row| format!("{{\"text\":\"row {row}\"}}\n")).collect();
    lines.concat()
}

/// A project with eleven rows in ranges of four.
fn project() -> Project {
    Project::with(EXPERIMENT)
        .with_fakes()
        .model("models/a", "one")
        .model("models/b", "two")
        .file("rows.jsonl", rows(11))
}

#[test]
fn a_sharded_capture_is_run_shown_and_linked_under_its_own_name() {
    let project = project();
    let first = project.run(&["--only", "grams.a"]);
    first.ran(&["models.a", "data.rows", SHARDS[0], SHARDS[1], SHARDS[2], "grams.a"]);
    let text = |stage: &str| fs::read_to_string(project.output("x", stage, "grams.safetensors")).unwrap();
    assert_eq!(text("grams.a@shard-2").matches("row ").count(), 3, "the last three rows");
    assert_eq!(text("grams.a").matches("row ").count(), 11);
    project.run(&[]).ran(&["models.b", "grams.b", "merges.regmean"]);
    project.run(&[]).ran(&[]);
    let status = project.mergelab(&["status", "x.yaml"]).exits(0);
    assert!(status.stdout.contains("up-to-date  grams.a/shard-1\n"), "{}", status.stdout);
    let shown = project.mergelab(&["show", "grams.a/shard-1", "x.yaml", "--json"]).exits(0).json();
    assert_eq!(shown["manifest"]["stage"], "grams.a/shard-1");
    let key = project.mergelab(&["key", "grams.a", "x.yaml"]).exits(0).json();
    assert_eq!(key["params"], serde_json::json!({ "shards": 3 }));
    assert_eq!(key["inputs"].as_object().unwrap().keys().collect::<Vec<_>>(), ["shard-0", "shard-1", "shard-2"]);
    let graph = project.mergelab(&["graph", "x.yaml"]).exits(0);
    assert!(graph.stdout.contains("grams.a/shard-0"), "{}", graph.stdout);
    project.mergelab(&["verify"]).exits(0);
}

#[test]
fn rows_that_are_added_run_the_last_shard_the_sum_and_what_rests_on_it() {
    let project = project();
    project.run(&[]);
    project.write("rows.jsonl", rows(12));
    project.run(&[]).ran(&["data.rows", SHARDS[2], "grams.a", "grams.b", "merges.regmean"]);
    // With as many shards as are needed for ranges of the same size.
    project.write("rows.jsonl", rows(16));
    project.edit("x.yaml", "shards: 3", "shards: 4");
    project.run(&[]).ran(&["data.rows", "grams.a/shard-3", "grams.a", "grams.b", "merges.regmean"]);
}

#[test]
fn explain_says_of_a_shard_that_its_rows_changed() {
    let project = project();
    project.run(&[]);
    project.write("rows.jsonl", rows(11).replace("row 9", "another row"));
    project.run(&["--only", "data.rows"]);
    let said = project.mergelab(&["explain", "grams.a/shard-2", "x.yaml"]).exits(0);
    said.prints("grams.a/shard-2: run\n  since it ran [time]:\n  input data changed\n");
    let said = project.mergelab(&["explain", "grams.a", "x.yaml"]).exits(0);
    said.prints("grams.a: waits\n  waits for grams.a/shard-2\n");
}

#[test]
fn a_shard_without_rows_is_made_without_a_program_and_says_so() {
    let project = project();
    project.write("rows.jsonl", rows(2));
    let summary = project.run(&["--only", "grams.a"]);
    summary.says("grams.a/shard-2: the rows of the data fill the other shards: this one has none").ran(&[
        "models.a",
        "data.rows",
        SHARDS[0],
        SHARDS[1],
        SHARDS[2],
        "grams.a",
    ]);
    let index = project.output("x", "grams.a@shard-2", "index.json");
    assert_eq!(fs::read_to_string(index).unwrap(), "{\n  \"format\": 1,\n  \"modules\": {}\n}\n");
}

#[test]
fn a_shard_that_is_lost_is_made_again_and_nothing_after_it() {
    let project = project();
    project.run(&[]);
    fs::remove_file(project.output("x", "grams.a@shard-1", "grams.safetensors")).unwrap();
    project.run(&[]).ran(&[SHARDS[1]]);
}
