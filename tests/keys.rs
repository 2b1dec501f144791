//! Keys do not depend on where, or from where.

use std::fs;

use serde_json::Value;

use crate::project::Project;
use crate::reruns::{CHAIN, done};

#[test]
fn keys_are_the_same_in_two_directories() {
    let (one, other) = (done(), done());
    assert_ne!(one.root(), other.root());
    assert_eq!(one.keys(), other.keys());
    assert!(one.keys().iter().all(|(_, key)| key.is_string()));
}

#[test]
fn keys_are_the_same_from_a_subdirectory() {
    let project = Project::new().file("experiments/deep/x.yaml", CHAIN).file("in.txt", "some text\n");
    project.mergelab(&["run", "experiments/deep/x.yaml"]).exits(0);
    let from_root = project.mergelab(&["status", "experiments/deep/x.yaml", "--json"]).exits(0).json();
    let mut command = project.command(&["status", "x.yaml", "--json"]);
    command.current_dir(project.path("experiments/deep"));
    let from_below = project.said(command).exits(0).json();
    assert_eq!(from_below, from_root);
    assert!(from_below.as_array().unwrap().iter().all(|stage| stage["state"] == "up-to-date"));
}

#[test]
fn keys_are_the_same_with_absolute_paths() {
    let project = done();
    let before = project.keys();
    let absolute = fs::canonicalize(project.path("in.txt")).unwrap();
    project.edit("x.yaml", "inputs: [in.txt]", &format!("inputs: ['{}']", absolute.display()));
    assert_eq!(project.keys(), before);
}

#[test]
fn a_stage_without_all_of_its_inputs_has_no_key_and_waits() {
    let project = Project::with(CHAIN).file("in.txt", "some text\n");
    let keys = project.keys();
    assert!(keys[0].1.is_string());
    assert_eq!((&keys[1].1, &keys[2].1), (&Value::Null, &Value::Null));
    let said = project.mergelab(&["key", "commands.second", "x.yaml"]).exits(1);
    said.says("error: commands.second has no key yet: waits for commands.first\n");
    assert!(!project.has(".mergelab"));
}

#[test]
fn the_key_is_the_digest_of_the_struct_that_key_prints() {
    let project = done();
    let said = project.mergelab(&["key", "commands.first", "x.yaml"]).exits(0);
    insta::assert_snapshot!(said.stdout);
    assert_eq!(project.keys()[0].1, mergelab::digest::Digest::of_json(&said.json()).to_string());
}

#[test]
fn results_that_were_made_elsewhere_are_hits_here() {
    let (one, other) = (done(), Project::with(CHAIN).file("in.txt", "some text\n"));
    let copy = std::process::Command::new("cp").arg("-r").arg(one.path(".mergelab")).arg(other.root()).status();
    assert!(copy.unwrap().success());
    other.run(&[]).ran(&[]);
}
