//! Data sets from a hub on this machine: which files are fetched, what becomes of their rows, and what is said where there
//! are none. The hub is a Python program; rows are held against those of the `datasets` library where there is one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::hub_server::HubServer;
use crate::project::{Project, Said};

/// A project, and a hub that knows the data set `acme/sums` and others.
struct World {
    project: Project,
    server: Option<HubServer>,
}

impl World {
    fn new(data: &str) -> Self {
        let (project, server) = HubServer::of(Project::with(&format!("name: x\ndata:\n  d: {data}\n")));
        Self { project, server: Some(server) }
    }

    /// With three files of two rows each.
    fn with_sums(data: &str) -> Self {
        let world = Self::new(data);
        for at in 0..3 {
            let rows = format!("{{\"a\":{}}}\n{{\"a\":{}}}\n", 2 * at, 2 * at + 1);
            world.write("main", &format!("data/train-0000{at}-of-00003.jsonl"), rows);
        }
        world.write("main", "README.md", "# Sums\n");
        world
    }

    fn dir(&self, repo: &str) -> PathBuf {
        self.project.path("hub/datasets/acme").join(repo)
    }

    fn write(&self, branch: &str, path: &str, contents: impl AsRef<[u8]>) {
        self.server().write(&format!("datasets/acme/sums/{}/{path}", branch.replace('/', "%2F")), contents);
    }

    fn server(&self) -> &HubServer {
        self.server.as_ref().expect("a test asks its hub before it stops it")
    }

    /// Names of files whose contents were sent, in the order in which they were.
    fn sent(&self) -> Vec<String> {
        let of_file = |request: Value| {
            let path = request["path"].as_str()?.replace("%2F", "/");
            let is_of_file = request["server"] == "storage" || path.contains("resolve-cache/");
            let is_sent = is_of_file && request["status"] == 200 && request["sent"].as_u64()? > 0;
            is_sent.then(|| path.rsplit('/').next().unwrap().to_owned())
        };
        self.server().requests().into_iter().filter_map(of_file).collect()
    }

    fn run(&self, flags: &[&str]) -> Said {
        self.project.mergelab(&[&["run", "x.yaml"], flags].concat())
    }

    fn shown(&self) -> Value {
        self.project.mergelab(&["show", "--json", "data.d", "x.yaml"]).exits(0).json()
    }

    fn rows(&self) -> String {
        fs::read_to_string(self.project.output("x", "data.d", "rows.jsonl")).unwrap()
    }

    fn key(&self) -> Value {
        self.project.keys().remove(0).1
    }

    fn lock(&self) -> String {
        self.project.read("x.lock")
    }
}

fn data(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rows").join(name)).unwrap()
}

#[test]
fn only_the_files_that_the_rows_need_are_fetched() {
    let world = World::with_sums("{ hub: acme/sums, rows: 3, text: \"{{ a }}\" }");
    world.run(&[]).exits(0);
    assert_eq!(world.rows(), "{\"a\":0}\n{\"a\":1}\n{\"a\":2}\n");
    assert_eq!(world.sent(), ["README.md", "train-00000-of-00003.jsonl", "train-00001-of-00003.jsonl"]);
    let said = &world.shown()["manifest"];
    let hub = &said["facts"]["hub"];
    assert_eq!(
        (&hub["repository"], &hub["config"], &hub["split"]),
        (&json!("acme/sums"), &json!("default"), &json!("train"))
    );
    let files = hub["files"].as_array().unwrap();
    let paths: Vec<_> = files.iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["data/train-00000-of-00003.jsonl", "data/train-00001-of-00003.jsonl"]);
    assert!(files.iter().all(|file| file["sha256"].as_str().unwrap().len() == 64 && file["size"] == 16));
    assert!(world.lock().contains(hub["commit"].as_str().unwrap()));

    // At the border of a file the next one is left alone; a larger number takes what is missing and no more.
    let world = World::with_sums("{ hub: acme/sums, rows: 2, text: \"{{ a }}\" }");
    world.run(&[]).exits(0);
    assert_eq!(world.sent(), ["README.md", "train-00000-of-00003.jsonl"]);
    world.project.edit("x.yaml", "rows: 2", "rows: 6");
    world.run(&[]).exits(0);
    assert_eq!(world.sent().len(), 4);
    assert_eq!(world.rows().lines().count(), 6);
}

#[test]
fn a_sample_takes_all_files_and_is_the_same_everywhere() {
    let world = World::with_sums("{ hub: acme/sums, rows: { sample: 3, seed: 1 }, text: \"{{ a }}\" }");
    world.run(&[]).exits(0);
    assert_eq!(world.sent().len(), 4);
    let all: Vec<_> = (0..6).map(|at| format!("{{\"a\":{at}}}\n")).collect();
    let local =
        Project::with("name: x\ndata: { d: { path: all.jsonl, rows: { sample: 3, seed: 1 }, text: \"{{ a }}\" } }\n")
            .file("all.jsonl", all.concat());
    local.run(&[]);
    assert_eq!(world.rows(), fs::read_to_string(local.output("x", "data.d", "rows.jsonl")).unwrap());
}

#[test]
fn what_the_cache_holds_is_enough_without_a_network() {
    let mut world = World::with_sums("{ hub: acme/sums, rows: 3, text: \"{{ a }}\" }");
    world.run(&[]).exits(0);
    let (rows, key) = (world.rows(), world.key());
    world.server = None;
    fs::remove_dir_all(world.project.path(".mergelab")).unwrap();
    assert_eq!(world.key(), key);
    let offline = |world: &World| {
        let mut command = world.project.command(&["run", "x.yaml"]);
        command.env("HF_HUB_OFFLINE", "1");
        world.project.said(command)
    };
    offline(&world).exits(0);
    assert_eq!((world.rows(), world.key()), (rows, key));
    // The third file is not in it.
    world.project.edit("x.yaml", "rows: 3", "rows: 5");
    offline(&world).exits(1).says("data/train-00002-of-00003.jsonl").says("HF_HUB_OFFLINE");
}

#[test]
fn a_branch_that_moves_changes_nothing_before_it_is_asked_for() {
    let world = World::with_sums("{ hub: acme/sums, rows: 1, text: \"{{ a }}\" }");
    world.run(&[]).exits(0);
    let key = world.key();
    world.write("main", "data/train-00000-of-00003.jsonl", "{\"a\":7}\n");
    world.run(&[]).exits(0);
    assert_eq!((world.key(), &*world.rows()), (key.clone(), "{\"a\":0}\n"));
    world.run(&["--update"]).exits(0);
    assert_ne!(world.key(), key);
    assert_eq!(world.rows(), "{\"a\":7}\n");
}

/// A data set that a program makes, and what the hub made of it.
fn converted(data: &str) -> World {
    let world = World::new(data);
    world.write("main", "sums.py", "raise SystemExit\n");
    world.write("v1", "sums.py", "raise SystemExit\n");
    for path in ["plain/train/0000.parquet", "plain/train/0001.parquet", "plain/partial-test/0000.parquet"] {
        world.write("refs/convert/parquet", path, self::data("x.parquet"));
    }
    world
}

#[test]
fn what_a_program_makes_comes_from_the_conversion_of_the_hub_and_its_commit_is_kept() {
    let world = converted("{ hub: acme/sums, rows: 3, text: \"{{ a }}\" }");
    let note = "its rows are made by a program, sums.py, which is not run; read from the conversion to Parquet";
    world.run(&[]).exits(0).says(note);
    assert_eq!(world.rows(), "{\"a\":1}\n{\"a\":2}\n{\"a\":1}\n");
    let (lock, key) = (world.lock(), world.key());
    assert!(lock.contains("\"refs/convert/parquet\" = "), "{lock}");
    // The conversion of another state does not count before somebody asks.
    world.write("refs/convert/parquet", "plain/train/0002.parquet", data("x.parquet"));
    fs::remove_dir_all(world.project.path(".mergelab")).unwrap();
    world.run(&[]).exits(0);
    assert_eq!((world.lock(), world.key()), (lock, key.clone()));
    world.run(&["--update"]).exits(0);
    assert_ne!(world.key(), key);
    // Once the repository has files itself, no conversion counts any more.
    fs::remove_file(world.dir("sums").join("main/sums.py")).unwrap();
    world.write("main", "train.jsonl", "{\"a\":5}\n");
    world.run(&["--update"]).exits(0);
    assert_eq!(world.rows(), "{\"a\":5}\n");
    assert!(!world.lock().contains("refs/convert"), "{}", world.lock());
}

#[test]
fn of_a_conversion_of_the_beginning_the_first_rows_can_be_had_and_not_all() {
    let world = converted("{ hub: acme/sums, split: test, rows: 1, text: \"{{ a }}\" }");
    world.run(&[]).exits(0).says("read from the conversion of the beginning of it to Parquet");
    world.project.edit("x.yaml", " rows: 1,", "");
    world.run(&[]).exits(3).says("the hub converted only the beginning of its split `test`");
}

#[test]
fn a_pinned_revision_of_what_a_program_makes_is_refused() {
    let world = converted("{ hub: acme/sums, revision: v1, text: \"{{ a }}\" }");
    world.run(&[]).exits(3).says("acme/sums at v1: ").says("the hub's conversion to Parquet follows main");
}

#[test]
fn what_is_not_there_is_said_before_anything_runs_at_its_place() {
    let world = World::with_sums("{ hub: acme/sums, split: tran, text: \"{{ a }}\" }");
    insta::assert_snapshot!(world.run(&[]).exits(3).all());
    world.project.edit("x.yaml", "split: tran", "config: main");
    world.run(&[]).exits(3).says("acme/sums: it has no configuration `main`").says("it has `default`");
    assert!(!world.project.has("x.lock"));
    world.project.edit("x.yaml", "config: main", "revision: v9");
    world.run(&[]).exits(3).says("acme/sums has no revision `v9`");
    world.project.edit("x.yaml", "acme/sums, revision: v9", "acme/none");
    world.run(&[]).exits(3).says("acme/none");
}

#[test]
fn a_gated_data_set_says_where_to_ask() {
    let world = World::with_sums("{ hub: acme/sums, text: \"{{ a }}\" }");
    let faults = json!([{ "at": "*/acme/sums*", "fault": "gated", "token": "hf_right" }]);
    world.server().faults(&faults);
    world.run(&[]).exits(1).says("acme/sums is gated").says("/datasets/acme/sums");
    let mut command = world.project.command(&["run", "x.yaml"]);
    command.env("HF_TOKEN", "hf_right");
    world.project.said(command).exits(0);
}

/// A Python with `datasets`, or `None`, said aloud.
fn real_datasets() -> Option<PathBuf> {
    let stated = std::env::var_os("MERGELAB_PYTHON").map(PathBuf::from);
    let active = std::env::var_os("VIRTUAL_ENV").map(|root| Path::new(&root).join("bin/python"));
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let python = stated.or(active).unwrap_or(own);
    let asks = ["-c", "import importlib.util as u; exit(not (u.find_spec('datasets') and u.find_spec('pyarrow')))"];
    let found = Command::new(&python).args(asks).status().is_ok_and(|status| status.success());
    if !found {
        println!("skipped: no Python with datasets ({})", python.display());
    }
    found.then_some(python)
}

#[test]
fn rows_are_those_that_datasets_gives() {
    let Some(python) = real_datasets() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rows/repository.py");
    let made = tempfile::tempdir().unwrap();
    assert!(Command::new(&python).arg(&script).arg("make").arg(made.path()).status().unwrap().success());
    let world = World::new("{}");
    for repo in ["chats", "lines"] {
        fs::create_dir_all(world.dir(repo)).unwrap();
        fs::rename(made.path().join(repo), world.dir(repo).join("main")).unwrap();
    }
    for (repo, config, split, rows) in [
        ("chats", "main", "train", 5),
        ("chats", "main", "train", 7),
        ("chats", "main", "train", 8),
        ("chats", "main", "train", 16),
        ("chats", "main", "test", 3),
        ("lines", "plain", "train", 9),
        ("lines", "declared", "train", 9),
    ] {
        let entry = format!("hub: acme/{repo}, config: {config}, split: {split}, rows: {rows}, text: \"{{{{ id }}}}\"");
        world.project.write("x.yaml", format!("name: x\ndata:\n  d: {{ {entry} }}\n"));
        world.run(&[]).exits(0);
        let first = Command::new(&python)
            .arg(&script)
            .arg("first")
            .arg(world.dir(repo).join("main"))
            .args([config, split, &rows.to_string()])
            .output()
            .unwrap();
        assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
        assert_eq!(world.rows(), String::from_utf8(first.stdout).unwrap(), "{entry}");
    }
}
