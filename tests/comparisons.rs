//! Tables that test models against a baseline: from the store, and from what `results/` keeps.

use std::fs;
use std::io::Write;

use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::project::Project;

const EXPERIMENT: &str = r"name: x
models: { a: { path: models/a }, b: { path: models/b }, c: { path: models/c } }
evals:
  suite: { models: [a, b, c], backend: hf, task_dirs: [tasks], tasks: [add, text] }
  plain: { models: [a, b], backend: command, run: [sh, score.sh, '{out}', '{model}'] }
tables:
  main:
    rows: [{ model: a, label: Average }, b, c]
    columns:
      - { task: add, metric: exact_match, label: Add, specialist: b }
      - { task: text, metric: bits_per_byte, label: Text, digits: 4, specialist: c }
      - { task: plain, metric: acc, label: Plain }
      - { mean: normalized, label: Normalized }
    baseline: a
    into: README.md
";

fn gzip(records: &[Value]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::none());
    for record in records {
        writeln!(encoder, "{record}").unwrap();
    }
    encoder.finish().unwrap()
}

/// Twenty documents of which a model gets those from `first` on right.
fn answers(first: usize) -> Vec<Value> {
    let record = |doc_id: usize| {
        let score = f64::from(u8::from(doc_id >= first));
        json!({ "task": "add", "doc_id": doc_id, "doc": doc_id, "metrics": { "none": { "exact_match": score } } })
    };
    (0..20).map(record).collect()
}

/// Nine rows of ten bytes, and one of a thousand, with so many nats for a byte of each.
fn losses(short: f64, long: f64) -> Vec<Value> {
    let record = |doc_id: usize| {
        let (bytes, per_byte) = if doc_id == 0 { (1000, long) } else { (10, short) };
        let nll = per_byte * f64::from(bytes);
        let metrics = json!({ "none": { "bits_per_byte": per_byte / std::f64::consts::LN_2 } });
        json!({
            "task": "loss", "doc_id": doc_id, "doc": doc_id, "metrics": metrics,
            "nll": nll, "tokens": bytes, "bytes": bytes,
        })
    };
    (0..10).map(record).collect()
}

fn make(project: &Project, model: &str, task: &str, metric: &str, value: f64, records: &[Value]) {
    let higher = metric == "exact_match";
    let metrics = json!([{ "metric": metric, "filter": "none", "value": value, "stderr": 0.01, "n_samples": 20,
                           "higher_is_better": higher }]);
    project.write(&format!("made/{model}/{task}/metrics.json"), metrics.to_string());
    project.write(&format!("made/{model}/{task}/samples.jsonl.gz"), gzip(records));
}

pub(crate) fn project() -> Project {
    let project = Project::with(EXPERIMENT)
        .with_fakes()
        .model("models/a", "one")
        .model("models/b", "two")
        .model("models/c", "three")
        .file("tasks/add.yaml", "task: add\n")
        .file("tasks/text.yaml", "task: text\n")
        .file("score.sh", "echo '[{\"metric\": \"acc\", \"value\": 0.5}]' > \"$1/metrics.json\"\n")
        .file("README.md", "<!-- mergelab:table main -->\n<!-- mergelab:end -->\n");
    for (model, first) in [("a", 10), ("b", 4), ("c", 5)] {
        make(&project, model, "add", "exact_match", (20 - first) as f64 / 20.0, &answers(first));
    }
    // The long row decides the ratio and no test: b is better on nine rows of ten, and worse by all bytes.
    for (model, short, long) in [("a", 0.6, 0.5), ("b", 0.5, 0.55), ("c", 0.4, 0.4)] {
        let value = (90.0 * short + 1000.0 * long) / 1090.0 / std::f64::consts::LN_2;
        make(&project, model, "text", "bits_per_byte", value, &losses(short, long));
    }
    let made = project.path("made").to_str().unwrap().to_owned();
    project.variable("MADE", &made)
}

#[test]
fn a_table_shows_what_samples_against_says() {
    let project = project();
    project.run(&[]);
    insta::assert_snapshot!(project.read("README.md"));
    let paired = project.read("results/x/paired.csv");
    let lines: Vec<Vec<&str>> = paired.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let without_keys: Vec<String> = lines.iter().map(|line| line[..10].join(",")).collect();
    insta::assert_snapshot!(without_keys.join("\n"));
    for line in lines.iter().filter(|line| line[0] != "plain") {
        let stage = format!("evals.suite/{}/{}", line[4], line[0]);
        let said = project.mergelab(&["samples", &stage, "x.yaml", "--against", "a", "--json"]).exits(0).json();
        for (name, column) in [("difference", 6), ("stderr", 7), ("p", 9)] {
            let (kept, shown) = (line[column].parse::<f64>().unwrap(), said[name].as_f64().unwrap());
            assert!((kept / shown - 1.0).abs() < 1e-12, "{stage}: {name} is {kept} and {shown}");
        }
        assert_eq!((&said["test"], &said["n"].to_string()), (&line[8].into(), &line[5].to_owned()), "{stage}");
    }
    project.run(&[]).ran(&[]);
    project.mergelab(&["render", "x.yaml", "--check"]).exits(0);
}

#[test]
fn a_checkout_without_a_store_renders_from_what_results_keep() {
    let project = project();
    project.run(&[]);
    project.results_stand_without_the_store();

    let paired = project.read("results/x/paired.csv");
    let second = paired.lines().nth(1).unwrap();
    project.edit("results/x/paired.csv", &format!("{second}\n"), "");
    let said = project.mergelab(&["render", "x.yaml", "--check"]).exits(3);
    said.says("results/x/paired.csv: no test of model `b` against `a` on `exact_match` of task `add`\n")
        .says("hint: `mergelab render` makes it anew where the store has the evaluations and their answers");
    let key = second.rsplit(',').next().unwrap();
    project.write("results/x/paired.csv", paired.replace(key, "ab12"));
    let said = project.mergelab(&["render", "x.yaml"]).exits(3);
    said.says("is of another evaluation of `b` than the figure in results.csv: its key is ab12, not ");
}

#[test]
fn answers_that_cannot_be_read_are_no_answers_that_are_not_there() {
    let project = project();
    let whole = fs::read(project.path("made/b/add/samples.jsonl.gz")).unwrap();
    project.write("made/b/add/samples.jsonl.gz", &whole[..whole.len() - 9]);
    let summary = project.run(&[]);
    assert_eq!(summary.said.code, 1, "{}", summary.said.stderr);
    summary.says("b on add: ").says("the gzip stream ends early: the file is cut off");
}

#[test]
fn without_a_baseline_there_is_no_file_of_tests() {
    let project = project();
    project.edit("x.yaml", "    baseline: a\n", "");
    project.run(&[]);
    assert!(!project.has("results/x/paired.csv"));
    assert!(!project.read("README.md").contains(['↑', '↓']));
}

#[test]
fn what_tests_found_is_kept_with_the_table_that_asked_for_them() {
    let project = project();
    project.run(&[]);
    let without_keys = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split(',').take(10).collect::<Vec<_>>().join(",")).collect()
    };
    let kept = fs::read_to_string(project.output("x", "tables.main", "paired.csv")).unwrap();
    let shown = project.read("results/x/paired.csv");
    assert_eq!(without_keys(&kept), without_keys(&shown));
    assert!(kept.lines().count() > 5 && kept != shown, "the keys of evaluations are not in a table's result");
}
