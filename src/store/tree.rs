//! Directories as sets of files with digests.

use std::path::{Path, PathBuf};

use super::error::IoContext;
use super::{StatCache, StoreError, Watch};
use crate::artifact::Output;

/// Regular files under a directory, as paths relative to it with `/`, sorted. Where `follow` is set the directory is
/// somebody else's: symbolic links are followed (models lie in caches full of links), and what tools leave lying about
/// (`.git`, `.cache`, …) is passed over. Otherwise links are refused and everything counts.
///
/// # Errors
/// When something cannot be listed, is neither file nor directory, or has a name that is not UTF-8.
pub fn list_files(dir: &Path, follow: bool) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    let mut pending = vec![(dir.to_path_buf(), String::new(), 0)];
    while let Some((dir, prefix, depth)) = pending.pop() {
        for entry in std::fs::read_dir(&dir).context("list", &dir)? {
            let entry = entry.context("list", &dir)?;
            let path = entry.path();
            let refuse = |reason| StoreError::Unstorable { path: path.clone(), reason };
            let name = entry.file_name().into_string().map_err(|_| refuse("the name is not UTF-8"))?;
            if follow && is_clutter(&name) {
                continue;
            }
            let relative = format!("{prefix}{name}");
            let mut kind = entry.file_type().context("read", &path)?;
            if kind.is_symlink() {
                if !follow {
                    return Err(refuse("a symbolic link cannot be kept: write the file itself"));
                }
                kind = std::fs::metadata(&path).context("read", &path)?.file_type();
            }
            if kind.is_dir() {
                if depth == 64 {
                    return Err(refuse("nested more than 64 directories deep"));
                }
                pending.push((path, format!("{relative}/"), depth + 1));
            } else if kind.is_file() {
                found.push(relative);
            } else {
                return Err(refuse("neither a file nor a directory"));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Hashes every file of a directory that is not ours, several at a time, for as long as `go_on` says so.
///
/// # Errors
/// As [`list_files`], when a file cannot be read, and when `go_on` said no.
pub fn hash_tree(
    dir: &Path,
    stats: &StatCache,
    go_on: &(dyn Fn() -> bool + Sync),
) -> Result<(Vec<Output>, Vec<Watch>), StoreError> {
    let names = list_files(dir, true)?;
    let paths: Vec<PathBuf> = names.iter().map(|name| dir.join(name)).collect();
    let watches = parallel(&paths, |path| stats.digest_while(path, go_on))?;
    let outputs = names
        .into_iter()
        .zip(&watches)
        .map(|(path, watch)| Output { path, size: watch.size(), sha256: *watch.digest(), aside: false, dropped: false })
        .collect();
    Ok((outputs, watches))
}

/// What tools leave lying in a directory without meaning it.
fn is_clutter(name: &str) -> bool {
    matches!(name, ".git" | ".cache" | "__pycache__" | ".DS_Store")
}

/// Runs a function over paths on a few threads; the first error in order wins.
pub(super) fn parallel<T: Send>(
    paths: &[PathBuf],
    work: impl Fn(&Path) -> Result<T, StoreError> + Sync,
) -> Result<Vec<T>, StoreError> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(8).min(paths.len());
    if threads <= 1 {
        return paths.iter().map(|path| work(path)).collect();
    }
    let next = std::sync::atomic::AtomicUsize::new(0);
    let mut done: Vec<(usize, Result<T, StoreError>)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut done = Vec::new();
                    loop {
                        let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        let Some(path) = paths.get(index) else { return done };
                        done.push((index, work(path)));
                    }
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("hashing does not panic")).collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbolic_link_is_refused_in_an_artifact_and_followed_in_a_model() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("link")).unwrap();
        assert!(matches!(list_files(dir.path(), false), Err(StoreError::Unstorable { .. })));
        assert_eq!(list_files(dir.path(), true).unwrap(), ["file", "link"]);
    }

    #[test]
    fn clutter_is_passed_over_in_a_model_unread_and_counts_in_an_artifact() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("sub/.git")).unwrap();
        std::fs::write(dir.path().join("sub/file"), "x").unwrap();
        std::fs::write(dir.path().join("sub/.git/HEAD"), "x").unwrap();
        assert_eq!(list_files(dir.path(), false).unwrap(), ["sub/.git/HEAD", "sub/file"]);
        std::os::unix::fs::symlink("nowhere", dir.path().join("sub/.git/link")).unwrap();
        assert_eq!(list_files(dir.path(), true).unwrap(), ["sub/file"]);
    }
}
