//! `backend: command`: any program that writes `metrics.json`.

use std::fs;

use crate::project::{Project, Summary};

/// A suite whose program is a script; it is given the model, and writes what a test wants.
fn project(script: &str) -> Project {
    Project::with(
        r#"name: x
models: { a: { path: models/a } }
evals:
  score:
    models: [a]
    backend: command
    run: [sh, score.sh, "{model}", "{out}"]
tables:
  main:
    rows: [a]
    columns: [{ task: score, metric: length }]
"#,
    )
    .model("models/a", "one")
    .file("score.sh", script)
}

/// A script that writes some text as its metrics.
fn writing(metrics: &str) -> String {
    format!("echo scoring\ncat > \"$2/metrics.json\" <<'END'\n{metrics}\nEND\n")
}

const LENGTH: &str =
    r#"[{"metric": "length", "filter": "", "value": 12.5, "stderr": 0.5, "n_samples": 4, "higher_is_better": false}]"#;

/// A run of a script in which its evaluation fails, with exit code 1.
#[track_caller]
fn failing(project: &Project) -> Summary {
    let summary = project.run(&[]).failed(1, &["evals.score/a/score"], &["tables.main"]);
    assert!(!project.has("results"));
    summary
}

#[test]
fn the_figures_of_any_program_come_into_results_and_what_else_it_writes_is_kept() {
    let script = format!("test -f \"$1/model.safetensors\"\n{}echo > \"$2/samples.jsonl.gz\"\n", writing(LENGTH));
    let project = project(&script);
    project.run(&[]).ran(&["models.a", "evals.score/a/score", "tables.main"]);
    let results = project.read("results/x/results.csv");
    assert!(results.lines().nth(1).unwrap().starts_with("a,score,length,,,12.5,0.5,4,measured,"), "{results}");
    let shown = project.mergelab(&["show", "evals.score/a/score", "x.yaml", "--json"]).exits(0).json();
    assert_eq!(shown["metrics"][0]["value"], 12.5);
    assert_eq!(shown["manifest"]["outputs"][1]["path"], "samples.jsonl.gz");
    assert!(shown["manifest"]["facts"].get("command").is_none(), "it has no lm_eval command");
    project.run(&[]).ran(&[]);
}

#[test]
fn a_number_of_a_table_leads_to_its_stage_and_all_that_it_rests_on() {
    let project = project(&writing(LENGTH));
    let cell = |row: &str, column: &str| project.mergelab(&["explain", "x.yaml", "--cell", "main", row, column]);
    assert!(cell("a", "1").exits(0).stdout.contains("  not measured\n"));
    project.run(&[]).ran(&["models.a", "evals.score/a/score", "tables.main"]);
    let said = cell("a", "score").exits(0).stdout;
    let first = "length of a on score\n  measured 12.5 ± 0.5000, key [digest]\n";
    assert!(said.starts_with(first), "{said}");
    assert!(said.contains("\n  from evals.score/a/score ") && said.contains("\n  rests on models.a "), "{said}");
    assert!(said.contains("\n  metric  length 12.5 ± 0.5000, lower is better, 4 samples\n"), "{said}");
    cell("b", "score").exits(2).says("there is no row `b`").says("the rows are `a`");
    cell("a", "scores").exits(2).says("there is no column `scores`; did you mean `score`?");
    project
        .mergelab(&["explain", "models.a", "x.yaml", "--cell", "main", "a", "1"])
        .exits(2)
        .says("name the file alone");
    project.mergelab(&["explain", "x.yaml", "--cell", "mian", "a", "1"]).exits(2).says("did you mean `main`?");
    // The committed figures are enough for the number and its key.
    project.lose_store();
    assert!(cell("a", "score").exits(0).stdout.starts_with(first));
}

#[test]
fn metrics_that_cannot_be_used_are_refused_with_the_place_and_what_the_program_printed() {
    for (metrics, problem) in [
        ("[{", "metrics.json: not a list of"),
        (r#"[{"metric": "length", "value": NaN}]"#, "at line 1 column"),
        (r#"[{"metric": "length"}]"#, "missing field `value`"),
        (r#"[{"metric": "length", "value": 1, "stderr": -1}]"#, "metrics.json: entry 1 (`length`): `stderr` is -1"),
        ("{}", "metrics.json: not a list of"),
        ("[]", "metrics.json: an empty list"),
    ] {
        let summary = failing(&project(&writing(metrics)));
        let summary = summary.says("evals.score/a/score: sh ended well and left no metrics that can be used: ");
        summary.says(problem).says("its last lines:\n  scoring\n").says("hint: it writes {out}/metrics.json");
    }
}

#[test]
fn a_program_that_writes_no_metrics_fails_or_takes_too_long_is_told_so() {
    let summary = failing(&project("echo nothing > \"$2/other\"\n"));
    summary.says("left no metrics that can be used: metrics.json: no such file");
    failing(&project("echo no GPU; exit 4\n")).says("sh ended with exit code 4; its last lines:\n  no GPU\n");
    let project = project("sleep 100\n");
    project.edit("x.yaml", "    backend: command\n", "    backend: command\n    timeout: 0.3\n");
    failing(&project).says("evals.score/a/score: sh took longer than its timeout");
}

#[test]
fn another_script_or_input_runs_the_evaluation_again_and_another_place_does_not() {
    let project = project(&writing(LENGTH)).file("answers/all.txt", "1\n");
    project.edit(
        "x.yaml",
        "    backend: command\n",
        "    backend: command\n    inputs: [answers]\n    env: { MODE: one }\n",
    );
    project.run(&[]);
    project.write("score.sh", format!("{}true\n", writing(LENGTH)));
    project.run(&[]).ran(&["evals.score/a/score"]);
    project.write("answers/all.txt", "2\n");
    project.run(&[]).ran(&["evals.score/a/score"]);
    project.edit("x.yaml", "MODE: one", "MODE: two");
    project.run(&[]).ran(&["evals.score/a/score"]);
    fs::create_dir(project.path("deep")).unwrap();
    fs::rename(project.path("score.sh"), project.path("deep/score.sh")).unwrap();
    project.edit("x.yaml", "sh, score.sh,", "sh, deep/score.sh,");
    project.run(&[]).ran(&[]);
    fs::remove_dir_all(project.path("answers")).unwrap();
    let said = project.mergelab(&["run", "x.yaml"]).exits(3);
    said.says("answers: no such file or directory");
}

#[test]
fn its_environment_reaches_the_program() {
    let script = "echo \"[{\\\"metric\\\": \\\"length\\\", \\\"value\\\": $LENGTH}]\" > \"$2/metrics.json\"\n";
    let project = project(script);
    project.edit("x.yaml", "    backend: command\n", "    backend: command\n    env: { LENGTH: 7 }\n");
    project.run(&[]);
    assert!(project.read("results/x/results.csv").contains("a,score,length,,,7.0,"));
}

#[test]
fn a_program_that_is_not_told_where_to_write_is_refused() {
    let project = project("");
    project.edit("x.yaml", "\"{model}\", \"{out}\"", "\"{model}\"");
    let said = project.mergelab(&["run", "x.yaml"]).exits(3).says("`run` does not name `{out}`");
    said.says("the program finds the model in {model} and writes {out}/metrics.json");
}
