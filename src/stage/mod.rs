//! What each kind of stage does: one file a kind, with what it reads, runs and writes.
//!
//! A stage gets an empty directory and fills it; keeping the result is not its business.

#[cfg(feature = "fetch")]
mod adapter_files;
mod capture;
pub(crate) mod card;
mod command;
mod data;
#[cfg(feature = "fetch")]
mod dataset;
mod diagnosis;
mod difference;
mod eval;
mod failure;
mod fisher;
mod gram;
mod gram_card;
#[cfg(feature = "fetch")]
mod gram_files;
#[cfg(feature = "fetch")]
mod hub;
mod import;
mod kept;
mod launch;
mod lm_eval_command;
mod lora;
mod loss;
mod merge;
mod model;
#[cfg(feature = "fetch")]
mod model_files;
mod needs;
mod python;
pub(crate) mod rows;
mod score;
mod shards;
mod table;
mod tasks;
mod tensor;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use mergelab_wire::Event;

pub use difference::compare as compare_models;
pub use eval::{Equivalent, equivalent, group_of, run_batch};
pub use failure::{Failure, tail};
pub(crate) use gram_card::figures as gram_figures;
pub use gram_card::{GramForm, GramOrigin, text as gram_card};
pub use import::export as export_grams;
pub use launch::{Ending, Launcher, Program};
pub use lora::{extract as extract_lora, name_of_model};
pub use needs::{Gpus, bytes_written, config_number, gpus_needed, memory_needed};
pub use shards::shards_of;
pub use table::{found, measurements, tests};
pub use tasks::{Definition, TaskFiles};

use crate::artifact::{Output, adapter_roles, model_roles};
use crate::digest::{Digest, Key};
use crate::experiment::Backend;
use crate::plan::{Artifact, Graph, Kind, Repository, Spec, Stage, StageId};
use crate::project::{Project, Python};

/// What stages need of the world.
pub struct Context<'a> {
    /// The project.
    pub project: &'a Project,
    /// Python for evaluations, commands and `engine: transformers`.
    pub python: Option<&'a Python>,
    /// The program for tensor stages.
    pub tensor: Option<PathBuf>,
    /// Starts programs.
    pub launcher: &'a dyn Launcher,
    /// The graph that the stages are of.
    pub graph: &'a Graph,
    /// Threads that a program may use; the same for every stage of a run, since results of some depend on it.
    pub threads: usize,
    /// Memory budget in bytes.
    pub memory: Option<u64>,
}

/// One stage to be run.
pub struct Job<'a> {
    /// Which.
    pub id: StageId,
    /// The stage.
    pub stage: &'a Stage,
    /// Its key.
    pub key: Key,
    /// What it reads, by role.
    pub inputs: HashMap<String, Arc<Artifact>>,
    /// Files that it reads from outside the store, as seen for the key.
    pub files: Vec<Output>,
    /// The commit of the repository on the hub that it reads, if it reads one.
    pub commit: Option<String>,
    /// The commit of the hub's conversion of that repository to Parquet, where its rows are read from there.
    pub conversion: Option<String>,
    /// Empty directory for its result.
    pub out: PathBuf,
    /// Directory for whatever else it needs.
    pub scratch: PathBuf,
    /// Directory for what a killed run may resume from; may not exist.
    pub partial: PathBuf,
    /// File for what its program prints.
    pub log: PathBuf,
    /// Lock that its program inherits.
    pub lock: &'a File,
    /// GPUs that it was given, as CUDA names them; empty where it was given none.
    pub gpus: Vec<String>,
}

impl Job<'_> {
    /// What it reads under a role.
    fn input(&self, role: &str) -> &Artifact {
        &self.inputs[role]
    }

    /// The device that its program is told. In it the GPUs that it was given are numbered from 0, so that one that the
    /// experiment names by number is `cuda`.
    fn device<'c>(&self, context: &Context<'c>) -> &'c str {
        let settings = &context.graph.experiments[self.stage.experiment].settings;
        match settings.device.as_deref() {
            None => "auto",
            Some(device) if device.starts_with("cuda:") && !self.gpus.is_empty() => "cuda",
            Some(device) => device,
        }
    }

    /// The variable that shows a program the GPUs that it was given and no others.
    fn visible_gpus(&self) -> Option<(OsString, OsString)> {
        (!self.gpus.is_empty()).then(|| ("CUDA_VISIBLE_DEVICES".into(), self.gpus.join(",").into()))
    }
}

/// What a stage gives back beside the files.
#[derive(Debug, Default)]
pub struct Product {
    /// Figures for the manifest.
    pub facts: serde_json::Map<String, serde_json::Value>,
    /// Whether a program wrote a log.
    pub logged: bool,
    /// Files that are somebody else's, for stages that only point at them.
    pub external: Option<Vec<Output>>,
    /// Where files that are somebody else's lie, which were hashed just now.
    pub seen: Vec<(PathBuf, Output)>,
    /// Files whose digests the program took while it wrote them, by path in the result: size and digest.
    pub hashed: HashMap<String, (u64, Digest)>,
}

/// Runs a stage that is no evaluation.
///
/// # Errors
/// What went wrong, in words, and whose fault it is.
pub fn run(context: &Context<'_>, job: &Job<'_>, on_event: &mut dyn FnMut(Event)) -> Result<Product, Failure> {
    match &job.stage.spec {
        Spec::Model(place) | Spec::Adapter(place) => model::run(context, place, job, on_event),
        Spec::Lora(lora) => lora::run(context, lora, job, on_event),
        Spec::Data(data) => data::run(context, data, job, on_event),
        Spec::Command(command) => command::run(context, command, job, on_event),
        Spec::Gram { capture, rows, strict, shard } => {
            let range = shards::rows_of(job, capture, *shard);
            let product = gram::run(context, (capture, rows, *strict), range, job, on_event)?;
            gram_card::write(context, job).map(|()| product)
        }
        Spec::AddGrams(_) => {
            let product = shards::add(context, job, on_event)?;
            gram_card::write(context, job).map(|()| product)
        }
        Spec::Fisher { fisher, rows, strict } => fisher::run(context, (fisher, rows, *strict), job, on_event),
        Spec::Merge(merge) => merge::run(context, merge, job, on_event),
        Spec::Table { name, table } => table::run(context, name, table, job),
        Spec::ImportGram(gram) => import::run(context, gram, job, on_event),
        Spec::Eval { suite, .. } if suite.backend == Backend::Command => score::run(context, suite, job, on_event),
        Spec::Loss(loss) => loss::run(context, loss, job, on_event),
        Spec::Eval { .. } => unreachable!("evaluations by the harness run in batches"),
    }
}

/// What this version cannot do yet that the stage asks for, if anything.
pub fn unsupported(stage: &Stage) -> Option<String> {
    use crate::experiment::{DataSource, Gram, Model, UnsafeCode};
    let reason = match &stage.spec {
        Spec::Model(Model::Hub { repo, .. })
        | Spec::Adapter(Model::Hub { repo, .. })
        | Spec::ImportGram(Gram::PickleHub { repo, .. } | Gram::Hub { repo, .. }) => without_hub(repo)?,
        Spec::Data(data) => match &data.source {
            DataSource::Hub { repo, .. } => without_hub(repo)?,
            DataSource::Path(path) => rows::unsupported(path)?,
            DataSource::From(output) => rows::unsupported(output.path.as_deref()?)?,
        },
        Spec::Eval { suite, .. } => match (suite.backend, suite.unsafe_code) {
            (Backend::Vllm | Backend::Hf, UnsafeCode::Sandbox) if cfg!(not(target_os = "linux")) => {
                "`unsafe_code: sandbox` needs Linux".to_owned()
            }
            _ => return None,
        },
        Spec::Gram { .. }
        | Spec::AddGrams(_)
        | Spec::ImportGram(_)
        | Spec::Fisher { .. }
        | Spec::Merge(_)
        | Spec::Command(_)
        | Spec::Loss(_)
        | Spec::Table { .. }
        | Spec::Model(_)
        | Spec::Adapter(_)
        | Spec::Lora(_) => return None,
    };
    Some(reason)
}

/// Of a repository on the hub: that this build cannot reach it, where it cannot.
fn without_hub(repo: &str) -> Option<String> {
    (!cfg!(feature = "fetch")).then(|| {
        format!("{repo} comes from the hub, which needs the feature `fetch`: this mergelab was built without it")
    })
}

/// The commit that the revision of a repository on the hub names, by asking the hub, or the cache where it is not to be
/// asked. `on_note` is told what a person should know meanwhile.
///
/// # Errors
/// When there is no such repository or revision, or the hub cannot be asked.
#[cfg_attr(not(feature = "fetch"), expect(unused_variables, reason = "there is nobody to tell"))]
pub fn resolve(repository: &Repository, on_note: impl Fn(&str) + Send + Sync + 'static) -> Result<String, Failure> {
    #[cfg(feature = "fetch")]
    return hub::resolve(repository, on_note);
    #[cfg(not(feature = "fetch"))]
    Err(Failure::stage(without_hub(&repository.name).unwrap_or_default()))
}

/// The commit of the hub's own conversion to Parquet, for a stage whose rows are not in files of the repository itself that
/// can be read. `on_note` is told what a person should know meanwhile.
///
/// # Errors
/// When the rows are not there at all, or the hub cannot be asked.
#[cfg_attr(not(feature = "fetch"), expect(unused_variables, reason = "there is nobody to tell"))]
pub fn conversion(
    stage: &Stage,
    commit: &str,
    on_note: impl Fn(&str) + Send + Sync + 'static,
) -> Result<Option<String>, Failure> {
    #[cfg(feature = "fetch")]
    return dataset::conversion(stage, commit, on_note);
    #[cfg(not(feature = "fetch"))]
    Ok(None)
}

/// Where the files of a commit lie in the cache of the hub, once they are fetched.
#[cfg_attr(not(feature = "fetch"), expect(unused_variables, reason = "there is no cache"))]
pub fn hub_snapshot(repository: &Repository, commit: &str) -> Option<PathBuf> {
    #[cfg(feature = "fetch")]
    return hub::snapshot(repository, commit);
    #[cfg(not(feature = "fetch"))]
    None
}

/// How many bytes a stage that reads a repository on the hub would fetch; nothing where that is not known without asking.
#[cfg_attr(not(feature = "fetch"), expect(unused_variables, reason = "nothing is fetched"))]
pub fn bytes_to_fetch(stage: &Stage, repository: &Repository, commit: &str) -> Option<u64> {
    #[cfg(feature = "fetch")]
    return match &stage.spec {
        Spec::Model(_) => model_files::bytes_to_fetch(repository, commit),
        Spec::Adapter(_) => adapter_files::bytes_to_fetch(repository, commit),
        Spec::ImportGram(gram) => gram_files::bytes_to_fetch(gram, repository, commit),
        _ => None,
    };
    #[cfg(not(feature = "fetch"))]
    None
}

/// Files of a kind's artifact that are outside its digest.
pub fn aside(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Merge => &["README.md", "merge.json"],
        Kind::Gram => &["README.md"],
        _ => &[],
    }
}

/// Whether a file of a merge goes when its weights are dropped.
pub fn is_weights(path: &str) -> bool {
    path.ends_with(".safetensors")
}

/// How a kind's files fall into roles.
pub fn roles(kind: Kind) -> fn(&[Output]) -> BTreeMap<String, Digest> {
    match kind {
        Kind::Model | Kind::Merge => model_roles,
        Kind::Adapter => adapter_roles,
        _ => |_| BTreeMap::new(),
    }
}
