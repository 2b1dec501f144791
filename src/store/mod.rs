//! The store: artifacts by content, manifests by key, and nothing in between that could be mistaken for either.
//!
//! ```text
//! .mergelab/
//!   format                       the layout's version
//!   objects/ab/<digest>/         files of an artifact, read-only; written once, never replaced
//!   keys/ab/<key>.json           manifest; its presence means that the artifact is complete
//!   tmp/<key>.<host>.<pid>.<r>/  work in progress
//!   partial/<key>/               what a long stage can resume from
//!   locks/<key>, locks/store     advisory locks
//!   locks/<key>.use              held by whoever reads the artifact's files and does not want them dropped
//!   locks/objects                held while objects and the manifests that promise their files change together
//!   logs/<key>.log               output of the stage's program
//!   quarantine/                  objects that did not match their digest, manifests that were none
//!   cache/stat-<host>            digests of files by what stat says of them; losing what is in `cache/` costs time only
//! ```
//!
//! The store knows nothing of stages: a key is a digest of some JSON, an artifact is a directory.
//!
//! Version history of the layout: 1, the first.

mod commit;
mod copy;
mod drop;
mod error;
mod external;
mod format;
mod lock;
mod lookup;
mod manifest;
mod new_directory;
mod stat;
#[cfg(test)]
mod tests;
mod tree;
mod verify;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub use commit::{Draft, Work, rfc3339_now};
pub use copy::{CopyError, copy_out};
pub use drop::Use;
pub use error::StoreError;
pub use lock::KeyLock;
pub use lookup::{Inspection, Lookup};
pub use manifest::{FORMAT as MANIFEST_FORMAT, Git, Manifest};
pub use new_directory::NewDirectory;
pub use stat::{Stamp, StatCache, Watch};
pub use tree::{hash_tree, list_files};
pub use verify::{Bad, Verification};

use crate::digest::{Digest, Key};
use error::IoContext;

/// A store on disk.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    host: String,
    stats: StatCache,
}

impl Store {
    /// Opens the store, creating it where there is none.
    ///
    /// # Errors
    /// [`StoreError::TooNew`] for a layout of a later version; I/O errors with their path.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        for name in ["objects", "keys", "tmp", "partial", "locks", "logs", "quarantine", "cache"] {
            let dir = root.join(name);
            if !dir.is_dir() {
                std::fs::create_dir_all(&dir).context("create", &dir)?;
            }
        }
        format::check_or_write(root)?;
        let root = std::fs::canonicalize(root).context("resolve", root)?;
        Ok(Self::at(root))
    }

    /// Opens the store if there is one; reading needs no more than read permission.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_existing(root: &Path) -> Result<Option<Self>, StoreError> {
        if !root.is_dir() {
            return Ok(None);
        }
        format::check(root)?;
        let root = std::fs::canonicalize(root).context("resolve", root)?;
        Ok(Some(Self::at(root)))
    }

    /// A store that is not on disk: nothing is in it, and what is learnt about files is forgotten.
    pub fn nowhere(root: &Path) -> Self {
        Self::at(root.to_path_buf())
    }

    fn at(root: PathBuf) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let stats = StatCache::load(&root.join("cache").join(format!("stat-{host}")));
        Self { root, host, stats }
    }

    /// Absolute path of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Name of this machine, as manifests carry it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Digests of files by what stat says of them.
    pub fn stats(&self) -> &StatCache {
        &self.stats
    }

    /// Directory of an object.
    pub fn object_dir(&self, digest: &Digest) -> PathBuf {
        let hex = digest.to_string();
        self.root.join("objects").join(&hex[..2]).join(hex)
    }

    /// File of a manifest.
    pub fn manifest_path(&self, key: &Key) -> PathBuf {
        let hex = key.to_string();
        self.root.join("keys").join(&hex[..2]).join(format!("{hex}.json"))
    }

    /// File that receives what a stage's program prints.
    pub fn log_path(&self, key: &Key) -> PathBuf {
        self.root.join("logs").join(format!("{key}.log"))
    }

    /// File whose lock the maker of a key holds.
    pub fn lock_path(&self, key: &Key) -> PathBuf {
        self.root.join("locks").join(key.to_string())
    }

    /// Directory for what a killed stage may resume from.
    pub fn partial_dir(&self, key: &Key) -> PathBuf {
        self.root.join("partial").join(key.to_string())
    }

    /// Every manifest that can be read, in no order; those that cannot are left out.
    ///
    /// # Errors
    /// When `keys/` cannot be listed.
    pub fn manifests(&self) -> Result<Vec<Manifest>, StoreError> {
        Ok(self.manifest_paths()?.paths.iter().filter_map(|path| manifest::read(path).ok()).collect())
    }

    /// Files of manifests, sorted.
    fn manifest_paths(&self) -> Result<ManifestPaths, StoreError> {
        let keys = self.root.join("keys");
        let ManifestPaths { mut paths, mut unlisted } = ManifestPaths::default();
        for shard in std::fs::read_dir(&keys).context("list", &keys)? {
            let shard = shard.context("list", &keys)?.path();
            if !shard.is_dir() {
                continue;
            }
            match std::fs::read_dir(&shard).and_then(Iterator::collect::<std::io::Result<Vec<_>>>) {
                Ok(entries) => paths.extend(
                    entries
                        .into_iter()
                        .map(|entry| entry.path())
                        .filter(|path| path.extension().is_some_and(|extension| extension == "json")),
                ),
                Err(error) => unlisted.push((shard, error)),
            }
        }
        paths.sort();
        Ok(ManifestPaths { paths, unlisted })
    }

    /// Writes down what was learnt about files.
    ///
    /// # Errors
    /// When the cache file cannot be written.
    pub fn save_stats(&self) -> Result<(), StoreError> {
        self.stats.save()
    }
}

/// Where manifests lie.
#[derive(Debug, Default)]
struct ManifestPaths {
    /// The files, sorted.
    paths: Vec<PathBuf>,
    /// Directories of some that cannot be listed.
    unlisted: Vec<(PathBuf, std::io::Error)>,
}

/// A new file, to be renamed to its place: with the usual permissions, since others may share the store.
fn new_file_in(dir: &Path) -> Result<tempfile::NamedTempFile, StoreError> {
    let usual = std::fs::Permissions::from_mode(0o666);
    tempfile::Builder::new().permissions(usual).tempfile_in(dir).context("create a file in", dir)
}

/// Flushes a directory's entries to the disk.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    std::fs::File::open(dir).and_then(|file| file.sync_all()).context("sync", dir)
}
