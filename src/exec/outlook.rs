//! What a run would do, without doing anything: the state of each stage and why.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::machine::size;
use super::recipes::is_enough;
use super::survey::Surveyor;
use crate::artifact::any_dropped;
use crate::digest::Key;
use crate::plan::{self, Artifact, Facts, Graph, KeyStruct, Open, Repository, Sighting, Source, Spec, Stage, StageId};
use crate::project::Project;
use crate::stage;
use crate::store::{Inspection, Manifest, Store, StoreError};

/// State of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its result is there.
    UpToDate,
    /// It would run.
    Run,
    /// It would run, or not, depending on what others make.
    Waits,
}

/// What is known of a stage.
#[derive(Debug)]
pub struct Outlook {
    /// Its state.
    pub state: State,
    /// Why it would run, or what it waits for; empty if it is up to date.
    pub reason: String,
    /// Its key struct, once it has one.
    pub key_struct: Option<KeyStruct>,
    /// The digest of the struct.
    pub key: Option<Key>,
    /// Its manifest, if it is up to date.
    pub manifest: Option<Manifest>,
    /// Files of its result were dropped, or left the hub's cache: it is made again when something needs them.
    pub is_gone: bool,
}

/// Looks at every stage of a graph. Without a store nothing is up to date.
///
/// # Errors
/// When something that is there cannot be read.
pub fn outlook(
    graph: &Graph,
    project: &Project,
    store: Option<&Store>,
    surveyor: &Surveyor<'_>,
    facts: &mut Facts,
) -> Result<Vec<Outlook>, StoreError> {
    let mut history = History::new(store);
    let mut outlooks = Vec::with_capacity(graph.stages.len());
    for (id, stage) in graph.iter() {
        surveyor.glance_all(stage, facts)?;
        let outlook = match plan::key_struct(stage, facts) {
            Err(open) => Outlook {
                state: if matches!(open, Open::Waits(_)) { State::Waits } else { State::Run },
                reason: in_words(graph, stage, &open),
                key_struct: None,
                key: None,
                manifest: None,
                is_gone: false,
            },
            Ok(key_struct) => {
                let key = key_struct.key();
                let inspection = store.map_or(Ok(Inspection::Absent), |store| store.inspect(&key))?;
                let (state, reason, manifest) = match inspection {
                    Inspection::Hit(manifest) if is_enough(stage, &manifest) => {
                        (State::UpToDate, String::new(), Some(*manifest))
                    }
                    Inspection::Hit(manifest) => {
                        let reason = "its weights were dropped, and `keep: weights` keeps them";
                        (State::Run, reason.to_owned(), Some(*manifest))
                    }
                    Inspection::Damaged { path, reason, .. } => {
                        (State::Run, format!("{} {reason}", path.display()), None)
                    }
                    Inspection::Absent => {
                        let experiment = graph.experiment_name(id);
                        let mut reason = history.why(experiment, stage, &key_struct);
                        if let Some(download) = download(stage, facts) {
                            reason += &format!("; {download}");
                        }
                        (State::Run, reason, None)
                    }
                };
                let mut is_gone = false;
                if let (Some(manifest), Some(store)) = (&manifest, store) {
                    let result = artifact(graph, id, manifest, (project, store, facts))?;
                    is_gone = any_dropped(&result.outputs);
                    facts.results.insert(id, Arc::new(result));
                }
                Outlook { state, reason, key_struct: Some(key_struct), key: Some(key), manifest, is_gone }
            }
        };
        outlooks.push(outlook);
    }
    Ok(outlooks)
}

/// Says of merges whose weights were dropped that they are made again where one of the stages that are wanted would run
/// and needs them.
pub fn made_again(graph: &Graph, outlooks: &mut [Outlook], wanted: &[bool]) {
    // A stage's needs come before it, so that one that is made again comes before what it needs in turn.
    for (id, stage) in graph.iter().collect::<Vec<_>>().into_iter().rev() {
        if !wanted[id.0] || outlooks[id.0].state != State::Run {
            continue;
        }
        for need in &stage.needs {
            let outlook = &mut outlooks[need.stage.0];
            if outlook.state == State::UpToDate && outlook.is_gone {
                outlook.state = State::Run;
                let what = match graph.stage(need.stage).spec {
                    Spec::Model(_) | Spec::Adapter(_) => {
                        "fetched again, since its files are not in the hub's cache as they were,"
                    }
                    _ => "made again",
                };
                outlook.reason = format!("{what} because {} needs it", stage.name);
            }
        }
    }
}

/// The result of a stage, as others read it.
///
/// # Errors
/// When it is rows of which a stage reads a part, and they cannot be read.
pub(super) fn artifact(
    graph: &Graph,
    id: StageId,
    manifest: &Manifest,
    (project, store, facts): (&Project, &Store, &Facts),
) -> Result<Artifact, StoreError> {
    use crate::experiment::Model;
    let stage = graph.stage(id);
    let location = match stage.spec.found() {
        Some(Model::Hub { .. }) => hub_location(stage, facts).unwrap_or_default(),
        Some(Model::Path(path)) => project.resolve(path),
        Some(Model::From(output)) => {
            let command = stage.need("command").and_then(|id| facts.results.get(&id));
            let location = command.map(|command| command.location.clone()).unwrap_or_default();
            output.path.as_ref().map_or(location.clone(), |path| location.join(path))
        }
        Some(Model::Lora(_)) | None => store.object_dir(&manifest.digest),
    };
    let mut shards = BTreeMap::new();
    if let Spec::Data(_) = stage.spec {
        for count in graph.splits(id) {
            let rows = stage::shards_of(&location, count).map_err(|source| StoreError::Io {
                action: "read",
                path: location.clone(),
                source,
            })?;
            shards.insert(count, rows);
        }
    }
    let family =
        matches!(stage.spec, Spec::Model(_) | Spec::Lora(_) | Spec::Merge(_)).then(|| family_of(&location)).flatten();
    let (roles, mut outputs) = (manifest.roles.clone(), manifest.outputs.clone());
    if let Some(Model::Hub { .. }) = stage.spec.found() {
        // The cache of the hub is not ours: what is no longer there, or not as it was, comes back when something needs it.
        for output in &mut outputs {
            output.dropped = !store.is_as_known(&location.join(&output.path), output);
        }
    }
    Ok(Artifact { digest: manifest.digest, roles, outputs, location, family, shards })
}

/// What a stage fetches from the hub, in words.
fn download(stage: &Stage, facts: &Facts) -> Option<String> {
    let (repository, _) = plan::repository(stage)?;
    let commit = facts.commit(stage.experiment, &repository)?;
    let name = &repository.name;
    Some(match stage::bytes_to_fetch(stage, &repository, commit) {
        Some(0) => format!("{name} is in the hub's cache"),
        Some(bytes) => format!("fetches {} of {name} from the hub", size(bytes)),
        None if matches!(stage.spec, Spec::Data(_)) => {
            format!("fetches the files of {name} that its rows need, where the hub's cache lacks them")
        }
        None => format!("fetches {name} from the hub (how much is known once the hub is asked)"),
    })
}

/// Where the files of a repository on the hub lie, once they are fetched.
pub fn hub_location(stage: &Stage, facts: &Facts) -> Option<PathBuf> {
    let (repository, _) = plan::repository(stage)?;
    stage::hub_snapshot(&repository, facts.commit(stage.experiment, &repository)?)
}

/// The family of the model in a directory; what else its `config.json` says is for those who load it.
fn family_of(model: &Path) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Config {
        model_type: Option<String>,
    }
    let text = std::fs::read(model.join("config.json")).ok()?;
    serde_json::from_slice::<Config>(&text).ok()?.model_type
}

/// Why a stage has no key yet, for a person.
pub(super) fn in_words(graph: &Graph, stage: &Stage, open: &Open) -> String {
    match open {
        Open::Waits(id) => format!("waits for {}", graph.stage(*id).name),
        Open::Unhashed(
            Source::File(path)
            | Source::Any(path)
            | Source::Tree(path)
            | Source::Script(path)
            | Source::Tokenizer(path),
        ) => format!("{} is not hashed yet", path.display()),
        Open::Unhashed(Source::Task { task, .. }) => format!("task {task} is not looked up yet"),
        Open::Unresolved(Repository { name, revision, .. }) => {
            format!("the commit that `{revision}` of {name} names is not known yet: a run asks the hub")
        }
        Open::Missing(_, reason) => reason.clone(),
        Open::NoTool(name) => {
            let who =
                if matches!(stage.spec, Spec::Eval { .. }) { "evaluations use" } else { "`engine: transformers` uses" };
            format!("{} is not installed in the Python that {who}", name.replace('_', "-"))
        }
        Open::OldTool { name, found, wanted } => {
            let name = name.replace('_', "-");
            format!("{name} {found} is installed in the Python that evaluations use, and {wanted} or later is needed")
        }
        Open::NoOutput { stage: id, path } => {
            format!("{} left no {path:?}, which {} names", graph.stage(*id).name, stage.name)
        }
        Open::NoRole { stage: id, role } => {
            let part = match *role {
                "weights" => "no weights (model.safetensors or shards of it)",
                "config" => "no config.json",
                "tokenizer" => "no tokenizer (tokenizer.json)",
                other => other,
            };
            format!("{} has {part}", graph.stage(*id).name)
        }
    }
}

/// Earlier results, read when a reason is first asked for.
pub struct History<'a> {
    store: Option<&'a Store>,
    by_stage: Option<HashMap<(String, String), Vec<Manifest>>>,
}

impl<'a> History<'a> {
    /// Of a store, or of none.
    pub fn new(store: Option<&'a Store>) -> Self {
        Self { store, by_stage: None }
    }

    /// The earlier result of a stage that differs least from what it would be now; the latest of equals.
    pub fn nearest(&mut self, experiment: &str, stage: &Stage, now: &KeyStruct) -> Option<&Manifest> {
        let by_stage = self.by_stage.get_or_insert_with(|| {
            let mut by_stage: HashMap<_, Vec<Manifest>> = HashMap::new();
            for manifest in self.store.and_then(|store| store.manifests().ok()).unwrap_or_default() {
                by_stage.entry((manifest.experiment.clone(), manifest.stage.clone())).or_default().push(manifest);
            }
            by_stage
        });
        let earlier = by_stage.get(&(experiment.to_owned(), stage.name.clone()))?;
        let now = now.to_value();
        let rank = |manifest: &&Manifest| {
            (std::cmp::Reverse(plan::distance(&manifest.key_struct, &now)), manifest.started.clone())
        };
        earlier.iter().max_by_key(rank)
    }

    fn why(&mut self, experiment: &str, stage: &Stage, now: &KeyStruct) -> String {
        let Some(earlier) = self.nearest(experiment, stage, now) else { return "never ran".to_owned() };
        let changes = plan::differences(&earlier.key_struct, &now.to_value());
        if changes.is_empty() { "its result is gone".to_owned() } else { changes.join("; ") }
    }
}

/// Sightings of all sources that are missing, with the stage that names each.
pub fn missing<'a>(graph: &'a Graph, facts: &'a Facts) -> Vec<(StageId, Vec<String>, &'a str)> {
    let mut found = Vec::new();
    for (id, stage) in graph.iter() {
        for (source, place) in plan::sources(stage) {
            if let Some(Sighting::Missing(reason)) = facts.sources.get(&source) {
                found.push((id, place, reason.as_str()));
            }
        }
    }
    found
}
