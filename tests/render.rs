//! Tables from a checkout, without a store.

use crate::project::Project;

/// An experiment on hub models, with nothing but published figures: what a fresh clone of somebody's work has.
const PUBLISHED: &str = r"name: x
models:
  math: { hub: org/math }
  code: { hub: org/code }
evals:
  suite: { models: [math, code], backend: vllm, tasks: [gsm8k] }
tables:
  main:
    rows: [{ model: math, label: Math model }, code]
    columns: [{ task: gsm8k, metric: exact_match, label: GSM8k, note: 5-shot }]
    published: results/x/published.csv
    into: README.md
";

fn project() -> Project {
    Project::with(PUBLISHED).file("README.md", "# X\n\n<!-- mergelab:table main -->\n<!-- mergelab:end -->\n").file(
        "results/x/published.csv",
        "model,task,metric,filter,n_shot,value,stderr,n_samples,citation,note\n\
             math,gsm8k,exact_match,,5,0.704,,,\"Somebody, 2024\",official\n\
             code,gsm8k,exact_match,,5,0.5792,,,\"Somebody, 2024\",\n",
    )
}

#[test]
fn published_figures_alone_fill_a_table_and_are_marked_as_such() {
    let project = project();
    project.mergelab(&["render", "x.yaml"]).exits(0).says("changed: README.md\n").says("new: results/x/results.csv\n");
    insta::assert_snapshot!(project.read("README.md"));
    assert!(project.read("results/x/results.csv").lines().skip(1).all(|line| line.contains(",published,")));
    assert!(!project.has(".mergelab"));
}

#[test]
fn check_passes_after_render_and_fails_after_an_edit() {
    let project = project();
    project.mergelab(&["render", "x.yaml", "--check"]).exits(4).says("new: results/x/table.md\n");
    assert!(!project.has("results/x/table.md"), "a check writes nothing");
    project.mergelab(&["render", "x.yaml"]).exits(0);
    project.mergelab(&["render", "x.yaml", "--check"]).exits(0).prints("").says_nothing_of("changed");
    project.edit("README.md", "70.40", "71.40");
    let said = project.mergelab(&["render", "x.yaml", "--check"]).exits(4);
    said.says("changed: README.md\n").says("hint: `mergelab render` writes them\n");
    project.mergelab(&["render", "x.yaml"]).exits(0);
    assert!(project.read("README.md").contains("70.40"));
}

#[test]
fn rendering_again_changes_no_byte() {
    let project = project();
    project.mergelab(&["render", "x.yaml"]).exits(0);
    let before = (project.contents("results"), project.read("README.md"));
    project.mergelab(&["render", "x.yaml"]).exits(0);
    assert_eq!((project.contents("results"), project.read("README.md")), before);
}

#[test]
fn measured_results_are_enough_to_render_from_without_a_store() {
    let project = crate::science::project();
    project.run(&[]);
    project.results_stand_without_the_store();
    assert!(!project.has(".mergelab"));
}

#[test]
fn text_around_the_block_stays_as_it_is() {
    let project = project();
    let text = "before\r\n<!-- mergelab:table main -->\r\nold\r\n<!-- mergelab:end -->\r\nafter, no end of line";
    project.write("README.md", text);
    project.mergelab(&["render", "x.yaml"]).exits(0);
    let readme = project.read("README.md");
    assert!(readme.starts_with("before\r\n<!-- mergelab:table main -->\r\n"), "{readme}");
    assert!(readme.ends_with("\r\n<!-- mergelab:end -->\r\nafter, no end of line"), "{readme}");
    assert!(!readme.contains("old"));
}

#[test]
fn wrong_published_figures_are_all_named() {
    let project = project();
    project.edit("results/x/published.csv", "0.704", "seventy");
    project.edit("results/x/published.csv", ",\"Somebody, 2024\",\n", ",,\n");
    let said = project.mergelab(&["render", "x.yaml"]).exits(3);
    said.says("results/x/published.csv:2:").says("results/x/published.csv:3:");
}

#[test]
fn published_figures_of_nothing_that_is_shown_are_noted() {
    let project = project();
    project.mergelab(&["render", "x.yaml"]).exits(0).says_nothing_of("note:");
    project.edit("results/x/published.csv", "code,gsm8k", "kode,gsm8k");
    let said = project.mergelab(&["render", "x.yaml"]).exits(0);
    said.says("note: results/x/published.csv: in no table: model `kode`; did you mean `code`?\n");
    project.edit("results/x/published.csv", "math,gsm8k", "math,mbpp");
    let said = project.mergelab(&["render", "x.yaml"]).exits(0);
    said.says("note: results/x/published.csv: in no table: task `mbpp`\n");
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let project = project();
    std::fs::create_dir_all(project.path("results/x/table.md")).unwrap();
    let said = project.mergelab(&["render", "x.yaml"]).exits(3);
    said.says("results/x/table.md: cannot read it: Is a directory");
    std::fs::remove_dir(project.path("results/x/table.md")).unwrap();
    let read_only = std::os::unix::fs::PermissionsExt::from_mode(0o444);
    std::fs::set_permissions(project.path("README.md"), read_only).unwrap();
    let said = project.mergelab(&["render", "x.yaml"]).exits(3);
    said.says("README.md: is read-only; make it writable (`chmod u+w`) to have it updated");
}
