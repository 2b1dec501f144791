//! Bad input: a clear message with its place, the exit code, and a store that the next run accepts.

use std::os::unix::ffi::OsStrExt;

use crate::project::Project;
use crate::reruns::{CHAIN, done};

#[test]
fn a_missing_experiment_file_is_a_matter_of_usage() {
    let project = Project::new();
    let said = project.mergelab(&["run", "nowhere.yaml"]).exits(2);
    said.prints("").says("error: cannot read nowhere.yaml: No such file or directory");
    assert!(!project.has(".mergelab"));
}

#[test]
fn one_file_named_twice_is_a_matter_of_usage() {
    let project = done();
    project.mergelab(&["run", "x.yaml", "x.yaml"]).exits(2).says("error: x.yaml is named twice\n");
}

#[test]
fn an_unknown_stage_is_refused_with_the_nearest_name() {
    let project = done();
    for arguments in [
        &["show", "commands.frist", "x.yaml"][..],
        &["key", "commands.frist", "x.yaml"],
        &["explain", "commands.frist", "x.yaml"],
        &["run", "x.yaml", "--only", "commands.frist"],
        &["run", "x.yaml", "--force", "commands.frist"],
    ] {
        let said = project.mergelab(arguments).exits(2);
        said.says("error: no stage \"commands.frist\"; did you mean \"commands.first\"?\n").prints("");
    }
}

#[test]
fn errors_of_all_files_are_shown_at_once_with_their_places() {
    let project = Project::new()
        .file("one.yaml", "name: one\ncomands: {}\nmerges: { m: { method: averge, models: [a, b] } }\n")
        .file(
            "two.yaml",
            "name: two\nmodels: { a: { path: a }, b: { path: b } }\ngrams: { g: { model: c, data: d } }\n",
        );
    let said = project.mergelab(&["run", "one.yaml", "two.yaml"]).exits(3);
    insta::assert_snapshot!(said.all());
    assert!(!project.has(".mergelab"));
}

#[test]
fn a_cycle_is_shown_at_its_place() {
    let project = Project::with(
        r#"name: x
commands:
  one: { run: [cp, "{inputs.other}", "{out}"], inputs: { other: { from: commands.two } } }
  two: { run: [cp, "{inputs.other}", "{out}"], inputs: { other: { from: commands.one } } }
"#,
    );
    insta::assert_snapshot!(project.mergelab(&["run", "x.yaml"]).exits(3).all());
}

#[test]
fn two_files_of_one_name_do_not_run_together() {
    let project = Project::with(CHAIN).file("y.yaml", CHAIN).file("in.txt", "some text\n");
    insta::assert_snapshot!(project.mergelab(&["run", "x.yaml", "y.yaml"]).exits(3).all());
}

#[test]
fn what_a_file_names_and_is_not_there_is_shown_at_its_line_before_anything_runs() {
    let project = Project::with(
        r#"name: x
models:
  base: { path: models/base }
data:
  rows: { path: rows.jsonl, text: "{{ text }}" }
commands:
  early: { run: [touch, "{out}/done"] }
  late: { run: [cat, scripts/late.py], inputs: [scripts/late.py] }
"#,
    );
    insta::assert_snapshot!(project.mergelab(&["run", "x.yaml"]).exits(3).all());
    assert!(!project.has("runs"));
}

#[test]
fn only_what_is_wanted_has_to_be_there() {
    let project = Project::with(
        r#"name: x
models: { base: { path: models/base } }
commands: { early: { run: [touch, "{out}/done"] } }
"#,
    );
    project.run(&["--only", "commands.early"]).ran(&["commands.early"]);
}

#[test]
fn a_directory_that_is_no_model_is_refused_with_what_it_lacks() {
    let project = Project::with("name: x\nmodels: { base: { path: base } }\n");
    project.write("base/config.json", "{}");
    let summary = project.run(&[]).failed(3, &["models.base"], &[]);
    summary.says("base is not a model: it has no model.safetensors, nor another file of weights");
    let project = project.model("base", "one");
    project.run(&[]).ran(&["models.base"]);
}

#[test]
fn a_broken_row_is_named_by_line_and_column() {
    let project = Project::with("name: x\ndata: { rows: { path: rows.jsonl, text: '{{ text }}' } }\n");
    project.write("rows.jsonl", "{\"text\": \"a\"}\n{\"text\": a}\n");
    let summary = project.run(&[]).failed(3, &["data.rows"], &[]);
    summary.says("[project]/rows.jsonl:2:10: not JSON: expected value");
    project.write("rows.jsonl", "\n");
    project.run(&[]).failed(3, &["data.rows"], &[]).says("[project]/rows.jsonl: no rows in it");
    project.write("rows.jsonl", "{\"text\": \"a\"}\n");
    project.run(&[]).ran(&["data.rows"]);
}

#[test]
fn rows_are_picked_and_written_as_json_lines() {
    let project = Project::with("name: x\ndata: { rows: { path: rows.csv, rows: 2, text: '{{ q }}' } }\n");
    project.write("rows.csv", "q,a\n1,one\n2,two\n3,three\n");
    project.run(&[]).ran(&["data.rows"]);
    let rows = || std::fs::read_to_string(project.output("x", "data.rows", "rows.jsonl")).unwrap();
    assert_eq!(rows(), "{\"q\":\"1\",\"a\":\"one\"}\n{\"q\":\"2\",\"a\":\"two\"}\n");
    project.edit("x.yaml", "rows: 2", "rows: { sample: 2, seed: 1 }");
    project.run(&[]).ran(&["data.rows"]);
    assert_eq!(rows().lines().count(), 2);
}

#[test]
fn an_experiment_that_this_machine_cannot_run_is_blocked_and_the_others_go_on() {
    let project = done().file("hub.yaml", "name: hub\nmodels: { m: { hub: org/model } }\n").file(
        "big.yaml",
        "name: big\nsettings: { requires: { memory: 4096TiB } }\ncommands: { c: { run: [touch, '{out}/x'] } }\n",
    );
    project.edit("x.yaml", "cat in.txt", "rev in.txt");
    let said = project.mergelab(&["run", "hub.yaml", "x.yaml", "big.yaml", "--json"]).exits(1);
    let said = said
        .says("blocked hub (hub.yaml):\n  models.m: http://127.0.0.1:9 cannot be reached: ")
        .says("\n    hint: look at the network, ")
        .says("blocked big (big.yaml):\n  it requires 4096 TiB of memory; this machine has ")
        .says(", 2 of 3 experiments blocked in N s\n");
    let summary = crate::project::Summary::of(said);
    assert_eq!(summary.in_state("ran"), crate::reruns::ALL);
    assert_eq!(summary.in_state("blocked"), ["models.m", "commands.c"]);
    assert!(!project.has("runs/big"));
}

#[test]
fn a_table_without_a_place_in_its_file_is_found_before_anything_runs() {
    let project = crate::science::project();
    project.write("README.md", "# No table here\n");
    let said = project.mergelab(&["run", "x.yaml"]).exits(3);
    said.says("error: README.md: no block for ").says("<!-- mergelab:table x/main -->");
    assert!(!project.has(".mergelab"));
    std::fs::remove_file(project.path("README.md")).unwrap();
    project
        .mergelab(&["run", "x.yaml"])
        .exits(3)
        .says("error: README.md: there is no such file for the block `x/main`");
}

#[test]
fn a_program_that_writes_nothing_has_failed() {
    let project = Project::with("name: x\ncommands: { c: { run: [sh, -c, 'echo not there'] } }\n");
    let summary = project.run(&[]).failed(1, &["commands.c"], &[]);
    summary.says("nothing was written to ").says("hint: the program must write its result into {out}");
}

#[test]
fn a_link_in_an_output_is_refused_and_nothing_is_kept() {
    let project = Project::with(
        "name: x\ncommands: { c: { run: [sh, -c, 'echo a > \"$0/a\"; ln -s a \"$0/link\"', '{out}'] } }\n",
    );
    let summary = project.run(&[]).failed(1, &["commands.c"], &[]);
    summary.says("/link: a symbolic link cannot be kept: write the file itself");
    assert_eq!(project.in_store("objects"), [""; 0]);
    assert_eq!(project.in_store("tmp"), [""; 0]);
}

#[test]
fn a_name_that_is_not_utf8_is_refused_and_nothing_is_kept() {
    let project = Project::with(
        "name: x\ncommands: { c: { run: [sh, -c, 'echo a > \"$0/$(printf \"\\\\377\")\"', '{out}'] } }\n",
    );
    let summary = project.run(&[]).failed(1, &["commands.c"], &[]);
    summary.says("the name is not UTF-8");
    assert_eq!(project.in_store("objects"), [""; 0]);
}

#[test]
fn a_file_in_a_model_whose_name_is_not_utf8_is_named() {
    let project = Project::with("name: x\nmodels: { base: { path: base } }\n").model("base", "one");
    std::fs::write(project.path("base").join(std::ffi::OsStr::from_bytes(b"\xff.txt")), "").unwrap();
    project.mergelab(&["run", "x.yaml"]).exits(3).says("the name is not UTF-8");
}

#[test]
fn a_broken_link_in_a_model_is_shown_at_the_line_that_names_the_model() {
    let project = Project::with("name: x\nmodels:\n  base: { path: base }\n").model("base", "one");
    std::os::unix::fs::symlink("nowhere", project.path("base/more.safetensors")).unwrap();
    let said = project.mergelab(&["run", "x.yaml"]).exits(3);
    said.says("base/more.safetensors: No such file or directory").says("x.yaml:3:");
}

#[test]
fn what_git_keeps_beside_a_model_is_neither_hashed_nor_waited_for() {
    let project = Project::with("name: x\nmodels: { base: { path: base } }\n").model("base", "one");
    project.write("base/.git/pack", "");
    std::fs::File::create(project.path("base/.git/pack")).unwrap().set_len(1 << 36).unwrap();
    let said = project.mergelab(&["status", "x.yaml"]).exits(0);
    assert!(!said.stdout.contains("not hashed yet"), "{}", said.stdout);
    project.run(&[]).ran(&["models.base"]);
}

#[test]
fn a_file_that_comes_into_an_input_directory_while_the_stage_runs_is_noticed() {
    let project = Project::with(
        r#"name: x
commands: { c: { run: [sh, -c, 'test -e "$1/new" || touch "$1/new"; touch "$0/out"', "{out}", "{inputs.d}"], inputs: { d: dir } } }
"#,
    );
    project.write("dir/old", "");
    project.run(&[]).failed(1, &["commands.c"], &[]).says("/dir/new changed while the stage ran");
    assert_eq!(project.in_store("objects"), [""; 0]);
    project.run(&[]).ran(&["commands.c"]);
}

#[test]
fn odd_names_and_arguments_reach_the_program_as_they_are() {
    let project = Project::with(
        r#"name: x
commands: { c: { run: [sh, -c, 'printf "%s\n" "$@" > "$0/a b.txt"', "{out}", "two words", "$HOME", "{{braces}}", "*", ""] } }
"#,
    );
    project.run(&[]).ran(&["commands.c"]);
    let text = std::fs::read_to_string(project.output("x", "commands.c", "a b.txt")).unwrap();
    assert_eq!(text, "two words\n$HOME\n{braces}\n*\n\n");
}
