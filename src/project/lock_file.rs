//! The lock file of an experiment, `NAME.lock` beside `NAME.yaml`: what a run resolved, so that the next one, on any
//! machine, reads the same.
//!
//! TOML, sorted, the same bytes for the same contents:
//!
//! ```text
//! version = 1
//!
//! [models."ORG/NAME"]
//! "main" = "0123456789012345678901234567890123456789"
//!
//! [datasets."ORG/NAME"]
//! "main" = "0123456789012345678901234567890123456789"
//! ```
//!
//! Version history: 1, the first.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The version of the format.
const VERSION: u32 = 1;

/// Commits by revision, by repository.
pub type Commits = BTreeMap<String, BTreeMap<String, String>>;

/// What a lock file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockFile {
    /// Of models on the hub.
    #[serde(default)]
    pub models: Commits,
    /// Of data sets on the hub.
    #[serde(default)]
    pub datasets: Commits,
}

/// A lock file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockFileError {
    /// It cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is none.
    #[error("{} is not a lock file: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another version wrote it.
    #[error("{} is a lock file of version {found}, and this mergelab knows version {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
}

/// The lock file of an experiment file.
pub fn path_of(experiment: &Path) -> PathBuf {
    experiment.with_extension("lock")
}

impl LockFile {
    /// Reads a lock file; one that is not there holds nothing.
    ///
    /// # Errors
    /// When it cannot be read, is none, or is of another version.
    pub fn read(path: &Path) -> Result<Self, LockFileError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(LockFileError::Io { action: "read", path: path.to_path_buf(), source }),
        };
        let invalid = |reason: String| LockFileError::Invalid { path: path.to_path_buf(), reason };
        let mut table: toml::Table =
            text.parse().map_err(|error: toml::de::Error| invalid(error.message().to_owned()))?;
        // Before anything else: a later version may have other contents.
        match table.remove("version").and_then(|version| version.as_integer()) {
            None => return Err(invalid("it has no `version`".to_owned())),
            Some(found) if found != i64::from(VERSION) => {
                return Err(LockFileError::Version { path: path.to_path_buf(), found });
            }
            Some(_) => {}
        }
        let lock: Self = table.try_into().map_err(|error: toml::de::Error| invalid(error.message().to_owned()))?;
        let is_commit = |commit: &String| commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut commits = lock.models.values().chain(lock.datasets.values()).flatten();
        match commits.find(|(_, commit)| !is_commit(commit)) {
            Some((revision, commit)) => Err(invalid(format!("`{commit}`, which `{revision}` names, is no commit"))),
            None => Ok(lock),
        }
    }

    /// Its text.
    pub fn text(&self) -> String {
        let mut text = format!(
            "# What `mergelab run` found the revisions on the hub to name; `mergelab run --update` looks again.\nversion = {VERSION}\n"
        );
        for (section, repositories) in [("models", &self.models), ("datasets", &self.datasets)] {
            for (name, commits) in repositories.iter().filter(|(_, commits)| !commits.is_empty()) {
                text += &format!("\n[{section}.{}]\n", quoted(name));
                for (revision, commit) in commits {
                    text += &format!("{} = {}\n", quoted(revision), quoted(commit));
                }
            }
        }
        text
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.models.values().chain(self.datasets.values()).all(BTreeMap::is_empty)
    }

    /// Writes it, by renaming, where it differs from what is there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), LockFileError> {
        let text = self.text();
        if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let write = || -> std::io::Result<()> {
            let mut file = tempfile::Builder::new().permissions(mode()).tempfile_in(dir)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(path)?;
            Ok(())
        };
        write().map_err(|source| LockFileError::Io { action: "write", path: path.to_path_buf(), source })
    }
}

/// Readable for others, as any file of a project.
fn mode() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}

/// A text as TOML's basic string: what JSON escapes is escaped the same way there.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> LockFile {
        let commit = |digit: &str| digit.repeat(40);
        let revisions = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(revision, digit)| ((*revision).to_owned(), commit(digit))).collect::<BTreeMap<_, _>>()
        };
        LockFile {
            models: BTreeMap::from([
                ("b/model".to_owned(), revisions(&[("main", "1")])),
                ("a/model".to_owned(), revisions(&[("v\"1\\", "2"), ("main", "3")])),
            ]),
            datasets: BTreeMap::from([("a/rows".to_owned(), revisions(&[("refs/pr/1", "4")]))]),
        }
    }

    #[test]
    fn what_is_written_is_read_and_sorted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.lock");
        assert_eq!(LockFile::read(&path).unwrap(), LockFile::default());
        lock().write(&path).unwrap();
        let read = LockFile::read(&path).unwrap();
        assert_eq!(read, lock());
        assert_eq!(read.text(), std::fs::read_to_string(&path).unwrap());
        let sections: Vec<_> = read.text().lines().filter(|line| line.starts_with('[')).map(str::to_owned).collect();
        assert_eq!(sections, ["[models.\"a/model\"]", "[models.\"b/model\"]", "[datasets.\"a/rows\"]"]);
    }

    #[test]
    fn what_is_no_lock_file_of_this_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.lock");
        let refused = |text: &str| {
            std::fs::write(&path, text).unwrap();
            LockFile::read(&path).unwrap_err().to_string()
        };
        assert!(refused("version = 2\nother = 1").contains("of version 2, and this mergelab knows version 1"));
        assert!(refused("").contains("it has no `version`"));
        assert!(refused("version = 1\nother = 1").contains("unknown field `other`"));
        assert!(
            refused("version = 1\n[models.\"a/b\"]\nmain = \"abc\"")
                .contains("`abc`, which `main` names, is no commit")
        );
        assert!(refused("<<<<<<< ours").contains("is not a lock file"));
    }
}
