//! Merges, evaluations and tables as one graph, with stand-ins for the two programs that compute.

use std::fs;

use crate::project::{Project, safetensors};

const EXPERIMENT: &str = r#"name: x
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
  regmean: { method: regmean, models: [a, b], grams: [a, b], alpha: 0.1 }
evals:
  suite:
    models: [a, avg, regmean]
    backend: hf
    task_dirs: [tasks]
    batch_size: 8
    tasks: [add, { task: reverse, num_fewshot: 2 }]
tables:
  main:
    rows: [{ model: a, label: The first }, avg, regmean]
    columns:
      - { task: add, metric: exact_match, label: Addition }
      - { task: reverse, metric: exact_match }
    into: README.md
"#;

const README: &str = "# A project\n\n<!-- mergelab:table x/main -->\n<!-- mergelab:end -->\n\nThe end.\n";

/// Two models, merged twice, evaluated on two tasks, with a table in the README.
pub(crate) fn project() -> Project {
    Project::with(EXPERIMENT)
        .with_fakes()
        .model("models/a", "one")
        .model("models/b", "two")
        .file("a.jsonl", "{\"text\": \"a\"}\n")
        .file("b.jsonl", "{\"text\": \"b\"}\n")
        .file("tasks/add.yaml", "task: add\noutput_type: generate_until\n")
        .file("tasks/reverse.yaml", "task: reverse\noutput_type: generate_until\n")
        .file("README.md", README)
}

/// As [`project`], done.
fn done() -> Project {
    let project = project();
    assert_eq!(project.run(&[]).in_state("ran").len(), 15);
    project
}

/// What a merge's change reruns.
const AFTER_REGMEAN: [&str; 4] =
    ["merges.regmean", "evals.suite/regmean/add", "evals.suite/regmean/reverse", "tables.main"];

#[test]
fn one_command_makes_the_table_and_a_second_run_does_nothing() {
    let project = done();
    insta::assert_snapshot!("table", project.read("README.md"));
    let (results, readme) = (project.contents("results"), project.read("README.md"));
    project.run(&[]).ran(&[]).said.says_nothing_of("wrote");
    assert_eq!((project.contents("results"), project.read("README.md")), (results, readme));
    project.mergelab(&["verify"]).exits(0);
}

#[test]
fn the_results_are_one_row_a_measurement_with_its_key() {
    let project = done();
    let results = project.read("results/x/results.csv");
    let mut lines = results.lines();
    let header = lines.next().unwrap();
    assert!(header.starts_with("model,task,metric,filter,n_shot,value,stderr,n_samples,source,key"), "{header}");
    let keys: std::collections::HashMap<_, _> = project.keys().into_iter().collect();
    let mut count = 0;
    for line in lines {
        let fields: Vec<_> = line.split(',').collect();
        let stage = format!("evals.suite/{}/{}", fields[0], fields[1]);
        assert_eq!((fields[8], fields[9]), ("measured", keys[&stage].as_str().unwrap()), "{line}");
        count += 1;
    }
    assert_eq!(count, 6);
}

#[test]
fn alpha_reruns_its_merge_its_evaluations_and_the_table() {
    let project = done();
    project.edit("x.yaml", "alpha: 0.1", "alpha: 0.2");
    let said = project.mergelab(&["explain", "merges.regmean", "x.yaml"]).exits(0);
    said.prints("merges.regmean: run\n  since it ran [time]:\n  alpha: 0.1 -> 0.2\n");
    project.run(&[]).ran(&AFTER_REGMEAN);
}

#[test]
fn a_label_reruns_the_table_only() {
    let project = done();
    project.edit("x.yaml", "The first", "Number one");
    project.run(&[]).ran(&["tables.main"]);
    assert!(project.read("README.md").contains("Number one"));
}

#[test]
fn shots_rerun_their_task_and_the_table() {
    let project = done();
    project.edit("x.yaml", "num_fewshot: 2", "num_fewshot: 3");
    let evals = ["evals.suite/a/reverse", "evals.suite/avg/reverse", "evals.suite/regmean/reverse"];
    // The stand-in scores the same whatever the shots, so the table stays.
    project.run(&[]).ran(&evals);
}

#[test]
fn batch_size_description_and_a_models_card_rerun_nothing() {
    let project = done();
    project.edit("x.yaml", "batch_size: 8", "batch_size: auto");
    project.edit("x.yaml", "name: x\n", "name: x\ndescription: Two models.\n");
    project.run(&[]).ran(&[]);
    project.write("models/a/README.md", "# Another card\n");
    // The model is another set of files, and what it is made of is not.
    project.run(&[]).ran(&["models.a"]);
}

#[test]
fn weights_of_a_source_rerun_all_that_rests_on_them() {
    let project = done();
    project.write("models/b/model.safetensors", safetensors("three"));
    let mut expected = vec!["models.b", "grams.b", "merges.avg", "merges.regmean"];
    expected.extend(["evals.suite/avg/add", "evals.suite/avg/reverse"]);
    expected.extend(&AFTER_REGMEAN[1..]);
    project.run(&[]).ran(&expected);
}

#[test]
fn a_new_row_of_data_reruns_its_gram_and_what_follows() {
    let project = done();
    project.write("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"c\"}\n");
    project.run(&[]).ran(&[&["data.rows-a", "grams.a"], &AFTER_REGMEAN[..]].concat());
}

#[test]
fn a_new_task_runs_that_task_only() {
    let project = done().file("tasks/sort.yaml", "task: sort\n");
    project.edit("x.yaml", "tasks: [add,", "tasks: [sort, add,");
    project.run(&[]).ran(&["evals.suite/a/sort", "evals.suite/avg/sort", "evals.suite/regmean/sort"]);
    assert_eq!(project.read("results/x/results.csv").lines().count(), 1 + 9);
}

#[test]
fn a_tasks_definition_reruns_it() {
    let project = done();
    project.write("tasks/add.yaml", "task: add\noutput_type: generate_until\nmetadata: { version: 2 }\n");
    project.run(&[]).ran(&["evals.suite/a/add", "evals.suite/avg/add", "evals.suite/regmean/add"]);
}

#[test]
fn another_version_of_the_harness_reruns_the_evaluations() {
    let project = done();
    let site = project.path("env/lib/python3.11/site-packages");
    fs::rename(site.join("lm_eval-0.4.13.dist-info"), site.join("lm_eval-0.4.14.dist-info")).unwrap();
    let said = project.mergelab(&["explain", "evals.suite/a/add", "x.yaml"]).exits(0);
    assert!(said.stdout.contains("  version of lm_eval: 0.4.13 -> 0.4.14\n"), "{}", said.stdout);
    assert_eq!(project.run(&[]).in_state("ran").len(), 6);
}

#[test]
fn a_merge_that_is_lost_is_made_again_and_nothing_after_it() {
    let project = done();
    fs::remove_file(project.output("x", "merges.regmean", "model.safetensors")).unwrap();
    project.run(&[]).ran(&["merges.regmean"]);
}

#[test]
fn the_card_of_a_merge_may_differ_without_its_digest() {
    let project = done();
    let digest = |project: &Project| {
        let shown = project.mergelab(&["show", "merges.regmean", "x.yaml", "--json"]).exits(0).json();
        shown["manifest"]["digest"].clone()
    };
    let before = digest(&project);
    // The stand-in writes the time into the card.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    project.run(&["--force", "merges.regmean"]).ran(&["merges.regmean"]);
    assert_eq!(digest(&project), before);
    project.mergelab(&["verify"]).exits(0);
}

#[test]
fn show_has_the_metrics_of_an_evaluation_and_the_device_of_a_merge() {
    let project = done();
    let shown = project.mergelab(&["show", "evals.suite/a/add", "x.yaml", "--json"]).exits(0).json();
    assert_eq!(shown["metrics"][0]["metric"], "exact_match");
    assert_eq!(shown["manifest"]["versions"]["lm_eval"], "0.4.13");
    let shown = project.mergelab(&["show", "merges.avg", "x.yaml", "--json"]).exits(0).json();
    assert_eq!((&shown["manifest"]["device"], &shown["manifest"]["peak_memory"]), (&"cpu".into(), &4096.into()));
    insta::assert_snapshot!(project.mergelab(&["show", "evals.suite/a/add", "x.yaml"]).exits(0).stdout);
}

#[test]
fn evaluations_of_a_suite_share_one_process_and_with_vllm_one_a_model() {
    let project = project();
    let log = project.path("drivers").to_str().unwrap().to_owned();
    let project = project.variable("DRIVER_LOG", &log);
    // The source is ready before the merges are, so with one slot the suite comes last and whole.
    project.run(&["--jobs", "1"]);
    let with_hf = project.read("drivers").lines().count();
    fs::remove_file(project.path("drivers")).unwrap();
    project.edit("x.yaml", "backend: hf", "backend: vllm");
    project.run(&["--jobs", "1"]);
    assert_eq!((with_hf, project.read("drivers").lines().count()), (1, 3));
}

#[test]
fn an_evaluation_that_dies_keeps_what_it_finished_and_the_next_run_resumes() {
    let project = project();
    project.run(&["--jobs", "1", "--only", "merges.avg", "--only", "merges.regmean"]);
    let dying = project.variable("DIE_AFTER", "2");
    let summary = dying.run(&["--jobs", "1"]);
    assert_eq!(summary.said.code, 1);
    assert_eq!(summary.in_state("ran"), ["evals.suite/a/add", "evals.suite/a/reverse"]);
    assert_eq!(summary.in_state("failed").len(), 4);
    summary
        .says("evals.suite/avg/add: lm_eval ended with exit code 3; its last lines:\n  Traceback: out of everything\n")
        .says("  log: [project]/.mergelab/logs/[digest].log\n");
    assert!(!dying.has("results"), "half a table is no table");
    for stage in ["evals.suite/a/add", "evals.suite/regmean/reverse"] {
        let said = dying.mergelab(&["show", stage, "x.yaml", "--log"]).exits(0);
        let printed = said.stdout.lines().filter(|line| !line.starts_with("$ ")).collect::<Vec<_>>();
        assert_eq!(printed, ["Traceback: out of everything"]);
    }
    let dying = dying.variable("DIE_AFTER", "none");
    let summary = dying.run(&[]);
    assert_eq!(summary.in_state("ran").len(), 5, "{}", summary.said.stderr);
}

#[test]
fn without_lm_eval_it_is_said_what_is_missing_and_how_to_get_it() {
    let project = project();
    fs::remove_dir_all(project.path("env/lib/python3.11/site-packages/lm_eval-0.4.13.dist-info")).unwrap();
    let summary = project.run(&["--keep-going"]);
    assert_eq!(summary.said.code, 1);
    assert_eq!(summary.in_state("failed").len(), 6);
    assert!(summary.in_state("ran").contains(&"merges.regmean"));
    summary.says("lm-eval is not installed in the Python that evaluations use").says("hint: `make setup` installs it");
}

#[test]
fn an_experiment_that_the_tensor_program_finds_wrong_exits_with_3() {
    let error = r#"{"event":"error","message":"q_proj.weight: [8, 8] in a, [8, 4] in b","hint":"merge models of one shape","fault":"experiment"}"#;
    let project = project().variable("TENSOR_ERROR", error);
    let summary = project.run(&["--only", "merges.avg"]).failed(3, &["merges.avg"], &[]);
    summary.says(
        "failed  merges.avg: q_proj.weight: [8, 8] in a, [8, 4] in b\n  hint: merge models of one shape\n  log: [project]",
    );
    let project = project.variable("TENSOR_ERROR", &error.replace("experiment", "stage"));
    project.run(&["--only", "merges.avg"]).failed(1, &["merges.avg"], &[]);
}

#[test]
fn without_the_tensor_program_it_is_said_how_to_get_it() {
    let project = project();
    fs::remove_file(project.path("bin/mergelab-tensor")).unwrap();
    let project = project.variable("PATH", "/usr/bin:/bin");
    let summary = project.run(&["--only", "merges.avg"]).failed(1, &["merges.avg"], &[]);
    summary.says("mergelab-tensor is not beside mergelab").says("hint: build it with `make build`");
}

#[test]
fn an_unknown_task_is_shown_at_its_line_with_the_nearest_name() {
    let project = project();
    project.edit("x.yaml", "tasks: [add,", "tasks: [adds,");
    project.edit("x.yaml", "task: add,", "task: adds,");
    insta::assert_snapshot!(project.mergelab(&["run", "x.yaml"]).exits(3).all());
}

#[test]
fn a_table_rests_on_what_was_published_as_well() {
    let project = project().file(
        "published.csv",
        "model,task,metric,filter,n_shot,value,stderr,n_samples,citation,note\na,add,exact_match,,,0.5,,,Somebody 2024,\n",
    );
    project.edit("x.yaml", "    into: README.md\n", "    into: README.md\n    published: published.csv\n");
    project.run(&[]);
    project.edit("published.csv", "0.5", "0.25");
    project.run(&[]).ran(&["tables.main"]);
    assert!(project.read("results/x/results.csv").contains("0.25"));
}
