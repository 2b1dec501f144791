//! The scheduler: stages whose inputs are ready run side by side, within slots, memory and GPUs.
//!
//! One thread decides and keeps all state; each dispatched piece of work has a thread and sends messages. A stage whose
//! key is made by somebody else waits without a slot and is looked up again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, OnceLock};
use std::thread::Scope;
use std::time::{Duration, Instant};

use mergelab_wire::Event;

use super::dispatch::{defect, without_panic};
use super::links::Links;
use super::machine::Machine;
use super::outlook::{artifact, in_words};
use super::recipes::{has_recipes, is_enough};
use super::room::{Need, Room, Share};
use super::supervise::Supervisor;
use super::survey::Surveyor;
use super::work::Shop;
use crate::digest::Key;
use crate::plan::{self, Facts, Graph, KeyStruct, Open, Sighting, Source, Spec, StageId, WAY_OUT};
use crate::stage::{Context, Failure};
use crate::store::{Inspection, Manifest, Store, StoreError, Use};

/// How often a key that somebody else makes is looked up again.
const POLL: Duration = Duration::from_millis(200);

/// What a run may do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Programs side by side.
    pub jobs: usize,
    /// Memory budget in bytes for all programs together.
    pub memory: u64,
    /// Go on with what does not depend on a failed stage.
    pub keep_going: bool,
    /// Stages to run again although their results are there.
    pub force: Vec<StageId>,
    /// Which stages are wanted at all.
    pub wanted: Vec<bool>,
}

/// What became of a stage.
#[derive(Debug)]
pub enum Outcome {
    /// Its result was there.
    Hit(Box<Manifest>),
    /// It ran.
    Ran(Box<Manifest>),
    /// It failed.
    Failed(Failure),
    /// It was not tried: why.
    Blocked(String),
}

/// What became of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// By stage, for those that were wanted.
    pub outcomes: BTreeMap<StageId, Outcome>,
    /// Seconds that stages took which ran or failed.
    pub seconds: BTreeMap<StageId, f64>,
    /// A signal ended it.
    pub interrupted: bool,
}

/// Follows a run.
pub trait Watcher {
    /// A stage started.
    fn started(&mut self, graph: &Graph, id: StageId);
    /// A stage's program said something.
    fn event(&mut self, graph: &Graph, id: StageId, event: &Event);
    /// A stage has its outcome.
    fn finished(&mut self, graph: &Graph, id: StageId, outcome: &Outcome, seconds: f64);
    /// Something that is no stage's: damage found in the store, a wait for another process.
    fn note(&mut self, message: &str);
}

/// What threads tell the scheduler.
pub(super) enum Message {
    Event(StageId, Event),
    Done {
        id: StageId,
        result: Result<Box<Manifest>, Failure>,
        seconds: f64,
    },
    /// A dispatched piece of work is over.
    Free {
        share: Share,
        ids: Vec<StageId>,
        /// What was said if it panicked.
        panic: Option<String>,
    },
    Hashed(Source, Result<Sighting, StoreError>),
    Interrupt,
}

/// What a run stands on.
pub struct Ground<'a> {
    /// What stages need of the world.
    pub context: Context<'a>,
    /// Where results are kept.
    pub store: &'a Store,
    /// Looks at what lies outside of it.
    pub surveyor: &'a Surveyor<'a>,
    /// Starts programs, and ends them when told to.
    pub supervisor: &'a Supervisor,
    /// What there is to run on.
    pub machine: &'a Machine,
}

/// Runs everything that is wanted and not up to date. `facts` must hold the tools, and may hold more; they come back with
/// all that was learnt. `on_interrupt` is given what to call when a signal arrives.
///
/// # Errors
/// When the store itself fails; failures of stages are in the report.
pub fn run(
    ground: Ground<'_>,
    options: &Options,
    facts: Facts,
    watcher: &mut dyn Watcher,
    on_interrupt: &dyn Fn(Box<dyn Fn() + Send>),
) -> Result<(Report, Facts), StoreError> {
    let Ground { context, store, surveyor, supervisor, machine } = ground;
    let graph = context.graph;
    let shop = Shop { context, store, surveyor, git: OnceLock::new() };
    let (send, receive) = mpsc::channel();
    let interrupt = send.clone();
    on_interrupt(Box::new(move || {
        let _ = interrupt.send(Message::Interrupt);
    }));
    let mut dependents = vec![Vec::new(); graph.stages.len()];
    let mut missing = vec![0; graph.stages.len()];
    for (id, stage) in graph.iter().filter(|(id, _)| options.wanted[id.0]) {
        let mut needs: Vec<_> = stage.needs.iter().map(|need| need.stage).collect();
        needs.sort_unstable();
        needs.dedup();
        missing[id.0] = needs.len();
        for need in needs {
            dependents[need.0].push(id);
        }
    }
    let free = graph.iter().map(|(id, _)| id).filter(|id| options.wanted[id.0] && missing[id.0] == 0);
    let ready: BTreeSet<StageId> = free.collect();
    std::thread::scope(|scope| {
        let mut run = Run {
            shop: &shop,
            supervisor,
            options,
            scope,
            send,
            watcher,
            facts,
            report: Report::default(),
            missing,
            dependents,
            ready,
            runnable: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            awaited: BTreeSet::new(),
            ours: HashMap::new(),
            hashing: HashMap::new(),
            needs: HashMap::new(),
            again: HashMap::new(),
            stale: BTreeSet::new(),
            uses: HashMap::new(),
            late: BTreeSet::new(),
            has_recipes: has_recipes(graph),
            disk: machine.disk,
            room: Room::new(options.jobs, options.memory, &machine.gpus),
            links: Links::new(&shop.context.project.root),
            unlinked: Vec::new(),
            links_due: false,
            halted: false,
        };
        // The programs that still run, and hashing, would keep the scope open for as long as they take.
        run.work(&receive).inspect_err(|_| {
            supervisor.stop();
            surveyor.stop();
        })?;
        run.drop_late();
        run.close();
        run.link();
        run.links.save();
        Ok((run.report, run.facts))
    })
}

/// State of a run.
pub(super) struct Run<'r, 'scope, 'env> {
    pub(super) shop: &'env Shop<'env>,
    pub(super) supervisor: &'env Supervisor,
    pub(super) options: &'env Options,
    pub(super) scope: &'scope Scope<'scope, 'env>,
    pub(super) send: Sender<Message>,
    pub(super) watcher: &'r mut dyn Watcher,
    pub(super) facts: Facts,
    pub(super) report: Report,
    /// How many needs have no result yet, by stage.
    pub(super) missing: Vec<usize>,
    pub(super) dependents: Vec<Vec<StageId>>,
    /// All needs have results; to be looked at.
    pub(super) ready: BTreeSet<StageId>,
    /// Not up to date, and free to run.
    pub(super) runnable: BTreeMap<StageId, KeyStruct>,
    /// Made by somebody else at this moment.
    pub(super) elsewhere: BTreeMap<StageId, KeyStruct>,
    /// Those of which a person was told so.
    pub(super) awaited: BTreeSet<StageId>,
    /// Keys that this run makes at this moment: another entry may say the same.
    pub(super) ours: HashMap<StageId, Key>,
    /// Stages that wait for a source to be hashed.
    pub(super) hashing: HashMap<Source, Vec<StageId>>,
    /// What stages take that are or were free to run.
    pub(super) needs: HashMap<StageId, Need>,
    /// Merges to be made again because their weights were dropped, with what they were.
    pub(super) again: HashMap<StageId, Box<Manifest>>,
    /// Stages with an outcome that rests on something that changed since.
    pub(super) stale: BTreeSet<StageId>,
    /// What keeps the weights of merges from being dropped by another process.
    pub(super) uses: HashMap<Key, Use>,
    /// Merges whose weights were to go and were in use at that moment.
    pub(super) late: BTreeSet<StageId>,
    /// There are merges whose weights go.
    pub(super) has_recipes: bool,
    /// Bytes that were free when the run started, less the weights that were made since and are there.
    pub(super) disk: u64,
    pub(super) room: Room,
    links: Links,
    /// Results whose links are not pointed at them yet.
    unlinked: Vec<(StageId, PathBuf)>,
    /// Something was freed since links were looked at.
    links_due: bool,
    /// Nothing more is started.
    pub(super) halted: bool,
}

impl<'env> Run<'_, '_, 'env> {
    pub(super) fn graph(&self) -> &'env Graph {
        self.shop.context.graph
    }

    fn work(&mut self, receive: &Receiver<Message>) -> Result<(), StoreError> {
        let mut looked_elsewhere = Instant::now();
        loop {
            while let Some(id) = self.ready.pop_first() {
                self.look_at(id)?;
            }
            self.dispatch()?;
            if !self.ready.is_empty() {
                continue;
            }
            let is_idle = self.room.is_idle() && self.hashing.is_empty();
            if is_idle && (self.elsewhere.is_empty() || self.halted) {
                return Ok(());
            }
            // Not between the end of a stage and the start of the next: now the next one runs.
            if std::mem::take(&mut self.links_due) {
                self.link();
            }
            let message = if self.elsewhere.is_empty() || self.halted {
                receive.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                receive.recv_timeout(POLL)
            };
            match message {
                Ok(message) => self.take(message)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            while let Ok(message) = receive.try_recv() {
                self.take(message)?;
            }
            if looked_elsewhere.elapsed() >= POLL {
                looked_elsewhere = Instant::now();
                // Whoever made it has committed or given up: both are seen by looking again.
                self.runnable.append(&mut self.elsewhere);
            }
        }
    }

    /// Points links at the results that came since the last time.
    fn link(&mut self) {
        for (id, location) in std::mem::take(&mut self.unlinked) {
            let graph = self.graph();
            self.links.refresh(graph.experiment_name(id), &graph.stage(id).name, &location);
        }
    }

    fn take(&mut self, message: Message) -> Result<(), StoreError> {
        match message {
            Message::Event(id, event) => self.watcher.event(self.graph(), id, &event),
            Message::Done { id, result, seconds } => {
                self.ours.remove(&id);
                let outcome = match result {
                    Ok(manifest) => Outcome::Ran(manifest),
                    Err(failure) => Outcome::Failed(failure),
                };
                self.finish(id, outcome, seconds);
            }
            Message::Free { share, ids, panic } => {
                self.links_due = true;
                self.room.give_back(&share);
                for id in ids {
                    // One that is done is no longer ours.
                    if self.ours.remove(&id).is_some() {
                        self.finish(id, Outcome::Failed(defect(panic.as_deref())), 0.0);
                    }
                    // A merge that nothing reads can go now that its lock is free.
                    self.drop_after(id);
                }
                self.drop_late();
                // The lock is free as well: those who waited for one of its keys are looked at at once.
                self.runnable.append(&mut self.elsewhere);
            }
            Message::Hashed(source, sighting) => {
                let waiting = self.hashing.remove(&source).unwrap_or_default();
                if self.report.interrupted {
                    // Hashing was told to stop, and nobody asks any more.
                    return Ok(());
                }
                self.facts.sources.insert(source, sighting?);
                let still: Vec<StageId> = self.hashing.values().flatten().copied().collect();
                self.ready.extend(waiting.into_iter().filter(|id| !still.contains(id)));
            }
            Message::Interrupt => {
                self.supervisor.stop();
                self.shop.surveyor.stop();
                if !self.report.interrupted {
                    self.watcher.note("interrupted: ending what runs (once more to end it at once)");
                }
                self.report.interrupted = true;
                self.halted = true;
            }
        }
        Ok(())
    }

    /// A stage whose needs all have results: is it up to date?
    fn look_at(&mut self, id: StageId) -> Result<(), StoreError> {
        // Something that it needs may have been opened again meanwhile.
        if self.halted || self.missing[id.0] > 0 {
            return Ok(());
        }
        let stage = self.graph().stage(id);
        let mut is_known = true;
        for (source, _) in plan::sources(stage) {
            if matches!(self.facts.sources.get(&source), Some(Sighting::Hashed(_) | Sighting::Missing(_))) {
                continue;
            }
            match self.shop.surveyor.glance(&source)? {
                Sighting::Unhashed => {
                    is_known = false;
                    self.hash(source, id);
                }
                sighting => {
                    self.facts.sources.insert(source, sighting);
                }
            }
        }
        if !is_known {
            return Ok(());
        }
        let key_struct = match plan::key_struct(stage, &self.facts) {
            Ok(key_struct) => key_struct,
            Err(open) => {
                let failure = refusal(in_words(self.graph(), stage, &open), &open);
                self.finish(id, Outcome::Failed(failure), 0.0);
                return Ok(());
            }
        };
        let key = key_struct.key();
        self.hold(id, key)?;
        if !self.options.force.contains(&id)
            && !self.again.contains_key(&id)
            && let Inspection::Hit(manifest) = self.shop.store.inspect(&key)?
        {
            if is_enough(stage, &manifest) {
                self.finish(id, Outcome::Hit(manifest), 0.0);
                return Ok(());
            }
            self.again.insert(id, manifest);
        }
        if self.make_again_for(id) {
            return Ok(());
        }
        let need = self.need_of_stage(id);
        self.needs.insert(id, need);
        self.runnable.insert(id, key_struct);
        Ok(())
    }

    /// Hashes a source on a thread of its own.
    fn hash(&mut self, source: Source, id: StageId) {
        let waiting = self.hashing.entry(source.clone()).or_default();
        waiting.push(id);
        if waiting.len() > 1 {
            return;
        }
        let (surveyor, send) = (self.shop.surveyor, self.send.clone());
        self.scope.spawn(move || {
            let sighting = without_panic(|| surveyor.look(&source))
                .unwrap_or_else(|panic| Ok(Sighting::Missing(defect(Some(&panic)).message)));
            let _ = send.send(Message::Hashed(source, sighting));
        });
    }

    pub(super) fn finish(&mut self, id: StageId, mut outcome: Outcome, seconds: f64) {
        let graph = self.graph();
        let mut is_other = false;
        if let Outcome::Hit(manifest) | Outcome::Ran(manifest) = &outcome {
            let world = (self.shop.context.project, self.shop.store, &self.facts);
            match artifact(graph, id, manifest, world) {
                Ok(result) => {
                    self.unlinked.push((id, result.location.clone()));
                    let digest = result.digest;
                    let before = self.facts.results.insert(id, Arc::new(result));
                    is_other = before.is_some_and(|before| before.digest != digest);
                }
                Err(error) => outcome = Outcome::Failed(error.into()),
            }
        }
        self.again.remove(&id);
        match &outcome {
            Outcome::Hit(_) | Outcome::Ran(_) => {
                for index in 0..self.dependents[id.0].len() {
                    self.need_is_met(self.dependents[id.0][index], is_other);
                }
            }
            Outcome::Failed(_) => self.halted |= !self.options.keep_going,
            Outcome::Blocked(_) => {}
        }
        if !matches!(outcome, Outcome::Hit(_)) {
            self.report.seconds.insert(id, seconds);
        }
        if let (Outcome::Ran(manifest), Spec::Merge(_)) = (&outcome, &graph.stage(id).spec) {
            let bytes = manifest.outputs.iter().map(|output| output.size).sum();
            self.disk = self.disk.saturating_sub(bytes);
        }
        let is_done = matches!(outcome, Outcome::Hit(_) | Outcome::Ran(_));
        self.watcher.finished(graph, id, &outcome, seconds);
        self.report.outcomes.insert(id, outcome);
        if is_done {
            self.drop_after(id);
        }
    }

    /// Says of every stage that was wanted and not reached why.
    fn close(&mut self) {
        for (id, stage) in self.graph().iter() {
            if !self.options.wanted[id.0] || self.report.outcomes.contains_key(&id) {
                continue;
            }
            let failed = |need: &&plan::Need| {
                matches!(self.report.outcomes.get(&need.stage), Some(Outcome::Failed(_) | Outcome::Blocked(_)))
            };
            let reason = match stage.needs.iter().find(failed) {
                Some(need) => format!("needs {}", self.graph().stage(need.stage).name),
                None if self.report.interrupted => "interrupted".to_owned(),
                None => "not started after a failure (see --keep-going)".to_owned(),
            };
            self.finish(id, Outcome::Blocked(reason), 0.0);
        }
    }
}

/// A stage that cannot even have a key.
fn refusal(message: String, open: &Open) -> Failure {
    match open {
        Open::NoTool(_) | Open::OldTool { .. } => Failure::stage(message).hint(WAY_OUT),
        _ => Failure::experiment(message),
    }
}
