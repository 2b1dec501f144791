//! Models and data sets from the Hugging Face Hub.
//!
//! Files are kept in the cache that `huggingface_hub` keeps, in its layout, and are used where they lie there: what another
//! program fetched is not fetched again, and the other way round. Below the cache's directory:
//!
//! ```text
//! models--ORG--NAME/blobs/<sha256 or git blob id>         contents
//! models--ORG--NAME/blobs/<the same>.incomplete           what a killed download goes on from
//! models--ORG--NAME/refs/<branch or tag>                  the commit that it named last
//! models--ORG--NAME/snapshots/<commit>/<path>             symbolic links to contents
//! .locks/models--ORG--NAME/<the same as the blob>.lock    held by whoever fetches that file
//! ```
//!
//! Data sets lie under `datasets--ORG--NAME`.

mod error;

use std::path::PathBuf;

pub use error::HubError;

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RepoKind {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

/// A file of a repository at a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Path in the repository, with `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of its contents, 64 hexadecimal digits: of large files, where the hub knows it.
    pub sha256: Option<String>,
    /// SHA-1 of its contents as a git blob, 40 hexadecimal digits: of files that are not large. (Of a large one git knows
    /// only the file that points at it.)
    pub oid: Option<String>,
}

/// The hub, as this process may use it: where it is, who asks, where files are kept, and whether it may be asked at all.
#[derive(Debug)]
pub struct Hub {}

impl Hub {
    /// As the environment says: `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN` or the file with the token,
    /// `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn from_environment() -> Result<Self, HubError> {
        Ok(Self {})
    }

    /// Whether the network is not to be used.
    pub fn is_offline(&self) -> bool {
        false
    }

    /// The commit, 40 hexadecimal digits, that a branch, a tag or a commit names (`main` where none is given). A full
    /// commit is itself, without asking. Offline, what the name meant when it was asked for last.
    ///
    /// # Errors
    /// When there is no such repository or revision, or the hub cannot be asked.
    pub fn resolve(&self, _kind: RepoKind, repo: &str, _revision: Option<&str>) -> Result<String, HubError> {
        Err(HubError::NotCached { what: repo.to_owned(), cache: PathBuf::new(), how: String::new() })
    }

    /// All files at a commit, sorted by path. Offline, those that the cache knows of.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn files(&self, _kind: RepoKind, repo: &str, _commit: &str) -> Result<Vec<RemoteFile>, HubError> {
        Err(HubError::NotCached { what: repo.to_owned(), cache: PathBuf::new(), how: String::new() })
    }

    /// A file's path in the cache, after it was fetched, where it was not there. Its bytes are held against its size and
    /// its digest. `on_progress` is told how many bytes came since it was told last.
    ///
    /// # Errors
    /// When it cannot be fetched or kept, or what comes is not what the hub said.
    pub fn fetch(
        &self,
        _kind: RepoKind,
        repo: &str,
        _commit: &str,
        file: &RemoteFile,
        _on_progress: &mut dyn FnMut(u64),
    ) -> Result<PathBuf, HubError> {
        Err(HubError::NotCached { what: format!("{} of {repo}", file.path), cache: PathBuf::new(), how: String::new() })
    }
}
