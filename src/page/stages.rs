//! What a page says of each stage: its state, and of what is up to date all that its result rests on.

use std::collections::BTreeMap;

use indexmap::{IndexMap, IndexSet};
use serde::Serialize;
use serde_json::{Map, Value};

use super::Inputs;
use super::groups::groups;
use crate::exec::State;
use crate::plan::{Kind, StageId};
use crate::store::Manifest;

/// Parameters that take more than this are not shown; `mergelab key` prints them.
const MOST_PARAMETERS: usize = 2_000;

/// A stage of the experiment.
#[derive(Debug, Serialize)]
pub(super) struct Stage {
    /// Its name.
    pub(super) name: String,
    kind: Kind,
    /// `up-to-date`, `run` or `waits`.
    pub(super) state: &'static str,
    /// Why it would run, or what it waits for.
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    /// Places of the stages that it reads.
    needs: Vec<usize>,
    /// The place of its node in the picture of the graph.
    group: usize,
    /// Its key, once it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    /// What the experiment file says that decides its result.
    #[serde(skip_serializing_if = "Value::is_null")]
    parameters: Value,
    /// What it made, if that is there.
    #[serde(flatten)]
    pub(super) made: Option<Made>,
    /// What speaks against its figures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// What a stage that is up to date made, and how.
#[derive(Debug, Serialize)]
pub(super) struct Made {
    pub(super) digest: String,
    /// RFC 3339.
    pub(super) started: String,
    /// RFC 3339.
    pub(super) ended: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seconds: Option<f64>,
    pub(super) host: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<u64>,
    /// The commit of the project's repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) commit: Option<String>,
    /// Whether tracked files differed from it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) dirty: bool,
    /// The place of its set of versions.
    versions: usize,
    /// The equivalent command, of an evaluation by the harness.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) command: Option<String>,
    /// Digests of a model's parts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    roles: BTreeMap<String, String>,
    /// Where its files lie, relative to the project's root.
    place: String,
    /// Its files with their sizes; not those of a model by path, which are somebody else's.
    files: Vec<(String, u64)>,
    /// Further figures that its program reported.
    #[serde(skip_serializing_if = "Map::is_empty")]
    facts: Map<String, Value>,
}

/// The stages of an experiment, and what several of them share.
#[derive(Debug, Default)]
pub(super) struct Stages {
    /// In the order of the graph.
    pub(super) list: Vec<Stage>,
    /// Where each stage of the graph stands among them.
    pub(super) places: IndexMap<StageId, usize>,
    /// Different sets of versions.
    pub(super) versions: IndexSet<BTreeMap<String, String>>,
    /// Nodes of the graph's picture, by label.
    pub(super) groups: IndexSet<String>,
}

impl Stages {
    /// The stages of the experiment.
    pub(super) fn of(inputs: &Inputs<'_>) -> Self {
        let mut all = Self::default();
        let groups = groups(inputs);
        for (id, stage) in inputs.graph.iter().filter(|(_, stage)| stage.experiment == inputs.experiment) {
            let outlook = &inputs.outlooks[id.0];
            let made = outlook.manifest.as_ref().filter(|_| outlook.state == State::UpToDate);
            let parameters = outlook.key_struct.as_ref().map(|known| known.params.clone()).unwrap_or_default();
            let mut needs: Vec<usize> = stage.needs.iter().map(|need| all.places[&need.stage]).collect();
            needs.sort_unstable();
            needs.dedup();
            let group = all.groups.insert_full(groups[&id].clone()).0;
            let made = made.map(|manifest| all.made(inputs, id, manifest));
            let is_short = serde_json::to_string(&parameters).is_ok_and(|text| text.len() <= MOST_PARAMETERS);
            all.places.insert(id, all.list.len());
            all.list.push(Stage {
                name: stage.name.clone(),
                kind: stage.spec.kind(),
                state: word(outlook.state),
                reason: inputs.relative(&outlook.reason),
                needs,
                group,
                key: outlook.key.map(|key| key.to_string()),
                parameters: if is_short { relative(parameters, inputs) } else { Value::Null },
                made,
                warnings: inputs.warnings.get(&id).cloned().unwrap_or_default(),
            });
        }
        all
    }

    fn made(&mut self, inputs: &Inputs<'_>, id: StageId, manifest: &Manifest) -> Made {
        let mut versions = manifest.versions.clone();
        let mut facts = manifest.facts.clone();
        facts.remove("seconds");
        // What an evaluation's driver says of its environment goes further than what is in the key.
        if let Some(Value::Object(told)) = facts.remove("versions") {
            let told = told.into_iter().filter_map(|(name, version)| Some((name, version.as_str()?.to_owned())));
            versions.extend(told);
        }
        let command = facts.remove("command");
        let location = inputs.facts.results.get(&id).map(|artifact| artifact.location.display().to_string());
        let files = manifest.outputs.iter().filter(|_| !manifest.external);
        Made {
            digest: manifest.digest.to_string(),
            started: manifest.started.clone(),
            ended: manifest.ended.clone(),
            seconds: manifest.seconds(),
            host: manifest.host.clone(),
            device: manifest.device.clone(),
            memory: manifest.peak_memory,
            commit: manifest.git.as_ref().map(|git| git.commit.clone()),
            dirty: manifest.git.as_ref().is_some_and(|git| git.dirty),
            versions: self.versions.insert_full(versions).0,
            command: command.as_ref().and_then(Value::as_str).map(|command| inputs.relative(command)),
            roles: manifest.roles.iter().map(|(role, digest)| (role.clone(), digest.to_string())).collect(),
            place: inputs.relative(&location.unwrap_or_default()),
            files: files.map(|file| (file.path.clone(), file.size)).collect(),
            facts: match relative(Value::Object(facts), inputs) {
                Value::Object(facts) => facts,
                _ => Map::new(),
            },
        }
    }

    /// How many are up to date.
    pub(super) fn up_to_date(&self) -> usize {
        self.list.iter().filter(|stage| stage.made.is_some()).count()
    }
}

/// A value without this machine's path to the project.
fn relative(value: Value, inputs: &Inputs<'_>) -> Value {
    match value {
        Value::String(text) => Value::String(inputs.relative(&text)),
        Value::Array(items) => items.into_iter().map(|item| relative(item, inputs)).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, item)| (name, relative(item, inputs))).collect(),
        other => other,
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::UpToDate => "up-to-date",
        State::Run => "run",
        State::Waits => "waits",
    }
}
