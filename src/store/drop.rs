//! Files that are deleted on purpose, because they can be made again: the manifest stays and says so.
//!
//! The manifest is written before a file is deleted, so that at no instant a file is promised that is not there. A kill in
//! between leaves files that nobody asks for ([`Store::has_leftovers`]), which go when they are dropped once more.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::error::IoContext;
use super::{Manifest, Store, StoreError, manifest, sync_dir};
use crate::digest::Key;

/// Somebody reads the files of an artifact: they are not dropped as long as this is held, by whatever process.
#[derive(Debug)]
pub struct Use {
    _file: File,
}

impl Store {
    /// Keeps the files of an artifact from being dropped. Those that are there after this stay.
    ///
    /// # Errors
    /// When the lock file cannot be opened or locked.
    pub fn hold(&self, key: &Key) -> Result<Use, StoreError> {
        let (path, file) = self.lock_file(&format!("{key}.use"))?;
        file.lock_shared().context("lock", &path)?;
        Ok(Use { _file: file })
    }

    /// Drops the files of an artifact whose paths `choose` picks, and gives its new manifest; `None` where somebody uses
    /// or makes it at this moment, or there is none. A file that another artifact of the same digest promises is not
    /// deleted, only no longer promised by this one.
    ///
    /// # Errors
    /// When the manifest cannot be read or written, or a file cannot be deleted.
    pub fn drop_files(&self, key: &Key, choose: &dyn Fn(&str) -> bool) -> Result<Option<Manifest>, StoreError> {
        let Some(lock) = self.try_lock(key)? else { return Ok(None) };
        let (path, file) = self.lock_file(&format!("{key}.use"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error).context("lock", &path),
        }
        let (path, objects) = self.lock_file("objects")?;
        objects.lock().context("lock", &path)?;
        let mut manifest = match manifest::read(&self.manifest_path(key)) {
            Ok(manifest) if !manifest.external => manifest,
            Ok(_) => return Ok(None),
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut changed = false;
        for output in manifest.outputs.iter_mut().filter(|output| choose(&output.path)) {
            changed |= !std::mem::replace(&mut output.dropped, true);
        }
        if changed {
            let work = self.begin(&lock)?;
            self.write_manifest(&manifest, work.dir())?;
        }
        self.delete_dropped(&manifest)?;
        Ok(Some(manifest))
    }

    /// Whether files that were dropped from an artifact are there all the same.
    pub fn has_leftovers(&self, manifest: &Manifest) -> bool {
        let object = self.object_dir(&manifest.digest);
        manifest.outputs.iter().any(|output| output.dropped && object.join(&output.path).exists())
    }

    /// Deletes the files that an artifact no longer promises, but for those that another one does.
    fn delete_dropped(&self, manifest: &Manifest) -> Result<(), StoreError> {
        if !self.has_leftovers(manifest) {
            return Ok(());
        }
        let twins: Vec<Manifest> =
            self.manifests()?.into_iter().filter(|other| other.digest == manifest.digest && !other.external).collect();
        let is_promised =
            |path: &str| twins.iter().flat_map(|twin| &twin.outputs).any(|file| file.path == path && !file.dropped);
        let object = self.object_dir(&manifest.digest);
        for output in manifest.outputs.iter().filter(|output| output.dropped && !is_promised(&output.path)) {
            let path = object.join(&output.path);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).context("delete", &path);
                }
                _ => sync_dir(path.parent().unwrap_or(Path::new(".")))?,
            }
        }
        Ok(())
    }

    /// Keeps files from being deleted from objects until a manifest promises them.
    pub(super) fn hold_objects(&self) -> Result<File, StoreError> {
        let (path, file) = self.lock_file("objects")?;
        file.lock_shared().context("lock", &path)?;
        Ok(file)
    }
}
