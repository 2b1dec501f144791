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
//! models--ORG--NAME/.mergelab/<commit>.json               the list of files at a commit: ours, others pass it over
//! models--ORG--NAME/trees/<commit>.json                   the same list, where `huggingface_hub` kept it: read only
//! .locks/models--ORG--NAME/<the same as the blob>.lock    held by whoever fetches that file
//! ```
//!
//! Data sets lie under `datasets--ORG--NAME`.
//!
//! The client is small and our own, over `ureq`. `hf-hub` 1.0 was read for it and left: it takes a file of an error page
//! for the file (the status of the transfer is not looked at), begins every transfer anew, holds nothing against a digest,
//! does not know `Retry-After` nor `HF_HUB_OFFLINE`, gives up on a lock after ten seconds, and brings two hundred crates.

mod api;
mod cache;
mod control;
mod environment;
mod error;
mod fetch;
mod http;
pub mod upload;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cache::Folder;
use control::Control;
use environment::Settings;
pub use error::HubError;
use fetch::Fetch;
use http::Http;

/// The branch that is meant where none is given.
pub const MAIN: &str = "main";

/// Variables that may hold a token, or say where one lies.
pub const TOKEN_VARIABLES: [&str; 3] = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"];

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RepoKind {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

impl RepoKind {
    /// In addresses of the interface for programs, and in the cache.
    fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }

    /// For the hub, where it makes one.
    fn singular(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Dataset => "dataset",
        }
    }

    /// What stands before the name in the address of a page.
    fn page(self) -> &'static str {
        match self {
            Self::Model => "",
            Self::Dataset => "datasets/",
        }
    }

    /// For a person.
    fn noun(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Dataset => "data set",
        }
    }
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

/// What is asked for, for errors and addresses.
#[derive(Clone, Copy, Debug)]
struct Target<'a> {
    kind: RepoKind,
    repo: &'a str,
    revision: &'a str,
    path: Option<&'a str>,
}

impl Target<'_> {
    fn no_file(&self) -> HubError {
        let path = self.path.unwrap_or_default().to_owned();
        HubError::NoFile { repo: self.repo.to_owned(), commit: self.revision.to_owned(), path }
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path {
            Some(path) => write!(formatter, "{path} of {}", self.repo),
            None => write!(formatter, "{} {}", self.kind.noun(), self.repo),
        }
    }
}

/// The hub, as this process may use it: where it is, who asks, where files are kept, and whether it may be asked at all.
///
/// Several threads may fetch with one of these.
pub struct Hub {
    settings: Settings,
    /// Offline there is none, so that no socket can be opened.
    http: Option<Http>,
    control: Control,
}

/// Commits that this process found revisions to name, until files of theirs are in the cache: other programs take the name
/// of a revision for one, and would find nothing behind it. One that a lock file gave is not taken down: it may be an old one.
static NAMED: Mutex<Vec<Named>> = Mutex::new(Vec::new());

struct Named {
    folder: Folder,
    revision: String,
    commit: String,
}

impl fmt::Debug for Hub {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Hub").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Hub {
    /// As the environment says: `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN` or the file with the token,
    /// `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn from_environment() -> Result<Self, HubError> {
        Self::from_variables(&|name| std::env::var(name).ok())
    }

    /// As some variables say.
    ///
    /// # Errors
    /// As [`Self::from_environment`].
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, HubError> {
        let settings = Settings::read(variable)?;
        let http = (!settings.offline).then(|| Http::new(&settings));
        Ok(Self { settings, http, control: Control::default() })
    }

    /// With somebody who is told what a person should know while it waits or tries again.
    #[must_use]
    pub fn with_notes(mut self, note: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.control.tell(Box::new(note));
        self
    }

    /// Makes an end: whatever is being fetched fails soon, with [`HubError::Stopped`].
    pub fn stop(&self) {
        self.control.stop();
    }

    /// Whether the network is not to be used.
    pub fn is_offline(&self) -> bool {
        self.http.is_none()
    }

    /// The token that is sent to the hub, if there is one: for those who look that it is nowhere else.
    pub fn token(&self) -> Option<&str> {
        self.settings.token.as_ref().map(environment::Token::text)
    }

    /// The directory of the cache; it need not be there yet.
    pub fn cache(&self) -> &Path {
        &self.settings.cache
    }

    /// The directory that holds the files of a commit, once they are fetched.
    pub fn snapshot(&self, kind: RepoKind, repo: &str, commit: &str) -> PathBuf {
        self.folder(kind, repo).snapshot(commit)
    }

    /// The commit, 40 hexadecimal digits, that a branch, a tag or a commit names (`main` where none is given). A full
    /// commit is itself, without asking. Offline, what the name meant when it was asked for last.
    ///
    /// # Errors
    /// When there is no such repository or revision, or the hub cannot be asked.
    pub fn resolve(&self, kind: RepoKind, repo: &str, revision: Option<&str>) -> Result<String, HubError> {
        let revision = revision.unwrap_or(MAIN);
        if is_commit(revision) {
            return Ok(revision.to_ascii_lowercase());
        }
        check_repo(repo)?;
        let target = Target { kind, repo, revision, path: None };
        let Some(http) = &self.http else {
            let commit = self.folder(kind, repo).revision(revision);
            return commit.ok_or_else(|| self.not_cached(format!("what `{revision}` of {repo} names"), repo));
        };
        let commit = api::commit(http, &self.settings.endpoint, &target, &self.control)?;
        let (folder, revision) = (self.folder(kind, repo), revision.to_owned());
        let mut named = NAMED.lock().expect("no holder of this lock panics");
        named.retain(|named| (&named.folder, &named.revision) != (&folder, &revision));
        named.push(Named { folder, revision, commit: commit.clone() });
        Ok(commit)
    }

    /// All files at a commit, sorted by path. Offline, where no list was kept, those that are in the cache.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn files(&self, kind: RepoKind, repo: &str, commit: &str) -> Result<Vec<RemoteFile>, HubError> {
        check_repo(repo)?;
        let folder = self.folder(kind, repo);
        if let Some(files) = folder.listing(commit) {
            return Ok(files);
        }
        let Some(http) = &self.http else {
            let files = folder.cached(commit);
            return if files.is_empty() {
                Err(self.not_cached(format!("{repo} at {commit}"), repo))
            } else {
                Ok(files)
            };
        };
        let target = Target { kind, repo, revision: commit, path: None };
        let files = api::files(http, &self.settings.endpoint, &target, &self.control)?;
        folder.keep_listing(commit, &files)?;
        Ok(files)
    }

    /// As [`Self::files`], if that is known without asking anybody and complete.
    pub fn known_files(&self, kind: RepoKind, repo: &str, commit: &str) -> Option<Vec<RemoteFile>> {
        self.folder(kind, repo).listing(commit)
    }

    /// Bytes of a file that are not in the cache yet. (Whether those that are there are right is seen when it is fetched.)
    pub fn missing(&self, kind: RepoKind, repo: &str, file: &RemoteFile) -> u64 {
        let Some(name) = file.sha256.as_ref().or(file.oid.as_ref()) else { return 0 };
        let folder = self.folder(kind, repo);
        let size = |path: PathBuf| path.metadata().map_or(0, |metadata| metadata.len());
        if size(folder.blob(name)) == file.size && folder.blob(name).is_file() {
            return 0;
        }
        file.size.saturating_sub(size(folder.incomplete(name)))
    }

    /// A file's path in the cache, after it was fetched, where it was not there. Its bytes, also of one that was there, are
    /// held against its size and its digest. `on_progress` is told how many bytes were read since it was told last.
    ///
    /// # Errors
    /// When it cannot be fetched or kept, or what comes is not what the hub said.
    pub fn fetch(
        &self,
        kind: RepoKind,
        repo: &str,
        commit: &str,
        file: &RemoteFile,
        on_progress: &mut dyn FnMut(u64),
    ) -> Result<PathBuf, HubError> {
        check_repo(repo)?;
        let folder = self.folder(kind, repo);
        let target = Target { kind, repo, revision: commit, path: Some(&file.path) };
        let (http, endpoint) = (self.http.as_ref(), self.settings.endpoint.as_str());
        let fetch = Fetch { http, endpoint, folder: &folder, target, file, control: &self.control };
        let path = fetch.run(on_progress)?.ok_or_else(|| self.not_cached(target.to_string(), repo))?;
        let mut named = NAMED.lock().expect("no holder of this lock panics");
        let names: Vec<_> = named.extract_if(.., |named| named.folder == folder && named.commit == commit).collect();
        names.iter().try_for_each(|named| folder.name_revision(&named.revision, &named.commit))?;
        Ok(path)
    }

    fn folder(&self, kind: RepoKind, repo: &str) -> Folder {
        Folder::new(&self.settings.cache, kind, repo)
    }

    fn not_cached(&self, what: String, repo: &str) -> HubError {
        let how = format!(
            "run once without HF_HUB_OFFLINE, or fill the cache on a machine with a network: `hf download {repo}`"
        );
        HubError::NotCached { what, cache: self.settings.cache.clone(), how }
    }
}

/// Whether a revision is a full commit, and so names itself.
pub fn is_commit(revision: &str) -> bool {
    api::is_hex(revision, 40)
}

/// Refuses what cannot be the name of a repository, before it becomes a part of a path.
fn check_repo(repo: &str) -> Result<(), HubError> {
    let is_part = |part: &str| {
        let is_good = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
        !part.is_empty() && part.chars().all(is_good) && !part.starts_with('.') && !part.contains("--")
    };
    let parts: Vec<_> = repo.split('/').collect();
    if parts.len() <= 2 && parts.iter().all(|part| is_part(part)) {
        return Ok(());
    }
    Err(HubError::Setting(format!("`{repo}` cannot be a repository: its name is ORG/NAME")))
}
