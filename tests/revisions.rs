//! Lock files: which commit a revision on the hub names, and who asks for it.

use std::fs;

use serde_json::json;

use crate::hub::{done, project, single};

#[test]
fn a_branch_stays_where_it_was_until_it_is_updated() {
    let (project, hub) = done();
    let lock = project.read("x.lock");
    assert!(lock.contains("version = 1\n\n[models.\"acme/one\"]\n\"main\" = \""), "{lock}");
    hub.model("acme/one", "other");
    let asked = hub.requests().len();
    project.run(&["--locked"]).ran(&[]);
    assert_eq!(hub.requests().len(), asked, "nothing is asked that is known");
    project.run(&["--update"]).ran(&[
        "models.a",
        "grams.a",
        "merges.avg",
        "merges.regmean",
        "evals.suite/a/add",
        "evals.suite/avg/add",
    ]);
    let updated = project.read("x.lock");
    assert_ne!(updated, lock);
    assert_eq!(updated.lines().last(), lock.lines().last(), "acme/two did not move");
    // Going back is a hit: nothing was lost.
    project.write("x.lock", &lock);
    project.run(&["--locked"]).ran(&[]);
}

#[test]
fn the_lock_file_is_the_same_whatever_asked_and_has_only_what_the_experiment_names() {
    let (project, _hub) = project();
    project.run(&["--only", "models.b"]).ran(&["models.b"]);
    assert!(!project.read("x.lock").contains("acme/one"));
    project.run(&["--only", "models.a"]).ran(&["models.a"]);
    let lock = project.read("x.lock");
    fs::remove_file(project.path("x.lock")).unwrap();
    project.run(&["--only", "models.a", "--only", "models.b"]).ran(&[]);
    assert_eq!(project.read("x.lock"), lock);
    project.write("x.yaml", "name: x\nmodels: { a: { hub: acme/one } }\n");
    project.run(&["--update"]).ran(&[]);
    assert!(!project.read("x.lock").contains("acme/two"));
}

#[test]
fn a_lock_file_that_lacks_something_or_is_none_is_refused() {
    let (project, hub) = single();
    let said = project.mergelab(&["run", "x.yaml", "--locked"]).exits(4);
    said.says("error: x.lock does not say which commit `main` of acme/one is\nhint: run without --locked");
    assert!(hub.requests().is_empty() && !project.has(".mergelab") && !project.has("x.lock"));
    project.write("x.lock", "version = 2\n");
    project.mergelab(&["status", "x.yaml"]).exits(4).says("error: x.lock is a lock file of version 2");
    project.write("x.lock", "<<<<<<< ours\n");
    project.mergelab(&["run", "x.yaml"]).exits(4).says("error: x.lock is not a lock file");
}

#[test]
fn a_commit_that_is_spelled_out_needs_no_lock_file() {
    let (project, _hub) = single();
    project.run(&[]).ran(&["models.a"]);
    let lock = project.read("x.lock");
    let commit = lock.lines().last().unwrap().split('"').nth(3).unwrap();
    fs::remove_file(project.path("x.lock")).unwrap();
    project.edit("x.yaml", "acme/one", &format!("acme/one, revision: {commit}"));
    project.run(&["--locked"]).ran(&[]);
    assert!(!project.has("x.lock"));
}

#[test]
fn status_asks_nobody_and_says_what_a_run_would_fetch() {
    let (project, hub) = project();
    let reason = |stage: &str| {
        let status = project.mergelab(&["status", "x.yaml", "--json"]).exits(0).json();
        let found = status.as_array().unwrap().iter().find(|other| other["stage"] == stage).unwrap().clone();
        (found["state"].as_str().unwrap().to_owned(), found["reason"].as_str().unwrap().to_owned())
    };
    let unknown = "the commit that `main` of acme/one names is not known yet: a run asks the hub";
    assert_eq!(reason("models.a"), ("run".to_owned(), unknown.to_owned()));
    assert_eq!(reason("merges.avg").0, "waits");
    assert!(hub.requests().is_empty());
    // A run that gets as far as the list of files.
    hub.faults(&json!([{ "at": "resolve/acme/one/*", "fault": "status", "status": 400 }]));
    project.run(&["--only", "models.a"]).failed(1, &["models.a"], &[]);
    let (_, fetches) = reason("models.a");
    assert_eq!(fetches, "never ran; fetches 138 B of acme/one from the hub");
    hub.faults(&json!([]));
    project.run(&["--only", "models.a"]).ran(&["models.a"]);
    assert_eq!(reason("models.a").0, "up-to-date");
}
