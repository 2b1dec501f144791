//! Answers of evaluations: listed, chosen, and held against those of another model.

use std::io::Write;

use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::project::Project;

const EXPERIMENT: &str = r"name: x
models: { a: { path: models/a }, b: { path: models/b } }
evals:
  suite: { models: [a, b], backend: hf, task_dirs: [tasks], tasks: [add, group] }
  other: { models: [a], backend: command, run: [sh, score.sh, '{out}', '{model}'] }
";

/// Two evaluated models, whose driver hands over the files under `made/MODEL/TASK/`.
fn project() -> Project {
    let project = Project::with(EXPERIMENT)
        .with_fakes()
        .model("models/a", "one")
        .model("models/b", "two")
        .file("tasks/add.yaml", "task: add\n")
        .file("tasks/group.yaml", "task: group\n")
        .file("score.sh", "echo '[{\"metric\": \"acc\", \"value\": 0.5}]' > \"$1/metrics.json\"\n");
    let made = project.path("made").to_str().unwrap().to_owned();
    project.variable("MADE", &made)
}

/// What the driver writes of a document: a sum, what the model made of it, and whether that is right.
fn record(task: &str, doc_id: usize, answer: &str) -> Value {
    let right = (2 * doc_id).to_string();
    let score = |answer: &str| f64::from(u8::from(answer == right));
    json!({
        "task": task,
        "doc_id": doc_id,
        "doc": { "question": format!("{doc_id} + {doc_id} ="), "answer": right },
        "target": right,
        "arguments": [[format!("1 + 1 =\n2\n\n{doc_id} + {doc_id} ="), { "until": ["\n"] }]],
        "responses": [[format!("It is {answer}.")]],
        "filtered": { "flexible": [answer], "strict": ["[invalid]"] },
        "metrics": { "flexible": { "exact_match": score(answer) }, "strict": { "exact_match": 0.0 } },
    })
}

fn gzip(records: &[Value]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::none());
    for record in records {
        writeln!(encoder, "{record}").unwrap();
    }
    encoder.finish().unwrap()
}

const METRICS: &str = r#"[{"metric":"exact_match","filter":"flexible","value":0.75,"stderr":0.25,"n_samples":4,"n_shot":1,
"higher_is_better":true},{"metric":"exact_match","filter":"strict","value":0.0,"stderr":0.0,"n_samples":4,"n_shot":1}]"#;

/// Puts samples and metrics where the driver finds them.
fn make(project: &Project, model: &str, task: &str, records: &[Value]) {
    project.write(&format!("made/{model}/{task}/metrics.json"), METRICS);
    project.write(&format!("made/{model}/{task}/samples.jsonl.gz"), gzip(records));
}

/// Answers to documents 0, 1, …
fn answers(task: &str, answers: &[&str]) -> Vec<Value> {
    answers.iter().enumerate().map(|(doc_id, answer)| record(task, doc_id, answer)).collect()
}

/// As [`project`], run: on `add` model `a` errs on document 1, `b` on 0 and 3; `group` has two tasks.
fn done() -> Project {
    let project = project();
    make(&project, "a", "add", &answers("add", &["0", "3", "4", "6"]));
    make(&project, "b", "add", &answers("add", &["9", "2", "4", "7"]));
    for (model, second) in [("a", "1"), ("b", "2")] {
        let records = [answers("one", &["0", second]), answers("two", &["0", "2", "3"])].concat();
        make(&project, model, "group", &records);
    }
    project.run(&["--only", "evals.suite"]);
    project
}

fn ids(stdout: &str) -> Vec<u64> {
    stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["doc_id"].as_u64().unwrap()).collect()
}

#[test]
fn answers_are_listed_with_question_response_target_and_scores() {
    let said = done().mergelab(&["samples", "evals.suite/a/add", "x.yaml", "--limit", "2"]).exits(0);
    insta::assert_snapshot!(said.all());
}

#[test]
fn wrong_and_right_ones_and_single_documents_can_be_asked_for() {
    let project = done();
    let listed = |flags: &[&str]| {
        let said = project.mergelab(&[&["samples", "evals.suite/b/add", "x.yaml", "--json"], flags].concat()).exits(0);
        ids(&said.raw)
    };
    assert_eq!(listed(&[]), [0, 1, 2, 3]);
    assert_eq!(listed(&["--wrong"]), [0, 3]);
    assert_eq!(listed(&["--right"]), [1, 2]);
    assert_eq!(listed(&["--wrong", "--limit", "1"]), [0]);
    assert_eq!(listed(&["--doc", "2"]), [2]);
    assert_eq!(listed(&["--right", "--filter", "strict"]), [0; 0]);
    let said = project.mergelab(&["samples", "evals.suite/b/add", "x.yaml", "--wrong"]).exits(0);
    said.says("2 of 4 documents, by exact_match (flexible)\n");
    let said = project.mergelab(&["samples", "evals.suite/b/add", "x.yaml", "--doc", "9"]).exits(2);
    said.says("evals.suite/b/add has no document 9; it has 4 documents");
}

#[test]
fn as_json_a_record_is_whole() {
    let said = done().mergelab(&["samples", "evals.suite/a/add", "x.yaml", "--json", "--doc", "1"]).exits(0);
    assert_eq!(said.json(), record("add", 1, "3"));
}

#[test]
fn an_unknown_metric_is_answered_with_those_there_are() {
    let said = done().mergelab(&["samples", "evals.suite/a/add", "x.yaml", "--metric", "acc"]).exits(2);
    said.says("evals.suite/a/add: no metric `acc`; there is exact_match (flexible), exact_match (strict)");
}

#[test]
fn two_models_stand_side_by_side_with_an_exact_test() {
    let project = done();
    let compare = ["samples", "evals.suite/a/add", "x.yaml", "--against"];
    let said = project.mergelab(&[&compare[..], &["b"]].concat()).exits(0);
    insta::assert_snapshot!(said.all());
    for other in ["evals.suite/b/add", "models.b", "evals.suite/b"] {
        project.mergelab(&[&compare[..], &[other]].concat()).exits(0).prints(&said.stdout);
    }
}

#[test]
fn as_json_a_comparison_is_one_object_with_all_figures() {
    let said = done().mergelab(&["samples", "evals.suite/a/group", "x.yaml", "--against", "b", "--json"]).exits(0);
    let all = said.json();
    assert_eq!(all["experiment"], "x");
    assert_eq!(all["sides"][1]["stage"], "evals.suite/b/group");
    assert_eq!((&all["n"], &all["differing"], &all["only"]), (&5.into(), &1.into(), &json!([0, 1])));
    assert_eq!((&all["both_right"], &all["both_wrong"], &all["p"]), (&3.into(), &1.into(), &1.0.into()));
    assert_eq!((&all["means"], &all["test"]), (&json!([0.6, 0.8]), &"mcnemar-exact".into()));
    assert_eq!(all["sentence"], "1 of 5 items differs: p = 1.00, not a finding.");
    assert_eq!(all["items"], json!([{ "task": "one", "doc_id": 1, "scores": [0.0, 1.0] }]));
    let tasks = all["tasks"].as_array().unwrap();
    let tasks: Vec<_> = tasks.iter().map(|task| (&task["task"], &task["n"], &task["differing"])).collect();
    assert_eq!(tasks, [(&"one".into(), &2.into(), &1.into()), (&"two".into(), &3.into(), &0.into())]);
}

#[test]
fn a_group_is_compared_task_by_task_and_as_a_whole() {
    let said = done().mergelab(&["samples", "evals.suite/a/group", "x.yaml", "--against", "b"]).exits(0);
    insta::assert_snapshot!(said.stdout);
}

#[test]
fn scores_in_between_are_resampled_with_a_seed_that_is_stated() {
    let project = project();
    for (model, low) in [("a", 0.5), ("b", 0.25)] {
        let records = (0..40).map(|doc_id| {
            let score = if doc_id % 4 == 0 { low } else { 0.125 * f64::from(doc_id % 3) };
            json!({ "task": "add", "doc_id": doc_id, "doc": doc_id, "metrics": { "none": { "f1": score } } })
        });
        make(&project, model, "add", &records.collect::<Vec<_>>());
        let metrics = r#"[{"metric":"f1","filter":"none","value":0.5,"higher_is_better":true}]"#;
        project.write(&format!("made/{model}/add/metrics.json"), metrics);
    }
    project.run(&["--only", "evals.suite/a/add", "--only", "evals.suite/b/add"]);
    let said = project.mergelab(&["samples", "evals.suite/a/add", "x.yaml", "--against", "b", "--limit", "1"]).exits(0);
    insta::assert_snapshot!(said.all());
}

#[test]
fn other_documents_under_the_same_numbers_are_not_compared() {
    let project = project();
    make(&project, "a", "add", &answers("add", &["0", "2"]));
    let mut other = answers("add", &["0", "2"]);
    other[1]["doc"]["question"] = "another question".into();
    make(&project, "b", "add", &other);
    project.run(&["--only", "evals.suite/a/add", "--only", "evals.suite/b/add"]);
    let said = project.mergelab(&["samples", "evals.suite/a/add", "x.yaml", "--against", "b"]).exits(3);
    said.says("evals.suite/a/add and evals.suite/b/add: document 1 of add is not the same in both")
        .says("hint: scores are compared document by document");
}

#[test]
fn other_limits_are_compared_where_they_overlap_and_it_is_said() {
    let project = project();
    make(&project, "a", "add", &answers("add", &["0", "2", "4"]));
    make(&project, "b", "add", &answers("add", &["0", "3"]));
    project.run(&["--only", "evals.suite/a/add", "--only", "evals.suite/b/add"]);
    let said = project.mergelab(&["samples", "evals.suite/a/add", "x.yaml", "--against", "b"]).exits(0);
    let said = said.says("note: 1 documents are only in evals.suite/a/add, and left out (another `limit`?)\n");
    assert!(said.stdout.contains("over 2 documents"), "{}", said.stdout);
}

#[test]
fn a_name_that_is_no_other_evaluation_is_refused() {
    let project = done();
    let against = |other: &str| project.mergelab(&["samples", "evals.suite/a/add", "x.yaml", "--against", other]);
    against("c").exits(2).says("--against \"c\" is no evaluation and no model of evals.suite, which has a, b");
    against("a").exits(2).says("evals.suite/a/add stands on both sides");
    let said = project.mergelab(&["samples", "models.a", "x.yaml"]).exits(2);
    said.says("models.a is no evaluation: it has no answers");
}

#[test]
fn an_evaluation_that_did_not_run_or_keeps_no_answers_says_so() {
    let project = project();
    let said = project.mergelab(&["samples", "evals.suite/a/add", "x.yaml"]).exits(1);
    said.says("evals.suite/a/add is not up to date: ");
    project.run(&["--only", "evals.other"]).ran(&["models.a", "evals.other/a/other"]);
    let said = project.mergelab(&["samples", "evals.other/a/other", "x.yaml"]).exits(1);
    said.says("evals.other/a/other keeps no answers: sh wrote no {out}/samples.jsonl.gz");
}

#[test]
fn damaged_samples_are_named_with_the_way_out() {
    let project = project();
    make(&project, "a", "add", &answers("add", &["0", "2", "4"]));
    let whole = std::fs::read(project.path("made/a/add/samples.jsonl.gz")).unwrap();
    project.write("made/a/add/samples.jsonl.gz", &whole[..whole.len() - 9]);
    project.run(&["--only", "evals.suite/a/add"]);
    let said = project.mergelab(&["samples", "evals.suite/a/add", "x.yaml"]).exits(4);
    said.says("samples.jsonl.gz:3: the gzip stream ends early: the file is cut off")
        .says("hint: `mergelab verify` finds all that is damaged; `mergelab run FILE --force evals.suite/a/add` makes this anew");
}

#[test]
fn show_has_direction_shots_counts_version_and_warnings() {
    let project = done();
    project.write("made/a/add/task.json", r#"{"versions": {"add": 3.0}}"#);
    project.write(
        "made/a/add/warnings.json",
        r#"[{"tripwire": "empty", "count": 1, "of": 4, "share": 0.25, "message": "1 of 4 answers (25 %) are empty",
            "examples": [{"task": "add", "doc_id": 1}]}]"#,
    );
    project.run(&["--force", "evals.suite/a/add", "--only", "evals.suite/a/add"]);
    let said = project.mergelab(&["show", "evals.suite/a/add", "x.yaml"]).exits(0);
    let lines: Vec<_> = said.stdout.lines().filter(|line| !line.contains("  file ")).skip(4).collect();
    insta::assert_snapshot!(lines.join("\n"));
}
