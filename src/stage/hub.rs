//! Repositories on the hub, as stages read them: files that lie in the hub's own cache, fetched where they do not.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use mergelab_fetch::hub::{Hub, HubError, RemoteFile, RepoKind};
use mergelab_wire::Event;

use super::{Context, Failure};
use crate::plan::{Holds, Repository};

/// Files that are fetched side by side: one connection rarely fills a line, and many are an imposition.
const SIDE_BY_SIDE: usize = 4;

/// How often progress is reported, and how soon an interrupt is seen.
const TICK: Duration = Duration::from_millis(200);

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        if matches!(error, HubError::Stopped) {
            return Self::interrupted();
        }
        let failure =
            if error.is_of_the_file() { Self::experiment(error.to_string()) } else { Self::stage(error.to_string()) };
        Self { hint: error.hint(), ..failure }
    }
}

/// The kind of a repository, as the hub's client has it.
pub(super) fn kind(repository: &Repository) -> RepoKind {
    match repository.holds {
        Holds::Model => RepoKind::Model,
        Holds::Dataset => RepoKind::Dataset,
    }
}

/// The commit that a revision names.
pub(super) fn resolve(
    repository: &Repository,
    on_note: impl Fn(&str) + Send + Sync + 'static,
) -> Result<String, Failure> {
    let hub = Hub::from_environment()?.with_notes(on_note);
    Ok(hub.resolve(kind(repository), &repository.name, Some(&repository.revision))?)
}

/// Where the files of a commit lie, once they are fetched.
pub(super) fn snapshot(repository: &Repository, commit: &str) -> Option<PathBuf> {
    Some(quiet()?.snapshot(kind(repository), &repository.name, commit))
}

/// A client that is asked for nothing but what is in the cache.
pub(super) fn quiet() -> Option<&'static Hub> {
    static QUIET: LazyLock<Option<Hub>> = LazyLock::new(|| Hub::from_environment().ok());
    QUIET.as_ref()
}

/// One repository at one commit, for one stage.
pub(super) struct Remote<'a> {
    context: &'a Context<'a>,
    hub: Arc<Hub>,
    kind: RepoKind,
    name: String,
    commit: String,
    notes: mpsc::Receiver<String>,
}

impl<'a> Remote<'a> {
    /// Of a repository and its commit.
    pub(super) fn open(context: &'a Context<'a>, repository: &Repository, commit: &str) -> Result<Self, Failure> {
        let (send, notes) = mpsc::channel();
        let hub = Hub::from_environment()?.with_notes(move |note| {
            // Nobody listens any more only when the stage is over.
            let _ = send.send(note.to_owned());
        });
        let (name, commit) = (repository.name.clone(), commit.to_owned());
        Ok(Self { context, hub: Arc::new(hub), kind: kind(repository), name, commit, notes })
    }

    /// All files at the commit, sorted by path. Offline, where no list was kept, those that are in the cache.
    ///
    /// # Errors
    /// When the hub cannot be asked.
    pub(super) fn files(&self, on_event: &mut dyn FnMut(Event)) -> Result<Vec<RemoteFile>, Failure> {
        let (hub, kind, name, commit) = (self.hub.clone(), self.kind, self.name.clone(), self.commit.clone());
        let (send, done) = mpsc::channel();
        // On a thread that is left behind when the run is interrupted: a request may take a minute to give up.
        std::thread::spawn(move || send.send(hub.files(kind, &name, &commit)));
        loop {
            match done.recv_timeout(TICK) {
                Ok(files) => {
                    self.pass_notes(on_event);
                    return Ok(files?);
                }
                Err(RecvTimeoutError::Timeout) => self.wait(on_event)?,
                Err(RecvTimeoutError::Disconnected) => return Err(Failure::stage("the list of files got lost")),
            }
        }
    }

    /// Bytes of some files that are not in the cache yet.
    pub(super) fn missing(&self, files: &[RemoteFile]) -> u64 {
        files.iter().map(|file| self.hub.missing(self.kind, &self.name, file)).sum()
    }

    /// Paths of some files in the cache, in their order, after they were fetched and held against their digests. Progress is
    /// in bytes of all of them together, also of those that are only looked at.
    ///
    /// # Errors
    /// When there is no room for them (which is seen before anything is fetched), or one cannot be had.
    pub(super) fn fetch(&self, files: &[RemoteFile], on_event: &mut dyn FnMut(Event)) -> Result<Vec<PathBuf>, Failure> {
        self.check_room(self.missing(files))?;
        let total: u64 = files.iter().map(|file| file.size).sum();
        // The largest first: what is begun last is over soon.
        let mut order: Vec<usize> = (0..files.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(files[index].size));
        let todo = Arc::new(Todo {
            files: order.into_iter().map(|index| (index, files[index].clone())).collect(),
            next: AtomicUsize::new(0),
        });
        let (send, said) = mpsc::channel();
        for _ in 0..SIDE_BY_SIDE.min(files.len()) {
            let (hub, todo, send) = (self.hub.clone(), todo.clone(), send.clone());
            let (kind, name, commit) = (self.kind, self.name.clone(), self.commit.clone());
            std::thread::spawn(move || todo.work(&hub, (kind, &name, &commit), &send));
        }
        drop(send);
        let mut paths = vec![PathBuf::new(); files.len()];
        let (mut done, mut left) = (0, files.len());
        let mut told = Instant::now();
        while left > 0 {
            match said.recv_timeout(TICK) {
                Ok(Said::Bytes(bytes)) => done += bytes,
                Ok(Said::Fetched(index, Ok(path))) => {
                    paths[index] = path;
                    left -= 1;
                }
                Ok(Said::Fetched(_, Err(error))) => {
                    self.hub.stop();
                    self.pass_notes(on_event);
                    return Err(error.into());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Failure::stage("a file got lost")),
            }
            if left == 0 || told.elapsed() >= TICK {
                told = Instant::now();
                self.wait(on_event)?;
                // What came damaged comes twice.
                on_event(Event::Progress { done: done.min(total), total, unit: "bytes".to_owned() });
            }
        }
        Ok(paths)
    }

    /// What is done while somebody waits: notes are passed on, and an interrupt is seen.
    fn wait(&self, on_event: &mut dyn FnMut(Event)) -> Result<(), Failure> {
        self.pass_notes(on_event);
        if self.context.launcher.is_stopped() {
            self.hub.stop();
            return Err(Failure::interrupted());
        }
        Ok(())
    }

    fn pass_notes(&self, on_event: &mut dyn FnMut(Event)) {
        self.notes.try_iter().for_each(|message| on_event(Event::Note { message }));
    }

    fn check_room(&self, needed: u64) -> Result<(), Failure> {
        let cache = self.hub.cache();
        let place = cache.ancestors().find(|dir| dir.is_dir()).unwrap_or(cache);
        let Ok(disk) = rustix::fs::statvfs(place) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if needed <= free || self.hub.is_offline() {
            return Ok(());
        }
        let (what, cache) = (self.name.clone(), cache.to_path_buf());
        Err(HubError::NoRoom { what, needed, free, cache }.into())
    }
}

/// What is to be fetched by several threads.
struct Todo {
    files: Vec<(usize, RemoteFile)>,
    next: AtomicUsize,
}

enum Said {
    Bytes(u64),
    Fetched(usize, Result<PathBuf, HubError>),
}

impl Todo {
    fn work(&self, hub: &Hub, (kind, name, commit): (RepoKind, &str, &str), send: &Sender<Said>) {
        while let Some((index, file)) = self.files.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let fetched = hub.fetch(kind, name, commit, file, &mut |bytes| {
                let _ = send.send(Said::Bytes(bytes));
            });
            let is_over = fetched.is_err();
            if send.send(Said::Fetched(*index, fetched)).is_err() || is_over {
                return;
            }
        }
    }
}
