//! Code that a model wrote, by the whole program with the real `lm_eval`: in the sandbox, and where there is none.

use std::process::{Command, Stdio};

use crate::evaluations::{make_model, real_python};
use crate::project::{Project, Said};

/// A task whose programs are known whatever a random model answers: the first passes, the second does not end.
const SCORE: &str = r#"
import evaluate

metric = evaluate.load("code_eval")

PROGRAMS = {"right": "x = 1", "late": "while True: pass"}


def score(doc, results):
    scores, _ = metric.compute(predictions=[[PROGRAMS[doc["what"]]]], references=["assert x == 1"], k=[1])
    return {"pass@1": scores["pass@1"]}
"#;

const TASK: &str = r#"task: code
dataset_path: json
dataset_kwargs: { data_files: { test: rows.jsonl } }
unsafe_code: true
output_type: generate_until
test_split: test
doc_to_text: "{{what}}"
doc_to_target: ""
process_results: !function score.score
generation_kwargs: { until: ["\n"], max_gen_toks: 2, do_sample: false }
metric_list: [{ metric: pass@1, aggregation: mean, higher_is_better: true }]
"#;

/// Runs the experiment; importing `lm_eval` takes longer than programs here are given otherwise.
fn run(project: &Project, path: Option<&str>) -> Said {
    let mut command = project.command(&["run", "x.yaml"]);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    Said::of(project, command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap())
}

#[test]
fn code_runs_in_the_sandbox_or_not_at_all_and_time_outs_are_counted_apart() {
    let Some(python) = real_python() else { return };
    let project = Project::with(
        "name: x\nmodels: { a: { path: a } }\nevals:\n  suite: { models: [a], backend: hf, task_dirs: [tasks], unsafe_code: sandbox, code_timeout: 2, apply_chat_template: false, tasks: [code] }\nsettings: { device: cpu }\n",
    )
    .file("mergelab.toml", format!("[python]\npath = {:?}\n", python.parent().unwrap().parent().unwrap()))
    .file("tasks/code.yaml", TASK)
    .file("tasks/score.py", SCORE)
    .file("rows.jsonl", "{\"what\": \"right\"}\n{\"what\": \"late\"}\n");
    make_model(&python, &project.path("a"));

    let nowhere = project.path("empty");
    run(&project, Some(nowhere.to_str().unwrap())).exits(1).says("code on a: `unsafe_code: sandbox` needs bubblewrap");

    let works = Command::new("bwrap").args(["--ro-bind", "/", "/", "true"]).status();
    if !works.is_ok_and(|status| status.success()) {
        println!("skipped: no bubblewrap that works (`make sandbox-deps`)");
        return;
    }
    run(&project, None).exits(0).says("1 of 2 programs (50 %) ran out of time");
    let shown = project.mergelab(&["show", "--json", "evals.suite/a/code", "x.yaml"]).exits(0).json();
    assert_eq!(shown["metrics"][0]["metric"], "pass@1");
    assert_eq!(shown["metrics"][0]["value"], 0.5);
}
