//! What `publish` sends, and what it says. How it sends is in [`crate::uploads`].

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::hub_server::HubServer;
use crate::project::Project;
use crate::uploads::{TOKEN, World};
use crate::{export, science};

#[test]
fn a_merge_comes_back_from_the_hub_to_the_byte_with_its_scores_on_the_card() {
    let world = World::done();
    let said = world.publish("merges.avg", &["--private", "--message", "The first"]).exits(0);
    let said = said.says("made acme/avg, a private repository");
    let commit = said.raw.lines().nth(1).unwrap().to_owned();
    assert_eq!(said.raw, format!("{}/acme/avg\n{commit}\n", world.hub.address));
    assert_eq!(fs::read_to_string(world.root().join("private.json")).unwrap(), r#"["acme/avg"]"#);

    let requests = world.requests();
    let of = |part: &str| requests.iter().filter(|request| request["path"].as_str().unwrap().contains(part)).count();
    assert_eq!((of("/commit/"), of("/objects/batch"), of("/verify/")), (1, 1, 1));
    let puts: Vec<_> = requests.iter().filter(|request| request["method"] == "PUT").collect();
    assert_eq!(puts.len(), 1);
    assert_eq!(puts[0]["token"], Value::Null, "the token stays at home");

    let files = world.fetched(Some(&commit));
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        ".gitattributes",
        "README.md",
        "config.json",
        "experiment.yaml",
        "mergelab.json",
        "model.safetensors",
        "tokenizer.json",
    ];
    assert_eq!(names, expected);
    for (name, bytes) in
        files.iter().filter(|(name, _)| ["config.json", "model.safetensors", "tokenizer.json"].contains(&&**name))
    {
        assert_eq!(*bytes, fs::read(world.project.output("x", "merges.avg", name)).unwrap(), "{name}");
    }
    let text =
        |name: &str| String::from_utf8(files.iter().find(|(other, _)| other == name).unwrap().1.clone()).unwrap();
    assert_eq!(text("experiment.yaml"), world.project.read("x.yaml"));
    let provenance: Value = serde_json::from_str(&text("mergelab.json")).unwrap();
    let shown = world.project.mergelab(&["show", "merges.avg", "x.yaml", "--json"]).exits(0).json();
    assert_eq!((&provenance["key"], &provenance["digest"]), (&shown["key"], &shown["manifest"]["digest"]));
    assert_eq!(
        mergelab::digest::Digest::of_json(&provenance["struct"]).to_string(),
        provenance["key"].as_str().unwrap()
    );
    insta::assert_snapshot!("merge_card", masked(&text("README.md")));
    read_by_the_hubs_own_library(&text("README.md"));
}

/// Holds that the hub's own library reads the scores of a card, where it is there.
fn read_by_the_hubs_own_library(card: &str) {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let program = "import json, sys\ntry:\n    from huggingface_hub import ModelCard\nexcept ImportError:\n    sys.exit(9)\n\
                   data = ModelCard(sys.argv[1]).data\n\
                   print(json.dumps([[r.dataset_type, r.metric_type, r.metric_value] for r in data.eval_results]))";
    let Ok(output) = Command::new(python).args(["-c", program, card]).output() else {
        println!("not held against huggingface_hub: no .venv");
        return;
    };
    if output.status.code() == Some(9) {
        println!("not held against huggingface_hub: it is not in .venv");
        return;
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let scores: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!(scores, json!([["add", "exact_match", 0.3807], ["reverse", "exact_match", 0.126]]));
}

/// A text without digests and versions.
fn masked(text: &str) -> String {
    let mut masked = String::new();
    for word in text.split_inclusive('`') {
        let digits = word.trim_end_matches('`');
        let is_digest = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        masked += &if is_digest { word.replace(digits, "[digest]") } else { word.to_owned() };
    }
    masked.replace(env!("CARGO_PKG_VERSION"), "[version]")
}

#[test]
fn grams_come_back_with_what_they_were_captured_on() {
    let world = World::done();
    world.publish("grams.a", &[]).exits(0).says("made acme/avg, a public repository");
    let files = world.fetched(None);
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, [".gitattributes", "README.md", "experiment.yaml", "grams.safetensors", "mergelab.json"]);
    let kept = fs::read(world.project.output("x", "grams.a", "grams.safetensors")).unwrap();
    assert_eq!(files[3].1, kept);
    insta::assert_snapshot!("gram_card", masked(std::str::from_utf8(&files[1].1).unwrap()));
    // A repository of one kind does not take the other.
    let said = world.publish("merges.avg", &[]);
    // The stand-in writes no index.json, by which Grams are known: with it they are.
    said.exits(0);
    world.publish("grams.a", &[]).exits(1).says("it holds a model").says("hint: choose another name");
}

#[test]
fn weights_of_what_was_there_before_go_and_other_files_stay() {
    let world = World::done();
    for name in ["pytorch_model.bin", "model-00001-of-00002.safetensors", "notes.md", "gguf/model.safetensors"] {
        let path = world.there(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    let said = world.publish("merges.avg", &["--json"]).exits(0).says("takes out pytorch_model.bin");
    assert_eq!(said.json()["removed"], json!(["model-00001-of-00002.safetensors", "pytorch_model.bin"]));
    assert!(world.there("notes.md").exists() && world.there("gguf/model.safetensors").exists());
    assert!(!world.there("pytorch_model.bin").exists());
}

#[test]
fn nothing_of_this_machine_and_its_people_is_uploaded() {
    let project = science::project();
    let root = project.root().to_str().unwrap().to_owned();
    let elsewhere = format!("{root}/models/a");
    project.edit("x.yaml", "a: { path: models/a }", &format!("a: {{ path: {elsewhere} }}"));
    let secret = "sesame-open-9f3b";
    project.edit(
        "x.yaml",
        "data:\n",
        &format!(
            "commands:\n  c:\n    run: [sh, -c, \"cp /home/alice/data/x.jsonl {{out}}\"]\n    env: {{ MY_API_KEY: {secret}2 }}\n    \
             version: \"{TOKEN} {secret}\"\ndescription: Made on {{host}} by alice@{{host}} in {root}/notes.\ndata:\n"
        )
        .replace("{host}", rustix::system::uname().nodename().to_str().unwrap()),
    );
    project.write(
        "models/a/config.json",
        format!(r#"{{"_name_or_path": "{elsewhere}", "architectures": ["LlamaForCausalLM"], "vocab_size": 4}}"#),
    );
    project.run(&["--only", "merges.avg"]);
    let world = World::new(project.variable("SOME_SECRET", secret));
    let said = world.publish("merges.avg", &[]).exits(0);
    said.says("note: config.json: an absolute path in it is given by its last component");
    let config = fs::read_to_string(world.there("config.json")).unwrap();
    assert!(config.contains(r#""_name_or_path": "a", "architectures""#), "{config}");
    let experiment = fs::read_to_string(world.there("experiment.yaml")).unwrap();
    assert!(experiment.contains("a: { path: a }") && experiment.contains("cp x.jsonl {out}"), "{experiment}");
    mergelab::experiment::parse(Path::new("x.yaml"), &experiment).unwrap_or_else(|errors| panic!("{errors}"));

    let host = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    let planted = [root.as_str(), "/home/alice", "alice@", secret, TOKEN, &host];
    let mut looked_at = 0;
    for dir in ["hub/models", "hub/objects"] {
        for (path, bytes) in world.project.contents(dir) {
            let text = String::from_utf8_lossy(&bytes);
            for word in planted.iter().filter(|word| word.len() >= 4) {
                assert!(!text.contains(word), "{word:?} in {}:\n{text}", path.display());
            }
            looked_at += 1;
        }
    }
    assert!(looked_at >= 8, "{looked_at}");
}

#[test]
fn a_secret_that_a_source_brought_along_stops_it() {
    let project = science::project();
    project.write("models/a/tokenizer.json", format!(r#"{{"version": "1.0", "x": "{TOKEN}"}}"#));
    project.run(&["--only", "merges.avg"]);
    let world = World::new(project);
    let said = world.publish("merges.avg", &[]).exits(3);
    said.says("tokenizer.json of merges.avg holds a token or another secret").says_nothing_of(TOKEN);
    assert_eq!(world.requests(), [Value::Null; 0]);
}

#[test]
fn a_dry_run_opens_no_socket_and_needs_no_token() {
    let project = science::project();
    project.run(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let project = project
        .variable("HF_ENDPOINT", &format!("http://{}", listener.local_addr().unwrap()))
        .variable("HF_HOME", "/nowhere");
    let dry = ["publish", "merges.regmean", "x.yaml", "--hub", "acme/x", "--dry-run"];
    let said = project.mergelab(&dry).exits(0);
    for part in ["To acme/x:\n", "  model.safetensors  ", "\n---\nlibrary_name: transformers\n", "| add | exact_match"]
    {
        assert!(said.stdout.contains(part), "no {part:?}:\n{}", said.stdout);
    }
    let json = project.mergelab(&[&dry[..], &["--json"]].concat()).exits(0).json();
    assert_eq!(json["files"].as_array().unwrap().len(), 6);
    assert!(json["card"].as_str().unwrap().contains("model-index:"));
    let refused = listener.accept().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock, "somebody was there");
}

#[test]
fn a_merge_of_models_of_the_hub_names_them_and_the_commits_that_they_were_at() {
    let experiment = "name: x\nmodels: { a: { hub: acme/one }, b: { hub: acme/two } }\n\
                      merges: { avg: { method: average, models: [a, b] } }\n";
    let (project, hub) = HubServer::of(Project::with(experiment).with_fakes());
    for (repo, word) in [("acme/one", "one"), ("acme/two", "two")] {
        hub.model(repo, word);
        hub.write(&format!("models/{repo}/main/README.md"), "---\nlicense: apache-2.0\n---\n");
    }
    project.run(&[]);
    let home = project.path("home").to_str().unwrap().to_owned();
    let world = World { project: project.variable("HF_HOME", &home), hub };
    world.publish("merges.avg", &[]).exits(0);
    let card = fs::read_to_string(world.there("README.md")).unwrap();
    let front = "base_model:\n- acme/one\n- acme/two\nbase_model_relation: merge\n";
    assert!(card.contains(front), "{card}");
    assert!(card.contains("| a | acme/one | 1 |") && card.contains("It was not evaluated yet."), "{card}");
    assert_eq!(fs::read_to_string(world.there("experiment.lock")).unwrap(), world.project.read("x.lock"));
}

#[test]
fn what_stands_in_the_way_is_said_with_the_way_out() {
    let world = World::done();
    let project = &world.project;
    let publish = |stage: &str, repo: &str, flags: &[&str]| {
        project.mergelab(&[&["publish", stage, "x.yaml", "--hub", repo], flags].concat())
    };
    publish("merges.avf", "a/b", &[]).exits(2).says("merges.avg");
    publish("evals.suite/avg/add", "a/b", &[])
        .exits(2)
        .says("is an evaluation: only merges and Gram matrices are published");
    publish("models.a", "a/b", &[]).exits(2).says("models.a is a model: only merges");
    publish("merges.avg", "avg", &[]).exits(2).says("its name is ORG/NAME");
    publish("merges.avg", "a b/c", &[]).exits(2).says("its name is ORG/NAME");
    publish("merges.avg", "a/b", &["--revision", "a..b"]).exits(2).says("`a..b` cannot be a branch");
    publish("merges.avg", "a/b", &[])
        .exits(1)
        .says("takes nothing without a token")
        .says("hint: set HF_TOKEN")
        .says("`hf auth login`");
    assert_eq!(world.requests(), [Value::Null; 0], "so far nobody was asked");

    world.hub.faults(&json!([{ "at": "api/models/acme/avg", "fault": "token", "token": "good" }]));
    let said = world.publish_as("not-a-good-one", "merges.avg", &[]).exits(1);
    said.says("does not take the token for acme/avg")
        .says("hint: the token comes from HF_TOKEN")
        .says_nothing_of("not-a-good");
    let refuse = |place: &str, status: u16| json!([{ "at": place, "fault": "status", "status": status, "message": "no rights" }]);
    world.hub.faults(&refuse("upload/create", 403));
    world.publish("merges.avg", &[]).exits(1).says("does not let the token write to acme/avg: no rights");
    world.hub.faults(&refuse("upload/create", 409));
    world
        .publish("merges.avg", &[])
        .exits(1)
        .says("the name acme/avg is taken by something that is no model")
        .says("hint: choose another");
    world.hub.faults(&refuse("upload/create", 503));
    world
        .publish("merges.avg", &[])
        .exits(1)
        .says("answers 503 for writing to acme/avg: no rights")
        .says("hint: run again later");
    world.hub.faults(&json!([]));
    world.publish("merges.avg", &[]).exits(0);
    world.publish("merges.avg", &["--private"]).exits(1).says("acme/avg is there already, and public");

    project.edit("x.yaml", "method: average", "method: average, dtype: float32");
    world.publish("merges.avg", &[]).exits(1).says("merges.avg is not up to date: ").says("hint: run it first: ");
}

#[test]
fn without_a_network_it_says_so() {
    let project = export::dropped();
    let publish = |stage: &str, variables: &[(&str, &str)]| {
        let mut command = project.command(&["publish", stage, "x.yaml", "--hub", "acme/avg"]);
        command.env("HF_TOKEN", TOKEN).env("HF_HOME", project.path("home"));
        project.said({
            command.envs(variables.iter().copied());
            command
        })
    };
    let said = publish("merges.regmean", &[("HF_HUB_OFFLINE", "1")]).exits(1);
    said.says("publishing to acme/avg needs the hub, and HF_HUB_OFFLINE is set").says("hint: unset HF_HUB_OFFLINE");
    let said = publish("merges.regmean", &[("HF_ENDPOINT", "http://127.0.0.1:1")]).exits(1);
    said.says("http://127.0.0.1:1 cannot be reached: ").says("hint: look at the network");
    publish("merges.avg", &[])
        .exits(1)
        .says("the weights of merges.avg were dropped")
        .says("hint: set `keep: weights`");
}
