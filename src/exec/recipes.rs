//! `keep: recipe`: merges whose weights go once everything that reads them is up to date, and come back when something
//! needs them.
//!
//! A merge whose weights are gone is up to date. When a stage that reads it has to run, the merge is opened again: it and
//! what waits for it are looked at anew, and its result is held against the digest that it had. Where the digest is
//! another (made on another device), what rests on the old one is looked at again as well.
//!
//! So that a sweep fits on a disk that holds a few of its merges, what reads a made merge starts before anything else, and
//! no merge is started while readers of another are waiting to start, or while the disk has no room for it and something
//! that runs may still free some.

use std::sync::Arc;

use super::machine::{free_bytes, size};
use super::schedule::{Outcome, Run};
use crate::artifact::any_dropped;
use crate::digest::Key;
use crate::experiment::Keep;
use crate::plan::{self, Artifact, Graph, Spec, Stage, StageId};
use crate::stage;
use crate::store::{Inspection, Manifest, StoreError};

/// Whether a stage is a merge whose weights go when nothing needs them.
pub(super) fn is_recipe(stage: &Stage) -> bool {
    matches!(&stage.spec, Spec::Merge(merge) if merge.keep == Keep::Recipe)
}

/// Whether a result is one to a stage although files of it were dropped: not to one that keeps its weights.
pub(super) fn is_enough(stage: &Stage, manifest: &Manifest) -> bool {
    !manifest.is_dropped() || is_recipe(stage)
}

/// Whether a graph has merges whose weights go.
pub(super) fn has_recipes(graph: &Graph) -> bool {
    graph.stages.iter().any(is_recipe)
}

impl Run<'_, '_, '_> {
    /// Opens merges again that a stage reads and whose weights are gone; whether there are any.
    pub(super) fn make_again_for(&mut self, id: StageId) -> bool {
        let needs = self.graph().stage(id).needs.iter().map(|need| need.stage);
        let gone = |need: &StageId| self.facts.results.get(need).is_some_and(|result| any_dropped(&result.outputs));
        let mut gone: Vec<StageId> = needs.filter(gone).collect();
        gone.sort_unstable();
        gone.dedup();
        for &merge in &gone {
            if let Some(Outcome::Hit(manifest) | Outcome::Ran(manifest)) = self.report.outcomes.remove(&merge) {
                self.again.insert(merge, manifest);
                self.open(merge);
            }
        }
        !gone.is_empty()
    }

    /// Has a stage looked at again whose needs have results, and what waits for it wait.
    fn open(&mut self, id: StageId) {
        for index in 0..self.dependents[id.0].len() {
            let dependent = self.dependents[id.0][index];
            self.missing[dependent.0] += 1;
            self.ready.remove(&dependent);
        }
        self.ready.insert(id);
    }

    /// A need of a stage has a result; `is_other` than it had before, where it had one. What has no outcome yet is ready
    /// when all needs have results. What has one is opened again if it rests on something that changed.
    pub(super) fn need_is_met(&mut self, dependent: StageId, is_other: bool) {
        self.missing[dependent.0] -= 1;
        if is_other && self.report.outcomes.contains_key(&dependent) {
            self.stale.insert(dependent);
        }
        if self.missing[dependent.0] > 0 {
            return;
        }
        match self.report.outcomes.get(&dependent) {
            None => {
                self.stale.remove(&dependent);
                self.ready.insert(dependent);
            }
            Some(Outcome::Hit(_) | Outcome::Ran(_)) if self.stale.remove(&dependent) => {
                self.report.outcomes.remove(&dependent);
                self.open(dependent);
            }
            Some(_) => {}
        }
    }

    /// Keeps other processes from dropping the weights of a merge, from before it is looked at.
    pub(super) fn hold(&mut self, id: StageId, key: Key) -> Result<(), StoreError> {
        if matches!(self.graph().stage(id).spec, Spec::Merge(_)) && !self.uses.contains_key(&key) {
            self.uses.insert(key, self.shop.store.hold(&key)?);
        }
        Ok(())
    }

    /// Drops the weights of those merges that nothing needs any more now that a stage is done.
    pub(super) fn drop_after(&mut self, id: StageId) {
        if !self.has_recipes {
            return;
        }
        let graph = self.graph();
        let mut merges: Vec<StageId> = graph.stage(id).needs.iter().map(|need| need.stage).chain([id]).collect();
        merges.retain(|&merge| is_recipe(graph.stage(merge)));
        merges.sort_unstable();
        merges.dedup();
        for merge in merges {
            self.drop_or_note(merge);
        }
    }

    /// Tries once more to drop what was in use when it was to go. It need not be another process that used it: a program
    /// that is being started has for an instant all that we have open, locks too.
    pub(super) fn drop_late(&mut self) {
        for merge in std::mem::take(&mut self.late) {
            self.drop_or_note(merge);
        }
    }

    fn drop_or_note(&mut self, merge: StageId) {
        if let Err(error) = self.drop_unneeded(merge) {
            let name = &self.graph().stage(merge).name;
            self.watcher.note(&format!("{name}: its weights cannot be dropped: {error}"));
        }
    }

    fn drop_unneeded(&mut self, merge: StageId) -> Result<(), StoreError> {
        let store = self.shop.store;
        let Some(Outcome::Hit(manifest) | Outcome::Ran(manifest)) = self.report.outcomes.get(&merge) else {
            return Ok(());
        };
        if manifest.is_dropped() && !store.has_leftovers(manifest) {
            return Ok(());
        }
        let key = manifest.key;
        let same = self.merges_of(&key);
        let graph = self.graph();
        if !same.iter().all(|&id| is_recipe(graph.stage(id)) && self.is_done(id)) {
            return Ok(());
        }
        let readers = graph.iter().filter(|(_, stage)| stage.needs.iter().any(|need| same.contains(&need.stage)));
        let readers: Vec<StageId> = readers.map(|(id, _)| id).collect();
        for reader in readers {
            if !(self.is_done(reader) || !self.options.wanted[reader.0] && self.is_up_to_date(reader)) {
                return Ok(());
            }
        }
        self.uses.remove(&key);
        let Some(manifest) = store.drop_files(&key, &stage::is_weights)? else {
            self.late.insert(merge);
            return Ok(());
        };
        let bytes = manifest.outputs.iter().filter(|output| output.dropped).map(|output| output.size).sum();
        self.disk = self.disk.saturating_add(bytes);
        let name = &graph.stage(merge).name;
        self.watcher.note(&format!("{name}: everything that reads it is up to date; dropped {}", size(bytes)));
        for id in same {
            if let Some(result) = self.facts.results.get_mut(&id) {
                *result = Arc::new(Artifact { outputs: manifest.outputs.clone(), ..(**result).clone() });
            }
            if let Some(Outcome::Hit(known) | Outcome::Ran(known)) = self.report.outcomes.get_mut(&id) {
                known.outputs.clone_from(&manifest.outputs);
            }
        }
        Ok(())
    }

    /// Merges that are the same by their key, under whatever name.
    fn merges_of(&self, key: &Key) -> Vec<StageId> {
        let is_same = |id: StageId, stage: &Stage| match self.report.outcomes.get(&id) {
            Some(Outcome::Hit(manifest) | Outcome::Ran(manifest)) => manifest.key == *key,
            _ => plan::key_struct(stage, &self.facts).is_ok_and(|key_struct| key_struct.key() == *key),
        };
        let merges = self.graph().iter().filter(|(_, stage)| matches!(stage.spec, Spec::Merge(_)));
        merges.filter(|(id, stage)| is_same(*id, stage)).map(|(id, _)| id).collect()
    }

    /// Whether a stage that is wanted has its result, for good.
    fn is_done(&self, id: StageId) -> bool {
        matches!(self.report.outcomes.get(&id), Some(Outcome::Hit(_) | Outcome::Ran(_))) && self.missing[id.0] == 0
    }

    /// Whether a stage that is not wanted in this run is up to date all the same.
    fn is_up_to_date(&mut self, id: StageId) -> bool {
        let stage = self.graph().stage(id);
        if self.shop.surveyor.glance_all(stage, &mut self.facts).is_err() {
            return false;
        }
        let Ok(key_struct) = plan::key_struct(stage, &self.facts) else { return false };
        let inspection = self.shop.store.inspect(&key_struct.key());
        matches!(inspection, Ok(Inspection::Hit(manifest)) if is_enough(stage, &manifest))
    }

    /// Whether a stage reads a merge whose weights go.
    pub(super) fn reads_recipe(&self, id: StageId) -> bool {
        let graph = self.graph();
        graph.stage(id).needs.iter().any(|need| is_recipe(graph.stage(need.stage)))
    }

    /// Whether a merge is not to be started yet: what reads another one is, or space is to be freed for it.
    pub(super) fn is_too_early(&self, id: StageId) -> bool {
        if !is_recipe(self.graph().stage(id)) {
            return false;
        }
        if self.runnable.keys().any(|&other| other != id && self.reads_recipe(other)) {
            return true;
        }
        // Beside the weights there are a tokenizer, logs, and what evaluations write.
        let with_margin = |id: StageId| self.bytes_written(id) / 8 * 9;
        let in_flight: u64 = self.ours.keys().map(|&other| with_margin(other)).sum();
        let free = free_bytes(self.shop.store.root()).min(self.disk);
        with_margin(id) > free.saturating_sub(in_flight)
    }

    /// About how many bytes a stage will write whose needs have results.
    fn bytes_written(&self, id: StageId) -> u64 {
        let stage = self.graph().stage(id);
        stage::bytes_written(stage, |role| Some(&**self.facts.results.get(&stage.need(role)?)?))
    }
}
