//! `runs/<experiment>/<stage>`: links to artifacts under names that people know.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// Points the link of a stage at its artifact. Links are a convenience: where one cannot be made nothing is lost.
pub(super) fn refresh(root: &Path, experiment: &str, stage: &str, location: &Path) {
    let link = root.join("runs").join(experiment).join(stage);
    let Some(folder) = link.parent() else { return };
    let target = relative(folder, location).unwrap_or_else(|| location.to_path_buf());
    if std::fs::read_link(&link).is_ok_and(|old| old == target) {
        return;
    }
    let _ = std::fs::create_dir_all(folder);
    let mut name: OsString = link.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = folder.join(name);
    let _ = std::fs::remove_file(&fresh);
    if std::os::unix::fs::symlink(&target, &fresh).is_ok() && std::fs::rename(&fresh, &link).is_err() {
        let _ = std::fs::remove_file(&fresh);
    }
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
}
