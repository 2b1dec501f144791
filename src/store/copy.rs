//! Files of an artifact, copied to where people want them.
//!
//! Copies and not links: what is in the store is written once and may be read by others, and whoever edits a hard link
//! of it in place would change it there. File systems that can share blocks between copies (btrfs, XFS, ...) do so.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::IoContext;
use super::{NewDirectory, StoreError};
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

/// Copies files of an artifact that lies in `from` into the directory `to`, a [`NewDirectory`]. `go_on` is told of each piece how many bytes it had, and says whether to go on.
///
/// # Errors
/// What is in the way; a file that is not as long as its manifest says; [`CopyError::Stopped`]; I/O errors with their path.
pub fn copy_out(
    from: &Path,
    outputs: &[Output],
    to: &Path,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Result<(), CopyError> {
    let new = NewDirectory::begin(to)?;
    for output in outputs {
        let target = new.path().join(&output.path);
        if let Some(directory) = target.parent() {
            fs::create_dir_all(directory).context("create", directory)?;
        }
        copy(&from.join(&output.path), &target, output.size, go_on)?;
    }
    new.finish()
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
    Ok(())
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
