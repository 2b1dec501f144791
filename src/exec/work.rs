//! One dispatched piece of work, on a thread of its own: run, look at the inputs again, keep the result.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use mergelab_wire::Event;

use super::machine::{free_bytes, size};
use super::schedule::Message;
use super::survey::Surveyor;
use crate::artifact::Output;
use crate::plan::{Artifact, KeyStruct, Source, StageId};
use crate::project;
use crate::stage::{self, Context, Failure, Job, Product};
use crate::store::{Draft, Git, KeyLock, Manifest, Store, StoreError, Work, rfc3339_now};

/// What all work of a run shares.
pub(super) struct Shop<'a> {
    pub(super) context: Context<'a>,
    pub(super) store: &'a Store,
    pub(super) surveyor: &'a Surveyor<'a>,
    pub(super) git: OnceLock<Option<Git>>,
}

/// A stage on its way.
pub(super) struct Task {
    pub(super) id: StageId,
    pub(super) key_struct: KeyStruct,
    pub(super) lock: KeyLock,
    pub(super) inputs: HashMap<String, Arc<Artifact>>,
    /// Files outside the store on which the result rests.
    pub(super) sources: Vec<Source>,
    pub(super) files: Vec<Output>,
    /// Files in the hub's cache on which the result rests, as they were.
    pub(super) cached: Vec<(PathBuf, Output)>,
    /// The commit of the repository on the hub that it reads.
    pub(super) commit: Option<String>,
    /// The commit of the hub's conversion of that, where its rows are read from there.
    pub(super) conversion: Option<String>,
    /// GPUs that it was given.
    pub(super) gpus: Vec<String>,
    /// What its result was before files of it were dropped, where it is made again for them.
    pub(super) again: Option<Box<Manifest>>,
}

impl Shop<'_> {
    /// Runs tasks that share a program, or one by itself; every task gets exactly one [`Message::Done`].
    pub(super) fn run(&self, tasks: Vec<Task>, send: &Sender<Message>) {
        let is_batch = tasks.first().is_some_and(|task| stage::group_of(self.context.graph.stage(task.id)).is_some());
        if is_batch {
            self.run_batch(tasks, send);
            return;
        }
        for task in tasks {
            let started = Instant::now();
            let id = task.id;
            let result = self.run_one(&task, send);
            done(send, id, result, started);
        }
    }

    fn run_one(&self, task: &Task, send: &Sender<Message>) -> Result<Manifest, Failure> {
        let began = rfc3339_now();
        let work = self.begin(task)?;
        let job = self.job(task, &work);
        self.check_disk(&job)?;
        let id = task.id;
        let product = stage::run(&self.context, &job, &mut |event| forward(send, id, event))
            .map_err(|failure| self.blame_change(task, failure))?;
        let manifest = self.keep(task, &work, product, &began, &job.log)?;
        if let Some(earlier) = task.again.as_ref().filter(|earlier| earlier.digest != manifest.digest) {
            let message = format!(
                "made again on {}, it is not what it was on {}: what rests on it runs again (digest {}, was {})",
                place(manifest.device.as_deref(), &manifest.host),
                place(earlier.device.as_deref(), &earlier.host),
                manifest.digest,
                earlier.digest
            );
            forward(send, id, Event::Note { message });
        }
        Ok(manifest)
    }

    /// The first file outside the store that is no longer what the result rests on, if there is one.
    fn changed(&self, task: &Task) -> Result<Option<PathBuf>, StoreError> {
        if let Some(path) = self.surveyor.changed(&task.sources)? {
            return Ok(Some(path));
        }
        let changed = task.cached.iter().find(|(path, output)| !self.store.is_as_known(path, output));
        Ok(changed.map(|(path, _)| path.clone()))
    }

    /// A stage whose inputs changed under it failed for that reason, whatever it says itself.
    fn blame_change(&self, task: &Task, failure: Failure) -> Failure {
        match self.changed(task) {
            Ok(Some(path)) if !failure.interrupted => {
                let message = format!("{} changed while the stage ran: {}", path.display(), failure.message);
                Failure { message, hint: Some("run again".to_owned()), ..failure }
            }
            _ => failure,
        }
    }

    fn run_batch(&self, tasks: Vec<Task>, send: &Sender<Message>) {
        let mut began = rfc3339_now();
        let started = Instant::now();
        let mut works = Vec::new();
        let mut kept = Vec::new();
        for task in tasks {
            match self.begin(&task) {
                Ok(work) => {
                    works.push(work);
                    kept.push(task);
                }
                Err(failure) => done(send, task.id, Err(failure), started),
            }
        }
        let Some(first) = kept.first() else { return };
        let (log, first_id) = (self.store.log_path(first.lock.key()), first.id);
        let jobs: Vec<Job<'_>> = kept.iter().zip(&works).map(|(task, work)| self.job(task, work)).collect();
        let mut since = started;
        stage::run_batch(&self.context, &jobs, &mut |event| forward(send, first_id, event), &mut |index, result| {
            let (task, work) = (&kept[index], &works[index]);
            // One program prints into one log. Each of its stages has it under its own name, so that it is found there
            // and stays when another of them runs again.
            let own = self.store.log_path(task.lock.key());
            let log = if own == log || std::fs::hard_link(&log, &own).is_ok() { &own } else { &log };
            let result = result.and_then(|product| self.keep(task, work, product, &began, log));
            done(send, task.id, result, since);
            // The program goes from one to the next: what it does from here on is the next one's.
            (began, since) = (rfc3339_now(), Instant::now());
        });
    }

    fn begin(&self, task: &Task) -> Result<Work, Failure> {
        let log = self.store.log_path(task.lock.key());
        match std::fs::remove_file(&log) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::stage(format!("cannot replace {}: {error}", log.display())));
            }
            _ => {}
        }
        Ok(self.store.begin(&task.lock)?)
    }

    fn job<'a>(&'a self, task: &'a Task, work: &Work) -> Job<'a> {
        let key = *task.lock.key();
        Job {
            id: task.id,
            stage: self.context.graph.stage(task.id),
            key,
            inputs: task.inputs.clone(),
            files: task.files.clone(),
            commit: task.commit.clone(),
            conversion: task.conversion.clone(),
            out: work.out(),
            scratch: work.dir().to_path_buf(),
            partial: self.store.partial_dir(&key),
            log: self.store.log_path(&key),
            lock: task.lock.file(),
            gpus: task.gpus.clone(),
        }
    }

    /// Refuses a stage that is known to write more than there is room for.
    fn check_disk(&self, job: &Job<'_>) -> Result<(), Failure> {
        let needed = stage::bytes_written(job.stage, |role| job.inputs.get(role).map(|input| &**input));
        let free = free_bytes(self.store.root());
        if needed > free {
            let message = format!(
                "it writes about {}, and the disk that holds {} has {} free",
                size(needed),
                self.store.root().display(),
                size(free)
            );
            return Err(Failure::stage(message).hint("free some space, or set `[store] path` in mergelab.toml"));
        }
        Ok(())
    }

    /// Keeps a result; the lock stays held.
    fn keep(
        &self,
        task: &Task,
        work: &Work,
        mut product: Product,
        began: &str,
        log: &std::path::Path,
    ) -> Result<Manifest, Failure> {
        if let Some(path) = self.changed(task)? {
            return Err(Failure::stage(format!("{} changed while the stage ran", path.display()))
                .hint("run again: nothing was kept of what was made from a mixture"));
        }
        let stage = self.context.graph.stage(task.id);
        let kind = stage.spec.kind();
        let mut versions = BTreeMap::from([("mergelab".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
        versions.extend(task.key_struct.tools.clone());
        let text = |value: serde_json::Value| value.as_str().map(str::to_owned);
        let device = product.facts.remove("device").and_then(text);
        // On one device the same stage gives the same bytes.
        let is_same_place = |earlier: &Manifest| earlier.host == self.store.host() && earlier.device == device;
        let earlier = task.again.as_deref().filter(|earlier| is_same_place(earlier));
        let draft = Draft {
            experiment: self.context.graph.experiment_name(task.id).to_owned(),
            stage: stage.name.clone(),
            key_struct: task.key_struct.to_value(),
            started: began.to_owned(),
            git: self.git.get_or_init(|| project::git::state(&self.context.project.root)).clone(),
            versions,
            expected: earlier.map(|earlier| earlier.digest),
            device,
            peak_memory: product.facts.remove("peak_memory").and_then(|value| value.as_u64()),
            log: product
                .logged
                .then(|| log.strip_prefix(self.store.root()).unwrap_or(log).to_string_lossy().into_owned()),
            facts: product.facts,
            hashed: product.hashed,
            aside: stage::aside(kind),
            roles: stage::roles(kind),
        };
        let manifest = self.store.commit(&task.lock, work, draft, product.external)?;
        for (path, output) in &product.seen {
            self.store.learn(path, output);
        }
        let partial = self.store.partial_dir(task.lock.key());
        if partial.exists() {
            // Only space is lost if this fails.
            let _ = std::fs::remove_dir_all(&partial);
        }
        Ok(manifest)
    }
}

/// A device of a machine, in words.
fn place(device: Option<&str>, host: &str) -> String {
    device.map_or_else(|| host.to_owned(), |device| format!("{device} of {host}"))
}

fn forward(send: &Sender<Message>, id: StageId, event: Event) {
    // Nobody listens any more only when the run is over.
    let _ = send.send(Message::Event(id, event));
}

fn done(send: &Sender<Message>, id: StageId, result: Result<Manifest, Failure>, started: Instant) {
    let result = result.map(Box::new);
    let _ = send.send(Message::Done { id, result, seconds: started.elapsed().as_secs_f64() });
}
