//! An adapter on the hub: its two files, fetched and put down in a manifest. Checkpoints of its training, which may lie beside
//! them, stay where they are.

use mergelab_fetch::hub::RemoteFile;
use mergelab_wire::Event;

use super::hub::{Remote, kind, quiet};
use super::model::ADAPTER_HINT;
use super::{Context, Failure, Job, Product, model_files};
use crate::artifact::{ADAPTER_CONFIG, ADAPTER_TENSORS};
use crate::plan::{Repository, repository};

/// Fetches the files of an adapter and says what they are.
pub(super) fn run(context: &Context<'_>, job: &Job<'_>, on_event: &mut dyn FnMut(Event)) -> Result<Product, Failure> {
    let (repository, _) = repository(job.stage).expect("an adapter on the hub is in a repository");
    let commit = job.commit.as_deref().expect("a stage with a key has its commit");
    let remote = Remote::open(context, &repository, commit)?;
    let files = found(&remote.files(on_event)?, &repository, commit)?;
    model_files::fetched(&remote, files.into(), commit, on_event)
}

/// How many bytes are to be fetched for an adapter; nothing where the list of its files is not known.
pub(super) fn bytes_to_fetch(repository: &Repository, commit: &str) -> Option<u64> {
    let hub = quiet()?;
    let (kind, name) = (kind(repository), &repository.name);
    let files = found(&hub.known_files(kind, name, commit)?, repository, commit).ok()?;
    Some(files.iter().map(|file| hub.missing(kind, name, file)).sum())
}

/// The configuration and the tensors of an adapter among the files of a repository.
fn found(all: &[RemoteFile], repository: &Repository, commit: &str) -> Result<[RemoteFile; 2], Failure> {
    let file = |path: &str| all.iter().find(|file| file.path == path).cloned();
    let lacks = |what: &str| {
        let Repository { name, .. } = repository;
        Failure::experiment(format!("{name} is no adapter that can be read: at {commit} it has no {what}"))
            .hint(ADAPTER_HINT)
    };
    let config = file(ADAPTER_CONFIG).ok_or_else(|| lacks(ADAPTER_CONFIG))?;
    let tensors = ADAPTER_TENSORS.iter().find_map(|path| file(path));
    Ok([config, tensors.ok_or_else(|| lacks(&ADAPTER_TENSORS.join(", nor ")))?])
}
