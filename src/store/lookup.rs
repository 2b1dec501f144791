//! Is the result of a key here, and if not, who may make it?

use std::path::{Path, PathBuf};

use super::error::IoContext;
use super::manifest::{self, Manifest};
use super::{KeyLock, Stamp, Store, StoreError, sync_dir};
use crate::artifact::Output;
use crate::digest::{Digest, Key};

/// What looking at a key shows, without touching anything.
#[derive(Debug)]
pub enum Inspection {
    /// The artifact is complete and whole.
    Hit(Box<Manifest>),
    /// There is no manifest.
    Absent,
    /// There is a manifest, but not everything that it promises.
    Damaged {
        /// The file at fault.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
        /// Digest of the object, if the manifest could be read.
        digest: Option<Digest>,
    },
}

/// What looking up a key gives to somebody who would make it.
#[derive(Debug)]
pub enum Lookup {
    /// Nothing to do.
    Hit(Box<Manifest>),
    /// To be made by the holder of this lock. `damage` says what was found and moved away, if anything was.
    Miss {
        /// The right to make it.
        lock: KeyLock,
        /// Damage that was found.
        damage: Option<String>,
    },
    /// Somebody else is making it.
    Busy,
}

impl Store {
    /// Looks at a key without changing anything but the cache of digests.
    ///
    /// # Errors
    /// When a file that should be re-hashed cannot be read.
    pub fn inspect(&self, key: &Key) -> Result<Inspection, StoreError> {
        let path = self.manifest_path(key);
        let manifest = match manifest::read(&path) {
            Ok(manifest) => manifest,
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Inspection::Absent);
            }
            Err(StoreError::Manifest { path, .. }) => {
                return Ok(Inspection::Damaged { path, reason: "is not a manifest", digest: None });
            }
            Err(error) => return Err(error),
        };
        if !manifest.external {
            let dir = self.object_dir(&manifest.digest);
            for output in manifest.outputs.iter().filter(|output| !output.dropped) {
                if let Some(reason) = self.damage(&dir, output)? {
                    let digest = Some(manifest.digest);
                    return Ok(Inspection::Damaged { path: dir.join(&output.path), reason, digest });
                }
            }
        }
        Ok(Inspection::Hit(Box::new(manifest)))
    }

    /// Looks up a key; on a miss, takes its lock, looks again, and moves damaged files out of the way.
    ///
    /// # Errors
    /// When the store cannot be read or damaged files cannot be moved.
    pub fn lookup(&self, key: &Key) -> Result<Lookup, StoreError> {
        if let Inspection::Hit(manifest) = self.inspect(key)? {
            return Ok(Lookup::Hit(manifest));
        }
        let Some(lock) = self.try_lock(key)? else { return Ok(Lookup::Busy) };
        match self.inspect(key)? {
            Inspection::Hit(manifest) => Ok(Lookup::Hit(manifest)),
            Inspection::Absent => Ok(Lookup::Miss { lock, damage: None }),
            Inspection::Damaged { path, reason, digest } => {
                if let Some(digest) = digest {
                    self.quarantine(&digest)?;
                }
                let manifest = self.manifest_path(key);
                std::fs::remove_file(&manifest).context("remove", &manifest)?;
                Ok(Lookup::Miss { lock, damage: Some(format!("{} {reason}", path.display())) })
            }
        }
    }

    /// What is wrong with one file of an object, if anything.
    pub(super) fn damage(&self, dir: &Path, output: &Output) -> Result<Option<&'static str>, StoreError> {
        let path = dir.join(&output.path);
        let metadata = match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(_) => return Ok(Some("is no longer a regular file")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Some("is gone")),
            Err(error) => return Err(error).context("read", &path),
        };
        let stamp = Stamp::of(&metadata);
        if stamp.size() != output.size {
            return Ok(Some("has another size than its manifest says"));
        }
        let digest = match self.stats.known(&stamp) {
            Some(digest) => digest,
            None => *self.stats.digest(&path)?.digest(),
        };
        Ok((digest != output.sha256).then_some("does not match its digest"))
    }

    /// Moves an object out of the way; whoever refers to it will find that it is gone.
    pub(super) fn quarantine(&self, digest: &Digest) -> Result<(), StoreError> {
        let object = self.object_dir(digest);
        let quarantine = self.root.join("quarantine");
        let moved = (0..10_000).map(|n| quarantine.join(format!("{digest}.{n}"))).find(|path| !path.exists());
        let moved = moved.unwrap_or_else(|| quarantine.join(digest.to_string()));
        match std::fs::rename(&object, &moved) {
            Ok(()) => sync_dir(&quarantine),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).context("move to quarantine", &object),
        }
    }
}
