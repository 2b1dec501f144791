//! Gram matrices in a repository on the hub: the pickle that is named, or an index and the files that it names. Nothing else
//! of the repository is fetched: a merge may lie beside them.

use std::collections::BTreeSet;
use std::path::Path;

use mergelab_fetch::hub::RemoteFile;
use mergelab_wire::{Event, GramFiles};
use serde_json::Value;

use super::hub::{Remote, kind, quiet};
use super::{Context, Failure, Job};
use crate::experiment::Gram;
use crate::plan::{Repository, repository};

const INDEX: &str = "index.json";

/// Of each matrix, what the index may hold.
const LAYERS: &str = "layers.json";

/// Fetches the files of an import, and says where they lie.
pub(super) fn fetch(
    context: &Context<'_>,
    gram: &Gram,
    job: &Job<'_>,
    on_event: &mut dyn FnMut(Event),
) -> Result<GramFiles, Failure> {
    let (repository, _) = repository(job.stage).expect("an import from the hub is in a repository");
    let commit = job.commit.as_deref().expect("a stage with a key has its commit");
    let remote = Remote::open(context, &repository, commit)?;
    let all = remote.files(on_event)?;
    if let Gram::PickleHub { file, .. } = gram {
        let pickle = found(&all, file).ok_or_else(|| lacks(&repository, commit, file, &all))?;
        let mut paths = remote.fetch(&[pickle], on_event)?;
        return Ok(GramFiles::Pickle(paths.remove(0)));
    }
    let index = found(&all, INDEX).ok_or_else(|| lacks(&repository, commit, INDEX, &all))?;
    let path = remote.fetch(std::slice::from_ref(&index), on_event)?.remove(0);
    let mut files = vec![index];
    for name in named(&path)? {
        files.push(found(&all, &name).ok_or_else(|| lacks(&repository, commit, &name, &all))?);
    }
    files.extend(found(&all, LAYERS));
    let paths = remote.fetch(&files, on_event)?;
    // All of them lie in the directory of the commit.
    Ok(GramFiles::Directory(paths[0].parent().unwrap_or(&paths[0]).to_path_buf()))
}

/// How many bytes are to be fetched; nothing where the list of files is not known, or which of them are named.
pub(super) fn bytes_to_fetch(gram: &Gram, repository: &Repository, commit: &str) -> Option<u64> {
    let hub = quiet()?;
    let (kind, name) = (kind(repository), &repository.name);
    let all = hub.known_files(kind, name, commit)?;
    let files = match gram {
        Gram::PickleHub { file, .. } => vec![found(&all, file)?],
        _ => {
            let named = named(&hub.snapshot(kind, name, commit).join(INDEX)).ok()?;
            named.iter().map(|file| found(&all, file)).collect::<Option<_>>()?
        }
    };
    Some(files.iter().map(|file| hub.missing(kind, name, file)).sum())
}

fn found(all: &[RemoteFile], path: &str) -> Option<RemoteFile> {
    all.iter().find(|file| file.path == path).cloned()
}

/// The files that an index names, sorted.
fn named(index: &Path) -> Result<BTreeSet<String>, Failure> {
    let wrong = |reason: String| {
        Failure::experiment(format!("{}: {reason}", index.display())).hint(
            "a repository of Grams has an artifact of a gram stage, or what `mergelab grams export` wrote, at its top; a \
             pickle in one is `pickle: { hub: …, file: … }`",
        )
    };
    let text = std::fs::read(index).map_err(|error| wrong(error.to_string()))?;
    let json: Value = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    let modules = json.get("modules").or_else(|| json.get("matrices")).and_then(Value::as_object);
    let entries = modules.ok_or_else(|| wrong("it is no index of Gram matrices".to_owned()))?.values();
    let files = entries.map(|entry| entry["file"].as_str().map(str::to_owned)).collect::<Option<BTreeSet<_>>>();
    files.ok_or_else(|| wrong("an entry names no file".to_owned()))
}

fn lacks(repository: &Repository, commit: &str, path: &str, all: &[RemoteFile]) -> Failure {
    let likely: Vec<&str> = all.iter().map(|file| file.path.as_str()).filter(|path| is_pickle(path)).take(8).collect();
    let failure = Failure::experiment(format!("{} has no {path} at {commit}", repository.name));
    if likely.is_empty() { failure } else { failure.hint(format!("it has {}", likely.join(", "))) }
}

fn is_pickle(path: &str) -> bool {
    [".pkl", ".pickle", ".pt", ".pth"].iter().any(|end| path.ends_with(end))
}
