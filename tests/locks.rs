//! Two runs at the same time.

use crate::project::{Project, Summary, wait_until};

/// Five stages that take a moment and count how often they run.
const COUNTED: &str = r#"name: x
commands:
  c: { run: [sh, -c, 'echo {n} >> ran; sleep 0.1; echo {n} > "$0/out"', "{out}"], sweep: { n: [1, 2, 3, 4, 5] } }
  all: { run: [sh, -c, 'echo all >> ran; cat "$0/out" "$1/out" > "$2/out"', "{inputs.a}", "{inputs.b}", "{out}"], inputs: { a: { from: commands.c-1 }, b: { from: commands.c-5 } } }
"#;

#[test]
fn two_runs_of_one_file_at_the_same_time_run_each_stage_once() {
    let project = Project::with(COUNTED);
    let runs = [0, 1, 2].map(|_| project.start(&["run", "x.yaml", "--json"]));
    let summaries = runs.map(|run| Summary::of(run.wait(&project).exits(0)));
    let mut ran: Vec<_> = project.read("ran").lines().map(str::to_owned).collect();
    ran.sort();
    assert_eq!(ran, ["1", "2", "3", "4", "5", "all"]);
    let count = |state| summaries.iter().map(|summary| summary.in_state(state).len()).sum::<usize>();
    assert_eq!((count("ran"), count("hit")), (6, 12));
    project.mergelab(&["verify"]).exits(0);
}

#[test]
fn a_run_waits_for_a_stage_that_another_one_makes_and_takes_its_result() {
    let project = Project::with(
        r#"name: x
commands:
  c: { run: [sh, -c, 'echo $$ >> ran; until test -e go; do sleep 0.01; done; echo out > "$0/out"', "{out}"] }
"#,
    );
    let first = project.start(&["run", "x.yaml", "--json"]);
    project.wait_for("ran");
    let second = project.start(&["run", "x.yaml", "--json"]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    project.write("go", "");
    Summary::of(first.wait(&project)).ran(&["commands.c"]);
    let second = Summary::of(second.wait(&project)).ran(&[]);
    assert_eq!(second.in_state("hit"), ["commands.c"]);
    assert_eq!(project.read("ran").lines().count(), 1);
}

#[test]
fn a_run_takes_over_a_stage_that_fails_in_another_one() {
    let project = Project::with(
        r#"name: x
commands:
  c: { run: [sh, -c, 'echo $$ >> ran; if test $(wc -l < ran) = 1; then sleep 0.4; exit 1; fi; echo out > "$0/out"', "{out}"] }
"#,
    );
    let first = project.start(&["run", "x.yaml", "--json"]);
    project.wait_for("ran");
    let second = project.start(&["run", "x.yaml", "--json"]);
    Summary::of(first.wait(&project)).failed(1, &["commands.c"], &[]);
    Summary::of(second.wait(&project)).ran(&["commands.c"]);
}

#[test]
fn status_and_verify_do_not_wait_for_a_run() {
    let project = Project::with(
        r#"name: x
commands: { c: { run: [sh, -c, 'echo $$ > ran; until test -e go; do sleep 0.01; done; echo > "$0/out"', "{out}"] } }
"#,
    );
    let run = project.start(&["run", "x.yaml"]);
    project.wait_for("ran");
    project.mergelab(&["status", "x.yaml"]).exits(0).prints("run         commands.c  never ran\n");
    project.mergelab(&["verify"]).exits(0);
    project.write("go", "");
    run.wait(&project).exits(0);
    wait_until("nothing is left in tmp/", || project.in_store("tmp").is_empty());
}
