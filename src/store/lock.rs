//! Advisory locks: one file a key, held by the process that makes the artifact and by the programs it starts.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use super::error::IoContext;
use super::{Store, StoreError};
use crate::digest::Key;

/// The right to write one key; given back when dropped, unless a child still holds the descriptor.
#[derive(Debug)]
pub struct KeyLock {
    key: Key,
    file: File,
}

impl KeyLock {
    /// The key it guards.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The locked file: a child that inherits a duplicate of it keeps the lock until it ends.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Store {
    /// Opens a file of `locks/`.
    pub(super) fn lock_file(&self, name: &str) -> Result<(PathBuf, File), StoreError> {
        let path = self.root.join("locks").join(name);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).context("open", &path)?;
        Ok((path, file))
    }

    /// Takes the lock of a key, or says that somebody else has it.
    ///
    /// What an earlier, dead holder left in `tmp/` is removed.
    ///
    /// # Errors
    /// When the lock file cannot be opened.
    pub fn try_lock(&self, key: &Key) -> Result<Option<KeyLock>, StoreError> {
        let (path, file) = self.lock_file(&key.to_string())?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error).context("lock", &path),
        }
        let lock = KeyLock { key: *key, file };
        self.sweep_tmp(&lock)?;
        Ok(Some(lock))
    }

    /// Takes the whole store for reading and adding. Where somebody has it to delete from it, `waiting` is told of the
    /// lock file, and then it is waited for.
    ///
    /// # Errors
    /// When the lock file cannot be opened or locked.
    pub fn lock_shared(&self, waiting: impl FnOnce(&Path)) -> Result<File, StoreError> {
        let (path, file) = self.lock_file("store")?;
        match file.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waiting(&path);
                file.lock_shared().context("lock", &path)?;
            }
            Err(TryLockError::Error(error)) => return Err(error).context("lock", &path),
        }
        Ok(file)
    }

    fn sweep_tmp(&self, lock: &KeyLock) -> Result<(), StoreError> {
        let tmp = self.root.join("tmp");
        let prefix = format!("{}.", lock.key);
        for entry in std::fs::read_dir(&tmp).context("list", &tmp)? {
            let entry = entry.context("list", &tmp)?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
                let path = entry.path();
                std::fs::remove_dir_all(&path).context("remove", &path)?;
            }
        }
        Ok(())
    }

    /// Removes from `tmp/` what belongs to no living holder of a lock. Called before and after a run, and safe at any time.
    ///
    /// # Errors
    /// When `tmp/` cannot be listed or something in it cannot be removed.
    pub fn sweep(&self) -> Result<(), StoreError> {
        let tmp = self.root.join("tmp");
        for entry in std::fs::read_dir(&tmp).context("list", &tmp)? {
            let name = entry.context("list", &tmp)?.file_name();
            let key = name.to_str().and_then(|name| name.split('.').next()).and_then(|hex| hex.parse().ok()).map(Key);
            if let Some(key) = key {
                self.try_lock(&key)?;
            }
        }
        Ok(())
    }
}
