//! Files of an artifact, copied to where people want them.
//!
//! Copies and not links: what is in the store is written once and may be read by others, and whoever edits a hard link
//! of it in place would change it there. File systems that can share blocks between copies (btrfs, XFS, ...) do so.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::IoContext;
use super::{StoreError, sync_dir};
use crate::artifact::Output;

/// Bytes that are copied between two looks at whether to go on.
const PIECE: u64 = 64 << 20;

/// Why files were not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The file system refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something is in the way.
    #[error("{} {what}", path.display())]
    InTheWay {
        /// What was to become the directory.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A file is not what the manifest says.
    #[error("{} has {found} bytes, and its manifest says {expected}", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// Bytes found.
        found: u64,
        /// Bytes expected.
        expected: u64,
    },
    /// The caller said to stop.
    #[error("interrupted")]
    Stopped,
}

/// Copies files of an artifact that lies in `from` into the directory `to`, which must not be there, or be empty. It is
/// there with all files or not at all: they are written to a directory beside it, flushed, and that is renamed.
/// `go_on` is told of each piece how many bytes it had, and says whether to go on.
///
/// # Errors
/// What is in the way; a file that is not as long as its manifest says; [`CopyError::Stopped`]; I/O errors with their path.
pub fn copy_out(
    from: &Path,
    outputs: &[Output],
    to: &Path,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Result<(), CopyError> {
    check_target(to)?;
    let name = to.file_name().ok_or(CopyError::InTheWay { path: to.to_path_buf(), what: "has no name" })?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).context("create", parent)?;
    let usual = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    let prefix = format!(".{}.", name.to_string_lossy());
    // Removed when it is dropped, unless it was renamed.
    let work = tempfile::Builder::new().prefix(&prefix).permissions(usual).tempdir_in(parent);
    let work = work.context("create a directory in", parent)?;
    for output in outputs {
        let target = work.path().join(&output.path);
        if let Some(directory) = target.parent() {
            fs::create_dir_all(directory).context("create", directory)?;
        }
        copy(&from.join(&output.path), &target, output.size, go_on)?;
    }
    sync_tree(work.path())?;
    // On the same file system a directory may take the place of an empty one.
    fs::rename(work.path(), to).context("rename to", to)?;
    let _ = work.keep();
    Ok(sync_dir(parent)?)
}

/// Refuses anything but nothing and an empty directory.
fn check_target(to: &Path) -> Result<(), CopyError> {
    let refuse = |what| Err(CopyError::InTheWay { path: to.to_path_buf(), what });
    match fs::symlink_metadata(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).context("read", to)?,
        Ok(metadata) if metadata.is_dir() => match fs::read_dir(to).context("list", to)?.next() {
            None => Ok(()),
            Some(_) => refuse("is not empty"),
        },
        Ok(_) => refuse("is there and no directory"),
    }
}

fn copy(from: &Path, to: &Path, expected: u64, go_on: &mut dyn FnMut(u64) -> bool) -> Result<(), CopyError> {
    let mut source = File::open(from).context("read", from)?;
    let mut target = File::create_new(to).context("create", to)?;
    let mut found = 0;
    loop {
        // Between two files the system copies by itself, without passing bytes through here.
        let copied = io::copy(&mut Read::by_ref(&mut source).take(PIECE), &mut target).context("copy to", to)?;
        if copied == 0 {
            break;
        }
        found += copied;
        if !go_on(copied) {
            return Err(CopyError::Stopped);
        }
    }
    if found != expected {
        return Err(CopyError::Changed { path: from.to_path_buf(), found, expected });
    }
    Ok(target.sync_all().context("sync", to)?)
}

/// Flushes the entries of a directory and of all below it.
fn sync_tree(dir: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(dir).context("list", dir)? {
        let entry = entry.context("list", dir)?;
        if entry.file_type().context("read", &entry.path())?.is_dir() {
            sync_tree(&entry.path())?;
        }
    }
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn artifact(dir: &Path) -> Vec<Output> {
        fs::create_dir_all(dir.join("sub")).unwrap();
        let write = |path: &str| {
            fs::write(dir.join(path), path).unwrap();
            fs::set_permissions(dir.join(path), std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
            let (sha256, size) = (Digest::of(path.as_bytes()), path.len() as u64);
            Output { path: path.to_owned(), size, sha256, aside: false, dropped: false }
        };
        ["a", "sub/b"].map(write).into()
    }

    #[test]
    fn what_is_stopped_or_short_leaves_nothing_behind() {
        let home = tempfile::tempdir().unwrap();
        let from = home.path().join("from");
        let mut outputs = artifact(&from);
        let to = home.path().join("out/model");
        let stopped = copy_out(&from, &outputs, &to, &mut |_| false);
        assert!(matches!(stopped, Err(CopyError::Stopped)), "{stopped:?}");
        outputs[1].size += 1;
        let short = copy_out(&from, &outputs, &to, &mut |_| true);
        assert!(matches!(short, Err(CopyError::Changed { found: 5, expected: 6, .. })), "{short:?}");
        assert_eq!(fs::read_dir(home.path().join("out")).unwrap().count(), 0);
    }

    #[test]
    fn an_empty_directory_becomes_it_and_nothing_else_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        let from = home.path().join("from");
        let outputs = artifact(&from);
        let to = home.path().join("to");
        fs::create_dir(&to).unwrap();
        copy_out(&from, &outputs, &to, &mut |_| true).unwrap();
        assert_eq!(fs::read_to_string(to.join("sub/b")).unwrap(), "sub/b");
        assert!(!fs::metadata(to.join("a")).unwrap().permissions().readonly());
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        for (target, what) in [(&to, "is not empty"), (&file, "is there and no directory")] {
            let refused = copy_out(&from, &outputs, target, &mut |_| true).unwrap_err().to_string();
            assert!(refused.ends_with(what), "{refused}");
        }
    }
}
