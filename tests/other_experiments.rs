//! Tables that show models of another experiment, from what `results/` keeps of it.

use crate::project::Project;

const OTHER: &str = r"name: other
models: { math: { path: models/math }, code: { path: models/code } }
evals:
  plain: { models: [math, code], backend: command, run: [sh, score.sh, '{out}', '0.7'] }
";

const EXPERIMENT: &str = r"name: x
models: { mine: { path: models/mine } }
evals:
  plain: { models: [mine], backend: command, run: [sh, score.sh, '{out}', '0.6'] }
tables:
  main:
    rows: [{ model: mine, label: Mine }, { from: other.yaml, model: math, label: Theirs }, { from: other.yaml, model: code }]
    columns: [{ task: plain, metric: acc, label: Plain }]
    baseline: mine
    published: published.csv
    into: README.md
";

fn project() -> Project {
    Project::with(EXPERIMENT)
        .file("other.yaml", OTHER)
        .model("models/math", "one")
        .model("models/code", "two")
        .model("models/mine", "three")
        .file("score.sh", "echo \"[{\\\"metric\\\": \\\"acc\\\", \\\"value\\\": $2}]\" > \"$1/metrics.json\"\n")
        .file(
            "published.csv",
            "model,task,metric,filter,n_shot,value,stderr,n_samples,citation,note\n\
             other/code,plain,acc,,,0.75,,,\"Somebody, 2024\",\n",
        )
        .file("README.md", "<!-- mergelab:table main -->\n<!-- mergelab:end -->\n")
}

#[test]
fn models_of_another_experiment_stand_in_a_table_after_its_run() {
    let project = project();
    let said = project.mergelab(&["run", "x.yaml"]).exits(3);
    said.says("error: results/other/results.csv: there are no results of other.yaml yet, and table `main` shows models of it\n")
        .says("hint: run it first: `mergelab run other.yaml`\n");
    assert!(!project.has(".mergelab"), "nothing is run before what is missing is said");
    project.run(&["--only", "evals.plain/mine/plain"]).ran(&["models.mine", "evals.plain/mine/plain"]);
    project.run_file("other.yaml", &[]);
    project.run(&[]).ran(&["tables.main"]);
    insta::assert_snapshot!(project.read("README.md"));
    assert!(!project.read("results/x/results.csv").contains("other/math"), "results.csv is of one experiment");
    project.run(&[]).ran(&[]);
    project.mergelab(&["render", "x.yaml", "--check"]).exits(0);
    let said = project.mergelab(&["explain", "x.yaml", "--cell", "main", "Theirs", "Plain"]).exits(0).stdout;
    assert!(said.ends_with("  from results/other/results.csv, results of other.yaml\n"), "{said}");
    project.results_stand_without_the_store();
}

#[test]
fn results_that_are_older_than_their_experiment_are_refused() {
    let project = project();
    project.run_file("other.yaml", &[]);
    project.run(&[]);
    project.edit("other.yaml", "0.7", "0.8");
    let said = project.mergelab(&["render", "x.yaml"]).exits(3);
    said.says(
        "error: results/other/results.csv: `math` on `plain` is of another evaluation than other.yaml asks for: ",
    )
    .says("hint: `mergelab run other.yaml` writes it anew\n");
    project.run_file("other.yaml", &[]);
    let summary = project.run(&[]);
    summary.ran(&["tables.main"]);
    assert!(project.read("README.md").contains("| Theirs | **80.00** |"), "{}", project.read("README.md"));

    let results = project.read("results/other/results.csv");
    let without: String = results.split_inclusive('\n').filter(|line| !line.starts_with("math")).collect();
    project.write("results/other/results.csv", without);
    let said = project.mergelab(&["render", "x.yaml"]).exits(3);
    said.says("`math` on `plain` was evaluated, but is not there\n")
        .says("hint: `mergelab render other.yaml` writes it anew\n");
}

#[test]
fn what_the_other_file_does_not_have_is_refused_at_its_place() {
    let project = project();
    project.edit("x.yaml", "model: math", "model: maths");
    insta::assert_snapshot!(project.mergelab(&["status", "x.yaml"]).exits(3).stderr);
    project.edit("x.yaml", "model: maths", "model: math");
    project.edit("other.yaml", "models: [math, code], backend", "models: [math, cod], backend");
    let said = project.mergelab(&["status", "x.yaml"]).exits(3);
    said.says("other.yaml is wrong: there is no model or merge called `cod`");
}
