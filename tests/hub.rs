//! Models on the hub as sources, against a hub on this machine.

use std::fs;

use rustix::process::Signal;
use serde_json::json;

use crate::hub_server::HubServer;
use crate::project::{MERGELAB, NOWHERE, Project, Said, Summary, safetensors, wait_until};

const EXPERIMENT: &str = r#"name: x
models:
  a: { hub: acme/one }
  b: { hub: acme/two, revision: main }
data: { rows: { path: rows.jsonl, text: "{{ text }}" } }
grams:
  a: { model: a, data: rows }
  b: { model: b, data: rows }
merges:
  avg: { method: average, models: [a, b] }
  regmean: { method: regmean, models: [a, b], grams: [a, b] }
evals:
  suite: { models: [a, avg], backend: hf, task_dirs: [tasks], tasks: [add] }
"#;

const ALL: [&str; 9] = [
    "models.a",
    "models.b",
    "data.rows",
    "grams.a",
    "grams.b",
    "merges.avg",
    "merges.regmean",
    "evals.suite/a/add",
    "evals.suite/avg/add",
];

/// Two models on the hub, merged, captured and evaluated, with stand-ins for the programs that compute.
pub(crate) fn project() -> (Project, HubServer) {
    let project = Project::with(EXPERIMENT)
        .with_fakes()
        .file("rows.jsonl", "{\"text\":\"a\"}\n")
        .file("tasks/add.yaml", "task: add\n");
    let (project, hub) = HubServer::of(project);
    hub.model("acme/one", "one");
    hub.model("acme/two", "two");
    (project, hub)
}

/// As [`project`], done.
pub(crate) fn done() -> (Project, HubServer) {
    let (project, hub) = project();
    project.run(&[]).ran(&ALL);
    (project, hub)
}

/// A project with one model.
pub(crate) fn single() -> (Project, HubServer) {
    let (project, hub) = HubServer::of(Project::with("name: x\nmodels: { a: { hub: acme/one } }\n"));
    hub.model("acme/one", "one");
    (project, hub)
}

fn with(project: &Project, variables: &[(&str, &str)], arguments: &[&str]) -> Said {
    let mut command = project.command(arguments);
    command.envs(variables.iter().copied());
    project.said(command)
}

/// How many bytes there are of the file that is being fetched, if one is.
fn incomplete(project: &Project) -> Option<u64> {
    let blobs = fs::read_dir(project.path("cache/models--acme--one/blobs")).into_iter().flatten().flatten();
    let mut found = blobs.filter(|blob| blob.path().extension().is_some_and(|ending| ending == "incomplete"));
    found.find_map(|blob| Some(blob.metadata().ok()?.len()))
}

#[test]
fn a_model_on_the_hub_is_merged_captured_and_evaluated_as_one_in_a_directory() {
    let (project, _hub) = done();
    project.run(&[]).ran(&[]);
    let shown = project.mergelab(&["show", "models.a", "x.yaml", "--json"]).exits(0).json();
    let outputs = shown["manifest"]["outputs"].as_array().unwrap();
    let files: Vec<_> = outputs.iter().map(|output| output["path"].as_str().unwrap()).collect();
    assert_eq!(files, ["config.json", "model.safetensors", "tokenizer.json"], "the card is not fetched");
    let local = Project::with(EXPERIMENT)
        .with_fakes()
        .model("models/a", "one")
        .model("models/b", "two")
        .file("rows.jsonl", "{\"text\":\"a\"}\n")
        .file("tasks/add.yaml", "task: add\n");
    local.edit("x.yaml", "{ hub: acme/one }", "{ path: models/a }");
    local.edit("x.yaml", "{ hub: acme/two, revision: main }", "{ path: models/b }");
    local.run(&[]).ran(&ALL);
    let keys = |project: &Project| {
        let keys = project.keys().into_iter().filter(|(stage, _)| !stage.starts_with("models."));
        keys.collect::<Vec<_>>()
    };
    assert_eq!(keys(&project), keys(&local), "what a model is decides, and not where it comes from");
    project.mergelab(&["verify"]).exits(0);
}

#[test]
fn files_are_used_where_the_cache_has_them_and_fetched_once() {
    let (project, hub) = done();
    assert_eq!(hub.transfers().len(), 2);
    let location = fs::canonicalize(project.path("runs/x/models.a")).unwrap();
    assert!(location.starts_with(fs::canonicalize(project.path("cache/models--acme--one/snapshots")).unwrap()));
    assert!(project.in_store("objects").len() < ALL.len(), "no copy of a model is in the store");
    fs::remove_dir_all(project.path(".mergelab")).unwrap();
    project.run(&[]).ran(&ALL);
    assert_eq!(hub.transfers().len(), 2);
}

#[test]
fn with_a_filled_cache_everything_works_without_a_network() {
    let (project, hub) = done();
    let asked = hub.requests().len();
    let offline = [("HF_HUB_OFFLINE", "1")];
    for name in [".mergelab", "x.lock"] {
        let path = project.path(name);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    let said = with(&project, &offline, &["run", "x.yaml", "--json"]);
    Summary::of(said).ran(&ALL);
    assert_eq!(hub.requests().len(), asked);
    // Where not even a socket could be opened, if this machine lets us take the network away.
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--net"]).arg(MERGELAB).args(["run", "x.yaml"]).current_dir(project.root());
    command.env("HF_HUB_OFFLINE", "1").env("HF_ENDPOINT", NOWHERE).env("HF_HUB_CACHE", project.path("cache"));
    fs::remove_dir_all(project.path(".mergelab")).unwrap();
    command.args(["--only", "models.a", "--only", "models.b"]);
    let can_unshare = std::process::Command::new("unshare").args(["--user", "--net", "true"]).status();
    if can_unshare.is_ok_and(|status| status.success()) {
        project.said(command).exits(0);
    } else {
        eprintln!("this machine lets nobody take the network away: not tried without one");
    }
}

#[test]
fn offline_what_is_not_cached_says_how_to_get_it() {
    let (project, hub) = single();
    let offline = [("HF_HUB_OFFLINE", "1")];
    let said = with(&project, &offline, &["run", "x.yaml"]).exits(1);
    let said = said
        .says("models.a: what `main` of acme/one names is not in the cache [project]/cache, and HF_HUB_OFFLINE is set");
    said.says(
        "hint: run once without HF_HUB_OFFLINE, or fill the cache on a machine with a network: `hf download acme/one`",
    );
    assert!(hub.requests().is_empty());
    project.run(&[]).ran(&["models.a"]);
    let weights = fs::canonicalize(project.path("runs/x/models.a/model.safetensors")).unwrap();
    fs::remove_file(weights).unwrap();
    fs::remove_dir_all(project.path(".mergelab")).unwrap();
    let said = with(&project, &offline, &["run", "x.yaml"]).exits(1);
    said.says("failed  models.a: model.safetensors of acme/one is not in the cache");
}

#[test]
fn what_left_the_cache_comes_back_when_something_needs_it() {
    let (project, hub) = done();
    fs::remove_dir_all(project.path("cache")).unwrap();
    project.run(&[]).ran(&[]);
    assert_eq!(hub.transfers().len(), 2, "nothing needs it");
    project.edit("x.yaml", "tasks: [add]", "tasks: [add, sort]");
    project.write("tasks/sort.yaml", "task: sort\n");
    let status = project.mergelab(&["status", "x.yaml"]).exits(0);
    assert!(
        status.stdout.contains("fetched again, since its files are not in the hub's cache as they were"),
        "{status:?}"
    );
    project.run(&[]).ran(&["models.a", "evals.suite/a/sort", "evals.suite/avg/sort"]);
    assert_eq!(hub.transfers().len(), 3);
}

#[test]
fn a_bit_that_flips_in_the_cache_is_found_before_the_model_is_read() {
    let (project, hub) = done();
    let weights = fs::canonicalize(project.path("runs/x/models.a/model.safetensors")).unwrap();
    let mut bytes = fs::read(&weights).unwrap();
    bytes[60] ^= 1;
    fs::write(&weights, bytes).unwrap();
    project.edit("x.yaml", "tasks: [add]", "tasks: [add, sort]");
    project.write("tasks/sort.yaml", "task: sort\n");
    let summary = project.run(&[]).ran(&["models.a", "evals.suite/a/sort", "evals.suite/avg/sort"]);
    summary.says("note    models.a: model.safetensors of acme/one in the cache is damaged: it is fetched anew");
    assert_eq!(fs::read(weights).unwrap(), safetensors("one"));
    assert_eq!(hub.transfers().len(), 3);
}

#[test]
fn a_run_that_is_killed_goes_on_where_it_was() {
    let (project, hub) = single();
    hub.write("models/acme/one/main/model.safetensors", safetensors(&"weights ".repeat(1000)));
    hub.faults(&json!([{ "at": "storage/*", "fault": "hold", "after": 3000, "times": 1 }]));
    let running = project.start(&["run", "x.yaml"]);
    wait_until("it has begun", || incomplete(&project) == Some(3000));
    running.kill();
    hub.release();
    project.run(&[]).ran(&["models.a"]);
    // The one that was held may be logged after it.
    assert!(hub.transfers().iter().any(|transfer| transfer["range"] == "bytes=3000-"), "{:?}", hub.transfers());
    assert_eq!(incomplete(&project), None);
}

#[test]
fn an_interrupt_ends_a_transfer_at_once() {
    let (project, hub) = single();
    hub.faults(&json!([{ "at": "storage/*", "fault": "hold", "after": 10, "times": 1 }]));
    let running = project.start(&["run", "x.yaml"]);
    wait_until("it has begun", || incomplete(&project) == Some(10));
    let started = std::time::Instant::now();
    running.signal(Signal::INT);
    running.wait(&project).exits(130);
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
    hub.release();
    project.run(&[]).ran(&["models.a"]);
}

#[test]
fn two_runs_at_once_fetch_once() {
    let (project, hub) = single();
    let other = project.path("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("mergelab.toml"), "").unwrap();
    fs::write(other.join("x.yaml"), "name: x\nmodels: { a: { hub: acme/one } }\n").unwrap();
    hub.faults(&json!([{ "at": "storage/*", "fault": "hold", "after": 10, "times": 1 }]));
    let first = project.start(&["run", "x.yaml"]);
    wait_until("it has begun", || incomplete(&project) == Some(10));
    let mut command = project.command(&["run", "x.yaml"]);
    command.current_dir(&other).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let second = command.spawn().unwrap();
    wait_until("the second has its store", || other.join(".mergelab/keys").exists());
    hub.release();
    first.wait(&project).exits(0);
    let second = second.wait_with_output().unwrap();
    assert!(second.status.success(), "{second:?}");
    assert_eq!(hub.transfers().len(), 1);
}

#[test]
fn a_transfer_that_always_comes_damaged_fails_the_stage() {
    let (project, hub) = single();
    hub.faults(&json!([{ "at": "storage/*", "fault": "flip", "byte": 3 }]));
    let summary = project.run(&[]).failed(1, &["models.a"], &[]);
    summary.says("model.safetensors of acme/one came damaged twice: its digest is [digest], the hub says [digest]");
    assert_eq!(hub.transfers().len(), 2);
    hub.faults(&json!([]));
    project.run(&[]).ran(&["models.a"]);
}

#[test]
fn what_the_experiment_names_and_is_not_there_is_shown_at_its_line() {
    let (project, hub) = HubServer::of(Project::with(
        "name: x\nmodels:\n  a: { hub: acme/none }\n  b: { hub: acme/one, revision: v9 }\n  c: { hub: acme/one }\n",
    ));
    hub.model("acme/one", "one");
    let said = with(&project, &[("HF_TOKEN", "hf_some")], &["run", "x.yaml"]).exits(3);
    let said = said.says("has no model `acme/none`, or does not show it to this token").says("x.yaml:3:13");
    said.says("acme/one has no revision `v9` on the hub").says("x.yaml:4:13").says_nothing_of("hf_some");
    assert!(!project.has(".mergelab") && !project.has("x.lock"));
}

#[test]
fn who_may_not_read_is_told_where_to_ask_and_which_variable_to_set() {
    let (project, hub) = single();
    hub.faults(&json!([{ "at": "resolve/*", "fault": "gated", "token": "hf_right" }]));
    let page = format!("{}/acme/one", hub.address);
    let said = project.mergelab(&["run", "x.yaml"]).exits(1);
    let said = said.says("failed  models.a: acme/one is gated: access has to be granted by its authors");
    said.says(&format!("hint: ask for access at {page}, and set HF_TOKEN to a token of the account that has it"));
    let said = with(&project, &[("HF_TOKEN", "hf_wrong")], &["run", "x.yaml"]).exits(1);
    said.says("the account of the token that was sent has none yet").says_nothing_of("hf_wrong");
    with(&project, &[("HF_TOKEN", "hf_right")], &["run", "x.yaml"]).exits(0);
    hub.faults(&json!([{ "at": "api/*", "fault": "token" }]));
    let said = with(&project, &[("HF_TOKEN", "hf_old")], &["run", "x.yaml", "--update"]).exits(1);
    said.says("does not take the token for acme/one").says("the token comes from HF_TOKEN").says_nothing_of("hf_old");
}

#[test]
fn a_limit_is_waited_for_and_said() {
    let (project, hub) = single();
    hub.faults(&json!([
        { "at": "api/*", "fault": "limit", "seconds": 1, "times": 1 },
        { "at": "resolve/*", "fault": "limit", "seconds": 1, "times": 1 },
    ]));
    let summary = project.run(&[]).ran(&["models.a"]);
    let note = "the hub limits how often it is asked: waiting 1 s, as it says";
    summary.says(&format!("note    {note}")).says(&format!("note    models.a: {note}"));
}

#[test]
fn a_repository_that_is_no_model_is_refused_before_anything_is_fetched() {
    let (project, hub) = single();
    let at = |file: &str| format!("models/acme/one/main/{file}");
    fs::remove_file(project.path("hub").join(at("model.safetensors"))).unwrap();
    hub.write(&at("model.gguf"), "GGUF");
    let summary = project.run(&[]).failed(3, &["models.a"], &[]);
    let summary = summary.says("it has no model.safetensors, nor shards of one, nor pytorch_model.bin");
    summary.says("hint: it has model.gguf, which is another format");
    assert!(hub.requests().iter().all(|request| request["path"].as_str().unwrap().starts_with("/api/models/")));
    hub.write(&at("pytorch_model.bin"), "a pickle");
    project.run(&["--update"]).ran(&["models.a"]);
    let shown = project.mergelab(&["show", "models.a", "x.yaml", "--json"]).exits(0).json();
    let files = shown["manifest"]["outputs"].as_array().unwrap().iter().map(|output| output["path"].clone());
    assert_eq!(files.collect::<Vec<_>>(), ["config.json", "pytorch_model.bin", "tokenizer.json"]);
}

#[test]
fn of_weights_in_several_files_those_that_the_index_names_are_fetched() {
    let (project, hub) = single();
    let at = |file: &str| format!("models/acme/one/main/{file}");
    fs::remove_file(project.path("hub").join(at("model.safetensors"))).unwrap();
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    for shard in shards {
        hub.write(&at(shard), safetensors(shard));
    }
    hub.write(&at("consolidated.safetensors"), safetensors("the same in another form"));
    hub.write(&at("pytorch_model.bin"), "the same as a pickle");
    hub.write(&at("original/params.json"), "{}");
    let index = json!({ "weight_map": { "w": shards[0], "v": shards[1] } });
    hub.write(&at("model.safetensors.index.json"), index.to_string());
    project.run(&[]).ran(&["models.a"]);
    let files: Vec<_> = hub.transfers().iter().map(|transfer| transfer["path"].as_str().unwrap().to_owned()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    hub.write(&at("model.safetensors.index.json"), r#"{"weight_map": {"w": "elsewhere.safetensors"}}"#);
    let summary = project.run(&["--update"]).failed(3, &["models.a"], &[]);
    summary
        .says("model.safetensors.index.json of acme/one names elsewhere.safetensors, which is not in the repository");
}

#[test]
fn a_token_is_in_no_file_no_message_and_no_child_that_does_not_need_it() {
    let (project, hub) = project();
    project.edit("x.yaml", "merges:", "commands:\n  c: { run: [sh, -c, \"env > '{out}/env'\"] }\nmerges:");
    let log_environment = |script: &str, name: &str| {
        let text = project.read(script);
        let (first, rest) = text.split_once('\n').unwrap();
        project.script(script, &format!("{first}\nenv > {}\n{rest}", project.path(name).display()));
    };
    log_environment("bin/mergelab-tensor", "tensor.env");
    log_environment("env/bin/python", "python.env");
    let token = "hf_abcdefghijklmnopqrstuvwxyz";
    let said = with(&project, &[("HF_TOKEN", token)], &["run", "x.yaml", "--json"]);
    assert!(!said.raw.contains(token));
    let said = said.exits(0).says_nothing_of(token);
    assert_eq!(Summary::of(said).in_state("ran").len(), ALL.len() + 1);
    for request in hub.requests() {
        let expected = if request["server"] == "storage" { json!(null) } else { json!(token) };
        assert_eq!(request["token"], expected, "{request}");
    }
    // Evaluations may load a gated data set.
    assert!(project.read("python.env").contains(token));
    fs::remove_file(project.path("python.env")).unwrap();
    assert!(!project.read("tensor.env").contains("HF_TOKEN"));
    for dir in [".mergelab", "cache", "runs", "results"].into_iter().filter(|dir| project.has(dir)) {
        for (path, bytes) in project.contents(dir) {
            assert!(!String::from_utf8_lossy(&bytes).contains(token), "{}", path.display());
        }
    }
    assert!(!project.read("x.lock").contains(token));
}

#[test]
fn progress_is_told_in_bytes() {
    let (project, _hub) = single();
    let said = project.mergelab(&["run", "x.yaml", "--json"]).exits(0);
    let lines: Vec<serde_json::Value> = said.raw.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.iter().rfind(|line| line["event"] == "progress").unwrap();
    assert_eq!((&last["unit"], &last["done"], &last["total"]), (&json!("bytes"), &json!(138), &json!(138)), "{last}");
}

#[test]
fn a_model_that_does_not_fit_on_the_disk_is_refused_before_anything_is_fetched() {
    let (project, hub) = single();
    // A list of files that was kept, of a model that fits on no disk.
    let commit = "c".repeat(40);
    project.edit("x.yaml", "acme/one", &format!("acme/one, revision: {commit}"));
    let (oid, sha256) = ("b".repeat(40), "a".repeat(64));
    let files = json!([
        { "path": "config.json", "size": 2, "oid": oid },
        { "path": "model.safetensors", "size": 1_u64 << 60, "sha256": sha256 },
    ]);
    let listing = json!({ "version": 1, "files": files });
    project.write(&format!("cache/models--acme--one/.mergelab/{commit}.json"), listing.to_string());
    let summary = project.run(&[]).failed(1, &["models.a"], &[]);
    let summary =
        summary.says("models.a: acme/one needs 1048576 TiB more, and the disk that holds [project]/cache has ");
    summary.says("hint: free some space, or set HF_HUB_CACHE to a directory on another disk");
    assert!(hub.requests().is_empty());
}
