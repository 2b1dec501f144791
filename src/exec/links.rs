//! `runs/<experiment>/<stage>`: links to artifacts under names that people know.
//!
//! Reading a thousand links takes longer than the rest of a run in which nothing is to be done, so what each of them was
//! last pointed at is noted beside them in `.links` (one line a link: stage, tab, target), and only looked at as a whole.
//! A stage's name does not start with a dot, so none is in the way of the note.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// The links of a run. They are a convenience: where one cannot be made nothing is lost.
pub(super) struct Links {
    root: PathBuf,
    experiments: HashMap<String, Noted>,
}

/// What is known of an experiment's links.
#[derive(Default)]
struct Noted {
    targets: HashMap<String, PathBuf>,
    present: HashSet<String>,
    changed: bool,
}

impl Links {
    /// Links of a project.
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.join("runs"), experiments: HashMap::new() }
    }

    /// Points the link of a stage at its artifact. That of a part of another stage's result lies beside the whole one's,
    /// which is no folder of ours: `grams.math@shard-0` (no name has an `@` in it).
    pub(super) fn refresh(&mut self, experiment: &str, stage: &str, location: &Path) {
        let stage = &*link_of(stage);
        let folder = self.root.join(experiment);
        if !self.experiments.contains_key(experiment) {
            let noted = Noted::read(&folder);
            self.experiments.insert(experiment.to_owned(), noted);
        }
        let Some(noted) = self.experiments.get_mut(experiment) else { return };
        if noted.present.contains(stage) && noted.targets.get(stage).is_some_and(|target| target == location) {
            return;
        }
        if point(&folder.join(stage), location).is_ok() {
            noted.targets.insert(stage.to_owned(), location.to_path_buf());
            noted.present.insert(stage.to_owned());
            noted.changed = true;
        }
    }

    /// Writes the notes down.
    pub(super) fn save(&self) {
        for (experiment, noted) in self.experiments.iter().filter(|(_, noted)| noted.changed) {
            let mut lines: Vec<String> = noted
                .targets
                .iter()
                .filter_map(|(stage, target)| Some(format!("{stage}\t{}\n", target.to_str()?)))
                .collect();
            lines.sort();
            let path = self.root.join(experiment).join(NOTE);
            let fresh = path.with_extension(format!("{}.new", std::process::id()));
            let written = std::fs::write(&fresh, lines.concat()).and_then(|()| std::fs::rename(&fresh, &path));
            if written.is_err() {
                let _ = std::fs::remove_file(&fresh);
            }
        }
    }
}

/// Where the link of a stage lies in the folder of its experiment.
fn link_of(stage: &str) -> Cow<'_, str> {
    let has_parts = ["grams.", "models."].iter().any(|section| stage.starts_with(section));
    if has_parts { stage.replace('/', "@").into() } else { stage.into() }
}

/// The note's file, in the folder of its experiment.
const NOTE: &str = ".links";

impl Noted {
    fn read(folder: &Path) -> Self {
        let text = std::fs::read_to_string(folder.join(NOTE)).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.split_once('\t'));
        let targets = lines.map(|(stage, target)| (stage.to_owned(), PathBuf::from(target))).collect();
        let mut present = HashSet::new();
        let mut pending = vec![(folder.to_path_buf(), String::new())];
        while let Some((folder, prefix)) = pending.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let Ok(name) = entry.file_name().into_string() else { continue };
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => pending.push((entry.path(), format!("{prefix}{name}/"))),
                    Ok(kind) if kind.is_symlink() => {
                        present.insert(format!("{prefix}{name}"));
                    }
                    _ => {}
                }
            }
        }
        Self { targets, present, changed: false }
    }
}

/// Makes a link, or points it elsewhere, by rename.
fn point(link: &Path, location: &Path) -> std::io::Result<()> {
    let folder = link.parent().unwrap_or(Path::new("."));
    let target = relative(folder, location).unwrap_or_else(|| location.to_path_buf());
    if std::fs::read_link(link).is_ok_and(|old| old == target) {
        return Ok(());
    }
    std::fs::create_dir_all(folder)?;
    let mut name: OsString = link.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = folder.join(name);
    let _ = std::fs::remove_file(&fresh);
    std::os::unix::fs::symlink(&target, &fresh)?;
    std::fs::rename(&fresh, link).inspect_err(|_| {
        let _ = std::fs::remove_file(&fresh);
    })
}

/// A path relative to a directory, where both lie under one that is not the root of the file system.
fn relative(from: &Path, to: &Path) -> Option<PathBuf> {
    let mut from = from.components().peekable();
    let mut to = to.components().peekable();
    let mut common = 0;
    while from.peek().is_some() && from.peek() == to.peek() {
        common += usize::from(matches!(from.next(), Some(Component::Normal(_))));
        to.next();
    }
    (common > 0).then(|| from.map(|_| Component::ParentDir).chain(to).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_relative_within_a_project_so_that_it_can_be_moved() {
        let path = relative(Path::new("/p/runs/x"), Path::new("/p/.mergelab/objects/ab/abc")).unwrap();
        assert_eq!(path, Path::new("../../.mergelab/objects/ab/abc"));
        assert_eq!(relative(Path::new("/p/runs"), Path::new("/q/objects")), None);
    }

    #[test]
    fn a_link_follows_its_artifact_and_comes_back_when_it_was_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join(".mergelab");
        let link = dir.path().join("runs/x/evals.suite/avg/gsm8k");
        for object in ["one", "one", "two"] {
            std::fs::create_dir_all(store.join(object)).unwrap();
            let mut links = Links::new(dir.path());
            links.refresh("x", "evals.suite/avg/gsm8k", &store.join(object));
            links.save();
            assert_eq!(std::fs::canonicalize(&link).unwrap(), std::fs::canonicalize(store.join(object)).unwrap());
        }
        std::fs::remove_file(&link).unwrap();
        Links::new(dir.path()).refresh("x", "evals.suite/avg/gsm8k", &store.join("two"));
        assert!(link.exists());
    }

    #[test]
    fn the_link_of_a_shard_lies_beside_that_of_the_sum_and_not_in_its_artifact() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let mut links = Links::new(dir.path());
        for stage in ["grams.a", "grams.a/shard-0"] {
            std::fs::create_dir_all(store.join(stage)).unwrap();
            links.refresh("x", stage, &store.join(stage));
        }
        std::fs::remove_dir(store.join("grams.a/shard-0")).unwrap();
        assert_eq!(std::fs::read_dir(store.join("grams.a")).unwrap().count(), 0, "nothing was written into it");
        assert!(dir.path().join("runs/x/grams.a@shard-0").is_symlink());
    }

    #[test]
    fn two_projects_of_one_store_have_links_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        for (project, object) in [("p", "one"), ("q", "two"), ("p", "two")] {
            let object = dir.path().join("store").join(object);
            std::fs::create_dir_all(&object).unwrap();
            let mut links = Links::new(&dir.path().join(project));
            links.refresh("x", "commands.a", &object);
            links.save();
            let link = dir.path().join(project).join("runs/x/commands.a");
            assert_eq!(std::fs::canonicalize(link).unwrap(), std::fs::canonicalize(object).unwrap());
        }
    }
}
