//! Which stages run: `--only`, `--force`, `--keep-going`, `--dry-run`.

use crate::project::Project;
use crate::reruns::{ALL, CHAIN, done};

/// One stage that fails, one that needs it, and one after them in the file that needs neither.
const FAILING: &str = r#"name: x
commands:
  bad: { run: [sh, -c, 'for n in $(seq 20); do echo line $n; done; echo oops >&2; exit 7'] }
  after: { run: [cp, "{inputs.bad}", "{out}"], inputs: { bad: { from: commands.bad } } }
  other: { run: [touch, "{out}/done"] }
"#;

#[test]
fn only_runs_a_stage_and_what_it_needs() {
    let project = Project::with(CHAIN).file("in.txt", "some text\n");
    project.run(&["--only", "commands.second"]).ran(&ALL[..2]);
    project.run(&[]).ran(&ALL[2..]);
}

#[test]
fn only_takes_a_name_for_all_that_lies_under_it() {
    let project = Project::with(
        r#"name: x
commands:
  sizes: { run: [sh, -c, 'seq {n} > "$0/out"', "{out}"], sweep: { n: [3, 4] } }
  other: { run: [touch, "{out}/done"] }
"#,
    );
    project.run(&["--only", "commands.sizes"]).ran(&["commands.sizes-3", "commands.sizes-4"]);
}

#[test]
fn force_runs_a_stage_again_and_what_follows_goes_by_the_digest() {
    let project = done();
    project.run(&["--force", "commands.first"]).ran(&ALL[..1]);
    project.run(&["--force", "commands.first", "--force", "commands.third"]).ran(&["commands.first", "commands.third"]);
    project.run(&[]).ran(&[]);
}

#[test]
fn a_forced_stage_that_makes_other_bytes_takes_the_place_of_the_old_ones() {
    let project = Project::with(
        r#"name: x
commands:
  now: { run: [sh, -c, 'cat counter > "$0/out"', "{out}"] }
  after: { run: [sh, -c, 'cat "$0/out" > "$1/out"', "{inputs.now}", "{out}"], inputs: { now: { from: commands.now } } }
"#,
    )
    .file("counter", "1");
    project.run(&[]).ran(&["commands.now", "commands.after"]);
    project.write("counter", "2");
    project.run(&[]).ran(&[]);
    project.run(&["--force", "commands.now"]).ran(&["commands.now", "commands.after"]);
    assert_eq!(std::fs::read_to_string(project.output("x", "commands.after", "out")).unwrap(), "2");
    project.run(&[]).ran(&[]);
}

#[test]
fn force_outside_of_only_is_refused() {
    let project = done();
    let said = project.mergelab(&["run", "x.yaml", "--only", "commands.first", "--force", "commands.third"]).exits(2);
    said.says("--force commands.third: not among what --only runs");
}

#[test]
fn a_failure_shows_the_last_lines_and_the_log_and_stops_the_run() {
    let project = Project::with(FAILING);
    let summary = project.run(&["--jobs", "1"]).failed(1, &["commands.bad"], &["commands.after", "commands.other"]);
    insta::assert_snapshot!(summary.said.stderr);
    assert!(!project.has("runs"));
}

#[test]
fn keep_going_stops_only_what_depends_on_the_failure() {
    let project = Project::with(FAILING);
    let summary = project.run(&["--keep-going", "--jobs", "1"]).failed(1, &["commands.bad"], &["commands.after"]);
    assert_eq!(summary.in_state("ran"), ["commands.other"]);
    summary.says("skipped commands.after: needs commands.bad\n");
}

#[test]
fn the_log_of_a_failed_stage_is_shown_in_full() {
    let project = Project::with(FAILING);
    project.run(&["--jobs", "1"]).failed(1, &["commands.bad"], &["commands.after", "commands.other"]);
    let lines = (1..=20).map(|n| format!("line {n}\n")).collect::<Vec<_>>().concat();
    project.mergelab(&["show", "commands.bad", "x.yaml", "--log"]).exits(0).prints(&format!("{lines}oops\n"));
    let said = project.mergelab(&["show", "commands.bad", "x.yaml"]).exits(1);
    said.says("error: commands.bad is not up to date: never ran\n");
    let said = project.mergelab(&["show", "commands.other", "x.yaml", "--log"]).exits(1);
    said.says("error: commands.other has no log\n");
}

#[test]
fn a_failed_stage_runs_again_and_can_succeed() {
    let project = Project::with("name: x\ncommands: { c: { run: [sh, -c, 'cp good \"$0\"', '{out}'] } }\n");
    project.run(&[]).failed(1, &["commands.c"], &[]);
    project.write("good", "now it is there");
    project.run(&[]).ran(&["commands.c"]);
    project.mergelab(&["verify"]).exits(0);
}

#[test]
fn a_dry_run_says_what_would_run_and_does_nothing() {
    let project = Project::with(CHAIN).file("in.txt", "some text\n");
    let said = project.mergelab(&["run", "x.yaml", "--dry-run"]).exits(0);
    insta::assert_snapshot!(said.all());
    assert!(!project.has(".mergelab") && !project.has("runs"));
    let said = project.mergelab(&["run", "x.yaml", "-n", "--only", "commands.first"]).exits(0);
    said.prints("run         commands.first  never ran\n");
}

#[test]
fn a_dry_run_after_a_change_gives_the_reason() {
    let project = done();
    project.write("in.txt", "other text\n");
    let said = project.mergelab(&["run", "x.yaml", "--dry-run"]).exits(0);
    insta::assert_snapshot!(said.stdout);
}
