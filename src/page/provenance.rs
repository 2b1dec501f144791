//! What everything rests on: models and data with their digests, versions, commits, machines, and the commands.

use std::collections::BTreeMap;

use indexmap::IndexSet;
use serde::Serialize;

use super::Inputs;
use super::stages::{Made, Stages};
use crate::plan::{Kind, repository};
use crate::report::plain;
use crate::stage::card::{source, source_of_rows};

/// What a page says of where all of it comes from.
#[derive(Debug, Serialize)]
pub(super) struct Provenance {
    sources: Vec<Origin>,
    /// By program, the versions that stages ran with.
    versions: Vec<(String, String)>,
    commits: Vec<String>,
    hosts: Vec<String>,
    commands: Vec<(String, String)>,
}

/// A model or a data set.
#[derive(Debug, Serialize)]
struct Origin {
    stage: usize,
    name: String,
    from: String,
    /// The commit of its repository.
    commit: Option<String>,
    /// What its digest is of.
    role: &'static str,
    digest: Option<String>,
}

impl Provenance {
    /// Of an experiment.
    pub(super) fn of(inputs: &Inputs<'_>, stages: &Stages) -> Self {
        let made = || stages.list.iter().filter_map(|stage| stage.made.as_ref());
        let mut versions: BTreeMap<&str, IndexSet<&str>> = BTreeMap::new();
        for (program, version) in stages.versions.iter().flatten() {
            versions.entry(program).or_default().insert(version);
        }
        let list = |versions: &IndexSet<&str>| versions.iter().copied().collect::<Vec<_>>().join(", ");
        let commit = |made: &Made| {
            let dirty = if made.dirty { ", with changes" } else { "" };
            made.commit.as_ref().map(|commit| format!("{commit}{dirty}"))
        };
        let commits: IndexSet<String> = made().filter_map(commit).collect();
        let hosts: IndexSet<&str> = made().map(|made| made.host.as_str()).collect();
        let commands =
            stages.list.iter().filter_map(|stage| Some((plain(&stage.name), stage.made.as_ref()?.command.clone()?)));
        Self {
            sources: sources(inputs, stages),
            versions: versions.iter().map(|(program, versions)| (plain(program), plain(&list(versions)))).collect(),
            commits: commits.into_iter().collect(),
            hosts: hosts.into_iter().map(plain).collect(),
            commands: commands.collect(),
        }
    }
}

fn sources(inputs: &Inputs<'_>, stages: &Stages) -> Vec<Origin> {
    let experiment = &inputs.loaded.experiment;
    let mut sources = Vec::new();
    for (id, place) in &stages.places {
        let stage = inputs.graph.stage(*id);
        let (section, entry) = (stage.entry.0, &stage.entry.1);
        let manifest = inputs.outlooks[id.0].manifest.as_ref();
        let (from, role, digest) = match stage.spec.kind() {
            Kind::Model if section == "models" && experiment.models.contains_key(entry) => {
                let weights = manifest.and_then(|manifest| manifest.roles.get("weights"));
                (source(experiment, entry), "weights", weights)
            }
            Kind::Data if experiment.data.contains_key(entry) => {
                (source_of_rows(&experiment.data[entry]), "rows", manifest.map(|manifest| &manifest.digest))
            }
            _ => continue,
        };
        let commit = repository(stage)
            .and_then(|(repository, _)| inputs.facts.commit(inputs.experiment, &repository).map(str::to_owned));
        let digest = digest.map(ToString::to_string);
        sources.push(Origin { stage: *place, name: plain(&stage.name), from: plain(&from), commit, role, digest });
    }
    sources
}
