//! What `mergelab publish` uploads: the files of a merge or of Gram matrices, a card, the experiment, and what decided the
//! result, with nothing in them that is of this machine alone.
//!
//! Beside the artifact's own files:
//!
//! ```text
//! README.md          the card, with the scores that there are now
//! experiment.yaml    the experiment file, absolute paths by their last component
//! experiment.lock    its lock file, where there is one: which commits its sources on the hub were at
//! mergelab.json      { format, program, experiment, stage, key, struct, digest, roles, device, versions, git }
//! ```
//!
//! Version history of `mergelab.json`: 1, the first.

mod gram_card;
mod merge_card;
mod scores;
mod scrub;
mod text;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

pub use scrub::{Found, Scrubber};

use crate::digest::Digest;
use crate::experiment::Experiment;
use crate::plan::{Artifact, Graph, Kind, Spec, Stage, StageId};
use crate::report::Measurement;
use crate::store::Manifest;

/// Version of `mergelab.json`.
const FORMAT: u32 = 1;

/// Larger files than this are not looked through, but for the headers of safetensors: they are data.
const LARGEST_TEXT: u64 = 64 << 20;

/// Configurations that may name where a model once lay.
const CONFIGS: [&str; 3] = ["config.json", "generation_config.json", "tokenizer_config.json"];

/// What is published, with all that its card tells of.
pub struct Subject<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// The stage: a merge, or Gram matrices.
    pub id: StageId,
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// Its result.
    pub artifact: &'a Artifact,
    /// All results that are up to date.
    pub results: &'a HashMap<StageId, Arc<Artifact>>,
    /// What was measured in its experiment.
    pub figures: Vec<Measurement>,
    /// The experiment file.
    pub text: &'a str,
    /// Where its lock file is, if it has one.
    pub lock: PathBuf,
}

/// Where something is published.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// `ORG/NAME`.
    pub repo: &'a str,
    /// The branch, where one was named.
    pub branch: Option<&'a str>,
}

impl<'a> Subject<'a> {
    fn stage(&self) -> &'a Stage {
        self.graph.stage(self.id)
    }

    fn experiment(&self) -> &'a Experiment {
        &self.graph.experiments[self.stage().experiment]
    }

    /// What the stage reads under a role, as far as it is up to date.
    fn input(&self, role: &str) -> Option<&'a Artifact> {
        Some(&**self.results.get(&self.stage().need(role)?)?)
    }

    /// The mergelab that made it.
    fn version(&self) -> &'a str {
        self.manifest.versions.get("mergelab").map_or(env!("CARGO_PKG_VERSION"), String::as_str)
    }

    /// The evaluation of a model of its experiment on a task, if it is up to date.
    fn evaluation(&self, model: &str, task: &str) -> Option<&'a Artifact> {
        let (id, _) = self.graph.iter().find(|(_, stage)| {
            stage.experiment == self.stage().experiment && stage.spec.evaluated() == Some((model, task))
        })?;
        Some(&**self.results.get(&id)?)
    }
}

/// One file of an upload.
#[derive(Clone, Debug)]
pub struct PackedFile {
    /// Path in the repository.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Digest of its contents.
    pub sha256: Digest,
    /// Where they are.
    pub content: Content,
}

/// Where the contents of a file are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// In a file on disk.
    File(PathBuf),
    /// Here.
    Text(String),
}

/// Everything that is uploaded.
#[derive(Clone, Debug)]
pub struct Package {
    /// The files, sorted by path.
    pub files: Vec<PackedFile>,
    /// What a person should know of what was changed.
    pub notes: Vec<String>,
}

impl Package {
    /// The text of the card.
    pub fn card(&self) -> &str {
        let card = self.files.iter().find(|file| file.path == "README.md");
        match card.map(|file| &file.content) {
            Some(Content::Text(text)) => text,
            _ => "",
        }
    }
}

/// Why something cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Neither a merge nor Gram matrices.
    #[error("{stage} is {what}: only merges and Gram matrices are published")]
    NotPublished {
        /// The stage.
        stage: String,
        /// What it is.
        what: String,
    },
    /// A file that names what is nobody else's business.
    #[error("{path} of {stage} holds {}", found.word())]
    Private {
        /// The stage.
        stage: String,
        /// The file.
        path: String,
        /// What it holds.
        found: Found,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Refuses a stage that is neither a merge nor the whole of some Gram matrices.
///
/// # Errors
/// [`PackError::NotPublished`].
pub fn check(stage: &Stage) -> Result<(), PackError> {
    let refuse = |what: String| Err(PackError::NotPublished { stage: stage.name.clone(), what });
    match (&stage.spec, stage.spec.kind()) {
        (Spec::Gram { shard: Some(_), .. }, _) => refuse(format!("a part of grams.{}", stage.entry.1)),
        (_, Kind::Merge | Kind::Gram) => Ok(()),
        (_, Kind::Eval) => refuse("an evaluation".to_owned()),
        (_, Kind::Data) => refuse("a data set".to_owned()),
        (_, Kind::Fisher) => refuse("Fisher information".to_owned()),
        (_, kind) => refuse(format!("a {}", kind.word())),
    }
}

/// Gathers what is uploaded to a place.
///
/// # Errors
/// When the stage is of another kind, a file cannot be read, or one holds what must not be published and cannot be changed.
pub fn package(subject: &Subject<'_>, place: Place<'_>, scrubber: &Scrubber) -> Result<Package, PackError> {
    let stage = subject.stage();
    check(stage)?;
    let card = match &stage.spec {
        Spec::Merge(merge) => merge_card::text(subject, merge),
        _ => gram_card::text(subject, place),
    };
    let mut files = vec![
        written("README.md", scrubber.clean(&card)),
        written("experiment.yaml", scrubber.clean(subject.text)),
        written("mergelab.json", scrubber.clean(&provenance(subject))),
    ];
    match std::fs::read_to_string(&subject.lock) {
        Ok(text) => files.push(written("experiment.lock", scrubber.clean(&text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(PackError::Read { path: subject.lock.clone(), source }),
    }
    let mut notes = Vec::new();
    for output in &subject.manifest.outputs {
        if files.iter().any(|file| file.path == output.path) {
            continue;
        }
        let path = subject.artifact.location.join(&output.path);
        let read = |source| PackError::Read { path: path.clone(), source };
        let as_it_is =
            |content| PackedFile { path: output.path.clone(), size: output.size, sha256: output.sha256, content };
        if output.path == "merge.json" {
            files.push(written("merge.json", scrubber.clean(&std::fs::read_to_string(&path).map_err(read)?)));
            continue;
        }
        let bytes = readable_part(&path, output.size).map_err(read)?;
        let cleaned = std::str::from_utf8(&bytes).ok().filter(|_| CONFIGS.contains(&&*output.path));
        let file = match cleaned.and_then(|text| scrubber.clean_config(text)) {
            Some(text) => {
                notes.push(format!("{}: an absolute path in it is given by its last component", output.path));
                written(&output.path, text)
            }
            None => as_it_is(Content::File(path.clone())),
        };
        let looked_at = match &file.content {
            Content::Text(text) => text.as_bytes(),
            Content::File(_) => &bytes,
        };
        if let Some(found) = scrubber.find(looked_at) {
            return Err(PackError::Private { stage: stage.name.clone(), path: output.path.clone(), found });
        }
        files.push(file);
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(Package { files, notes })
}

/// A file that is written for the upload.
fn written(path: &str, text: String) -> PackedFile {
    let (size, sha256) = (text.len() as u64, Digest::of(text.as_bytes()));
    PackedFile { path: path.to_owned(), size, sha256, content: Content::Text(text) }
}

/// What a file holds that may be text: all of it, or of safetensors the header; nothing of other large files.
fn readable_part(path: &Path, size: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = if path.extension().is_some_and(|extension| extension == "safetensors") {
        let mut length = [0; 8];
        if size < 8 {
            return Ok(Vec::new());
        }
        file.read_exact(&mut length)?;
        u64::from_le_bytes(length).min(LARGEST_TEXT)
    } else if size <= LARGEST_TEXT {
        size
    } else {
        0
    };
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `mergelab.json`: what decided the result, for programs. No times, no names of machines.
fn provenance(subject: &Subject<'_>) -> String {
    let manifest = subject.manifest;
    let value = json!({
        "format": FORMAT,
        "program": format!("mergelab {}", subject.version()),
        "experiment": subject.experiment().name,
        "stage": subject.stage().name,
        "key": manifest.key,
        "struct": manifest.key_struct,
        "digest": manifest.digest,
        "roles": manifest.roles,
        "device": manifest.device,
        "versions": manifest.versions,
        "git": manifest.git,
    });
    serde_json::to_string_pretty(&value).expect("strings and numbers become JSON") + "\n"
}

/// Where something comes from, as cards say it.
fn origin(subject: &Subject<'_>) -> String {
    let (stage, manifest) = (&subject.stage().name, subject.manifest);
    let mut text = format!(
        "By `mergelab run experiment.yaml --only {stage}`, with [experiment.yaml](experiment.yaml) in its project. The key \
         is `{}`, the digest `{}`; [mergelab.json](mergelab.json) has everything that decided it.",
        manifest.key, manifest.digest
    );
    if let Some(git) = &manifest.git {
        let dirty = if git.dirty { ", with uncommitted changes" } else { "" };
        let _ = write!(text, " The project's repository was at commit `{}`{dirty}.", git.commit);
    }
    text + "\n"
}
