//! What is known of the world when a key is asked for.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use super::shards::Shard;
use super::stage::{Repository, StageId};
use crate::artifact::{Output, artifact_digest};
use crate::digest::Digest;

/// The result of a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    /// Digest of its contents.
    pub digest: Digest,
    /// Digests of its parts.
    pub roles: BTreeMap<String, Digest>,
    /// Its files.
    pub outputs: Vec<Output>,
    /// Directory in which they lie.
    pub location: PathBuf,
    /// Of a model: its family, `model_type` in its `config.json`.
    pub family: Option<String>,
    /// Of a data set: its rows in so many shards, for each number that a stage asks for.
    pub shards: BTreeMap<usize, Arc<[Shard]>>,
}

/// Something outside the store that a stage reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// A directory.
    Tree(PathBuf),
    /// A file or a directory.
    Any(PathBuf),
    /// The file that an argument of a program names, if it names one: nothing otherwise.
    Script(PathBuf),
    /// A directory with a tokenizer, without weights beside it, if there is one: nothing where it is a name on the hub.
    Tokenizer(PathBuf),
    /// The definition of an `lm_eval` task: all files that it is made of.
    Task {
        /// Directories that are searched before the harness's own.
        dirs: Vec<PathBuf>,
        /// Name of the task or group.
        task: String,
    },
}

/// In the sighting of a task, what stands before the name of a hub data set; its digest is of the commit.
pub const HUB: &str = "hub:";

/// What was seen of a source.
#[derive(Clone, Debug, PartialEq)]
pub enum Sighting {
    /// A file's or a directory's contents.
    Hashed(Vec<Output>),
    /// There, but not hashed yet, and too big to do so in passing.
    Unhashed,
    /// Not there, or not usable; in words.
    Missing(String),
}

/// What is known.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// What lies outside the store.
    pub sources: HashMap<Source, Sighting>,
    /// Versions of Python distributions by name, from the environment that evaluations use.
    pub tools: BTreeMap<String, String>,
    /// Results of stages, as far as they are up to date.
    pub results: HashMap<StageId, Arc<Artifact>>,
    /// The commits that revisions name, by index of the experiment, whose lock file says it.
    pub commits: HashMap<(usize, Repository), String>,
}

impl Facts {
    /// The commit of a repository that an experiment names: one that is spelled out is known by itself.
    pub fn commit<'a>(&'a self, experiment: usize, repository: &'a Repository) -> Option<&'a str> {
        if repository.is_at_commit() {
            return Some(&repository.revision);
        }
        self.commits.get(&(experiment, repository.clone())).map(String::as_str)
    }
}

impl Repository {
    /// Whether its revision is a full commit, and so names itself.
    pub fn is_at_commit(&self) -> bool {
        is_commit(&self.revision)
    }
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The one digest of what a source holds: of the file itself, or of a directory's files.
pub(super) fn digest_of(source: &Source, files: &[Output]) -> Digest {
    match (source, files) {
        (Source::File(_), [file]) => file.sha256,
        (Source::Any(path), [file]) if path.file_name().is_some_and(|name| *name == *file.path) => file.sha256,
        _ => artifact_digest(files),
    }
}
