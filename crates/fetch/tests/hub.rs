//! The client against a hub on this machine, with what goes wrong on the way.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mergelab_fetch::hub::{Hub, HubError, RemoteFile, RepoKind};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const REPO: &str = "acme/tiny";

/// A hub with one model, and a cache of its own.
struct World {
    dir: tempfile::TempDir,
    server: Child,
    address: String,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("hub");
        fs::create_dir_all(&root).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fakes/hub.py");
        let mut server = Command::new("python3")
            .arg(script)
            .arg(&root)
            .args(["--page", "2"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("these tests need python3");
        let mut address = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let world = Self { dir, server, address: address.trim().to_owned() };
        world.write("config.json", b"{\"model_type\": \"tiny\"}");
        world.write("model.safetensors", &weights());
        world.write("sub/notes.txt", b"notes");
        world
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.root().join("models").join(REPO).join("main").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("hub")
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn blob(&self, name: &str) -> PathBuf {
        self.cache().join("models--acme--tiny/blobs").join(name)
    }

    fn faults(&self, faults: &Value) {
        let path = self.root().join("faults.json");
        fs::write(path.with_extension("new"), faults.to_string()).unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    }

    fn hub_with(&self, more: &[(&str, &str)]) -> Hub {
        Hub::from_variables(&|name| {
            let more = more.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
            more.or_else(|| match name {
                "HF_ENDPOINT" => Some(self.address.clone()),
                "HF_HOME" => Some(self.dir.path().join("home").to_str().unwrap().to_owned()),
                "HF_HUB_CACHE" => Some(self.cache().to_str().unwrap().to_owned()),
                _ => None,
            })
        })
        .unwrap()
    }

    fn hub(&self) -> Hub {
        self.hub_with(&[])
    }

    /// Requests that the servers saw, oldest first.
    fn requests(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.root().join("requests.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn to_storage(&self) -> Vec<Value> {
        self.requests().into_iter().filter(|request| request["server"] == "storage").collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn weights() -> Vec<u8> {
    (0..100_000_u32).map(|index| (index * 7 % 251) as u8).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn get(hub: &Hub, path: &str) -> Result<PathBuf, HubError> {
    let commit = hub.resolve(RepoKind::Model, REPO, None)?;
    let files = hub.files(RepoKind::Model, REPO, &commit)?;
    let file = files.iter().find(|file| file.path == path).unwrap();
    hub.fetch(RepoKind::Model, REPO, &commit, file, &mut |_| {})
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_model_lies_in_the_cache_as_other_programs_have_it() {
    let world = World::new();
    let hub = world.hub();
    let commit = hub.resolve(RepoKind::Model, REPO, None).unwrap();
    let files = hub.files(RepoKind::Model, REPO, &commit).unwrap();
    // The server gives two entries a page.
    let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["config.json", "model.safetensors", "sub/notes.txt"]);
    let digest = sha256(&weights());
    assert_eq!((files[1].size, files[1].sha256.as_ref()), (100_000, Some(&digest)));
    let repo = world.cache().join("models--acme--tiny");
    assert!(!repo.join("refs/main").exists(), "a name that leads nowhere yet would break what others have");
    let mut bytes = 0;
    for file in &files {
        hub.fetch(RepoKind::Model, REPO, &commit, file, &mut |more| bytes += more).unwrap();
    }
    assert_eq!(bytes, files.iter().map(|file| file.size).sum::<u64>());
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), commit);
    let snapshot = repo.join("snapshots").join(&commit);
    assert_eq!(hub.snapshot(RepoKind::Model, REPO, &commit), snapshot);
    assert_eq!(fs::read_link(snapshot.join("model.safetensors")).unwrap(), Path::new(&format!("../../blobs/{digest}")));
    assert_eq!(fs::read_to_string(snapshot.join("sub/notes.txt")).unwrap(), "notes");
    // git hash-object says the same of the text.
    let notes = fs::read_link(snapshot.join("sub/notes.txt")).unwrap();
    assert_eq!(notes, Path::new("../../../blobs/3041adec9105ce2abb98307afd1f4aeb2e97c504"));
    assert!(!world.blob(&format!("{digest}.incomplete")).exists());
}

#[test]
fn what_is_there_is_not_fetched_again_and_works_without_a_network() {
    let world = World::new();
    let path = get(&world.hub(), "model.safetensors").unwrap();
    let before = world.requests().len();
    let offline = world.hub_with(&[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(get(&offline, "model.safetensors").unwrap(), path);
    let missing = get(&offline, "config.json").unwrap_err();
    assert!(matches!(missing, HubError::NotCached { .. }), "{missing}");
    assert!(missing.hint().unwrap().contains("without HF_HUB_OFFLINE"));
    assert_eq!(world.requests().len(), before);
    get(&world.hub(), "model.safetensors").unwrap();
    assert_eq!(world.to_storage().len(), 1);
}

#[test]
fn what_another_program_left_in_the_cache_is_used() {
    let world = World::new();
    let commit = world.hub().resolve(RepoKind::Model, REPO, None).unwrap();
    // As `huggingface_hub` lays it down: contents, a link, and the name of the branch.
    let repo = world.cache().join("models--acme--tiny");
    let digest = sha256(&weights());
    let snapshot = repo.join("snapshots").join(&commit);
    for dir in [repo.join("blobs"), repo.join("refs"), snapshot.clone()] {
        fs::create_dir_all(dir).unwrap();
    }
    fs::write(world.blob(&digest), weights()).unwrap();
    std::os::unix::fs::symlink(format!("../../blobs/{digest}"), snapshot.join("model.safetensors")).unwrap();
    fs::write(repo.join("refs/main"), &commit).unwrap();
    let offline = world.hub_with(&[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(get(&offline, "model.safetensors").unwrap(), snapshot.join("model.safetensors"));
    get(&world.hub(), "model.safetensors").unwrap();
    assert_eq!(world.to_storage().len(), 0);
}

#[test]
fn a_transfer_that_breaks_off_goes_on_where_it_was() {
    let world = World::new();
    world.faults(&json!([
        { "at": "storage/*", "fault": "cut", "after": 30_000, "times": 1 },
        { "at": "storage/*", "fault": "cut", "after": 20_000, "times": 1 },
    ]));
    let path = get(&world.hub(), "model.safetensors").unwrap();
    assert_eq!(fs::read(path).unwrap(), weights());
    let ranges: Vec<_> = world.to_storage().iter().map(|request| request["range"].clone()).collect();
    assert_eq!(ranges, [json!(null), json!("bytes=30000-"), json!("bytes=50000-")]);
}

#[test]
fn what_a_killed_program_left_is_gone_on_with() {
    let world = World::new();
    let digest = sha256(&weights());
    let incomplete = world.blob(&format!("{digest}.incomplete"));
    fs::create_dir_all(incomplete.parent().unwrap()).unwrap();
    fs::write(&incomplete, &weights()[..60_000]).unwrap();
    let path = get(&world.hub(), "model.safetensors").unwrap();
    assert_eq!(fs::read(path).unwrap(), weights());
    assert_eq!(world.to_storage()[0]["range"], "bytes=60000-");
    assert_eq!(world.to_storage()[0]["sent"], 40_000);
}

#[test]
fn a_leftover_of_something_else_is_found_and_fetched_anew() {
    let world = World::new();
    let incomplete = world.blob(&format!("{}.incomplete", sha256(&weights())));
    fs::create_dir_all(incomplete.parent().unwrap()).unwrap();
    for leftover in [vec![1; 60_000], vec![1; 100_000], vec![1; 200_000]] {
        fs::write(&incomplete, leftover).unwrap();
        let path = get(&world.hub(), "model.safetensors").unwrap();
        assert_eq!(fs::read(&path).unwrap(), weights());
        fs::remove_file(fs::canonicalize(path).unwrap()).unwrap();
    }
}

#[test]
fn a_flipped_bit_is_found_and_the_file_fetched_once_more() {
    let world = World::new();
    let notes = Arc::new(Mutex::new(Vec::new()));
    let told = notes.clone();
    let hub = world.hub().with_notes(move |note| told.lock().unwrap().push(note.to_owned()));
    world.faults(&json!([
        { "at": "storage/*", "fault": "flip", "byte": 99_999, "times": 1 },
        { "at": "resolve/*config.json", "fault": "flip", "times": 1 },
    ]));
    assert_eq!(fs::read(get(&hub, "model.safetensors").unwrap()).unwrap(), weights());
    assert_eq!(fs::read(get(&hub, "config.json").unwrap()).unwrap(), b"{\"model_type\": \"tiny\"}");
    let notes = notes.lock().unwrap();
    assert_eq!(
        *notes,
        [
            "model.safetensors of acme/tiny came damaged: it is fetched once more",
            "config.json of acme/tiny came damaged: it is fetched once more",
        ]
    );
}

#[test]
fn a_file_that_always_comes_damaged_is_an_error_and_leaves_nothing() {
    let world = World::new();
    world.faults(&json!([{ "at": "storage/*", "fault": "flip", "byte": 5 }]));
    let error = get(&world.hub(), "model.safetensors").unwrap_err();
    assert!(error.to_string().contains("model.safetensors of acme/tiny came damaged twice"), "{error}");
    assert_eq!(world.to_storage().len(), 2);
    assert!(fs::read_dir(world.blob("")).unwrap().next().is_none());
}

#[test]
fn damage_in_the_cache_is_found_and_mended() {
    let world = World::new();
    let path = get(&world.hub(), "model.safetensors").unwrap();
    let mut bytes = weights();
    bytes[70_000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let offline = get(&world.hub_with(&[("HF_HUB_OFFLINE", "1")]), "model.safetensors").unwrap_err();
    assert!(matches!(offline, HubError::NotCached { .. }), "{offline}");
    assert_eq!(fs::read(get(&world.hub(), "model.safetensors").unwrap()).unwrap(), weights());
    assert_eq!(world.to_storage().len(), 2);
}

#[test]
fn two_at_once_fetch_once() {
    let world = World::new();
    world.faults(&json!([{ "at": "storage/*", "fault": "hold", "after": 1000, "times": 1 }]));
    let notes = Arc::new(Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| get(&world.hub(), "model.safetensors").unwrap());
        let incomplete = world.blob(&format!("{}.incomplete", sha256(&weights())));
        eventually("the first has begun", || incomplete.metadata().is_ok_and(|file| file.len() == 1000));
        let told = notes.clone();
        let second = scope.spawn(|| {
            let hub = world.hub().with_notes(move |note| told.lock().unwrap().push(note.to_owned()));
            get(&hub, "model.safetensors").unwrap()
        });
        eventually("the second waits", || !notes.lock().unwrap().is_empty());
        fs::write(world.root().join("release"), "").unwrap();
        assert_eq!(first.join().unwrap(), second.join().unwrap());
    });
    assert_eq!(world.to_storage().len(), 1);
    assert!(notes.lock().unwrap()[0].starts_with("another program is fetching model.safetensors of acme/tiny"));
}

#[test]
fn a_fetch_that_is_stopped_leaves_what_it_has() {
    let world = World::new();
    world.faults(&json!([{ "at": "storage/*", "fault": "slow", "chunk": 1000, "seconds": 0.02 }]));
    let hub = world.hub();
    let incomplete = world.blob(&format!("{}.incomplete", sha256(&weights())));
    let error = std::thread::scope(|scope| {
        let fetch = scope.spawn(|| get(&hub, "model.safetensors").unwrap_err());
        eventually("it has begun", || incomplete.metadata().is_ok_and(|file| file.len() > 0));
        hub.stop();
        fetch.join().unwrap()
    });
    assert!(matches!(error, HubError::Stopped), "{error}");
    let left = fs::read(incomplete).unwrap();
    assert!(left.len() < 100_000 && left[..] == weights()[..left.len()]);
}

#[test]
fn an_error_of_the_server_passes_and_one_that_stays_is_told() {
    let world = World::new();
    world.faults(&json!([
        { "at": "api/*", "fault": "status", "status": 503, "times": 1 },
        { "at": "storage/*", "fault": "status", "status": 500, "times": 2 },
    ]));
    get(&world.hub(), "model.safetensors").unwrap();
    world.faults(&json!([{ "at": "resolve/*", "fault": "status", "status": 418, "message": "I am a teapot" }]));
    let error = get(&world.hub(), "config.json").unwrap_err();
    assert!(error.to_string().ends_with("answers 418 for config.json of acme/tiny: I am a teapot"), "{error}");
    assert!(!error.is_of_the_file());
}

#[test]
fn a_limit_is_waited_for_as_told_and_not_for_ever() {
    let world = World::new();
    let notes = Arc::new(Mutex::new(Vec::new()));
    let told = notes.clone();
    let hub = world.hub().with_notes(move |note| told.lock().unwrap().push(note.to_owned()));
    world.faults(&json!([{ "at": "resolve/*", "fault": "limit", "seconds": 1, "times": 1 }]));
    let started = Instant::now();
    get(&hub, "config.json").unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(*notes.lock().unwrap(), ["the hub limits how often it is asked: waiting 1 s, as it says"]);
    world.faults(&json!([{ "at": "storage/*", "fault": "limit", "seconds": 86400 }]));
    let error = get(&hub, "model.safetensors").unwrap_err();
    assert!(error.to_string().ends_with("it says to wait 86400 s"), "{error}");
    assert!(error.hint().unwrap().contains("HF_TOKEN"));
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let world = World::new();
    let hub = world.hub_with(&[("HF_TOKEN", "hf_secret")]);
    get(&hub, "model.safetensors").unwrap();
    get(&hub, "config.json").unwrap();
    for request in world.requests() {
        let expected = if request["server"] == "storage" { json!(null) } else { json!("hf_secret") };
        assert_eq!(request["token"], expected, "{request}");
    }
    assert!(!format!("{hub:?}").contains("hf_secret"));
    // A server that says it back.
    world.faults(&json!([{ "at": "resolve/*", "fault": "status", "status": 400, "message": "who is hf_secret?" }]));
    let error = get(&hub, "sub/notes.txt").unwrap_err();
    assert!(error.to_string().ends_with("who is [token]?"), "{error}");
    assert!(!format!("{error:?}").contains("hf_secret"));
}

#[test]
fn who_may_not_read_is_told_what_to_do() {
    let world = World::new();
    let (none, some) = (world.hub(), world.hub_with(&[("HF_TOKEN", "hf_wrong")]));
    let texts = |hub: &Hub| {
        let error = get(hub, "config.json").unwrap_err();
        assert!(!error.is_of_the_file(), "{error}");
        (error.to_string(), error.hint().unwrap_or_default())
    };
    world.faults(&json!([{ "at": "resolve/*", "fault": "gated", "token": "hf_right" }]));
    let page = format!("{}/acme/tiny", world.address);
    let (message, hint) = texts(&none);
    assert_eq!(message, "acme/tiny is gated: access has to be granted by its authors");
    assert_eq!(hint, format!("ask for access at {page}, and set HF_TOKEN to a token of the account that has it"));
    assert!(texts(&some).1.contains("has none yet"));
    get(&world.hub_with(&[("HF_TOKEN", "hf_right")]), "config.json").unwrap();
    world.faults(&json!([{ "at": "api/*", "fault": "token", "token": "hf_right" }]));
    let (message, hint) = texts(&some);
    assert!(message.contains("does not take the token for acme/tiny"), "{message}");
    assert_eq!(hint, "the token comes from HF_TOKEN: replace it, or unset it");
}

#[test]
fn what_is_not_there_is_named() {
    let world = World::new();
    let hub = world.hub_with(&[("HF_TOKEN", "hf_some")]);
    let no_repo = hub.resolve(RepoKind::Dataset, "acme/none", None).unwrap_err();
    assert!(no_repo.to_string().contains("has no data set `acme/none`"), "{no_repo}");
    let hidden = world.hub().resolve(RepoKind::Model, "acme/none", None).unwrap_err();
    assert!(hidden.to_string().ends_with("does not show it to anybody without a token"), "{hidden}");
    let no_revision = hub.resolve(RepoKind::Model, REPO, Some("v9")).unwrap_err();
    assert_eq!(no_revision.to_string(), "acme/tiny has no revision `v9` on the hub");
    let commit = hub.resolve(RepoKind::Model, REPO, None).unwrap();
    let ghost = RemoteFile { path: "ghost".to_owned(), size: 1, sha256: Some("0".repeat(64)), oid: None };
    let no_file = hub.fetch(RepoKind::Model, REPO, &commit, &ghost, &mut |_| {}).unwrap_err();
    assert_eq!(no_file.to_string(), format!("acme/tiny has no file `ghost` at {commit}"));
    assert!([no_repo, hidden, no_revision, no_file].iter().all(HubError::is_of_the_file));
    let wrong = hub.resolve(RepoKind::Model, "../../etc", None).unwrap_err();
    assert!(wrong.to_string().contains("its name is ORG/NAME"), "{wrong}");
}

#[test]
fn nobody_at_the_address_is_said_soon() {
    let world = World::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let hub = world.hub_with(&[("HF_ENDPOINT", &format!("http://127.0.0.1:{port}"))]);
    let started = Instant::now();
    let error = hub.resolve(RepoKind::Model, REPO, None).unwrap_err();
    assert!(error.to_string().contains("cannot be reached"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_branch_that_moved_and_a_repository_that_was_renamed_are_followed() {
    let world = World::new();
    let hub = world.hub();
    let before = hub.resolve(RepoKind::Model, REPO, None).unwrap();
    world.write("config.json", b"{}");
    let after = hub.resolve(RepoKind::Model, REPO, Some("main")).unwrap();
    assert_ne!(before, after);
    let files = hub.files(RepoKind::Model, REPO, &before).unwrap();
    let old = hub.fetch(RepoKind::Model, REPO, &before, &files[0], &mut |_| {}).unwrap();
    assert_eq!(fs::read_to_string(old).unwrap(), "{\"model_type\": \"tiny\"}");
    assert_eq!(hub.resolve(RepoKind::Model, REPO, Some(&before)).unwrap(), before);
    fs::write(world.root().join("moved.json"), r#"{"acme/old": "acme/tiny"}"#).unwrap();
    assert_eq!(hub.resolve(RepoKind::Model, "acme/old", None).unwrap(), after);
}
