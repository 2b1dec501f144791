//! Pictures of tables.

use std::fs;

use crate::project::Project;

const BARS: &str = "results/x/plots/main-bars.svg";

/// A sweep whose figures lie in `results/`, as a fresh clone has them, with one that others published.
fn project() -> Project {
    let experiment = r#"name: x
models: { math: { hub: org/math }, code: { hub: org/code } }
data: { d: { hub: org/data, rows: 10, text: "{{ text }}" } }
grams: { math: { model: math, data: d }, code: { model: code, data: d } }
merges:
  average: { method: average, models: [math, code] }
  regmean: { method: regmean, models: [math, code], grams: [math, code], sweep: { alpha: [0.1, 0.5] } }
evals:
  suite: { models: [math, average, regmean], backend: vllm, tasks: [gsm8k] }
tables:
  main:
    rows: [{ model: math, label: "<Math> & co" }, average, { model: regmean, label: "RegMean, α =" }]
    columns: [{ task: gsm8k, metric: exact_match, label: GSM8k, digits: 1 }]
    published: published.csv
"#;
    Project::with(experiment)
        .file(
            "results/x/results.csv",
            "model,task,metric,filter,n_shot,value,stderr,n_samples,source,key\n\
             math,gsm8k,exact_match,none,5,0.704,0.0125,1319,measured,ab\n\
             regmean-0.1,gsm8k,exact_match,none,5,0.6831,0.0125,1319,measured,ab\n\
             regmean-0.5,gsm8k,exact_match,none,5,0.651,0.0125,1319,measured,ab\n",
        )
        .file(
            "published.csv",
            "model,task,metric,filter,n_shot,value,stderr,n_samples,citation,note\n\
             average,gsm8k,exact_match,,5,0.6527,,,\"Somebody, 2024\",\n",
        )
}

#[test]
fn figures_in_results_are_enough_for_pictures_that_say_what_the_table_says() {
    let project = project();
    let said = project.mergelab(&["plot", "x.yaml"]).exits(0).prints("");
    said.says(&format!("new: {BARS}\n")).says("new: results/x/plots/main-sweep.svg\n");
    assert!(!project.has(".mergelab"));
    let bars = project.read(BARS);
    for text in [">70.4 ± 1.2<", ">65.3 †<", ">68.3 ± 1.2<", "&lt;Math&gt; &amp; co", "Somebody, 2024"] {
        assert!(bars.contains(text), "{text}: {bars}");
    }
    project.mergelab(&["render", "x.yaml"]).exits(0);
    assert!(
        project.read("results/x/table.md").contains("| **70.4** ± 1.2 |"),
        "{}",
        project.read("results/x/table.md")
    );
    let sweep = project.read("results/x/plots/main-sweep.svg");
    assert!(sweep.contains(">RegMean<") && sweep.contains(">average 65.3 †<"), "{sweep}");
}

#[test]
fn the_store_and_what_results_keep_of_it_give_the_same_pictures() {
    let project = crate::science::project();
    project.run(&[]);
    let said = project.mergelab(&["plot", "x.yaml"]).exits(0);
    said.says("-bars.svg\n");
    project.lose_store();
    project.mergelab(&["plot", "x.yaml", "--check"]).exits(0).says_nothing_of("changed");
}

#[test]
fn check_passes_after_plotting_and_fails_after_an_edit() {
    let project = project();
    project.mergelab(&["plot", "x.yaml", "--check"]).exits(4).says(&format!("new: {BARS}\n"));
    assert!(!project.has(BARS), "a check writes nothing");
    project.mergelab(&["plot", "x.yaml"]).exits(0);
    let before = project.contents("results/x/plots");
    project.mergelab(&["plot", "x.yaml", "--check"]).exits(0).says_nothing_of("changed");
    project.edit(BARS, "70.4", "71.4");
    let said = project.mergelab(&["plot", "x.yaml", "--check"]).exits(4);
    said.says(&format!("changed: {BARS}\n")).says("hint: `mergelab plot` writes them\n");
    project.mergelab(&["plot", "x.yaml"]).exits(0);
    assert_eq!(project.contents("results/x/plots"), before);
}

#[test]
fn render_does_not_look_at_pictures() {
    let project = project();
    project.mergelab(&["render", "x.yaml"]).exits(0);
    project.write(BARS, "mine");
    project.mergelab(&["render", "x.yaml", "--check"]).exits(0).says_nothing_of("plots");
}

#[test]
fn pictures_go_where_the_shell_means() {
    let project = project();
    fs::create_dir(project.path("paper")).unwrap();
    let mut command = project.command(&["plot", "../x.yaml", "--to", "figures"]);
    command.current_dir(project.path("paper"));
    project.said(command).exits(0).says("new: figures/main-bars.svg\n");
    assert!(project.has("paper/figures/main-bars.svg") && !project.has("results/x/plots"));
}

#[test]
fn forms_that_are_not_there_are_refused() {
    let project = project();
    project.mergelab(&["plot", "x.yaml", "--format", "gif"]).exits(2).says("possible values: svg, png");
    let said = project.mergelab(&["plot", "x.yaml", "--font", "a.ttf"]).exits(2);
    said.says("`--font` goes with `--format png`");
    assert!(!project.has("results/x/plots"));
}

#[cfg(feature = "png")]
#[test]
fn pictures_are_drawn_as_png_too_and_again_the_same() {
    let project = project();
    project.edit("x.yaml", "\"<Math> & co\"", "\"数学\"");
    let said = project.mergelab(&["plot", "x.yaml", "--format", "png"]).exits(0);
    said.says("new: results/x/plots/main-bars.png\n")
        .says("new: results/x/plots/main-sweep.png\n")
        .says("note: no font has 学 数; boxes stand for them\nhint: `--font FILE` adds a font that has them\n");
    assert!(!project.has(BARS));
    let bytes = fs::read(project.path("results/x/plots/main-bars.png")).unwrap();
    assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"));
    project.mergelab(&["plot", "x.yaml", "--format", "png", "--check"]).exits(0).says_nothing_of("changed");
    project.edit("results/x/results.csv", "0.704", "0.604");
    project
        .mergelab(&["plot", "x.yaml", "--format", "png", "--check"])
        .exits(4)
        .says("changed: results/x/plots/main-bars.png\n");
    let said = project.mergelab(&["plot", "x.yaml", "--format", "png", "--font", "x.yaml"]).exits(2);
    said.says("error: x.yaml: there is no font in it\n");
}

#[test]
fn an_experiment_without_tables_has_no_pictures() {
    let project = Project::with("name: x\nmodels: { math: { hub: org/math } }\n");
    project.mergelab(&["plot", "x.yaml"]).exits(3).says("experiment `x` has no tables").says("hint: ");
}
