//! Uploads: files become one commit of a repository.
//!
//! What the hub has already is not sent again: a file that is in the repository with the same digest is left alone, and of
//! large files (which the hub keeps by their SHA-256 in a storage of its own) the storage is asked first, so that an upload
//! that was cut off goes on with the files that are missing. Large files come first, and one commit last, so that a reader
//! finds the repository as it was or with everything in it.
//!
//! The steps, each with what the hub's own library does:
//!
//! ```text
//! POST api/repos/create                          where there is no repository
//! POST api/models/ORG/NAME/branch/BRANCH         where there is no branch
//! GET  api/models/ORG/NAME/tree/COMMIT           what is there
//! POST api/models/ORG/NAME/preupload/BRANCH      which files count as large
//! POST ORG/NAME.git/info/lfs/objects/batch       where to put them, and which are there
//! PUT  storage                                   in one piece, or in parts with a POST that joins them
//! POST api/models/ORG/NAME/commit/BRANCH         small files inline, large ones by digest
//! ```
//!
//! `hf-hub` 1.0 sends large files by its own xet transfer alone: where the hub does not offer that, it puts them whole,
//! in base64, into the commit, and it hashes every file anew.

mod api;
mod body;
mod lfs;
mod plan;

use std::path::PathBuf;

use super::{Hub, HubError, MAIN, RepoKind, Target, is_commit};
use api::Api;
use lfs::Sending;
pub use plan::Plan;

/// A file to be uploaded.
#[derive(Clone, Debug)]
pub struct LocalFile {
    /// Path in the repository, with `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of its contents, 64 hexadecimal digits; taken as true.
    pub sha256: String,
    /// Where they are.
    pub content: Content,
}

/// Where the contents of a file are.
#[derive(Clone, Debug)]
pub enum Content {
    /// In a file on disk.
    File(PathBuf),
    /// Here.
    Bytes(Vec<u8>),
}

/// What is to be uploaded where.
pub struct Upload<'a> {
    /// What the repository holds.
    pub kind: RepoKind,
    /// `ORG/NAME`.
    pub repo: &'a str,
    /// The branch; `main` if absent. It is made where there is none, from `main`.
    pub branch: Option<&'a str>,
    /// Whether a new repository is private. A repository that is there must be, then.
    pub private: bool,
    /// The commit's message.
    pub message: &'a str,
    /// The files.
    pub files: &'a [LocalFile],
    /// Whether a file of the repository that is not among these would be taken for a part of them, and so has to go.
    pub is_stale: &'a dyn Fn(&str) -> bool,
    /// Why the files that are there speak against it, if they do.
    pub objection: &'a dyn Fn(&[String]) -> Option<String>,
}

/// What happens in an upload.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// A repository was made.
    Created,
    /// What has to be done is known; so many bytes of large files have to be sent.
    Planned {
        /// The plan.
        plan: &'a Plan,
        /// Bytes of large files that the hub does not have.
        bytes: u64,
    },
    /// So many bytes more were sent; less than nothing where a transfer has to begin anew.
    Sent(i64),
    /// All is there but for the commit.
    Committing,
}

/// How an upload ended.
#[derive(Clone, Debug)]
pub struct Uploaded {
    /// Address of the repository, for people.
    pub url: String,
    /// The commit that has everything.
    pub commit: String,
    /// Whether a commit was made; otherwise everything was there.
    pub changed: bool,
    /// Paths that were sent, whole.
    pub sent: Vec<String>,
    /// Paths that the hub had: in the repository, or in its storage.
    pub had: Vec<String>,
    /// Paths that were taken out of the repository.
    pub removed: Vec<String>,
    /// Bytes of files that were sent.
    pub bytes: u64,
}

impl Hub {
    /// Uploads files as one commit.
    ///
    /// # Errors
    /// Without a token or a network, where the token may not write, where something else is in the way, when a file cannot
    /// be read or is not what was said of it, and when the hub fails. What was sent until then is not sent again.
    pub fn upload(&self, upload: &Upload<'_>, on_step: &mut dyn FnMut(Step<'_>)) -> Result<Uploaded, HubError> {
        let branch = upload.branch.unwrap_or(MAIN);
        check(upload.repo, upload.branch)?;
        let Some(http) = &self.http else {
            return Err(HubError::Offline { what: format!("publishing to {}", upload.repo) });
        };
        if !http.has_token() {
            return Err(HubError::NoToken { endpoint: self.settings.endpoint.clone() });
        }
        let target = Target { kind: upload.kind, repo: upload.repo, revision: branch, path: None };
        let api = Api { http, endpoint: &self.settings.endpoint, target, control: &self.control };

        if api.ensure_repository(upload.private)? {
            on_step(Step::Created);
        }
        let parent = api.ensure_branch()?;
        let there =
            super::api::files(http, &self.settings.endpoint, &Target { revision: &parent, ..target }, &self.control)?;
        let paths: Vec<String> = there.iter().map(|file| file.path.clone()).collect();
        if let Some(reason) = (upload.objection)(&paths) {
            return Err(HubError::InTheWay { repo: upload.repo.to_owned(), reason });
        }
        let plan = Plan::of(upload.files, &there, upload.is_stale)?;
        let url = api.page(upload.branch);
        if plan.is_empty() {
            on_step(Step::Planned { plan: &plan, bytes: 0 });
            return Ok(Uploaded {
                url,
                commit: parent,
                changed: false,
                sent: Vec::new(),
                had: plan.had,
                removed: Vec::new(),
                bytes: 0,
            });
        }

        let large = api.large(&plan.wanted)?;
        let (large, small): (Vec<&LocalFile>, Vec<&LocalFile>) =
            plan.wanted.iter().partition(|file| large.contains(&file.path));
        let sending = Sending::ask(&api, &large)?;
        on_step(Step::Planned { plan: &plan, bytes: sending.bytes() });
        let stored = sending.run(&mut |bytes| on_step(Step::Sent(bytes)))?;
        on_step(Step::Committing);
        let commit = api.commit(upload.message, &parent, (&small, &large), &plan.stale);
        let commit = match commit {
            // A commit whose answer was lost may be there all the same.
            Err(error) => has_all(upload, &api).ok_or(error)?,
            Ok(commit) => commit,
        };
        let names = |files: &[&LocalFile]| files.iter().map(|file| file.path.clone()).collect::<Vec<_>>();
        let sent = [stored, small].concat();
        let bytes = sent.iter().map(|file| file.size).sum();
        let mut had = plan.had.clone();
        had.extend(names(&large).into_iter().filter(|path| !sent.iter().any(|file| file.path == *path)));
        had.sort();
        let mut sent = names(&sent);
        sent.sort();
        Ok(Uploaded { url, commit, changed: true, sent, had, removed: plan.stale.clone(), bytes })
    }
}

/// The head of the branch, if it has all that is to be uploaded.
fn has_all(upload: &Upload<'_>, api: &Api<'_>) -> Option<String> {
    let head = super::api::commit(api.http, api.endpoint, &api.target, api.control).ok()?;
    let target = Target { revision: &head, ..api.target };
    let there = super::api::files(api.http, api.endpoint, &target, api.control).ok()?;
    Plan::of(upload.files, &there, upload.is_stale).ok().filter(Plan::is_empty).map(|_| head)
}

/// Refuses what cannot be the name of a repository to write to, or of a branch (`main` where none is given).
///
/// # Errors
/// [`HubError::Setting`], which says what it should look like.
pub fn check(repo: &str, branch: Option<&str>) -> Result<(), HubError> {
    let branch = branch.unwrap_or(MAIN);
    super::check_repo(repo)?;
    if repo.matches('/').count() != 1 || repo.len() > 96 || repo.ends_with(".git") {
        return Err(HubError::Setting(format!("`{repo}` cannot be a repository to publish to: its name is ORG/NAME")));
    }
    let is_good = |letter: char| letter.is_ascii_alphanumeric() || "_.-/".contains(letter);
    let is_branch = !branch.is_empty()
        && branch.chars().all(is_good)
        && !branch.starts_with(['-', '/', '.'])
        && !branch.ends_with(['/', '.'])
        && !branch.contains("..")
        && !branch.contains("//");
    if !is_branch || is_commit(branch) {
        return Err(HubError::Setting(format!("`{branch}` cannot be a branch")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_and_a_branch_have_names_that_the_hub_would_take() {
        let is_good = |repo: &str, branch: &str| check(repo, Some(branch)).is_ok();
        assert!(is_good("acme/merge-1.0", "main") && is_good("a/b", "alpha/0.1"));
        let too_long = format!("acme/{}", "x".repeat(96));
        for repo in ["merge", "a/b/c", "/b", "a/", "a b/c", "a/b.git", "../b", "https://x/a", &too_long] {
            assert!(!is_good(repo, "main"), "{repo}");
        }
        for branch in ["", "-x", "a..b", "a b", "x/", &"a1".repeat(20)] {
            assert!(!is_good("a/b", branch), "{branch}");
        }
    }
}
