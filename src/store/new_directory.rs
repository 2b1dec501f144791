//! A directory where people want one, that is there with all that belongs into it or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::copy::CopyError;
use super::error::IoContext;
use super::{StoreError, sync_dir};

/// A directory in the making, beside its place. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub struct NewDirectory {
    work: TempDir,
    place: PathBuf,
    parent: PathBuf,
}

impl NewDirectory {
    /// Begins what is to be `place`, which must not be there, or be an empty directory.
    ///
    /// # Errors
    /// What is in the way; I/O errors with their path.
    pub fn begin(place: &Path) -> Result<Self, CopyError> {
        check_place(place)?;
        let name = place.file_name().ok_or(CopyError::InTheWay { path: place.to_path_buf(), what: "has no name" })?;
        let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).context("create", parent)?;
        let parent = parent.canonicalize().context("find", parent)?;
        let usual = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        let prefix = format!(".{}.", name.to_string_lossy());
        let work = tempfile::Builder::new().prefix(&prefix).permissions(usual).tempdir_in(&parent);
        let work = work.context("create a directory in", &parent)?;
        Ok(Self { work, place: parent.join(name), parent })
    }

    /// Where its files are written meanwhile.
    pub fn path(&self) -> &Path {
        self.work.path()
    }

    /// Flushes everything in it, and puts it in its place at once.
    ///
    /// # Errors
    /// I/O errors with their path; also where something was put there meanwhile.
    pub fn finish(self) -> Result<(), CopyError> {
        sync_tree(self.work.path())?;
        // On the same file system a directory may take the place of an empty one.
        fs::rename(self.work.path(), &self.place).context("rename to", &self.place)?;
        let _ = self.work.keep();
        Ok(sync_dir(&self.parent)?)
    }
}

/// Refuses anything but nothing and an empty directory.
fn check_place(place: &Path) -> Result<(), CopyError> {
    let refuse = |what| Err(CopyError::InTheWay { path: place.to_path_buf(), what });
    match fs::symlink_metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).context("read", place)?,
        Ok(metadata) if metadata.is_dir() => match fs::read_dir(place).context("list", place)?.next() {
            None => Ok(()),
            Some(_) => refuse("is not empty"),
        },
        Ok(_) => refuse("is there and no directory"),
    }
}

/// Flushes a directory and all below it.
fn sync_tree(dir: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(dir).context("list", dir)? {
        let path = entry.context("list", dir)?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path).and_then(|file| file.sync_all()).context("sync", &path)?;
        }
    }
    sync_dir(dir)
}
