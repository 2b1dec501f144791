//! How `publish` sends: what is there already, what was cut off, what fails, parts. The hub is `fakes/hub.py` with
//! `fakes/hub_upload.py`; what is sent is in [`crate::publishing`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use mergelab_fetch::hub::{Hub, RepoKind};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::hub_server::HubServer;
use crate::project::{Project, Said, wait_until};
use crate::science;

/// A token that may write.
pub(crate) const TOKEN: &str = "a-token-that-may-write";

/// A project with merges, Grams and scores, and a hub.
pub(crate) struct World {
    pub(crate) project: Project,
    pub(crate) hub: HubServer,
}

impl World {
    /// With a project whose stages are done.
    pub(crate) fn new(project: Project) -> Self {
        let (project, hub) = HubServer::of(project);
        let home = project.path("home").to_str().unwrap().to_owned();
        Self { project: project.variable("HF_HOME", &home), hub }
    }

    pub(crate) fn done() -> Self {
        let project = science::project();
        project.run(&[]);
        Self::new(project)
    }

    pub(crate) fn publish(&self, stage: &str, flags: &[&str]) -> Said {
        self.publish_as(TOKEN, stage, flags)
    }

    pub(crate) fn publish_as(&self, token: &str, stage: &str, flags: &[&str]) -> Said {
        let mut command = self.project.command(&[&["publish", stage, "x.yaml", "--hub", "acme/avg"], flags].concat());
        command.env("HF_TOKEN", token);
        self.project.said(command)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.project.path("hub")
    }

    /// A file of `acme/avg`.
    pub(crate) fn there(&self, path: &str) -> PathBuf {
        self.root().join("models/acme/avg/main").join(path)
    }

    /// Requests since the last time this was asked.
    pub(crate) fn requests(&self) -> Vec<Value> {
        // A request is written down after its answer was sent.
        std::thread::sleep(std::time::Duration::from_millis(100));
        let path = self.root().join("requests.jsonl");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Large files that were put to the storage since the last time requests were asked for.
    pub(crate) fn puts(&self) -> Vec<Value> {
        self.requests().into_iter().filter(|request| request["method"] == "PUT").collect()
    }

    /// Every file of the repository, fetched by the client.
    pub(crate) fn fetched(&self, revision: Option<&str>) -> Vec<(String, Vec<u8>)> {
        let cache = self.project.path("cache").to_str().unwrap().to_owned();
        let variable = |name: &str| match name {
            "HF_ENDPOINT" => Some(self.hub.address.clone()),
            "HF_HOME" => Some(cache.clone()),
            "HF_TOKEN" => Some(TOKEN.to_owned()),
            _ => None,
        };
        let hub = Hub::from_variables(&variable).unwrap();
        let commit = hub.resolve(RepoKind::Model, "acme/avg", revision).unwrap();
        let files = hub.files(RepoKind::Model, "acme/avg", &commit).unwrap();
        let fetch = |file| hub.fetch(RepoKind::Model, "acme/avg", &commit, file, &mut |_| ()).unwrap();
        files.iter().map(|file| (file.path.clone(), fs::read(fetch(file)).unwrap())).collect()
    }
}

fn put_oids(requests: &[Value]) -> Vec<String> {
    let oids = requests.iter().map(|request| request["path"].as_str().unwrap()[1..65].to_owned());
    oids.collect()
}

fn digest(path: &Path) -> String {
    mergelab::digest::Digest::of_file(path).unwrap().0.to_string()
}

#[test]
fn what_the_hub_has_is_not_sent_again() {
    let world = World::done();
    world.publish("merges.avg", &[]).exits(0);
    let _ = world.requests();
    let again = world.publish("merges.avg", &["--json"]).exits(0).says("everything is there already");
    let said = again.json();
    assert_eq!((&said["changed"], &said["sent"], &said["bytes"]), (&json!(false), &json!([]), &json!(0)));
    assert_eq!(said["had"].as_array().unwrap().len(), 6);
    assert!(world.requests().iter().all(|request| request["method"] == "GET"));
    // With another score only the card and the experiment are sent.
    world.project.edit("x.yaml", "tasks: [add, ", "tasks: [add, sort, ");
    world.project.write("tasks/sort.yaml", "task: sort\n");
    world.project.run(&[]);
    let said = world.publish("merges.avg", &["--json"]).exits(0).json();
    assert_eq!(said["sent"], json!(["README.md", "experiment.yaml"]));
    assert_eq!(world.puts(), [Value::Null; 0]);
    assert!(fs::read_to_string(world.there("README.md")).unwrap().contains("| sort | exact_match"));
    // On another branch the large files are in the storage already.
    let said = world.publish("merges.avg", &["--json", "--revision", "alpha-0.1"]).exits(0).json();
    assert_eq!(said["changed"], json!(false), "a branch begins as main: {said}");
    assert!(said["url"].as_str().unwrap().ends_with("/acme/avg/tree/alpha-0.1"), "{said}");
}

/// With a second large file in every merge, and three pieces to each.
fn in_shards() -> World {
    let project = science::project();
    let program = project.read("bin/mergelab-tensor");
    let second = "{ cat \"$out/model.safetensors\"; echo more; } > \"$out/model-2.safetensors\"\n    date >";
    project.script("bin/mergelab-tensor", &program.replacen("date >", second, 1));
    project.run(&["--only", "merges.avg"]);
    World::new(project)
}

#[test]
fn an_upload_that_was_killed_goes_on_with_what_is_missing() {
    let world = in_shards();
    let [first, second] =
        ["model.safetensors", "model-2.safetensors"].map(|name| digest(&world.project.output("x", "merges.avg", name)));
    world.hub.faults(&json!([{ "at": format!("put/{second}"), "fault": "hold", "after": 3, "times": 1 }]));
    let mut command = world.project.command(&["publish", "merges.avg", "x.yaml", "--hub", "acme/avg"]);
    let mut running = command.env("HF_TOKEN", TOKEN).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the first file is sent and verified", || {
        let log = fs::read_to_string(world.root().join("requests.jsonl")).unwrap_or_default();
        log.contains("/upload/verify/") && world.root().join("objects").join(&first).exists()
    });
    kill_process(Pid::from_child(&running), Signal::KILL).unwrap();
    running.wait().unwrap();
    assert!(
        !world.there("model.safetensors").exists() && !world.there("README.md").exists(),
        "a reader sees nothing yet"
    );
    let _ = world.requests();
    world.publish("merges.avg", &[]).exits(0);
    assert_eq!(put_oids(&world.puts()), [second]);
    for name in ["model.safetensors", "model-2.safetensors"] {
        assert_eq!(
            fs::read(world.there(name)).unwrap(),
            fs::read(world.project.output("x", "merges.avg", name)).unwrap()
        );
    }
}

#[test]
fn what_fails_once_is_tried_again() {
    let world = in_shards();
    let first = digest(&world.project.output("x", "merges.avg", "model.safetensors"));
    world.hub.faults(&json!([
        { "at": format!("put/{first}"), "fault": "cut", "after": 5, "times": 1 },
        { "at": "upload/acme/avg/preupload", "fault": "status", "status": 502, "times": 1 },
        { "at": "upload/acme/avg/batch", "fault": "status", "status": 500, "times": 1 },
        { "at": "upload/acme/avg/verify", "fault": "limit", "seconds": 1, "times": 1 },
        { "at": "upload/acme/avg/commit", "fault": "after", "status": 500, "times": 1 },
    ]));
    let said = world.publish("merges.avg", &[]).exits(0);
    let raw = said.says("note: the hub limits how often it is asked: waiting 1 s, as it says").raw;
    let puts = world.puts();
    assert_eq!(put_oids(&puts).iter().filter(|oid| **oid == first).count(), 2, "{puts:?}");
    let again = world.publish("merges.avg", &[]).exits(0).says("everything is there already");
    assert_eq!(again.raw, raw, "the commit whose answer was lost was found");
}

#[test]
fn a_large_file_goes_in_parts_where_the_hub_wants_them() {
    let world = in_shards();
    fs::write(world.root().join("part"), "7").unwrap();
    world.publish("merges.avg", &[]).exits(0);
    let size = fs::metadata(world.project.output("x", "merges.avg", "model.safetensors")).unwrap().len();
    let puts = world.puts();
    assert!(puts.len() as u64 > size / 7 && puts.iter().all(|put| put["received"].as_u64().unwrap() <= 7), "{puts:?}");
    let name = "model.safetensors";
    assert_eq!(fs::read(world.there(name)).unwrap(), fs::read(world.project.output("x", "merges.avg", name)).unwrap());
}

#[test]
fn a_failed_commit_leaves_the_repository_as_it_was() {
    let world = in_shards();
    let refuse =
        |place: &str, status: u16| json!([{ "at": place, "fault": "status", "status": status, "message": "no" }]);
    world.hub.faults(&refuse("upload/acme/avg/commit", 403));
    let said = world.publish("merges.avg", &[]).exits(1);
    said.says("the hub does not let the token write to acme/avg: no").says("hint: the token comes from HF_TOKEN");
    assert!(!world.there("model.safetensors").exists());
    assert_eq!(world.puts().len(), 2);
    world.hub.faults(&json!([]));
    world.publish("merges.avg", &[]).exits(0).says("7 of 7 files are new, 0 B of large ones to send");
    assert_eq!(world.puts(), [Value::Null; 0], "the storage kept them");
}
