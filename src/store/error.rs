//! What can go wrong in a store.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `read`, `create`, …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No space left.
    #[error("no space left on the disk that holds {} (while trying to {action} it)", path.display())]
    Full {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// The layout is of a later version than this program knows.
    #[error("{} has layout version {found}, this mergelab knows up to {known}", path.display())]
    TooNew {
        /// The `format` file.
        path: PathBuf,
        /// Version found.
        found: u32,
        /// Version known.
        known: u32,
    },
    /// The `format` file says nothing that a store would say.
    #[error("{} does not name a store layout: {text:?}", path.display())]
    NoFormat {
        /// The `format` file.
        path: PathBuf,
        /// What it says.
        text: String,
    },
    /// What was made again is not what it was.
    #[error("made again, it is not what it was: its digest is {found} and was {expected}")]
    Differs {
        /// What it was.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// A manifest of a later version: it is left alone.
    #[error("{} is a manifest of version {found}, this mergelab knows up to {known}", path.display())]
    LaterManifest {
        /// The manifest.
        path: PathBuf,
        /// Version found.
        found: u64,
        /// Version known.
        known: u32,
    },
    /// A manifest that is no manifest.
    #[error("{}: not a manifest: {reason}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// An artifact may hold regular files with UTF-8 names only.
    #[error("{}: {reason}", path.display())]
    Unstorable {
        /// The file.
        path: PathBuf,
        /// Why it cannot be kept.
        reason: &'static str,
    },
    /// A stage left nothing behind.
    #[error("nothing was written to {}", path.display())]
    Empty {
        /// Where it should have been.
        path: PathBuf,
    },
}

/// Adds what was tried, and on what, to an I/O error.
pub(crate) trait IoContext<T> {
    /// Wraps the error.
    fn context(self, action: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|source| {
            let path = path.to_path_buf();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { action, path },
                _ => StoreError::Io { action, path, source },
            }
        })
    }
}
