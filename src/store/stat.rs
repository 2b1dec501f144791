//! Digests of files by what stat says of them, so that a file is hashed once.
//!
//! One line a file: `dev ino size mtime ctime sha256 day`, times in nanoseconds, the day (since 1970) being that on which
//! somebody last asked for the file, to within a week. A file younger than two seconds is not written down: it may be
//! changed again within the resolution of its time stamps. What nobody asked for in 90 days is left out.
//!
//! Several processes may write the cache: each reads what is there, adds what it has hashed, and takes out what it found
//! bad. Where two write at the same instant, one loses what it added, which costs time only.
//!
//! Version history: 1, without the day; 2. Other versions are read as empty.

use std::collections::{HashMap, HashSet};
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

const HEADER: &str = "mergelab stat 2";
/// Days after which a file that nobody asked for is left out.
const KEPT_DAYS: u32 = 90;
/// Days after which that somebody asked is worth writing the cache.
const SEEN_DAYS: u32 = 7;
const YOUNG: i128 = 2_000_000_000;

/// What stat says of a file; two equal stamps of an old file mean equal contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// Whether the file is as it was hashed. One whose stamp moved may have held something else for a while, whatever it
    /// holds now, and somebody may have read that.
    ///
    /// # Errors
    /// When a file too young to trust its time stamps cannot be read again.
    pub fn holds(&self) -> Result<bool, StoreError> {
        match std::fs::metadata(&self.path) {
            Ok(metadata) if Stamp::of(&metadata) == self.stamp => {
                Ok(!self.young || Digest::of_file(&self.path).context("read", &self.path)?.0 == self.digest)
            }
            _ => Ok(false),
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
    /// Day on which somebody last asked.
    seen: u32,
    /// Whether this process has hashed the file, and not only read the cache.
    ours: bool,
}

type Entries = HashMap<(u64, u64), Entry>;

/// The cache.
#[derive(Debug)]
pub struct StatCache {
    path: PathBuf,
    entries: Mutex<Entries>,
    /// Stamps that must not come back from the disk.
    forgotten: Mutex<HashSet<Stamp>>,
    changed: AtomicBool,
    today: u32,
}

impl StatCache {
    /// Reads the cache; what cannot be read is as good as absent.
    pub(super) fn load(path: &Path) -> Self {
        Self::load_on(path, (now() / (86_400 * 1_000_000_000)) as u32)
    }

    fn load_on(path: &Path, today: u32) -> Self {
        Self {
            path: path.to_path_buf(),
            entries: Mutex::new(read(path)),
            forgotten: Mutex::default(),
            changed: AtomicBool::new(false),
            today,
        }
    }

    /// The digest of a file with this stamp, if it is known.
    pub fn known(&self, stamp: &Stamp) -> Option<Digest> {
        self.entry(stamp).map(|entry| entry.digest)
    }

    /// Digest of a file, hashed if it is not known.
    ///
    /// # Errors
    /// When the file cannot be read, or changes while it is.
    pub fn digest(&self, path: &Path) -> Result<Watch, StoreError> {
        self.digest_while(path, &|| true)
    }

    /// As [`Self::digest`], for as long as `go_on` says so.
    ///
    /// # Errors
    /// As [`Self::digest`], and when `go_on` said no.
    pub fn digest_while(&self, path: &Path, go_on: &dyn Fn() -> bool) -> Result<Watch, StoreError> {
        let stamp = Stamp::of(&std::fs::metadata(path).context("read", path)?);
        if let Some(entry) = self.entry(&stamp) {
            return Ok(Watch { path: path.to_path_buf(), stamp, digest: entry.digest, young: entry.young });
        }
        let young = stamp.is_young(now());
        let (digest, _) = Digest::of_file_while(path, go_on).context("read", path)?;
        let after = Stamp::of(&std::fs::metadata(path).context("read", path)?);
        if after != stamp {
            return Err(StoreError::Unstorable { path: path.to_path_buf(), reason: "changed while it was being read" });
        }
        self.remember(stamp, digest, young);
        Ok(Watch { path: path.to_path_buf(), stamp, digest, young })
    }

    /// Takes down a digest that is certain: of a file that nobody else can write.
    pub(super) fn learn(&self, stamp: Stamp, digest: Digest) {
        self.remember(stamp, digest, false);
    }

    /// Forgets a file, so that it is hashed again.
    pub(super) fn forget(&self, stamp: &Stamp) {
        self.entries.lock().expect("no holder of this lock panics").remove(&(stamp.dev, stamp.ino));
        self.forgotten.lock().expect("no holder of this lock panics").insert(*stamp);
        self.changed.store(true, Ordering::Relaxed);
    }

    fn entry(&self, stamp: &Stamp) -> Option<Entry> {
        let mut entries = self.entries.lock().expect("no holder of this lock panics");
        let entry = entries.get_mut(&(stamp.dev, stamp.ino)).filter(|entry| entry.stamp == *stamp)?;
        if entry.seen.saturating_add(SEEN_DAYS) < self.today {
            self.changed.store(true, Ordering::Relaxed);
        }
        entry.seen = self.today;
        Some(*entry)
    }

    fn remember(&self, stamp: Stamp, digest: Digest, young: bool) {
        let key = (stamp.dev, stamp.ino);
        let entry = Entry { stamp, digest, young, seen: self.today, ours: true };
        self.forgotten.lock().expect("no holder of this lock panics").remove(&stamp);
        self.entries.lock().expect("no holder of this lock panics").insert(key, entry);
        self.changed.store(true, Ordering::Relaxed);
    }

    pub(super) fn save(&self) -> Result<(), StoreError> {
        if !self.changed.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let mut text = String::from(HEADER);
        text.push('\n');
        for Entry { stamp, digest, seen, .. } in self.merged() {
            let Stamp { dev, ino, size, mtime, ctime } = stamp;
            writeln!(text, "{dev} {ino} {size} {mtime} {ctime} {digest} {seen}").expect("a string takes everything");
        }
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let mut file = super::new_file_in(dir)?;
        file.write_all(text.as_bytes()).context("write", &self.path)?;
        file.persist(&self.path).map_err(|error| error.error).context("write", &self.path)?;
        Ok(())
    }
}

impl StatCache {
    /// What is on the disk now, with what this process has learnt, sorted.
    fn merged(&self) -> Vec<Entry> {
        let mut merged = read(&self.path);
        let entries = self.entries.lock().expect("no holder of this lock panics");
        let forgotten = self.forgotten.lock().expect("no holder of this lock panics");
        merged.retain(|_, entry| !forgotten.contains(&entry.stamp));
        for (key, entry) in &*entries {
            match merged.get_mut(key) {
                _ if entry.ours && !entry.young => {
                    merged.insert(*key, *entry);
                }
                // What we have only read, and is no longer there, was taken out by somebody who knew better.
                Some(theirs) if theirs.stamp == entry.stamp => theirs.seen = theirs.seen.max(entry.seen),
                _ => {}
            }
        }
        let mut merged: Vec<_> = merged.into_values().collect();
        merged.retain(|entry| entry.seen.saturating_add(KEPT_DAYS) >= self.today);
        merged.sort_by_key(|entry| (entry.stamp.dev, entry.stamp.ino));
        merged
    }
}

/// The entries in a file; one of another version has none.
fn read(path: &Path) -> Entries {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines();
    match lines.next() {
        Some(HEADER) => lines.filter_map(parse).map(|entry| ((entry.stamp.dev, entry.stamp.ino), entry)).collect(),
        _ => HashMap::new(),
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
    let (digest, seen) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(Entry { stamp, digest, young: false, seen, ours: false })
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
    fn what_others_wrote_is_kept_and_what_was_forgotten_does_not_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stat");
        let stamp = |ino| Stamp { dev: 1, ino, size: 3, mtime: 0, ctime: 0 };
        let (one, other) = (StatCache::load(&path), StatCache::load(&path));
        one.learn(stamp(1), Digest::of(b"one"));
        one.save().unwrap();
        other.learn(stamp(2), Digest::of(b"two"));
        other.save().unwrap();
        let (third, stale) = (StatCache::load(&path), StatCache::load(&path));
        assert_eq!(third.known(&stamp(1)), Some(Digest::of(b"one")));
        assert_eq!(third.known(&stamp(2)), Some(Digest::of(b"two")));
        third.forget(&stamp(1));
        third.save().unwrap();
        // Somebody who had read it before writes after.
        assert!(stale.known(&stamp(1)).is_some());
        stale.learn(stamp(3), Digest::of(b"three"));
        stale.save().unwrap();
        let last = StatCache::load(&path);
        assert_eq!([1, 2, 3].map(|ino| last.known(&stamp(ino)).is_some()), [false, true, true]);
    }

    #[test]
    fn what_nobody_asked_for_in_ninety_days_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stat");
        let stamp = |ino| Stamp { dev: 1, ino, size: 3, mtime: 0, ctime: 0 };
        let first = StatCache::load_on(&path, 1000);
        first.learn(stamp(1), Digest::of(b"asked for"));
        first.learn(stamp(2), Digest::of(b"not asked for"));
        first.save().unwrap();
        let later = StatCache::load_on(&path, 1050);
        later.known(&stamp(1)).unwrap();
        later.save().unwrap();
        let last = StatCache::load_on(&path, 1091);
        last.learn(stamp(3), Digest::of(b"new"));
        last.save().unwrap();
        let left = StatCache::load_on(&path, 1091);
        assert_eq!([1, 2, 3].map(|ino| left.known(&stamp(ino)).is_some()), [true, false, true]);
    }

    #[test]
    fn a_cache_of_the_first_version_is_read_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stat");
        std::fs::write(&path, format!("mergelab stat 1\n1 1 3 0 0 {}\n", Digest::of(b"one"))).unwrap();
        assert_eq!(StatCache::load(&path).known(&Stamp { dev: 1, ino: 1, size: 3, mtime: 0, ctime: 0 }), None);
    }

    #[test]
    fn a_watched_file_may_be_neither_touched_nor_changed_and_changed_back() {
        let dir = tempfile::tempdir().unwrap();
        let cache = StatCache::load(&dir.path().join("stat"));
        let file = dir.path().join("file");
        std::fs::write(&file, "one").unwrap();
        let watch = cache.digest(&file).unwrap();
        assert!(watch.holds().unwrap());
        std::fs::write(&file, "two").unwrap();
        assert!(!watch.holds().unwrap());
        // By now a program may have read the other text.
        std::fs::write(&file, "one").unwrap();
        assert!(!watch.holds().unwrap());
        std::fs::remove_file(&file).unwrap();
        assert!(!watch.holds().unwrap());
    }
}
