//! Programs of stages: none outlives its stage, whatever ends it.

use rustix::process::{Pid, Signal};

use crate::project::{Project, is_alive, wait_until};

/// Starts a child, a grandchild in a session of its own, and writes down all ids; the program itself waits for ever.
const FAMILY: &str = r#"name: x
commands:
  c:
    run: [sh, -c, 'sleep 1000 & echo $! > child; setsid sh -c "echo \$\$ > grandchild; exec sleep 1000" & until test -s grandchild; do sleep 0.01; done; echo $PPID > supervisor; echo $$ > main; test -e go || exec sleep 1000; echo out > "$0/out"', "{out}"]
"#;

/// The family's ids: main, child, grandchild.
fn family(project: &Project) -> [String; 3] {
    ["main", "child", "grandchild"].map(|name| project.wait_for(name))
}

fn signal(pid: &str, signal: Signal) {
    rustix::process::kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), signal).unwrap();
}

fn wait_until_gone(pids: &[String]) {
    wait_until(&format!("{pids:?} are gone"), || !pids.iter().any(|pid| is_alive(pid)));
}

#[test]
fn killing_mergelab_leaves_no_process_of_its_stages_and_the_next_run_succeeds() {
    let project = Project::with(FAMILY);
    let run = project.start(&["run", "x.yaml"]);
    let family = family(&project);
    assert!(family.iter().all(|pid| is_alive(pid)), "{family:?}");
    run.kill();
    wait_until_gone(&family);
    project.write("go", "");
    project.run(&[]).ran(&["commands.c"]);
    assert_eq!(project.in_store("tmp"), [""; 0]);
    project.mergelab(&["verify"]).exits(0);
}

#[test]
fn killing_mergelab_and_the_supervisor_ends_the_program_and_the_next_run_succeeds() {
    let project = Project::with(FAMILY);
    // Without the grandchild: nobody is left who could find it.
    project.edit("x.yaml", r#"setsid sh -c "echo \$\$ > grandchild; exec sleep 1000" &"#, "");
    project.edit("x.yaml", "until test -s grandchild; do sleep 0.01; done;", "");
    project.edit("x.yaml", "sleep 1000 & echo $! > child;", "");
    let run = project.start(&["run", "x.yaml"]);
    let [main, supervisor] = ["main", "supervisor"].map(|name| project.wait_for(name));
    // Not stopped first: a group with a stopped member that loses its parent is told to hang up and wakes again.
    signal(&supervisor, Signal::KILL);
    run.kill();
    wait_until_gone(&[main]);
    project.write("go", "");
    project.run(&[]).ran(&["commands.c"]);
}

#[test]
fn an_orphan_keeps_its_stage_locked_until_it_is_gone() {
    let project = Project::with(FAMILY);
    project.edit("x.yaml", "sleep 1000 & echo $! > child;", "");
    let run = project.start(&["run", "x.yaml"]);
    let [main, grandchild, supervisor] = ["main", "grandchild", "supervisor"].map(|name| project.wait_for(name));
    signal(&supervisor, Signal::KILL);
    run.kill();
    wait_until_gone(&[main]);
    assert!(is_alive(&grandchild), "it left the group, and its supervisor is dead");
    project.write("go", "");
    std::fs::remove_file(project.path("main")).unwrap();
    let next = project.start(&["run", "x.yaml"]);
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(!project.has("main"), "the stage ran beside what was left of it");
    signal(&grandchild, Signal::KILL);
    next.wait(&project).exits(0);
    wait_until_gone(&[project.wait_for("grandchild")]);
}

#[test]
fn what_a_program_leaves_behind_is_ended_with_it() {
    let project = Project::with(FAMILY).file("go", "");
    project.run(&[]).ran(&["commands.c"]);
    wait_until_gone(&family(&project));
}

#[test]
fn a_background_process_that_ignores_term_is_killed() {
    let project = Project::with(
        r#"name: x
commands:
  c: { run: [sh, -c, '(trap "" TERM; echo started > ready; while :; do sleep 1; done) & echo $! > child; until test -s ready; do sleep 0.01; done; echo > "$0/out"', "{out}"] }
"#,
    );
    project.run(&[]).ran(&["commands.c"]);
    wait_until_gone(&[project.wait_for("child")]);
}

#[test]
fn a_program_that_cannot_be_found_is_named() {
    let project = Project::with("name: x\ncommands: { c: { run: [no-such-program, '{out}'] } }\n");
    let summary = project.run(&[]).failed(1, &["commands.c"], &[]);
    insta::assert_snapshot!(summary.said.stderr);
}

#[test]
fn a_program_that_takes_too_long_is_ended_with_all_it_started() {
    let project = Project::with(FAMILY);
    project.edit("x.yaml", "  c:\n", "  c:\n    timeout: 0.5\n");
    let summary = project.run(&[]).failed(1, &["commands.c"], &[]);
    summary.says("commands.c: sh took longer than its timeout");
    wait_until_gone(&family(&project));
    project.write("go", "");
    project.run(&[]).ran(&["commands.c"]);
}

#[test]
fn a_program_that_is_killed_is_said_to_have_been() {
    let project = Project::with("name: x\ncommands: { c: { run: [sh, -c, 'echo before; kill -9 $$'] } }\n");
    let summary = project.run(&[]).failed(1, &["commands.c"], &[]);
    summary.says("sh was killed (SIGKILL): out of memory, perhaps; its last lines:\n  before\n");
    let project = Project::with("name: x\ncommands: { c: { run: [sh, -c, 'kill -11 $$'] } }\n");
    project.run(&[]).failed(1, &["commands.c"], &[]).says("sh was ended by signal 11");
}

#[test]
fn a_program_reads_nothing_from_our_standard_input() {
    let project = Project::with("name: x\ncommands: { c: { run: [sh, -c, 'cat > \"$0/out\"', '{out}'] } }\n");
    let mut command = project.command(&["run", "x.yaml"]);
    command.stdin(std::fs::File::open("/dev/zero").unwrap());
    project.said(command).exits(0);
    assert_eq!(std::fs::metadata(project.output("x", "commands.c", "out")).unwrap().len(), 0);
}

#[test]
fn threads_of_programs_leave_their_core_while_they_wait_unless_somebody_says_otherwise() {
    let policy = |env: &str, variable: Option<&str>| {
        let command = r#"name: x
commands:
  c: { run: [sh, -c, 'echo "$OMP_WAIT_POLICY" > "$0/out"', "{out}"], env: { ENV } }
"#;
        let mut project = Project::with(&command.replace("ENV", env));
        if let Some(value) = variable {
            project = project.variable("OMP_WAIT_POLICY", value);
        }
        project.run(&[]).ran(&["commands.c"]);
        std::fs::read_to_string(project.output("x", "commands.c", "out")).unwrap()
    };
    assert_eq!(policy("", None), "PASSIVE\n");
    assert_eq!(policy("", Some("ACTIVE")), "ACTIVE\n");
    assert_eq!(policy("OMP_WAIT_POLICY: ACTIVE", None), "ACTIVE\n");
}
