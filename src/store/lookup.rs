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
    /// [`StoreError::LaterManifest`]; when the manifest cannot be read, or a file changes while it is.
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
    /// As [`Self::inspect`], and when damaged files cannot be moved.
    pub fn lookup(&self, key: &Key) -> Result<Lookup, StoreError> {
        if let Inspection::Hit(manifest) = self.inspect(key)? {
            return Ok(Lookup::Hit(manifest));
        }
        let Some(lock) = self.try_lock(key)? else { return Ok(Lookup::Busy) };
        match self.inspect(key)? {
            Inspection::Hit(manifest) => Ok(Lookup::Hit(manifest)),
            Inspection::Absent => Ok(Lookup::Miss { lock, damage: None }),
            Inspection::Damaged { path, reason, digest } => {
                let manifest = self.manifest_path(key);
                match digest {
                    // The manifest is sound, but what it promises is gone from its place.
                    Some(digest) => {
                        self.quarantine(&digest)?;
                        std::fs::remove_file(&manifest).context("remove", &manifest)?;
                    }
                    None => self.move_to_quarantine(&manifest, &format!("{key}.json"))?,
                }
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
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Some(GONE)),
            Err(error) if is_unreadable(&error) => return Ok(Some(UNREADABLE)),
            Err(error) => return Err(error).context("read", &path),
        };
        let stamp = Stamp::of(&metadata);
        if stamp.size() != output.size {
            return Ok(Some("has another size than its manifest says"));
        }
        let digest = match self.stats.known(&stamp) {
            Some(digest) => digest,
            None => match self.stats.digest(&path) {
                Ok(watch) => *watch.digest(),
                Err(StoreError::Io { source, .. }) if is_unreadable(&source) => return Ok(Some(UNREADABLE)),
                Err(error) => return Err(error),
            },
        };
        Ok((digest != output.sha256).then_some("does not match its digest"))
    }

    /// Moves an object out of the way; whoever refers to it will find that it is gone.
    pub(super) fn quarantine(&self, digest: &Digest) -> Result<(), StoreError> {
        self.move_to_quarantine(&self.object_dir(digest), &digest.to_string())
    }

    fn move_to_quarantine(&self, path: &Path, name: &str) -> Result<(), StoreError> {
        let quarantine = self.root.join("quarantine");
        let moved = (0..10_000).map(|n| quarantine.join(format!("{name}.{n}"))).find(|path| !path.exists());
        let moved = moved.unwrap_or_else(|| quarantine.join(name));
        match std::fs::rename(path, &moved) {
            Ok(()) => sync_dir(&quarantine),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).context("move to quarantine", path),
        }
    }
}

pub(super) const GONE: &str = "is gone";
const UNREADABLE: &str = "cannot be read";

/// Whether an error is the file's, which will be there the next time too, and not a shortage of the machine's.
fn is_unreadable(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let is_errno = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    error.kind() == std::io::ErrorKind::PermissionDenied
        || [Errno::IO, Errno::BADMSG, Errno::UCLEAN].into_iter().any(is_errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_disk_is_damage_and_a_busy_machine_is_not() {
        use rustix::io::Errno;
        let is_damage = |errno: Errno| is_unreadable(&std::io::Error::from_raw_os_error(errno.raw_os_error()));
        assert!([Errno::IO, Errno::ACCESS, Errno::UCLEAN].into_iter().all(is_damage));
        assert!(![Errno::MFILE, Errno::NOMEM, Errno::INTR].into_iter().any(is_damage));
    }
}
