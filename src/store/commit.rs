//! From work in progress to an artifact: at every instant the store holds the old state or the new one.
//!
//! The order is what makes it so: files are flushed before their directory is renamed into `objects/`, and that rename
//! is flushed before the manifest that promises them appears under `keys/`.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::IoContext;
use super::lookup::GONE;
use super::manifest::{self, Git, Manifest};
use super::tree::{list_files, parallel};
use super::{KeyLock, Stamp, Store, StoreError, sync_dir};
use crate::artifact::{Output, artifact_digest};
use crate::digest::Digest;

/// Work in progress on one key; what is left of it is removed when it is dropped.
#[derive(Debug)]
pub struct Work {
    dir: PathBuf,
}

impl Work {
    /// Empty directory whose files become the artifact.
    pub fn out(&self) -> PathBuf {
        self.dir.join("out")
    }

    /// Directory for whatever else the work needs: job files, events.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next holder of the lock.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Everything about an artifact that is not in its files.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Experiment that makes it.
    pub experiment: String,
    /// Stage that makes it.
    pub stage: String,
    /// What decided the result.
    pub key_struct: serde_json::Value,
    /// When the work started, RFC 3339.
    pub started: String,
    /// State of the project's repository.
    pub git: Option<Git>,
    /// Programs and libraries.
    pub versions: BTreeMap<String, String>,
    /// Device.
    pub device: Option<String>,
    /// Bytes.
    pub peak_memory: Option<u64>,
    /// Log, relative to the store.
    pub log: Option<String>,
    /// Further figures.
    pub facts: serde_json::Map<String, serde_json::Value>,
    /// What the digest must be, for what is made again.
    pub expected: Option<Digest>,
    /// Files that our own program hashed while it wrote them and flushed since, by path: size and digest.
    pub hashed: HashMap<String, (u64, Digest)>,
    /// Files outside the digest.
    pub aside: &'static [&'static str],
    /// Digests of parts, from the files.
    pub roles: fn(&[Output]) -> BTreeMap<String, Digest>,
}

impl Store {
    /// Starts work on a key.
    ///
    /// # Errors
    /// [`StoreError::LaterManifest`] where the result would replace one; when the directory cannot be made.
    pub fn begin(&self, lock: &KeyLock) -> Result<Work, StoreError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        if let Err(error @ StoreError::LaterManifest { .. }) = manifest::read(&self.manifest_path(lock.key())) {
            return Err(error);
        }
        let (pid, count) = (std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let dir = self.root.join("tmp").join(format!("{}.{}.{pid}.{count}", lock.key(), self.host));
        let work = Work { dir };
        std::fs::create_dir_all(work.out()).context("create", &work.dir)?;
        Ok(work)
    }

    /// Keeps the files of finished work under the key of the lock. Files given as `external` are somebody else's and
    /// stay where they are: only a manifest is written, with what they are.
    ///
    /// # Errors
    /// When files cannot be read, flushed or moved, there are none, or their digest is not the expected one; the store is
    /// then as it was.
    pub fn commit(
        &self,
        lock: &KeyLock,
        work: &Work,
        draft: Draft,
        external: Option<Vec<Output>>,
    ) -> Result<Manifest, StoreError> {
        let is_external = external.is_some();
        // From here to the manifest nobody takes files away that it is going to promise.
        let mut objects = None;
        let outputs = match external {
            Some(outputs) => outputs,
            None => {
                let sealed = seal_all(&work.out(), draft.aside, &draft.hashed)?;
                let digest = artifact_digest(&sealed.outputs);
                if let Some(expected) = draft.expected.filter(|expected| *expected != digest) {
                    return Err(StoreError::Differs { expected, found: digest });
                }
                objects = Some(self.hold_objects()?);
                self.keep(&work.out(), sealed)?
            }
        };
        let manifest = Manifest {
            format: manifest::FORMAT,
            experiment: draft.experiment,
            stage: draft.stage,
            key: *lock.key(),
            key_struct: draft.key_struct,
            roles: (draft.roles)(&outputs),
            digest: artifact_digest(&outputs),
            outputs,
            external: is_external,
            started: draft.started,
            ended: rfc3339_now(),
            host: self.host.clone(),
            git: draft.git,
            versions: draft.versions,
            device: draft.device,
            peak_memory: draft.peak_memory,
            log: draft.log,
            facts: draft.facts,
        };
        self.write_manifest(&manifest, &work.dir)?;
        drop(objects);
        Ok(manifest)
    }

    /// Moves the sealed files of a directory into `objects/`.
    fn keep(&self, out: &Path, Sealed { mut outputs, kept }: Sealed) -> Result<Vec<Output>, StoreError> {
        let digest = artifact_digest(&outputs);
        let object = self.object_dir(&digest);
        let shard = object.parent().expect("an object lies in a shard");
        make_shard(shard)?;
        if object.exists() && !self.complete(out, &object, &outputs)? {
            self.quarantine(&digest)?;
        }
        match std::fs::rename(out, &object) {
            Ok(()) => {
                for (digest, stamp) in &kept {
                    self.stats.learn(*stamp, *digest);
                }
            }
            // Somebody made the same: ours is dropped with the work, and the files set aside are theirs.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::DirectoryNotEmpty | std::io::ErrorKind::AlreadyExists
                ) =>
            {
                outputs.retain(|output| !output.aside || object.join(&output.path).is_file());
                for output in outputs.iter_mut().filter(|output| output.aside) {
                    let theirs = self.stats.digest(&object.join(&output.path))?;
                    (output.sha256, output.size) = (*theirs.digest(), theirs.size());
                }
            }
            Err(error) => return Err(error).context("move into the store", &object),
        }
        sync_dir(shard)?;
        Ok(outputs)
    }

    /// Whether an object that is there holds the same files. Those that it lacks, which were dropped from it or are lost,
    /// are moved into it.
    fn complete(&self, out: &Path, object: &Path, outputs: &[Output]) -> Result<bool, StoreError> {
        let mut lacking = Vec::new();
        for output in outputs.iter().filter(|output| !output.aside) {
            match self.damage(object, output)? {
                None => {}
                Some(GONE) => lacking.push(output),
                Some(_) => return Ok(false),
            }
        }
        for output in &lacking {
            let place = object.join(&output.path);
            let folder = place.parent().expect("a file of an object lies in it");
            std::fs::create_dir_all(folder).context("create", folder)?;
            std::fs::rename(out.join(&output.path), &place).context("move into the store", &place)?;
            let metadata = std::fs::metadata(&place).context("read", &place)?;
            self.stats.learn(Stamp::of(&metadata), output.sha256);
        }
        if !lacking.is_empty() {
            sync_tree(object)?;
        }
        Ok(true)
    }

    pub(super) fn write_manifest(&self, manifest: &Manifest, scratch: &Path) -> Result<(), StoreError> {
        let path = self.manifest_path(&manifest.key);
        let shard = path.parent().expect("a manifest lies in a shard");
        make_shard(shard)?;
        let draft = scratch.join("manifest.json");
        let mut text = serde_json::to_vec(manifest).expect("a manifest becomes JSON");
        text.push(b'\n');
        std::fs::write(&draft, text).context("write", &draft)?;
        std::fs::File::open(&draft).and_then(|file| file.sync_all()).context("sync", &draft)?;
        std::fs::rename(&draft, &path).context("move into the store", &path)?;
        sync_dir(shard)
    }
}

/// Makes a two-digit directory of `objects/` or `keys/`, and sees to it that a power cut does not unmake it. One that is
/// empty counts as new: whoever made it may have been killed before it was flushed.
fn make_shard(shard: &Path) -> Result<(), StoreError> {
    if std::fs::read_dir(shard).is_ok_and(|mut entries| entries.next().is_some()) {
        return Ok(());
    }
    std::fs::create_dir_all(shard).context("create", shard)?;
    sync_dir(shard.parent().expect("a shard lies in a directory"))
}

/// Files that are flushed and hashed.
struct Sealed {
    outputs: Vec<Output>,
    /// What is learnt about them when they are in their place.
    kept: Vec<(Digest, Stamp)>,
}

/// Flushes and hashes the files of a directory, but for those that were hashed before.
fn seal_all(out: &Path, aside: &[&str], hashed: &HashMap<String, (u64, Digest)>) -> Result<Sealed, StoreError> {
    let names = list_files(out, false)?;
    if names.is_empty() {
        return Err(StoreError::Empty { path: out.to_path_buf() });
    }
    let paths: Vec<PathBuf> = names.iter().map(|name| out.join(name)).collect();
    let kept = parallel(&paths, |path| {
        let name = path.strip_prefix(out).unwrap_or(path).to_string_lossy();
        seal(path, hashed.get(&*name).copied())
    })?;
    let outputs = names
        .into_iter()
        .zip(&kept)
        .map(|(path, (digest, stamp))| {
            let aside = aside.contains(&path.as_str());
            Output { path, size: stamp.size(), sha256: *digest, aside, dropped: false }
        })
        .collect();
    sync_tree(out)?;
    Ok(Sealed { outputs, kept })
}

/// Makes one file of the artifact read-only, flushes and hashes it. A digest that was taken while the file was written is
/// taken over if it is of a file of this size: nobody else knows the directory, and `verify` reads every byte again.
fn seal(path: &Path, hashed: Option<(u64, Digest)>) -> Result<(Digest, Stamp), StoreError> {
    let file = std::fs::File::open(path).context("read", path)?;
    let mut permissions = file.metadata().context("read", path)?.permissions();
    permissions.set_mode(0o444 | (permissions.mode() & 0o111));
    file.set_permissions(permissions).context("set the mode of", path)?;
    file.sync_all().context("sync", path)?;
    let stamp = Stamp::of(&file.metadata().context("read", path)?);
    let digest = match hashed {
        Some((size, digest)) if size == stamp.size() => digest,
        _ => Digest::of_file(path).context("read", path)?.0,
    };
    Ok((digest, stamp))
}

fn sync_tree(dir: &Path) -> Result<(), StoreError> {
    for entry in std::fs::read_dir(dir).context("list", dir)? {
        let entry = entry.context("list", dir)?;
        if entry.file_type().context("read", dir)?.is_dir() {
            sync_tree(&entry.path())?;
        }
    }
    sync_dir(dir)
}

/// The time in RFC 3339, UTC, to the millisecond.
pub fn rfc3339_now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}
