//! What reruns, and what does not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::project::{Project, flip_a_bit};

/// Three commands in a row: `first` copies a file, `second` makes capitals of it, `third` counts.
pub(crate) const CHAIN: &str = r#"name: x
commands:
  first:
    run: [sh, -c, 'cat in.txt > "$0/out.txt"', "{out}"]
    inputs: [in.txt]
  second:
    run: [sh, -c, 'tr a-z A-Z < "$0/out.txt" > "$1/out.txt"', "{inputs.first}", "{out}"]
    inputs: { first: { from: commands.first } }
  third:
    run: [sh, -c, 'wc -c < "$0" > "$1/out.txt"', "{inputs.second}", "{out}"]
    inputs: { second: { from: commands.second, path: out.txt } }
"#;

pub(crate) const ALL: [&str; 3] = ["commands.first", "commands.second", "commands.third"];

/// The chain, done.
pub(crate) fn done() -> Project {
    let project = Project::with(CHAIN).file("in.txt", "some text\n");
    project.run(&[]).ran(&ALL);
    project
}

#[test]
fn a_second_run_runs_nothing() {
    let project = done();
    let before = project.contents(".mergelab/objects");
    let summary = project.run(&[]).ran(&[]);
    assert_eq!(summary.in_state("hit"), ALL);
    assert_eq!(project.contents(".mergelab/objects"), before);
}

#[test]
fn a_changed_argument_reruns_its_stage_and_what_reads_other_bytes_then() {
    let project = done();
    project.edit("x.yaml", "cat in.txt >", "rev in.txt >");
    project.run(&[]).ran(&ALL);
    assert_eq!(fs::read_to_string(project.output("x", "commands.second", "out.txt")).unwrap(), "TXET EMOS\n");
}

#[test]
fn a_stage_that_reran_and_made_the_same_bytes_reruns_nothing_after_it() {
    let project = done();
    project.edit("x.yaml", "cat in.txt >", "tail -n 9 in.txt >");
    project.run(&[]).ran(&["commands.first"]);
}

#[test]
fn going_back_to_an_earlier_version_runs_nothing() {
    let project = done();
    project.edit("x.yaml", "cat in.txt", "rev in.txt");
    project.run(&[]).ran(&ALL);
    project.edit("x.yaml", "rev in.txt", "cat in.txt");
    project.run(&[]).ran(&[]);
    assert_eq!(fs::read_to_string(project.output("x", "commands.second", "out.txt")).unwrap(), "SOME TEXT\n");
}

#[test]
fn touching_a_file_without_changing_it_reruns_nothing() {
    let project = done();
    fs::File::options()
        .write(true)
        .open(project.path("in.txt"))
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    project.run(&[]).ran(&[]);
    project.write("in.txt", "some text\n");
    project.run(&[]).ran(&[]);
}

#[test]
fn a_changed_input_reruns_what_reads_it() {
    let project = done();
    project.write("in.txt", "Some text\n");
    // The capitals are the same again.
    project.run(&[]).ran(&ALL[..2]);
}

#[test]
fn a_file_in_an_input_directory_counts_with_its_name() {
    let project = Project::with(
        "name: x\ncommands: { list: { run: [sh, -c, 'ls dir > \"$0/out.txt\"', '{out}'], inputs: [dir] } }\n",
    );
    project.write("dir/a", "same");
    project.run(&[]).ran(&["commands.list"]);
    fs::rename(project.path("dir/a"), project.path("dir/b")).unwrap();
    project.run(&[]).ran(&["commands.list"]);
    project.run(&[]).ran(&[]);
}

#[test]
fn description_timeout_and_entries_that_nothing_reads_rerun_nothing() {
    let project = done();
    project.edit("x.yaml", "name: x\n", "name: x\ndescription: What it is about.\nsettings: { device: cpu }\n");
    project.edit("x.yaml", "    inputs: [in.txt]\n", "    inputs: [in.txt]\n    timeout: 60\n");
    project.run(&[]).ran(&[]);
    project.edit("x.yaml", "name: x\n", "name: another\n");
    project.run(&[]).ran(&[]);
}

#[test]
fn a_renamed_stage_reruns_nothing() {
    let project = done();
    project.edit("x.yaml", "  second:\n", "  capitals:\n");
    project.edit("x.yaml", "commands.second", "commands.capitals");
    project.run(&[]).ran(&[]);
    assert!(project.has("runs/x/commands.capitals"));
}

#[test]
fn declared_environment_and_version_rerun_their_stage() {
    let project = done();
    project.edit("x.yaml", "    inputs: [in.txt]\n", "    inputs: [in.txt]\n    env: { WORD: one }\n");
    project.run(&[]).ran(&["commands.first"]);
    project.edit("x.yaml", "{ WORD: one }", "{ WORD: two }");
    project.run(&[]).ran(&["commands.first"]);
    project.edit("x.yaml", "env: { WORD: two }", "version: 2");
    project.run(&[]).ran(&["commands.first"]);
}

#[test]
fn two_entries_that_say_the_same_run_once() {
    let project = Project::with(
        r#"name: x
commands:
  one: { run: [sh, -c, 'echo ran >> "$PWD/count"; sleep 0.2; echo out > "$0/out.txt"', "{out}"] }
  two: { run: [sh, -c, 'echo ran >> "$PWD/count"; sleep 0.2; echo out > "$0/out.txt"', "{out}"] }
"#,
    );
    let summary = project.run(&["--jobs", "2"]).ran(&["commands.one"]);
    assert_eq!(summary.in_state("hit"), ["commands.two"]);
    assert_eq!(project.read("count"), "ran\n");
    summary.said.says_nothing_of("another process");
}

#[test]
fn a_deleted_file_of_an_artifact_is_made_again_and_what_follows_is_not() {
    let project = done();
    fs::remove_file(project.output("x", "commands.second", "out.txt")).unwrap();
    project.run(&[]).ran(&["commands.second"]).says("out.txt is gone");
    project.run(&[]).ran(&[]);
}

#[test]
fn a_deleted_artifact_is_made_again_and_what_follows_is_not() {
    let project = done();
    fs::remove_dir_all(project.output("x", "commands.second", "")).unwrap();
    project.run(&[]).ran(&["commands.second"]);
    project.run(&[]).ran(&[]);
}

#[test]
fn a_truncated_file_goes_to_quarantine_and_is_made_again() {
    let project = done();
    let path = project.output("x", "commands.second", "out.txt");
    let digest = path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, "SOME").unwrap();
    project.run(&[]).ran(&["commands.second"]).says("out.txt has another size than its manifest says");
    assert_eq!(project.in_store("quarantine"), [format!("{digest}.0")]);
    assert_eq!(project.read(&format!(".mergelab/quarantine/{digest}.0/out.txt")), "SOME");
    assert_eq!(fs::read_to_string(&path).unwrap(), "SOME TEXT\n");
    project.run(&[]).ran(&[]);
}

#[test]
fn a_corrupted_file_goes_to_quarantine_and_is_made_again() {
    let project = done();
    let path = project.output("x", "commands.second", "out.txt");
    flip_a_bit(&path);
    project.run(&[]).ran(&["commands.second"]).says("out.txt does not match its digest");
    assert_eq!(project.in_store("quarantine").len(), 1);
    assert_eq!(fs::read_to_string(&path).unwrap(), "SOME TEXT\n");
}

#[test]
fn a_file_that_became_a_link_is_made_again() {
    let project = done();
    let path = project.output("x", "commands.second", "out.txt");
    fs::rename(&path, project.path("moved.txt")).unwrap();
    symlink(project.path("moved.txt"), &path).unwrap();
    project.run(&[]).ran(&["commands.second"]).says("out.txt is no longer a regular file");
}

#[test]
fn a_lost_or_garbled_manifest_is_made_again() {
    let project = done();
    let manifest = |project: &Project| {
        let key = project.keys().into_iter().find(|(stage, _)| stage == "commands.second").unwrap().1;
        let key = key.as_str().unwrap().to_owned();
        project.path(&format!(".mergelab/keys/{}/{key}.json", &key[..2]))
    };
    fs::remove_file(manifest(&project)).unwrap();
    project.run(&[]).ran(&["commands.second"]);
    fs::write(manifest(&project), "{}").unwrap();
    project.run(&[]).ran(&["commands.second"]).says("is not a manifest");
    project.run(&[]).ran(&[]);
}

#[test]
fn losing_the_cache_of_digests_costs_no_rerun() {
    let project = done();
    fs::remove_dir_all(project.path(".mergelab/cache")).unwrap();
    project.run(&[]).ran(&[]);
}

#[test]
fn an_input_that_changes_under_a_running_stage_fails_it_and_nothing_is_kept() {
    let project = Project::with(
        r#"name: x
commands:
  slow:
    run: [sh, -c, 'cat in.txt > "$0/out.txt"; grep -q changed in.txt || echo changed > in.txt', "{out}"]
    inputs: [in.txt]
"#,
    )
    .file("in.txt", "first\n");
    let summary = project.run(&[]).failed(1, &["commands.slow"], &[]);
    let summary = summary.says("[project]/in.txt changed while the stage ran");
    summary.says("hint: run again");
    assert_eq!(project.in_store("objects"), [""; 0]);
    assert_eq!(project.in_store("keys"), [""; 0]);
    assert_eq!(project.in_store("tmp"), [""; 0]);
    // It leaves the file alone from now on.
    project.run(&[]).ran(&["commands.slow"]);
}

#[test]
fn bytes_are_the_same_whatever_jobs() {
    let text: Vec<_> = (0..8)
        .map(|index| {
            format!("  c{index}: {{ run: [sh, -c, 'seq {index} 99 > \"$0/a\"; seq {index} > \"$0/b\"', '{{out}}'] }}\n")
        })
        .collect();
    let text = format!("name: x\ncommands:\n{}", text.concat());
    let contents = |jobs: &str| {
        let project = Project::with(&text);
        assert_eq!(project.run(&["--jobs", jobs]).in_state("ran").len(), 8);
        (project.keys(), project.contents(".mergelab/objects"))
    };
    assert_eq!(contents("1"), contents("8"));
}

#[test]
fn an_input_that_changes_and_changes_back_under_a_running_stage_fails_it() {
    let project = Project::with(
        r#"name: x
commands:
  slow:
    run: [sh, -c, 'echo other > in.txt; cat in.txt > "$0/out.txt"; echo first > in.txt', "{out}"]
    inputs: [in.txt]
"#,
    )
    .file("in.txt", "first\n");
    project.run(&[]).failed(1, &["commands.slow"], &[]).says("[project]/in.txt changed while the stage ran");
}
