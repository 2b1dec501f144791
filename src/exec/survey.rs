//! Looking at what lies outside the store: from what stat says where it can be known so, by hashing where it must.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::artifact::{Output, is_of_tokenizer};
use crate::digest::Digest;
use crate::plan::{self, Facts, HUB, Sighting, Source, Stage};
use crate::project::{Project, Python};
use crate::stage::{Definition, TaskFiles};
use crate::store::{Stamp, Store, StoreError, Watch, hash_tree, list_files};

/// Up to how many bytes are hashed in passing, where nobody asked for work to be done.
const IN_PASSING: u64 = 32 << 20;

/// Looks at sources, and remembers what it saw so that it can be looked at again before a result is kept.
#[derive(Debug)]
pub struct Surveyor<'a> {
    project: &'a Project,
    python: Option<&'a Python>,
    store: &'a Store,
    tasks: TaskFiles,
    seen: Mutex<HashMap<Source, Arc<Seen>>>,
    stopped: AtomicBool,
}

/// What was seen of a source.
#[derive(Debug)]
struct Seen {
    watches: Vec<Watch>,
    /// Of a directory: where it is, and the names of its files, sorted.
    listed: Option<(PathBuf, Vec<String>)>,
}

impl<'a> Surveyor<'a> {
    /// Of a project with its store.
    pub fn new(project: &'a Project, python: Option<&'a Python>, store: &'a Store) -> Self {
        Self {
            project,
            python,
            store,
            tasks: TaskFiles::cached_in(store.root().join("cache")),
            seen: Mutex::default(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Makes an end of hashing: whatever is being looked at fails soon.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Looks at a source; a big one that was not hashed before stays [`Sighting::Unhashed`].
    ///
    /// # Errors
    /// As [`Self::look`].
    pub fn glance(&self, source: &Source) -> Result<Sighting, StoreError> {
        match self.unknown_bytes(source) {
            Ok(bytes) if bytes > IN_PASSING => Ok(Sighting::Unhashed),
            Ok(_) => self.look(source),
            Err(error) => self.unusable(error),
        }
    }

    /// Glances at those sources of a stage that were not looked at before.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub fn glance_all(&self, stage: &Stage, facts: &mut Facts) -> Result<(), StoreError> {
        for (source, _) in plan::sources(stage) {
            if let Entry::Vacant(entry) = facts.sources.entry(source) {
                let sighting = self.glance(entry.key())?;
                entry.insert(sighting);
            }
        }
        Ok(())
    }

    /// Looks at a source and hashes what is not known of it. One that cannot be read is [`Sighting::Missing`]: it is the
    /// experiment that names it, and what does not rest on it goes on.
    ///
    /// # Errors
    /// When told to stop, or the store itself fails.
    pub fn look(&self, source: &Source) -> Result<Sighting, StoreError> {
        self.read(source).or_else(|error| self.unusable(error))
    }

    fn unusable(&self, error: StoreError) -> Result<Sighting, StoreError> {
        match error {
            StoreError::Io { .. } | StoreError::Unstorable { .. } if !self.stopped.load(Ordering::Relaxed) => {
                Ok(Sighting::Missing(error.to_string()))
            }
            error => Err(error),
        }
    }

    fn read(&self, source: &Source) -> Result<Sighting, StoreError> {
        let mut dir = None;
        let go_on = || !self.stopped.load(Ordering::Relaxed);
        let (outputs, watches) = match source {
            Source::File(path) | Source::Any(path) | Source::Tree(path) => {
                let full = self.project.resolve(path);
                let shown = path.display();
                match (std::fs::metadata(&full), source) {
                    (Err(error), _) if error.kind() == std::io::ErrorKind::NotFound => {
                        return Ok(Sighting::Missing(format!("{shown}: no such file or directory")));
                    }
                    (Err(error), _) => return Ok(Sighting::Missing(format!("{shown}: {error}"))),
                    (Ok(metadata), Source::Tree(_)) if !metadata.is_dir() => {
                        return Ok(Sighting::Missing(format!("{shown} is a file, where a directory is needed")));
                    }
                    (Ok(metadata), Source::File(_)) if metadata.is_dir() => {
                        return Ok(Sighting::Missing(format!("{shown} is a directory, where a file is needed")));
                    }
                    (Ok(metadata), _) if metadata.is_dir() => {
                        let pairs = hash_tree(&full, self.store.stats(), &go_on)?;
                        dir = Some(full);
                        pairs
                    }
                    (Ok(_), _) => {
                        let name = full.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                        let watch = self.store.stats().digest_while(&full, &go_on)?;
                        (vec![output(name, &watch)], vec![watch])
                    }
                }
            }
            Source::Script(path) => {
                let full = self.project.resolve(path);
                if full.is_file() {
                    let name = full.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                    let watch = self.store.stats().digest_while(&full, &go_on)?;
                    (vec![output(name, &watch)], vec![watch])
                } else {
                    (Vec::new(), Vec::new())
                }
            }
            Source::Tokenizer(path) => {
                let full = self.project.resolve(path);
                let mut pairs = Vec::new();
                for name in tokenizer_files(&full)? {
                    let watch = self.store.stats().digest_while(&full.join(&name), &go_on)?;
                    pairs.push((output(name, &watch), watch));
                }
                pairs.into_iter().unzip()
            }
            Source::Task { dirs, task } => {
                let missing = dirs.iter().find(|dir| !self.project.resolve(dir).is_dir());
                if let Some(dir) = missing {
                    return Ok(Sighting::Missing(format!("{}: no such directory of tasks", dir.display())));
                }
                match self.tasks.find(&self.project.root, dirs, self.python, task) {
                    Err(error) => return Ok(Sighting::Missing(error.to_string())),
                    Ok(Definition { files, revisions }) => {
                        let (mut outputs, mut watches) = (Vec::new(), Vec::new());
                        for (name, path) in files {
                            let watch = self.store.stats().digest(&path)?;
                            outputs.push(output(name, &watch));
                            watches.push(watch);
                        }
                        outputs.extend(revisions.into_iter().map(|(name, commit)| Output {
                            path: format!("{HUB}{name}"),
                            size: 0,
                            sha256: Digest::of(commit.as_bytes()),
                            aside: false,
                            dropped: false,
                        }));
                        (outputs, watches)
                    }
                }
            }
        };
        let listed = dir.map(|dir| (dir, outputs.iter().map(|file| file.path.clone()).collect()));
        let seen = Arc::new(Seen { watches, listed });
        self.seen.lock().expect("no holder of this lock panics").insert(source.clone(), seen);
        Ok(Sighting::Hashed(outputs))
    }

    /// The first file of some sources that no longer holds what was hashed, or that came or went, if there is one.
    ///
    /// # Errors
    /// When a file cannot be read again, or a directory listed.
    pub fn changed(&self, sources: &[Source]) -> Result<Option<PathBuf>, StoreError> {
        for source in sources {
            let Some(seen) = self.seen.lock().expect("no holder of this lock panics").get(source).cloned() else {
                continue;
            };
            for watch in &seen.watches {
                if !watch.holds()? {
                    return Ok(Some(watch.path().to_path_buf()));
                }
            }
            if let Some((dir, names)) = &seen.listed {
                let now = list_files(dir, true)?;
                let differs = |name: &&String| names.binary_search(name).is_ok() != now.binary_search(name).is_ok();
                if let Some(name) = now.iter().chain(names).find(differs) {
                    return Ok(Some(dir.join(name)));
                }
            }
        }
        Ok(None)
    }

    fn unknown_bytes(&self, source: &Source) -> Result<u64, StoreError> {
        let bytes = |path: &Path| match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => {
                let stamp = Stamp::of(&metadata);
                if self.store.stats().known(&stamp).is_some() { 0 } else { stamp.size() }
            }
            _ => 0,
        };
        Ok(match source {
            Source::Task { .. } | Source::Tokenizer(_) => 0,
            Source::Script(path) => bytes(&self.project.resolve(path)),
            Source::File(path) | Source::Any(path) | Source::Tree(path) => {
                let full = self.project.resolve(path);
                if full.is_dir() {
                    list_files(&full, true)?.iter().map(|name| bytes(&full.join(name))).sum()
                } else {
                    bytes(&full)
                }
            }
        })
    }
}

/// The files of a directory that a tokenizer is made of; none where it is no directory, but a name on the hub.
fn tokenizer_files(dir: &Path) -> Result<Vec<String>, StoreError> {
    let mut files = if dir.is_dir() { list_files(dir, true)? } else { Vec::new() };
    files.retain(|name| is_of_tokenizer(name));
    Ok(files)
}

fn output(path: String, watch: &Watch) -> Output {
    Output { path, size: watch.size(), sha256: *watch.digest(), aside: false, dropped: false }
}
