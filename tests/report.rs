//! The page of an experiment, as a file.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::project::Project;

/// Where the page lies.
pub(crate) const PAGE: &str = "results/x/report.html";

/// Texts that would run as a script if anything of them were taken for markup or an address.
pub(crate) const HOSTILE: &str = "</script><script>hacked=1</script><img src=x onerror=hacked=1>\u{2028}\"'`${1}&lt; \
                                  [x](javascript:hacked=1) javascript:hacked=1 שלום";

const EXPERIMENT: &str = r#"name: x
description: "HOSTILE"
models:
  a: { path: models/a }
  b: { path: models/b }
data:
  rows-a: { path: a.jsonl, text: "{{ text }}" }
  rows-b: { path: b.jsonl, text: "{{ text }}" }
grams:
  a: { model: a, data: rows-a, max_length: 32 }
  b: { model: b, data: rows-b, max_length: 32 }
merges:
  avg: { method: average, models: [a, b] }
  regmean: { method: regmean, models: [a, b], grams: [a, b], sweep: { alpha: [0.1, 0.5, 0.9] } }
evals:
  suite: { models: [a, b, avg, regmean], backend: hf, task_dirs: [tasks], tasks: [add, reverse] }
tables:
  main:
    rows: [{ model: a, label: "HOSTILE" }, { model: b, label: "The second" }, avg, { model: regmean, label: "RegMean, α =" }]
    columns:
      - { task: add, metric: exact_match, label: "Addition", note: "HOSTILE" }
      - { task: reverse, metric: exact_match, label: "Reversal" }
    published: published.csv
"#;

/// Two models and four merges on two tasks, run; the second model's answers to `add` and the average's are there.
pub(crate) fn done() -> Project {
    let hostile = serde_json::to_string(HOSTILE).unwrap();
    let project = Project::with(&EXPERIMENT.replace("HOSTILE", hostile.trim_matches('"')))
        .with_fakes()
        .model("models/a", "one")
        .model("models/b", "two")
        .file("a.jsonl", "{\"text\": \"a\"}\n")
        .file("b.jsonl", "{\"text\": \"b\"}\n")
        .file("tasks/add.yaml", "task: add\noutput_type: generate_until\n")
        .file("tasks/reverse.yaml", "task: reverse\noutput_type: generate_until\n")
        .file(
            "published.csv",
            format!(
                "model,task,metric,filter,n_shot,value,stderr,n_samples,citation,note\n\
                 a,add,exact_match,,0,0.25,0.01,,\"{}\",\n",
                HOSTILE.replace('"', "\"\"")
            ),
        )
        .file("layers.json", layers(12).to_string());
    let [made, layers] = ["made", "layers.json"].map(|name| project.path(name).to_str().unwrap().to_owned());
    let project = project.variable("MADE", &made).variable("TENSOR_LAYERS", &layers);
    project.run(&["--only", "merges.avg", "--only", "merges.regmean"]);
    let average = fs::canonicalize(project.path("runs/x/merges.avg")).unwrap();
    make(&project, average.file_name().unwrap().to_str().unwrap(), "add", HOSTILE, &["0", "2", "5", HOSTILE]);
    make(&project, "b", "add", HOSTILE, &["0", "3", "4", "6"]);
    project.run(&[]);
    project
}

/// What a merge reports of layers with seven modules each, and of one outside of them.
fn layers(count: usize) -> Value {
    let modules = [
        "mlp.down_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "self_attn.k_proj",
        "self_attn.o_proj",
        "self_attn.q_proj",
        "self_attn.v_proj",
    ];
    let figures = |tensor: String, i: usize| {
        let value = 0.01 * (i + 1) as f64;
        json!({
            "tensor": tensor, "shape": [8, 8], "alpha": 0.5, "path": "cholesky", "steps": [], "condition": 10.0 * (i + 1) as f64,
            "residual": 1e-7 * (i + 1) as f64, "error_over_correction": null, "unseen_features": 0, "cut_eigenvalues": 0,
            "correction_over_weights": value, "rounding_over_correction": 1e-5,
            "objective": { "sources": [1.0, 1.0], "average": 2.0, "merge": 1.0 }, "objective_held_out": null,
        })
    };
    let names = (0..count).flat_map(|layer| modules.map(|module| format!("model.layers.{layer}.{module}.weight")));
    let all = std::iter::once("lm_head.weight".to_owned()).chain(names).enumerate();
    json!({ "format": 1, "layers": all.map(|(i, tensor)| figures(tensor, i)).collect::<Vec<_>>() })
}

/// Puts answers to documents 0, 1, … where the driver finds them; twice the number is right.
fn make(project: &Project, model: &str, task: &str, question: &str, answers: &[&str]) {
    let mut right = 0;
    let mut samples = GzEncoder::new(Vec::new(), flate2::Compression::none());
    for (doc_id, answer) in answers.iter().enumerate() {
        let target = (2 * doc_id).to_string();
        let is_right = *answer == target;
        right += usize::from(is_right);
        let record = json!({
            "task": task, "doc_id": doc_id, "doc": { "question": format!("{doc_id} + {doc_id} = {question}") }, "target": target,
            "arguments": [[format!("{doc_id} + {doc_id} = {question}"), {}]], "responses": [[answer]], "filtered": { "none": [answer] },
            "metrics": { "none": { "exact_match": f64::from(u8::from(is_right)) } },
        });
        writeln!(samples, "{record}").unwrap();
    }
    project.write(&format!("made/{model}/{task}/samples.jsonl.gz"), samples.finish().unwrap());
    let value = right as f64 / answers.len() as f64;
    let metrics = json!([{ "metric": "exact_match", "filter": "none", "value": value, "stderr": 0.1, "n_samples": answers.len(), "n_shot": 0 }]);
    project.write(&format!("made/{model}/{task}/metrics.json"), metrics.to_string());
}

/// The data that a page's scripts draw.
fn data(page: &str) -> Value {
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn a_run_writes_the_page_and_a_second_one_leaves_it() {
    let project = done();
    let page = project.read(PAGE);
    project.run(&[]).said.says_nothing_of("wrote");
    fs::remove_file(project.path(PAGE)).unwrap();
    project.run(&[]).ran(&[]).said.says("wrote   results/x/report.html\n");
    assert_eq!(project.read(PAGE), page, "the same store gives the same bytes");
    project.edit("x.yaml", "The second", "Number two");
    project.run(&[]).ran(&["tables.main"]).said.says("wrote   results/x/report.html\n");
    assert!(project.read(PAGE).contains("Number two"));
}

#[test]
fn render_writes_it_too_and_does_not_check_it() {
    let project = done();
    fs::remove_file(project.path(PAGE)).unwrap();
    project.mergelab(&["render", "x.yaml", "--check"]).exits(0).says_nothing_of("report.html");
    project.mergelab(&["render", "x.yaml"]).exits(0).says("new: results/x/report.html\n");
}

#[test]
fn report_says_where_the_page_lies_and_shows_it_in_a_browser() {
    let project = done();
    project.mergelab(&["report", "x.yaml"]).exits(0).prints("[project]/results/x/report.html\n");
    project.script("xdg/xdg-open", "#!/bin/sh\necho \"$1\" > opened\n");
    let path = format!("{}:{}", project.path("xdg").display(), std::env::var("PATH").unwrap());
    let project = project.variable("PATH", &path);
    let said = project.mergelab(&["report", "x.yaml", "--output", "here.html", "--open"]).exits(0);
    said.prints("[project]/here.html\n");
    assert!(project.wait_for("opened").ends_with("/here.html"));
    assert_eq!(project.read("here.html"), project.read(PAGE));
}

#[test]
fn a_page_that_cannot_be_written_is_an_error_with_its_path() {
    let project = done();
    project.write(PAGE, "mine");
    fs::set_permissions(project.path(PAGE), fs::Permissions::from_mode(0o444)).unwrap();
    project.mergelab(&["report", "x.yaml"]).exits(3).says("results/x/report.html: is read-only");
    project.mergelab(&["report", "none.yaml"]).exits(2).says("none.yaml");
}

#[test]
fn every_cell_leads_to_its_stage_with_all_that_it_rests_on() {
    let project = done();
    let data = data(&project.read(PAGE));
    let (table, stages, keys) = (&data["tables"][0], data["stages"].as_array().unwrap(), project.keys());
    let mut seen = 0;
    for (i, model) in ["a", "b", "avg", "regmean-0.1", "regmean-0.5", "regmean-0.9"].iter().enumerate() {
        for (j, task) in ["add", "reverse"].iter().enumerate() {
            let places = table["cells"][i][j]["from"].as_array().unwrap();
            let figures = places.iter().map(|place| &data["figures"][place.as_u64().unwrap() as usize]);
            let measured: Vec<_> = figures.filter(|figure| figure["source"] == "measured").collect();
            assert_eq!(measured.len(), 1, "{model} on {task}");
            let stage = &stages[measured[0]["stage"].as_u64().unwrap() as usize];
            assert_eq!(stage["name"], format!("evals.suite/{model}/{task}"));
            assert_eq!(stage["key"], measured[0]["key"]);
            assert!(keys.contains(&(stage["name"].as_str().unwrap().to_owned(), stage["key"].clone())));
            for field in ["digest", "started", "ended", "host", "command", "place", "files"] {
                assert!(stage.get(field).is_some(), "no {field}: {stage}");
            }
            let model = &stages[stage["needs"][0].as_u64().unwrap() as usize];
            assert!(model["roles"]["weights"].is_string(), "{model}");
            seen += 1;
        }
    }
    assert_eq!((seen, table["cells"][0][0]["published"]["value"].as_f64()), (12, Some(25.0)));
    let sweep = &table["sweeps"][0];
    assert_eq!((&sweep["key"], &sweep["lines"][0]["points"][2]), (&"alpha".into(), &json!([0.9, "0.9", 5])));
    let change = &data["layers"][0]["figures"][0];
    assert_eq!(
        (&change["name"], &change["values"][0], change["values"].as_array().unwrap().len()),
        (&"relative change".into(), &0.01.into(), 85)
    );
}

#[test]
fn answers_that_differ_stand_in_the_page_with_the_test() {
    let page = done().read(PAGE).replace("&#x2f;", "/");
    assert!(page.contains("3 of 4 items differ: p = 1.00, not a finding."), "no sentence");
    assert!(page.contains("<code>mergelab samples evals.suite/avg/add x.yaml --against b</code>"), "no command");
}

#[test]
fn answers_that_cannot_be_compared_are_said_and_the_rest_is_there() {
    let project = done();
    make(&project, "b", "add", "something else", &["0", "3", "4", "6"]);
    project.run(&["--force", "evals.suite/b/add"]);
    let page = project.read(PAGE);
    assert!(page.contains("Not compared: add: document 0 of add is not the same in both"), "no reason");
    assert!(page.contains("id=\"results\"") && !page.contains("items differ"));
}

#[test]
fn a_page_names_neither_the_projects_place_nor_a_script_of_the_experiment() {
    let project = done();
    let page = project.read(PAGE);
    let root = fs::canonicalize(project.root()).unwrap();
    assert!(!page.contains(root.to_str().unwrap()) && !page.contains(project.root().to_str().unwrap()));
    assert_eq!(page.matches("<script").count(), 3, "the data, the charts and the page's own");
    assert!(!page.contains("<img") && !page.contains("href=\"javascript:") && !page.contains("hacked=1</script>"));
    assert_eq!(data(&page)["tables"][0]["columns"][0]["note"].as_str().unwrap().matches("</script>").count(), 2);
}

#[test]
fn figures_in_results_are_enough_for_a_page_that_says_what_it_lacks() {
    let project = done();
    project.lose_store();
    let before = project.read(PAGE);
    project.mergelab(&["render", "x.yaml"]).exits(0).says_nothing_of("report.html");
    assert_eq!(project.read(PAGE), before, "the page of a store is not replaced by one that knows less");
    project.mergelab(&["report", "x.yaml"]).exits(0);
    let page = project.read(PAGE);
    assert!(page.contains("Nothing of this experiment is in the store here"));
    assert!(!page.contains("id=\"timeline\"") && !page.contains("id=\"differences\""));
    let data = data(&page);
    assert!(
        data["figures"]
            .as_array()
            .unwrap()
            .iter()
            .any(|figure| figure["key"].as_str().is_some_and(|key| key.len() == 64))
    );
    assert!(!project.has(".mergelab"));
}

#[test]
fn an_experiment_without_figures_or_tables_has_a_page_of_its_stages() {
    let project = Project::with("name: x\nmodels: { a: { path: models/a } }\n").model("models/a", "one");
    project.mergelab(&["report", "x.yaml"]).exits(0);
    let page = project.read(PAGE);
    assert!(page.contains("The experiment has no tables.") && page.contains("models.a"));
}

/// Twenty models on ten tasks, with layers of every merge as an 8B model has them, and answers.
pub(crate) fn large() -> Project {
    let mut text = String::from("name: x\nmodels: { a: { path: models/a }, b: { path: models/b } }\nmerges:\n");
    for i in 0..18 {
        let _ = writeln!(text, "  merge-{i}: {{ method: average, models: [{{ model: a, weight: {} }}, b] }}", i + 1);
    }
    let names: Vec<String> = (0..10).map(|i| format!("task-{i}")).collect();
    let _ = writeln!(
        text,
        "evals:\n  suite: {{ models: [a, b, {}], backend: hf, task_dirs: [tasks], tasks: [{}] }}",
        (0..18).map(|i| format!("merge-{i}")).collect::<Vec<_>>().join(", "),
        names.join(", ")
    );
    text += "tables:\n  main:\n    rows: [a, b";
    text.extend((0..18).map(|i| format!(", merge-{i}")));
    text += "]\n    columns:\n";
    text.extend(names.iter().map(|name| format!("      - {{ task: {name}, metric: exact_match }}\n")));
    let mut project = Project::with(&text).with_fakes().model("models/a", "one").model("models/b", "two");
    for name in &names {
        project = project.file(&format!("tasks/{name}.yaml"), format!("task: {name}\n"));
    }
    let project = project.file("layers.json", layers(32).to_string());
    let [made, layers] = ["made", "layers.json"].map(|name| project.path(name).to_str().unwrap().to_owned());
    let project = project.variable("MADE", &made).variable("TENSOR_LAYERS", &layers);
    let text = "A long answer. ".repeat(80);
    for (model, task) in ["a", "b"].iter().flat_map(|model| names.iter().map(move |task| (model, task))) {
        let answers: Vec<String> = (0..40)
            .map(|i| if i % 2 == usize::from(*model == "a") { (2 * i).to_string() } else { text.clone() })
            .collect();
        make(&project, model, task, "", &answers.iter().map(String::as_str).collect::<Vec<_>>());
    }
    project.run(&[]);
    project
}

#[test]
fn twenty_models_on_ten_tasks_stay_under_two_megabytes() {
    let page = large().read(PAGE);
    let data = data(&page);
    assert_eq!((data["stages"].as_array().unwrap().len(), data["layers"].as_array().unwrap().len()), (221, 18));
    assert!(page.contains("id=\"differences\""));
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
}
