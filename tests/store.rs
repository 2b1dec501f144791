//! The store as a person finds it: verified, of another version, read-only, not there.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;

use crate::project::{MERGELAB, Project, flip_a_bit};
use crate::reruns::done;

#[test]
fn no_store_has_nothing_wrong_with_it() {
    let project = Project::new();
    let said = project.mergelab(&["verify", "--json"]).exits(0);
    assert_eq!(said.json(), serde_json::json!({ "artifacts": 0, "files": 0, "bytes": 0, "bad": [] }));
    assert!(!project.has(".mergelab"));
}

#[test]
fn a_sound_store_is_verified_by_hashing_all_of_it() {
    let project = done();
    let said = project.mergelab(&["verify", "--json"]).exits(0);
    assert_eq!(said.json(), serde_json::json!({ "artifacts": 3, "files": 3, "bytes": 23, "bad": [] }));
    project.mergelab(&["verify"]).exits(0).prints("").says("3 artifacts, 3 files, 23 bytes: 0 bad");
}

#[test]
fn verify_finds_a_flipped_bit_that_stat_does_not_show_and_the_next_run_repairs_it() {
    let project = done();
    let path = project.output("x", "commands.second", "out.txt");
    flip_a_bit(&path);
    // A bit that rots on the disk changes no time stamp at all. One that we flip does, so the cache is told of it.
    let (inode, metadata) = (fs::metadata(&path).unwrap().ino(), fs::metadata(&path).unwrap());
    let cache = format!("cache/{}", project.in_store("cache")[0]);
    let stamps = project.read(&format!(".mergelab/{cache}"));
    let changed = metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec();
    let stamps: String = stamps
        .lines()
        .map(|line| {
            let mut words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            if words[1] == inode.to_string() {
                words[4] = changed.to_string();
            }
            words.join(" ") + "\n"
        })
        .collect();
    project.write(&format!(".mergelab/{cache}"), stamps);
    project.run(&[]).ran(&[]);

    let said = project.mergelab(&["verify", "--json"]).exits(4).json();
    let bad = said["bad"].as_array().unwrap();
    assert_eq!(bad.len(), 1, "{said}");
    assert_eq!((&bad[0]["experiment"], &bad[0]["stage"]), (&"x".into(), &"commands.second".into()));
    assert_eq!(bad[0]["problem"], "does not match its digest");
    project.mergelab(&["verify"]).exits(4).says("hint: `mergelab run` moves what is bad to quarantine");
    project.run(&[]).ran(&["commands.second"]);
    project.mergelab(&["verify"]).exits(0);
}

#[test]
fn verify_names_what_is_gone_and_what_is_no_manifest() {
    let project = done();
    fs::remove_file(project.output("x", "commands.third", "out.txt")).unwrap();
    project.write(".mergelab/keys/ff/ff.json", "nonsense");
    let said = project.mergelab(&["verify"]).exits(4);
    assert!(said.stdout.contains("out.txt (x commands.third): is gone\n"), "{}", said.stdout);
    assert!(said.stdout.contains("keys/ff/ff.json: not a manifest: "), "{}", said.stdout);
}

#[test]
fn verify_does_not_mind_work_in_progress() {
    let project = done();
    project.write(&format!(".mergelab/tmp/{}.host.1.0/out/half", "0".repeat(64)), "ha");
    project.mergelab(&["verify"]).exits(0);
}

#[test]
fn a_store_of_a_later_version_is_refused_untouched() {
    let project = done();
    project.write(".mergelab/format", "mergelab store 2\n");
    let before = project.contents(".mergelab");
    for arguments in [&["run", "x.yaml"][..], &["status", "x.yaml"], &["verify"], &["show", "commands.first", "x.yaml"]]
    {
        let said = project.mergelab(arguments).exits(4);
        said.says("error: [project]/.mergelab/format has layout version 2, this mergelab knows up to 1\n")
            .says("hint: use the mergelab that made it, or a newer one\n");
    }
    assert_eq!(project.contents(".mergelab"), before);
}

#[test]
fn a_manifest_of_a_later_version_is_refused_untouched() {
    let project = done();
    let key = project.keys().into_iter().find(|(stage, _)| stage == "commands.second").unwrap().1;
    let key = key.as_str().unwrap().to_owned();
    let path = format!(".mergelab/keys/{}/{key}.json", &key[..2]);
    project.write(&path, r#"{"format": 2}"#);
    for arguments in [&["run", "x.yaml"][..], &["status", "x.yaml"], &["show", "commands.second", "x.yaml"]] {
        let said = project.mergelab(arguments).exits(4);
        said.says(".json is a manifest of version 2, this mergelab knows up to 1\n")
            .says("hint: use the mergelab that made it, or a newer one\n");
    }
    project.mergelab(&["run", "--force", "commands.second", "x.yaml"]).exits(1).says("a manifest of version 2");
    assert_eq!(project.read(&path), r#"{"format": 2}"#);
}

#[test]
fn a_directory_that_is_no_store_is_refused() {
    let project = done();
    project.write(".mergelab/format", "something else\n");
    let said = project.mergelab(&["run", "x.yaml"]).exits(4);
    said.says("does not name a store layout").says("`[store] path` in mergelab.toml names it");
}

#[test]
fn status_reads_a_store_that_it_may_not_write_to() {
    let project = done();
    let expected = project.mergelab(&["status", "x.yaml"]).exits(0).stdout;
    // Root may write anywhere, so there it is somebody else who asks, with a copy of the program that they can reach.
    let is_root = rustix::process::geteuid().is_root();
    let program = project.path("mergelab-copy");
    fs::copy(MERGELAB, &program).unwrap();
    fs::set_permissions(project.root(), fs::Permissions::from_mode(0o755)).unwrap();
    set_modes(&project, 0o555);
    let mut command = std::process::Command::new(&program);
    command.args(["status", "x.yaml"]).current_dir(project.root()).env_remove("LIBTORCH").env_remove("VIRTUAL_ENV");
    if is_root {
        command.uid(65534);
    }
    let said = project.said(command);
    set_modes(&project, 0o755);
    said.exits(0).prints(&expected);
}

/// Sets the mode of the store's directories.
fn set_modes(project: &Project, mode: u32) {
    let mut pending = vec![project.path(".mergelab")];
    while let Some(dir) = pending.pop() {
        pending.extend(fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()));
        fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn the_store_lies_where_mergelab_toml_says() {
    let project = done().file("mergelab.toml", "[store]\npath = \"elsewhere\"\n");
    project.run(&[]).ran(&crate::reruns::ALL);
    assert!(project.has("elsewhere/format"));
}

#[test]
fn a_wrong_mergelab_toml_is_refused_with_its_place() {
    let project = done().file("mergelab.toml", "[store]\npaht = \"elsewhere\"\n");
    project.mergelab(&["status", "x.yaml"]).exits(2).says("[project]/mergelab.toml: ").says("unknown field `paht`");
}

#[test]
fn artifacts_are_read_only_and_links_lead_to_them() {
    let project = done();
    let path = project.output("x", "commands.first", "out.txt");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o444);
    let link = fs::read_link(project.path("runs/x/commands.first")).unwrap();
    assert!(link.starts_with("../../.mergelab/objects"), "{}", link.display());
}

#[test]
fn programs_stay_executable_in_an_artifact() {
    let project = Project::with(
        r#"name: x
commands: { tool: { run: [sh, -c, 'echo exit > "$0/tool"; chmod +x "$0/tool"', "{out}"] } }
"#,
    );
    project.run(&[]).ran(&["commands.tool"]);
    let mode = fs::metadata(project.output("x", "commands.tool", "tool")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o555);
}
