//! Interrupts: exit code 130, nothing left running or lying about, and a store that the next run accepts.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::project::{Project, is_alive, wait_until};

/// One stage that waits until the file `go` is there, one that follows.
const WAITING: &str = r#"name: x
commands:
  c: { run: [sh, -c, 'echo $$ > main; test -e go || sleep 1000; echo out > "$0/out"', "{out}"] }
  after: { run: [cp, -r, "{inputs.c}", "{out}/copy"], inputs: { c: { from: commands.c } } }
"#;

#[test]
fn int_term_and_hup_end_a_run_with_130_and_the_next_one_succeeds() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let project = Project::with(WAITING);
        let run = project.start(&["run", "x.yaml", "--json"]);
        let main = project.wait_for("main");
        run.signal(signal);
        let said = run.wait(&project).exits(130);
        let said =
            said.says("note    interrupted: ending what runs").says("skipped commands.after: needs commands.c\n");
        let summary = crate::project::Summary::of(said);
        assert_eq!(summary.in_state("failed"), ["commands.c"]);
        assert!(!is_alive(&main));
        assert_eq!(project.in_store("tmp"), [""; 0]);
        assert_eq!(project.in_store("objects"), [""; 0]);
        project.mergelab(&["verify"]).exits(0);
        project.write("go", "");
        project.run(&[]).ran(&["commands.c", "commands.after"]);
    }
}

#[test]
fn what_is_interrupted_is_said_once() {
    let project = Project::with(
        r#"name: x
commands:
  one: { run: [sh, -c, 'echo $$ > one; sleep 1000', "{out}"] }
  two: { run: [sh, -c, 'echo $$ > two; sleep 1000', "{out}"] }
"#,
    );
    let run = project.start(&["run", "x.yaml", "--jobs", "2"]);
    for name in ["one", "two"] {
        project.wait_for(name);
    }
    run.signal(Signal::INT);
    let said = run.wait(&project).exits(130);
    for name in ["one", "two"] {
        let line = format!("failed  commands.{name}: interrupted\n");
        assert_eq!(said.stderr.matches(&line).count(), 1, "{}", said.stderr);
    }
}

#[test]
fn a_program_that_ignores_term_is_killed_after_the_grace() {
    let project = Project::with(
        r#"name: x
commands:
  c: { run: [sh, -c, 'trap "" TERM; echo $$ > main; while :; do sleep 0.2; done', "{out}"] }
"#,
    );
    let run = project.start(&["run", "x.yaml"]);
    let main = project.wait_for("main");
    let since = Instant::now();
    run.signal(Signal::INT);
    run.wait(&project).exits(130);
    assert!(since.elapsed() >= Duration::from_secs(10), "killed after {:?}", since.elapsed());
    assert!(!is_alive(&main));
    assert_eq!(project.in_store("tmp"), [""; 0]);
}

#[test]
fn a_second_interrupt_kills_at_once() {
    let project = Project::with(
        r#"name: x
commands:
  c: { run: [sh, -c, 'trap "echo told > told" TERM; echo $$ > main; while :; do sleep 0.1; done', "{out}"] }
"#,
    );
    let run = project.start(&["run", "x.yaml"]);
    let main = project.wait_for("main");
    let since = Instant::now();
    run.signal(Signal::INT);
    project.wait_for("told");
    run.signal(Signal::INT);
    run.wait(&project).exits(130);
    assert!(since.elapsed() < Duration::from_secs(8), "took {:?}", since.elapsed());
    wait_until("the program is gone", || !is_alive(&main));
    assert_eq!(project.in_store("tmp"), [""; 0]);
}

#[test]
fn a_second_interrupt_kills_even_what_left_the_group_and_ignores_term() {
    let project = Project::with(
        r#"name: x
commands:
  c:
    run: [sh, -c, 'setsid sh -c "trap : TERM; echo \$\$ > away; while :; do sleep 0.1; done" & until test -s away; do sleep 0.01; done; trap "echo told > told" TERM; echo $$ > main; while :; do sleep 0.1; done', "{out}"]
"#,
    );
    let run = project.start(&["run", "x.yaml"]);
    let [main, away] = ["main", "away"].map(|name| project.wait_for(name));
    let since = Instant::now();
    run.signal(Signal::INT);
    project.wait_for("told");
    run.signal(Signal::INT);
    run.wait(&project).exits(130);
    assert!(since.elapsed() < Duration::from_secs(8), "took {:?}", since.elapsed());
    assert!(!is_alive(&main) && !is_alive(&away));
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let project = Project::with(
        r#"name: x
commands:
  c: { run: [sh, -c, 'echo $PPID > supervisor; echo $$ > main; until test -e go; do sleep 0.05; done; echo out > "$0/out"', "{out}"] }
"#,
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-c", r#"trap "" HUP; exec "$@""#, "sh", crate::project::MERGELAB, "run", "x.yaml"]);
    let mut run = command.current_dir(project.root()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let [main, supervisor] = ["main", "supervisor"].map(|name| project.wait_for(name));
    for pid in [&supervisor, &run.id().to_string()] {
        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::HUP).unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    let lives = is_alive(&main);
    project.write("go", "");
    assert_eq!(run.wait().unwrap().code(), Some(0));
    assert!(lives);
}

#[test]
fn an_interrupt_while_waiting_for_another_run_ends_only_the_one_that_was_told() {
    let project = Project::with(WAITING);
    let first = project.start(&["run", "x.yaml"]);
    let main = project.wait_for("main");
    let second = project.start(&["run", "x.yaml"]);
    std::thread::sleep(Duration::from_millis(300));
    second.signal(Signal::INT);
    second.wait(&project).exits(130);
    assert!(is_alive(&main));
    assert_eq!(project.in_store("tmp").len(), 1, "the work of the first run is not swept away");
    first.signal(Signal::INT);
    first.wait(&project).exits(130);
}

#[test]
fn what_finished_before_an_interrupt_is_kept() {
    let project = Project::with(
        r#"name: x
commands:
  a: { run: [sh, -c, 'echo a > "$0/out"', "{out}"] }
  b: { run: [sh, -c, 'echo $$ > main; test -e go || sleep 1000; cp "$0/out" "$1/out"', "{inputs.a}", "{out}"], inputs: { a: { from: commands.a } } }
"#,
    );
    let run = project.start(&["run", "x.yaml"]);
    project.wait_for("main");
    run.signal(Signal::INT);
    run.wait(&project).exits(130);
    project.write("go", "");
    project.run(&[]).ran(&["commands.b"]);
}

#[test]
fn an_interrupt_ends_the_hashing_of_big_files() {
    let project = Project::with("name: x\nmodels: { big: { path: big } }\n").model("big", "one");
    // Without contents on the disk, and a minute's work to hash all the same.
    let weights = std::fs::File::create(project.path("big/model.safetensors")).unwrap();
    weights.set_len(1 << 36).unwrap();
    let run = project.start(&["run", "x.yaml"]);
    wait_until("the store is there", || project.has(".mergelab/locks/store"));
    std::thread::sleep(Duration::from_millis(500));
    let since = Instant::now();
    run.signal(Signal::INT);
    run.wait(&project).exits(130).says("skipped models.big: interrupted\n");
    assert!(since.elapsed() < Duration::from_secs(5), "took {:?}", since.elapsed());
}
