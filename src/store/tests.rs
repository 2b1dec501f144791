//! The store by itself: who may write what, what is kept, and what is found wrong.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use serde_json::json;

use super::error::IoContext;
use super::{Draft, Inspection, KeyLock, Lookup, Manifest, Store, StoreError};
use crate::artifact::{Output, artifact_digest};
use crate::digest::{Digest, Key};

fn store(dir: &tempfile::TempDir) -> Store {
    Store::open(&dir.path().join("store")).unwrap()
}

fn key_struct(name: &str) -> serde_json::Value {
    json!({ "format": 1, "params": name })
}

fn key(name: &str) -> Key {
    Key(Digest::of_json(&key_struct(name)))
}

fn draft(name: &str) -> Draft {
    Draft {
        experiment: "x".into(),
        stage: format!("commands.{name}"),
        key_struct: key_struct(name),
        started: "2026-01-01T00:00:00.000Z".into(),
        git: None,
        versions: BTreeMap::new(),
        device: None,
        peak_memory: None,
        log: None,
        facts: serde_json::Map::new(),
        expected: None,
        hashed: HashMap::new(),
        aside: &["README.md"],
        roles: |_| BTreeMap::new(),
    }
}

const WEIGHTS: (&str, &str) = ("model.safetensors", "weights");

/// Drops the weights of an artifact.
fn dropped(store: &Store, name: &str) -> Option<Manifest> {
    store.drop_files(&key(name), &|path| path == WEIGHTS.0).unwrap()
}

/// Files that are there of an artifact.
fn files_of(store: &Store, manifest: &Manifest) -> Vec<String> {
    super::list_files(&store.object_dir(&manifest.digest), false).unwrap()
}

fn miss(store: &Store, name: &str) -> (KeyLock, Option<String>) {
    match store.lookup(&key(name)).unwrap() {
        Lookup::Miss { lock, damage } => (lock, damage),
        other => panic!("not a miss: {other:?}"),
    }
}

/// Makes an artifact of files with some text.
fn make(store: &Store, name: &str, files: &[(&str, &str)]) -> Result<Manifest, StoreError> {
    let (lock, _) = miss(store, name);
    let work = store.begin(&lock)?;
    for (path, text) in files {
        let path = work.out().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    store.commit(&lock, &work, draft(name), None)
}

fn hit(store: &Store, name: &str) -> Manifest {
    match store.lookup(&key(name)).unwrap() {
        Lookup::Hit(manifest) => *manifest,
        other => panic!("not a hit: {other:?}"),
    }
}

fn names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_miss_is_a_lock_and_everybody_else_finds_it_busy() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (store(&dir), store(&dir));
    let (lock, damage) = miss(&one, "a");
    assert_eq!(damage, None);
    assert!(matches!(other.lookup(&key("a")).unwrap(), Lookup::Busy));
    // Also for the same process: two stages of one key run once.
    assert!(matches!(one.lookup(&key("a")).unwrap(), Lookup::Busy));
    assert!(matches!(other.lookup(&key("b")).unwrap(), Lookup::Miss { .. }));
    drop(lock);
    assert!(matches!(other.lookup(&key("a")).unwrap(), Lookup::Miss { .. }));
}

#[test]
fn what_was_committed_is_a_hit_for_everybody() {
    let dir = tempfile::tempdir().unwrap();
    let made = make(&store(&dir), "a", &[("one", "1"), ("deep/two", "22")]).unwrap();
    let paths: Vec<_> = made.outputs.iter().map(|output| (output.path.as_str(), output.size)).collect();
    assert_eq!(paths, [("deep/two", 2), ("one", 1)]);
    assert_eq!(hit(&store(&dir), "a"), made);
    assert_eq!(names(&dir.path().join("store/tmp")), [""; 0]);
}

#[test]
fn a_duplicate_of_the_lock_in_a_child_keeps_it_when_the_holder_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let (lock, _) = miss(&store, "a");
    let inherited = lock.file().try_clone().unwrap();
    drop(lock);
    assert!(matches!(store.lookup(&key("a")).unwrap(), Lookup::Busy));
    drop(inherited);
    assert!(matches!(store.lookup(&key("a")).unwrap(), Lookup::Miss { .. }));
}

#[test]
fn what_a_dead_holder_left_is_swept_and_what_a_living_one_works_on_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let tmp = dir.path().join("store/tmp");
    let dead = format!("{}.elsewhere.1.0", key("dead"));
    fs::create_dir_all(tmp.join(&dead).join("out")).unwrap();
    let (lock, _) = miss(&store, "alive");
    let work = store.begin(&lock).unwrap();
    assert_eq!(names(&tmp).len(), 2);
    store.sweep().unwrap();
    assert_eq!(names(&tmp), [work.dir().file_name().unwrap().to_str().unwrap()]);
    fs::create_dir_all(tmp.join(&dead).join("out")).unwrap();
    let _ = miss(&store, "dead");
    assert!(!tmp.join(&dead).exists());
}

#[test]
fn two_keys_with_the_same_bytes_share_one_object() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let (one, other) = (make(&store, "a", &[("out", "same")]).unwrap(), make(&store, "b", &[("out", "same")]).unwrap());
    assert_eq!(one.digest, other.digest);
    assert_ne!(one.key, other.key);
    assert_eq!(names(&dir.path().join("store/objects")).len(), 1);
    assert_eq!(names(&dir.path().join("store/tmp")), [""; 0]);
}

#[test]
fn files_set_aside_are_those_of_whoever_came_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    make(&store, "a", &[("weights", "w"), ("README.md", "made at one")]).unwrap();
    let second = make(&store, "b", &[("weights", "w"), ("README.md", "made later, at two")]).unwrap();
    let card = second.outputs.iter().find(|output| output.aside).unwrap();
    assert_eq!((card.sha256, card.size), (Digest::of(b"made at one"), 11));
    hit(&store, "b");
    assert!(store.verify().unwrap().bad.is_empty());
}

#[test]
fn a_damaged_object_does_not_take_the_place_of_the_same_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let made = make(&store, "a", &[("out", "good")]).unwrap();
    let path = store.object_dir(&made.digest).join("out");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "baad").unwrap();
    // Another stage makes these bytes before anybody looks at the damage.
    make(&store, "b", &[("out", "good")]).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "good");
    assert_eq!(names(&dir.path().join("store/quarantine")), [format!("{}.0", made.digest)]);
    hit(&store, "a");
}

#[test]
fn damage_is_named_moved_away_and_free_to_be_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let made = make(&store, "a", &[("out", "good"), ("other", "x")]).unwrap();
    let path = store.object_dir(&made.digest).join("out");
    fs::remove_file(&path).unwrap();
    assert!(matches!(store.inspect(&key("a")).unwrap(), Inspection::Damaged { reason: "is gone", .. }));
    let (lock, damage) = miss(&store, "a");
    assert_eq!(damage, Some(format!("{} is gone", path.display())));
    drop(lock);
    assert!(matches!(store.inspect(&key("a")).unwrap(), Inspection::Absent));
    make(&store, "a", &[("out", "good"), ("other", "x")]).unwrap();
    hit(&store, "a");
}

#[test]
fn a_file_that_was_dropped_on_purpose_is_not_missed() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let made = make(&store, "a", &[WEIGHTS, ("config.json", "{}")]).unwrap();
    let dropped = dropped(&store, "a").unwrap();
    assert!(dropped.is_dropped() && !made.is_dropped());
    assert_eq!((dropped.digest, &dropped.roles), (made.digest, &made.roles));
    assert_eq!(files_of(&store, &made), ["config.json"]);
    hit(&store, "a");
    let found = store.verify().unwrap();
    assert_eq!((found.files, found.bad.len()), (1, 0));
}

#[test]
fn what_was_dropped_and_is_made_again_is_held_against_its_digest() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let files = [WEIGHTS, ("config.json", "{}"), ("README.md", "made on Monday")];
    let made = make(&store, "a", &files).unwrap();
    dropped(&store, "a").unwrap();
    let again = |weights: &str| {
        let lock = store.try_lock(&key("a")).unwrap().unwrap();
        let work = store.begin(&lock).unwrap();
        for (path, text) in [("model.safetensors", weights), ("config.json", "{}"), ("README.md", "made on Tuesday")] {
            fs::write(work.out().join(path), text).unwrap();
        }
        store.commit(&lock, &work, Draft { expected: Some(made.digest), ..draft("a") }, None)
    };
    assert!(matches!(again("others").unwrap_err(), StoreError::Differs { expected, .. } if expected == made.digest));
    assert_eq!(files_of(&store, &made), ["README.md", "config.json"], "nothing was touched");
    assert_eq!(again("weights").unwrap().outputs, made.outputs);
    assert_eq!(files_of(&store, &made), ["README.md", "config.json", "model.safetensors"]);
    assert!(store.verify().unwrap().bad.is_empty());
    assert!(fs::read_dir(dir.path().join("store/quarantine")).unwrap().next().is_none());
}

#[test]
fn a_file_that_another_key_promises_too_stays_until_both_have_dropped_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let made = make(&store, "a", &[WEIGHTS, ("config.json", "{}")]).unwrap();
    make(&store, "b", &[WEIGHTS, ("config.json", "{}")]).unwrap();
    dropped(&store, "a").unwrap();
    assert_eq!(files_of(&store, &made), ["config.json", "model.safetensors"]);
    hit(&store, "b");
    dropped(&store, "b").unwrap();
    assert_eq!(files_of(&store, &made), ["config.json"]);
}

#[test]
fn nothing_is_dropped_that_somebody_uses_or_makes() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let made = make(&store, "a", &[WEIGHTS]).unwrap();
    let reader = store.hold(&key("a")).unwrap();
    assert!(dropped(&store, "a").is_none());
    drop(reader);
    let maker = store.try_lock(&key("a")).unwrap();
    assert!(dropped(&store, "a").is_none());
    drop(maker);
    assert_eq!(files_of(&store, &made), ["model.safetensors"]);
    assert!(dropped(&store, "a").is_some());
}

#[test]
fn what_a_kill_left_of_dropped_files_goes_when_they_are_dropped_once_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let made = make(&store, "a", &[WEIGHTS, ("config.json", "{}")]).unwrap();
    let manifest = dropped(&store, "a").unwrap();
    assert!(!store.has_leftovers(&manifest));
    // The manifest is written first: a kill before the file is deleted leaves this.
    fs::write(store.object_dir(&made.digest).join("model.safetensors"), "weights").unwrap();
    hit(&store, "a");
    assert!(store.verify().unwrap().bad.is_empty() && store.has_leftovers(&manifest));
    dropped(&store, "a").unwrap();
    assert_eq!(files_of(&store, &made), ["config.json"]);
}

#[test]
fn files_that_are_not_ours_are_neither_hashed_nor_moved() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let (lock, _) = miss(&store, "model");
    let work = store.begin(&lock).unwrap();
    let file =
        Output { path: "config.json".into(), size: 9, sha256: Digest::of(b"elsewhere"), aside: false, dropped: false };
    let made = store.commit(&lock, &work, draft("model"), Some(vec![file.clone()])).unwrap();
    assert_eq!(made.digest, artifact_digest(&[file]));
    hit(&store, "model");
    let found = store.verify().unwrap();
    assert_eq!((found.artifacts, found.files, found.bad.len()), (1, 0, 0));
}

#[test]
fn a_manifest_that_promises_something_else_than_its_key_is_bad() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let mut made = make(&store, "a", &[("out", "1")]).unwrap();
    let problems = |made: &Manifest| {
        fs::write(store.manifest_path(&key("a")), serde_json::to_vec(made).unwrap()).unwrap();
        store.verify().unwrap().bad.into_iter().map(|bad| bad.problem).collect::<Vec<_>>()
    };
    assert_eq!(problems(&made), [""; 0]);
    made.key_struct = key_struct("another");
    assert_eq!(problems(&made), ["the key is not the digest of what it was made from"]);
    made.key_struct = key_struct("a");
    made.outputs[0].sha256 = Digest::of(b"2");
    assert_eq!(problems(&made), ["the digest is not that of the files it lists", "does not match its digest"]);
}

#[test]
fn a_manifest_of_a_later_version_is_an_error_and_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    make(&store, "a", &[("out", "1")]).unwrap();
    let path = store.manifest_path(&key("a"));
    // Its other fields need not be what they are now.
    let later = r#"{"format": 2, "made_by": "somebody else"}"#;
    fs::write(&path, later).unwrap();
    let is_later = |error: StoreError| matches!(error, StoreError::LaterManifest { found: 2, known: 1, .. });
    assert!(is_later(store.inspect(&key("a")).unwrap_err()));
    assert!(is_later(store.lookup(&key("a")).unwrap_err()));
    // Nor does a stage that is run again by force replace it.
    let lock = store.try_lock(&key("a")).unwrap().unwrap();
    assert!(is_later(store.begin(&lock).unwrap_err()));
    assert_eq!(
        store.verify().unwrap().bad[0].problem,
        "a manifest of version 2, this mergelab knows up to 1: left alone"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), later);
}

#[test]
fn a_damaged_manifest_is_kept_in_quarantine() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    make(&store, "a", &[("out", "1")]).unwrap();
    fs::write(store.manifest_path(&key("a")), "half a manif").unwrap();
    let (_, damage) = miss(&store, "a");
    assert!(damage.unwrap().ends_with("is not a manifest"));
    let kept = dir.path().join(format!("store/quarantine/{}.json.0", key("a")));
    assert_eq!(fs::read_to_string(kept).unwrap(), "half a manif");
}

#[test]
fn what_cannot_be_read_is_reported_and_hides_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    make(&store, "a", &[("out", "1")]).unwrap();
    let gone = make(&store, "b", &[("out", "2")]).unwrap();
    fs::remove_file(store.object_dir(&gone.digest).join("out")).unwrap();
    // A directory in the place of a manifest: whoever reads the file is refused, root too.
    let odd = store.root().join("keys/00/odd.json");
    fs::create_dir_all(&odd).unwrap();
    let mut problems: Vec<String> = store.verify().unwrap().bad.into_iter().map(|bad| bad.problem).collect();
    problems.sort();
    assert_eq!(problems, ["cannot be read: Is a directory (os error 21)", "is gone"]);
}

#[test]
fn an_object_that_may_not_be_read_is_damaged() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let made = make(&store, "a", &[("out", "1")]).unwrap();
    let path = store.object_dir(&made.digest).join("out");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    // Root may read everything, and then nothing is wrong.
    let is_readable = fs::File::open(&path).is_ok();
    let found = store.inspect(&key("a")).unwrap();
    if is_readable {
        assert!(matches!(found, Inspection::Hit(_)));
    } else {
        assert!(matches!(found, Inspection::Damaged { reason: "cannot be read", .. }));
    }
}

#[test]
fn who_must_wait_for_the_store_is_told_what_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let path = store.root().join("locks/store");
    let sharing = store.lock_shared(|_| panic!("nobody has it")).unwrap();
    let also = store.lock_shared(|_| panic!("it is shared")).unwrap();
    drop((sharing, also));
    let deleting = fs::File::open(&path).unwrap();
    deleting.lock().unwrap();
    let mut told = None;
    store
        .lock_shared(|lock| {
            told = Some(lock.to_path_buf());
            drop(deleting);
        })
        .unwrap();
    assert_eq!(told, Some(path));
}

#[test]
fn a_failed_commit_leaves_the_store_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    assert!(matches!(make(&store, "a", &[]), Err(StoreError::Empty { .. })));
    let (lock, _) = miss(&store, "a");
    let work = store.begin(&lock).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", work.out().join("link")).unwrap();
    assert!(matches!(store.commit(&lock, &work, draft("a"), None), Err(StoreError::Unstorable { .. })));
    drop((work, lock));
    for part in ["objects", "keys", "tmp", "quarantine"] {
        assert_eq!(names(&dir.path().join("store").join(part)), [""; 0], "{part}");
    }
    make(&store, "a", &[("out", "1")]).unwrap();
}

#[test]
fn a_full_disk_is_told_apart_from_other_errors() {
    let full = Path::new("/dev/full");
    let error = fs::write(full, "text").context("write", full).unwrap_err();
    assert_eq!(error.to_string(), "no space left on the disk that holds /dev/full (while trying to write it)");
    let nowhere = Path::new("/nowhere/file");
    let error = fs::write(nowhere, "text").context("write", nowhere).unwrap_err();
    assert_eq!(error.to_string(), "cannot write /nowhere/file: No such file or directory (os error 2)");
}

#[test]
fn several_threads_that_make_the_same_bytes_end_with_one_object_and_a_manifest_each() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..10 {
                    make(store, &format!("{thread}-{round}"), &[("out", &format!("{round}"))]).unwrap();
                }
            });
        }
    });
    let found = store.verify().unwrap();
    assert_eq!((found.artifacts, found.files, found.bad.len()), (40, 10, 0));
    assert_eq!(names(&dir.path().join("store/tmp")), [""; 0]);
    assert_eq!(names(&dir.path().join("store/quarantine")), [""; 0]);
}

#[test]
fn a_digest_taken_while_writing_is_taken_over_if_the_size_is_right_and_verify_reads_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let commit = |name: &str, size: u64| {
        let (lock, _) = miss(&store, name);
        let work = store.begin(&lock).unwrap();
        fs::write(work.out().join("x"), name).unwrap();
        let hashed = HashMap::from([("x".to_owned(), (size, Digest::of(b"claimed")))]);
        store.commit(&lock, &work, Draft { hashed, ..draft(name) }, None).unwrap().outputs[0].sha256
    };
    assert_eq!(commit("one", 3), Digest::of(b"claimed"));
    assert_eq!(commit("three", 3), Digest::of(b"three"));
    let report = store.verify().unwrap();
    assert_eq!(report.bad.len(), 1, "what was claimed wrongly is found");
}
