//! Digests of files by what stat says of them, so that a file is hashed once.
//!
//! One line a file: `dev ino size mtime ctime sha256`, times in nanoseconds. A file younger than two seconds is not
//! written down: it may be changed again within the resolution of its time stamps.
//!
//! Version history: 1, the first.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::Metadata;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::StoreError;
use super::error::IoContext;
use crate::digest::Digest;

const HEADER: &str = "mergelab stat 1";
const YOUNG: i128 = 2_000_000_000;

/// What stat says of a file; two equal stamps of an old file mean equal contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: i128,
    ctime: i128,
}

impl Stamp {
    /// Of a file's metadata.
    pub fn of(metadata: &Metadata) -> Self {
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            mtime: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            ctime: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn is_young(&self, now: i128) -> bool {
        now - self.mtime.max(self.ctime) < YOUNG
    }
}

/// A file that a running stage reads: looked at again before the result is kept.
#[derive(Clone, Debug)]
pub struct Watch {
    path: PathBuf,
    stamp: Stamp,
    digest: Digest,
    young: bool,
}

impl Watch {
    /// Whether the file still holds what was hashed.
    ///
    /// # Errors
    /// When a file too young to trust its time stamps cannot be read again.
    pub fn holds(&self) -> Result<bool, StoreError> {
        match std::fs::metadata(&self.path) {
            Err(_) => Ok(false),
            Ok(metadata) if Stamp::of(&metadata) != self.stamp => {
                // Touched, or replaced by an equal file: only the contents count.
                Ok(metadata.size() == self.stamp.size
                    && Digest::of_file(&self.path).context("read", &self.path)?.0 == self.digest)
            }
            Ok(_) if self.young => Ok(Digest::of_file(&self.path).context("read", &self.path)?.0 == self.digest),
            Ok(_) => Ok(true),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    stamp: Stamp,
    digest: Digest,
    young: bool,
}

/// The cache.
#[derive(Debug)]
pub struct StatCache {
    path: PathBuf,
    entries: Mutex<HashMap<(u64, u64), Entry>>,
    changed: AtomicBool,
}

impl StatCache {
    /// Reads the cache; what cannot be read is as good as absent.
    pub(super) fn load(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut lines = text.lines();
        let entries = match lines.next() {
            Some(HEADER) => lines.filter_map(parse).map(|entry| ((entry.stamp.dev, entry.stamp.ino), entry)).collect(),
            _ => HashMap::new(),
        };
        Self { path: path.to_path_buf(), entries: Mutex::new(entries), changed: AtomicBool::new(false) }
    }

    /// The digest of a file with this stamp, if it is known.
    pub fn known(&self, stamp: &Stamp) -> Option<Digest> {
        let entries = self.entries.lock().expect("no holder of this lock panics");
        entries.get(&(stamp.dev, stamp.ino)).filter(|entry| entry.stamp == *stamp).map(|entry| entry.digest)
    }

    /// Digest of a file, hashed if it is not known.
    ///
    /// # Errors
    /// When the file cannot be read, or changes while it is.
    pub fn digest(&self, path: &Path) -> Result<Watch, StoreError> {
        let stamp = Stamp::of(&std::fs::metadata(path).context("read", path)?);
        if let Some(entry) = self.entry(&stamp) {
            return Ok(Watch { path: path.to_path_buf(), stamp, digest: entry.digest, young: entry.young });
        }
        let young = stamp.is_young(now());
        let (digest, _) = Digest::of_file(path).context("read", path)?;
        let after = Stamp::of(&std::fs::metadata(path).context("read", path)?);
        if after != stamp {
            return Err(StoreError::Unstorable { path: path.to_path_buf(), reason: "changed while it was being read" });
        }
        self.remember(Entry { stamp, digest, young });
        Ok(Watch { path: path.to_path_buf(), stamp, digest, young })
    }

    /// Takes down a digest that is certain: of a file that nobody else can write.
    pub(super) fn learn(&self, stamp: Stamp, digest: Digest) {
        self.remember(Entry { stamp, digest, young: false });
    }

    /// Forgets a file, so that it is hashed again.
    pub(super) fn forget(&self, stamp: &Stamp) {
        self.entries.lock().expect("no holder of this lock panics").remove(&(stamp.dev, stamp.ino));
        self.changed.store(true, Ordering::Relaxed);
    }

    fn entry(&self, stamp: &Stamp) -> Option<Entry> {
        let entries = self.entries.lock().expect("no holder of this lock panics");
        entries.get(&(stamp.dev, stamp.ino)).filter(|entry| entry.stamp == *stamp).copied()
    }

    fn remember(&self, entry: Entry) {
        let key = (entry.stamp.dev, entry.stamp.ino);
        self.entries.lock().expect("no holder of this lock panics").insert(key, entry);
        self.changed.store(true, Ordering::Relaxed);
    }

    pub(super) fn save(&self) -> Result<(), StoreError> {
        if !self.changed.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let mut text = String::from(HEADER);
        text.push('\n');
        {
            let entries = self.entries.lock().expect("no holder of this lock panics");
            let mut entries: Vec<_> = entries.values().filter(|entry| !entry.young).collect();
            entries.sort_by_key(|entry| (entry.stamp.dev, entry.stamp.ino));
            for Entry { stamp, digest, .. } in entries {
                let Stamp { dev, ino, size, mtime, ctime } = stamp;
                writeln!(text, "{dev} {ino} {size} {mtime} {ctime} {digest}").expect("a string takes everything");
            }
        }
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let mut file = super::new_file_in(dir)?;
        file.write_all(text.as_bytes()).context("write", &self.path)?;
        file.persist(&self.path).map_err(|error| error.error).context("write", &self.path)?;
        Ok(())
    }
}

impl Watch {
    /// Digest of its contents.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.stamp.size
    }
}

fn parse(line: &str) -> Option<Entry> {
    let mut words = line.split(' ');
    let stamp = Stamp {
        dev: words.next()?.parse().ok()?,
        ino: words.next()?.parse().ok()?,
        size: words.next()?.parse().ok()?,
        mtime: words.next()?.parse().ok()?,
        ctime: words.next()?.parse().ok()?,
    };
    Some(Entry { stamp, digest: words.next()?.parse().ok()?, young: false })
}

fn now() -> i128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age(path: &Path, seconds: u64) {
        let time = SystemTime::now() - std::time::Duration::from_secs(seconds);
        std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn a_young_file_is_not_written_down() {
        let dir = tempfile::tempdir().unwrap();
        let cache = StatCache::load(&dir.path().join("stat"));
        let file = dir.path().join("file");
        std::fs::write(&file, "one").unwrap();
        age(&file, 100);
        // The time of the last change cannot be set back, so the file stays young whatever its mtime says.
        cache.digest(&file).unwrap();
        cache.save().unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("stat")).unwrap().lines().count(), 1);
    }

    #[test]
    fn a_learnt_digest_is_known_after_a_restart_until_the_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let cache = StatCache::load(&dir.path().join("stat"));
        let file = dir.path().join("file");
        std::fs::write(&file, "one").unwrap();
        let stamp = Stamp::of(&std::fs::metadata(&file).unwrap());
        cache.learn(stamp, Digest::of(b"one"));
        cache.save().unwrap();
        let again = StatCache::load(&dir.path().join("stat"));
        assert_eq!(again.known(&stamp), Some(Digest::of(b"one")));
        std::fs::write(&file, "three").unwrap();
        assert_eq!(again.known(&Stamp::of(&std::fs::metadata(&file).unwrap())), None);
    }

    #[test]
    fn a_watched_file_may_be_touched_but_not_changed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = StatCache::load(&dir.path().join("stat"));
        let file = dir.path().join("file");
        std::fs::write(&file, "one").unwrap();
        let watch = cache.digest(&file).unwrap();
        age(&file, 100);
        assert!(watch.holds().unwrap());
        std::fs::write(&file, "two").unwrap();
        assert!(!watch.holds().unwrap());
        std::fs::remove_file(&file).unwrap();
        assert!(!watch.holds().unwrap());
    }
}
