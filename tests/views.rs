//! What `status`, `show`, `explain` and `graph` say, and in which shape.

use serde_json::{Value, json};

use crate::project::Project;
use crate::reruns::{CHAIN, done};

fn keys_of(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn status_says_of_each_stage_what_a_run_would_do() {
    let project = done();
    project.edit("x.yaml", "tr a-z A-Z", "tr a-y A-Y");
    let said = project.mergelab(&["status", "x.yaml"]).exits(0);
    insta::assert_snapshot!(said.stdout);
}

#[test]
fn status_as_json_is_a_list_of_stages() {
    let project = done();
    project.edit("x.yaml", "tr a-z A-Z", "tr a-y A-Y");
    let status = project.mergelab(&["status", "x.yaml", "--json"]).exits(0).json();
    let stages = status.as_array().unwrap();
    for stage in stages {
        assert_eq!(keys_of(stage), ["experiment", "stage", "state", "reason", "key"]);
        assert_eq!(stage["experiment"], "x");
    }
    let column = |name: &str| stages.iter().map(|stage| stage[name].clone()).collect::<Vec<_>>();
    assert_eq!(column("state"), ["up-to-date", "run", "waits"]);
    assert_eq!(column("key").iter().map(Value::is_string).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(column("reason")[2], "waits for commands.second");
}

#[test]
fn the_summary_of_a_run_as_json_is_its_last_line() {
    let project = done();
    project.edit("x.yaml", "tr a-z A-Z", "tr a-y A-Y");
    let summary = project.run(&[]);
    assert_eq!(keys_of(&summary.value), ["event", "ran", "hit", "failed", "seconds", "stages"]);
    // No letter of the text is a z: the stage reruns, and makes what it made before.
    assert_eq!([&summary.value["ran"], &summary.value["hit"], &summary.value["failed"]], [1, 2, 0]);
    for stage in summary.value["stages"].as_array().unwrap() {
        assert_eq!(keys_of(stage), ["experiment", "stage", "state", "seconds"]);
        assert!(stage["seconds"].is_number());
    }
    let events: Vec<Value> = summary.said.raw.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["started", "finished", "summary"]);
}

#[test]
fn show_as_json_has_the_place_the_manifest_and_the_metrics() {
    let project = done();
    let shown = project.mergelab(&["show", "commands.second", "x.yaml", "--json"]).exits(0).json();
    assert_eq!(keys_of(&shown), ["experiment", "stage", "key", "path", "manifest", "metrics"]);
    let (manifest, path) = (&shown["manifest"], shown["path"].as_str().unwrap());
    assert_eq!(std::fs::read_to_string(std::path::Path::new(path).join("out.txt")).unwrap(), "SOME TEXT\n");
    for field in
        ["format", "stage", "key", "struct", "outputs", "digest", "started", "ended", "host", "git", "versions"]
    {
        assert!(manifest.get(field).is_some(), "no {field}: {manifest}");
    }
    assert_eq!(manifest["key"], shown["key"]);
    assert_eq!(manifest["outputs"][0]["path"], "out.txt");
    assert_eq!(manifest["outputs"][0]["size"], 10);
    assert!(path.ends_with(manifest["digest"].as_str().unwrap()));
    assert_eq!(manifest["log"], json!(format!("logs/{}.log", shown["key"].as_str().unwrap())));
    assert_eq!(shown["metrics"], Value::Null);
}

#[test]
fn show_tells_a_person_the_same() {
    let project = done();
    insta::assert_snapshot!(project.mergelab(&["show", "commands.second", "x.yaml"]).exits(0).stdout);
}

#[test]
fn the_path_of_a_model_is_its_own_directory() {
    let project = Project::with("name: x\nmodels: { base: { path: models/base } }\n").model("models/base", "one");
    project.run(&[]).ran(&["models.base"]);
    let shown = project.mergelab(&["show", "models.base", "x.yaml", "--json"]).exits(0).json();
    let expected = std::fs::canonicalize(project.path("models/base")).unwrap();
    assert_eq!(shown["path"], expected.to_str().unwrap());
    let roles: Vec<_> = keys_of(&shown["manifest"]["roles"]);
    assert_eq!(roles, ["config", "tokenizer", "weights"]);
}

#[test]
fn explain_says_what_changed_in_words() {
    let project = done();
    project.edit("x.yaml", "    inputs: [in.txt]\n", "    inputs: [in.txt]\n    version: 1\n");
    project.run(&[]).ran(&["commands.first"]);
    project.edit("x.yaml", "version: 1", "version: 2");
    project.write("in.txt", "other text\n");
    insta::assert_snapshot!(project.mergelab(&["explain", "x.yaml"]).exits(0).stdout);
}

#[test]
fn explain_says_what_a_result_rests_on() {
    let project = done();
    project.mergelab(&["explain", "x.yaml"]).exits(0).prints("everything is up to date\n");
    insta::assert_snapshot!(project.mergelab(&["explain", "commands.second", "x.yaml"]).exits(0).stdout);
}

#[test]
fn the_graph_has_four_forms() {
    let project = Project::with(CHAIN);
    let graph = |format: &str| project.mergelab(&["graph", "x.yaml", "--format", format]).exits(0).stdout;
    insta::assert_snapshot!(["text", "dot", "mermaid", "json"].map(graph).join("\n"));
    assert_eq!(project.mergelab(&["graph", "x.yaml", "--json"]).exits(0).stdout, graph("json"));
    assert!(!project.has(".mergelab"));
}

#[test]
fn piped_output_has_no_escape_codes_with_and_without_no_color() {
    let project = Project::with(CHAIN).file("bad.yaml", "name: x\nmodles: {}\n");
    let plain = |project: &Project| {
        let said = project.mergelab(&["run", "x.yaml"]);
        let bad = project.mergelab(&["run", "bad.yaml"]).exits(3);
        let status = project.mergelab(&["status", "x.yaml"]);
        for text in [&said.stdout, &said.stderr, &bad.stderr, &status.stdout] {
            assert!(!text.contains('\u{1b}'), "{text:?}");
        }
        assert!(!bad.stderr.is_empty());
    };
    plain(&project);
    let project = project.file("in.txt", "some text\n");
    plain(&project);
    plain(&project.variable("NO_COLOR", "1"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let project = done();
    let program = project.command(&[]).get_program().to_owned();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "{ \"$0\" schema; echo code $? >&2; } | head -n 1"]).arg(program).current_dir(project.root());
    project.said(command).exits(0).prints("{\n").says("code 0\n").says_nothing_of("panic");
}
