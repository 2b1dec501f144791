//! Starting what is free to run: which stages go together, their locks, and their share of the machine.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::room::Need;
use super::schedule::{Message, Outcome, Run};
use super::work::Task;
use crate::artifact::subtree;
use crate::experiment::Model;
use crate::plan::{self, Artifact, KeyStruct, Repository, Sighting, Source, StageId};
use crate::stage::{self, Failure};
use crate::store::{KeyLock, Lookup, StoreError};

impl Run<'_, '_, '_> {
    /// Starts what is free to run, as far as there is room.
    pub(super) fn dispatch(&mut self) -> Result<(), StoreError> {
        while !self.halted {
            let Some(batch) = self.next_batch() else { break };
            let mut tasks = self.lock(&batch)?;
            let ids: Vec<StageId> = tasks.iter().map(|task| task.id).collect();
            if ids.is_empty() {
                continue;
            }
            let share = self.room.take(self.need_of(&ids));
            for task in &mut tasks {
                task.gpus = self.room.names(&share);
            }
            for &id in &ids {
                self.watcher.started(self.graph(), id);
            }
            let (shop, send) = (self.shop, self.send.clone());
            self.scope.spawn(move || {
                let panic = without_panic(|| shop.run(tasks, &send)).err();
                let _ = send.send(Message::Free { share, ids, panic });
            });
        }
        Ok(())
    }

    /// What is to be started now, if anything.
    fn next_batch(&self) -> Option<Vec<StageId>> {
        let mut batches = self.batches();
        batches.retain(|batch| self.room.fits(self.need_of(batch)));
        if !self.has_recipes {
            return batches.into_iter().next();
        }
        batches.sort_by_key(|batch| !batch.iter().any(|&id| self.reads_recipe(id)));
        let is_timely = |batch: &Vec<StageId>| !batch.iter().any(|&id| self.is_too_early(id));
        // Where nothing else will happen, waiting would not help: the stage itself says that there is no space.
        let is_last = self.room.is_idle() && self.hashing.is_empty() && self.elsewhere.is_empty();
        let index = batches.iter().position(is_timely).or_else(|| is_last.then_some(0));
        index.filter(|&index| index < batches.len()).map(|index| batches.swap_remove(index))
    }

    /// What is free to run, in batches that share a program; both in the order of the graph.
    fn batches(&self) -> Vec<Vec<StageId>> {
        let mut batches: Vec<Vec<StageId>> = Vec::new();
        let mut by_group = HashMap::new();
        for &id in self.runnable.keys() {
            let fresh = batches.len();
            let index = match stage::group_of(self.graph().stage(id)) {
                Some(group) => *by_group.entry(group).or_insert(fresh),
                None => fresh,
            };
            if index == fresh {
                batches.push(Vec::new());
            }
            batches[index].push(id);
        }
        batches
    }

    fn need_of(&self, batch: &[StageId]) -> Need {
        Need::of_batch(batch.iter().filter_map(|id| self.needs.get(id).copied()))
    }

    /// What a stage takes whose needs all have results.
    pub(super) fn need_of_stage(&self, id: StageId) -> Need {
        let stage = self.graph().stage(id);
        let gpus = stage::gpus_needed(self.graph(), stage);
        let input = |role: &str| Some(&**self.facts.results.get(&stage.need(role)?)?);
        Need { memory: stage::memory_needed(stage, self.room.has_for(gpus), input), gpus }
    }

    /// Takes the locks of stages that share a program; what is up to date after all, or made
    /// elsewhere, is left out. Locks are taken in the order of keys, so that two batches never wait for each other.
    fn lock(&mut self, batch: &[StageId]) -> Result<Vec<Task>, StoreError> {
        let graph = self.graph();
        let mut together: Vec<_> = self.runnable.extract_if(.., |id, _| batch.binary_search(id).is_ok()).collect();
        together.sort_by_cached_key(|(_, key_struct)| key_struct.key());
        let mut tasks = Vec::new();
        for (id, key_struct) in together {
            let key = key_struct.key();
            let store = self.shop.store;
            let lookup = if self.options.force.contains(&id) {
                store.try_lock(&key)?.map_or(Lookup::Busy, |lock| Lookup::Miss { lock, damage: None })
            } else {
                match store.lookup(&key)? {
                    Lookup::Hit(manifest)
                        if self.again.contains_key(&id) && (manifest.is_dropped() || manifest.external) =>
                    {
                        store.try_lock(&key)?.map_or(Lookup::Busy, |lock| Lookup::Miss { lock, damage: None })
                    }
                    other => other,
                }
            };
            match lookup {
                Lookup::Hit(manifest) => self.finish(id, Outcome::Hit(manifest), 0.0),
                Lookup::Busy => {
                    let is_ours = self.ours.values().any(|ours| *ours == key);
                    if !is_ours && self.awaited.insert(id) {
                        let name = &graph.stage(id).name;
                        let lock = self.shop.store.lock_path(&key);
                        let message = format!("{name}: another process is making it; waiting for {}", lock.display());
                        self.watcher.note(&message);
                    }
                    self.elsewhere.insert(id, key_struct);
                }
                Lookup::Miss { lock, damage } => {
                    if let Some(damage) = damage {
                        self.watcher
                            .note(&format!("{damage}: what is left of it goes to quarantine, and it is made again"));
                    }
                    self.ours.insert(id, key);
                    tasks.push(self.task(id, key_struct, lock));
                }
            }
        }
        tasks.sort_by_key(|task| task.id);
        Ok(tasks)
    }

    fn task(&self, id: StageId, key_struct: KeyStruct, lock: KeyLock) -> Task {
        let graph = self.graph();
        let stage = graph.stage(id);
        let mut sources: Vec<Source> = plan::sources(stage).into_iter().map(|(source, _)| source).collect();
        let mut cached = Vec::new();
        for need in &stage.needs {
            // A model that is not copied: whoever reads it rests on files that are not ours.
            match graph.stage(need.stage).spec.found() {
                Some(Model::Path(path)) => sources.push(Source::Tree(path.clone())),
                Some(Model::Hub { .. }) => {
                    let Artifact { location, outputs, .. } = &*self.facts.results[&need.stage];
                    cached.extend(outputs.iter().map(|output| (location.join(&output.path), output.clone())));
                }
                _ => {}
            }
        }
        let files = match stage.spec.found() {
            Some(Model::From(output)) => {
                let command = stage.need("command").and_then(|id| self.facts.results.get(&id));
                let outputs = command.map(|command| command.outputs.clone()).unwrap_or_default();
                match &output.path {
                    Some(path) => subtree(&outputs, path.to_string_lossy().trim_end_matches('/')),
                    None => outputs,
                }
            }
            _ => sources
                .iter()
                .filter_map(|source| match self.facts.sources.get(source) {
                    Some(Sighting::Hashed(files)) => Some(files.clone()),
                    _ => None,
                })
                .flatten()
                .collect(),
        };
        let again = self.again.get(&id).cloned();
        let repository = plan::repository(stage).map(|(repository, _)| repository);
        let commit =
            |repository: &Repository| self.facts.commit(stage.experiment, repository).map(str::to_ascii_lowercase);
        let conversion = repository.as_ref().and_then(Repository::conversion).as_ref().and_then(commit);
        let commit = repository.as_ref().and_then(commit);
        Task {
            cached,
            commit,
            conversion,
            id,
            key_struct,
            lock,
            inputs: self.inputs(id),
            sources,
            files,
            gpus: Vec::new(),
            again,
        }
    }

    fn inputs(&self, id: StageId) -> HashMap<String, Arc<Artifact>> {
        let needs = &self.graph().stage(id).needs;
        needs.iter().map(|need| (need.role.clone(), self.facts.results[&need.stage].clone())).collect()
    }
}

/// Does some work; if it panics, gives what was said of it. (The panic itself was printed where it happened.)
pub(super) fn without_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // What the work leaves half done is its own: it shares nothing that it changes in more than one step.
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no reason given").to_owned()
    })
}

/// Of a stage whose work ended without a word.
pub(super) fn defect(panic: Option<&str>) -> Failure {
    let reason = panic.unwrap_or("it said nothing of this stage");
    Failure::stage(format!("mergelab itself failed: {reason}"))
        .hint("this is a defect of mergelab, not of the experiment: please report it")
}
