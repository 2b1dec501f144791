//! A model on the hub: which files of its repository it is made of, fetched and put down in a manifest.

use std::path::Path;

use mergelab_fetch::hub::RemoteFile;
use mergelab_wire::Event;
use serde::Deserialize;

use super::hub::{Remote, kind, quiet};
use super::model::IS_ADAPTER;
use super::{Context, Failure, Job, Product};
use crate::artifact::{Output, is_of_model, is_weights_file};
use crate::digest::Digest;
use crate::plan::{Repository, repository};

/// Weights in one file, and the index of those in several, in the order in which they are looked for.
const WEIGHTS: [(&str, &str); 2] =
    [("model.safetensors", "model.safetensors.index.json"), ("pytorch_model.bin", "pytorch_model.bin.index.json")];

/// What a repository has of a model.
struct Found {
    /// What is read beside the weights.
    small: Vec<RemoteFile>,
    weights: Weights,
}

enum Weights {
    /// One file.
    Whole(RemoteFile),
    /// An index; which files it names shows when it is there.
    Index(RemoteFile),
}

/// Fetches the files of a model and says what they are.
pub(super) fn run(context: &Context<'_>, job: &Job<'_>, on_event: &mut dyn FnMut(Event)) -> Result<Product, Failure> {
    let (repository, _) = repository(job.stage).expect("a model on the hub is in a repository");
    let commit = job.commit.as_deref().expect("a stage with a key has its commit");
    let remote = Remote::open(context, &repository, commit)?;
    let all = remote.files(on_event)?;
    let Found { mut small, weights } = found(&all, &repository, commit)?;
    let mut files = match weights {
        Weights::Whole(file) => vec![file],
        Weights::Index(index) => {
            let paths = remote.fetch(std::slice::from_ref(&index), on_event)?;
            let mut files = shards(&paths[0], &all, &repository)?;
            small.push(index);
            files.sort_by(|one, other| one.path.cmp(&other.path));
            files
        }
    };
    files.append(&mut small);
    fetched(&remote, files, commit, on_event)
}

/// Fetches files, and makes of them an artifact that points at them.
pub(super) fn fetched(
    remote: &Remote<'_>,
    mut files: Vec<RemoteFile>,
    commit: &str,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    files.sort_by(|one, other| one.path.cmp(&other.path));
    let paths = remote.fetch(&files, on_event)?;
    let mut product = Product::default();
    let mut outputs = Vec::new();
    for (file, path) in files.into_iter().zip(paths) {
        // Of a large file the digest is the hub's, and was held against what came.
        let sha256 = match &file.sha256 {
            Some(sha256) => sha256.parse().map_err(|_| Failure::stage(format!("{sha256} is no SHA-256")))?,
            None => {
                let digest = Digest::of_file(&path);
                digest.map_err(|error| Failure::stage(format!("cannot read {}: {error}", path.display())))?.0
            }
        };
        let size = file.size;
        let output = Output { path: file.path, size, sha256, aside: false, dropped: false };
        product.seen.push((path, output.clone()));
        outputs.push(output);
    }
    product.facts.insert("commit".to_owned(), commit.into());
    product.external = Some(outputs);
    Ok(product)
}

/// How many bytes are to be fetched for a model; nothing where the list of its files is not known. Of weights in several
/// files, all that the repository has by their ending.
pub(super) fn bytes_to_fetch(repository: &Repository, commit: &str) -> Option<u64> {
    let hub = quiet()?;
    let (kind, name) = (kind(repository), &repository.name);
    let all = hub.known_files(kind, name, commit)?;
    let Found { small, weights } = found(&all, repository, commit).ok()?;
    let files = match weights {
        Weights::Whole(file) => vec![file],
        Weights::Index(index) => {
            let path = hub.snapshot(kind, name, commit).join(&index.path);
            let shards = shards(&path, &all, repository).unwrap_or_else(|_| {
                let stem = index.path.split('.').next().unwrap_or_default();
                all.iter().filter(|file| is_weights_file(&file.path) && file.path.starts_with(stem)).cloned().collect()
            });
            shards.into_iter().chain((!path.exists()).then_some(index)).collect()
        }
    };
    Some(small.iter().chain(&files).map(|file| hub.missing(kind, name, file)).sum())
}

/// The files of a model among those of a repository: safetensors, or else `pytorch_model.bin`.
fn found(all: &[RemoteFile], repository: &Repository, commit: &str) -> Result<Found, Failure> {
    let file = |path: &str| all.iter().find(|file| file.path == path).cloned();
    let weights = WEIGHTS.iter().find_map(|(whole, index)| {
        let index = || file(index).map(Weights::Index);
        file(whole).map(Weights::Whole).or_else(index)
    });
    let Repository { name, .. } = repository;
    let is_not = |lacks: &str| {
        Failure::experiment(format!("{name} is not a model that can be read: at {commit} it has no {lacks}"))
    };
    let Some(weights) = weights else {
        let other =
            all.iter().find(|file| [".gguf", ".pth", ".msgpack", ".h5"].iter().any(|end| file.path.ends_with(end)));
        let adapter = file("adapter_model.safetensors").or_else(|| file("adapter_model.bin"));
        let hint = match (adapter, other) {
            (Some(_), _) => IS_ADAPTER.to_owned(),
            (_, Some(other)) => {
                format!("it has {}, which is another format: look for the same model as safetensors", other.path)
            }
            _ => "a model repository is what `save_pretrained` of transformers writes".to_owned(),
        };
        return Err(is_not("model.safetensors, nor shards of one, nor pytorch_model.bin").hint(hint));
    };
    if file("config.json").is_none() {
        return Err(is_not("config.json").hint("a model repository is what `save_pretrained` of transformers writes"));
    }
    let is_small = |file: &&RemoteFile| is_of_model(&file.path) && !is_weights_file(&file.path);
    Ok(Found { small: all.iter().filter(is_small).cloned().collect(), weights })
}

/// The files that an index names.
fn shards(index: &Path, all: &[RemoteFile], repository: &Repository) -> Result<Vec<RemoteFile>, Failure> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let shown = index.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = std::fs::read(index);
    let text = text.map_err(|error| Failure::stage(format!("cannot read {}: {error}", index.display())))?;
    let read: Index = serde_json::from_slice(&text).map_err(|error| {
        Failure::experiment(format!("{shown} of {} is no index of weights: {error}", repository.name))
    })?;
    let names: std::collections::BTreeSet<&String> = read.weight_map.values().collect();
    let one = |name: &&String| {
        all.iter().find(|file| file.path == **name).cloned().ok_or_else(|| {
            Failure::experiment(format!("{shown} of {} names {name}, which is not in the repository", repository.name))
        })
    };
    names.iter().map(one).collect()
}
