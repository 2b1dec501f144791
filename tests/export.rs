//! `export`: out of the store, as plain files.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::project::Project;
use crate::science;

#[test]
fn an_artifact_becomes_a_directory_of_plain_files_that_are_nobody_elses() {
    let project = science::project();
    project.run(&["--only", "merges.avg"]);
    let said = project.mergelab(&["export", "merges.avg", "x.yaml", "out/deep/avg"]).exits(0);
    said.says("merges.avg: 4 files, ").prints("out/deep/avg\n");
    for name in ["config.json", "model.safetensors", "tokenizer.json", "README.md"] {
        let (copy, kept) = (project.path("out/deep/avg").join(name), project.output("x", "merges.avg", name));
        assert_eq!(fs::read(&copy).unwrap(), fs::read(&kept).unwrap(), "{name}");
        let metadata = fs::symlink_metadata(&copy).unwrap();
        assert!(metadata.is_file() && metadata.permissions().mode() & 0o200 != 0, "{name} can be written");
        fs::write(&copy, "changed").unwrap();
    }
    project.mergelab(&["verify"]).exits(0);
    let beside: Vec<_> = fs::read_dir(project.path("out/deep")).unwrap().collect();
    assert_eq!(beside.len(), 1, "{beside:?}");
}

#[test]
fn what_is_there_is_never_replaced() {
    let project = science::project().file("full/notes", "mine").file("plain", "mine");
    project.run(&["--only", "merges.avg"]);
    project.mergelab(&["export", "merges.avg", "x.yaml", "full"]).exits(2).says("full is not empty");
    project.mergelab(&["export", "merges.avg", "x.yaml", "plain"]).exits(2).says("hint: name a directory");
    assert_eq!((project.read("full/notes").as_str(), project.read("plain").as_str()), ("mine", "mine"));
    fs::create_dir(project.path("empty")).unwrap();
    project.mergelab(&["export", "merges.avg", "x.yaml", "empty"]).exits(0);
    assert!(project.has("empty/model.safetensors"));
}

#[test]
fn what_was_not_made_yet_is_to_be_run_first() {
    let project = science::project();
    let said = project.mergelab(&["export", "merges.avg", "x.yaml", "out"]).exits(1);
    said.says("merges.avg is not up to date: ").says("hint: run it first: `mergelab run x.yaml --only merges.avg`");
    project.mergelab(&["export", "merges.avf", "x.yaml", "out"]).exits(2).says("merges.avg");
    assert!(!project.has("out"));
}

/// A project with a merge of which the weights were dropped.
pub(crate) fn dropped() -> Project {
    let project = science::project();
    project.edit("x.yaml", "avg: { method: average,", "avg: { method: average, keep: recipe,");
    project.run(&[]);
    assert!(!project.output("x", "merges.avg", "model.safetensors").exists());
    project
}

#[test]
fn a_merge_whose_weights_are_gone_says_how_to_make_it_again() {
    let project = dropped();
    let said = project.mergelab(&["export", "merges.avg", "x.yaml", "out"]).exits(1);
    said.says("the weights of merges.avg were dropped (`keep: recipe`)")
        .says("hint: set `keep: weights` for it, and make");
    project.edit("x.yaml", "keep: recipe,", "");
    let said = project.mergelab(&["export", "merges.avg", "x.yaml", "out"]).exits(1);
    said.says("hint: make it again by `mergelab run x.yaml --only merges.avg`");
    project.run(&["--only", "merges.avg"]).ran(&["merges.avg"]);
    project.mergelab(&["export", "merges.avg", "x.yaml", "out"]).exits(0);
    assert!(project.has("out/model.safetensors"));
}
