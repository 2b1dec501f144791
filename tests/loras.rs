//! Models with LoRA adapters, with a stand-in for the program that applies them.

use std::fs;

#[cfg(feature = "fetch")]
use crate::hub_server::HubServer;
use crate::project::{Project, safetensors};

const EXPERIMENT: &str = r#"name: x
models:
  base: { path: models/base }
  tuned: { path: models/base, lora: adapters/one }
data: { rows: { path: rows.jsonl, text: "{{ text }}" } }
grams: { tuned: { model: tuned, data: rows } }
merges: { avg: { method: average, models: [base, tuned] } }
"#;

fn project() -> Project {
    Project::with(EXPERIMENT)
        .with_fakes()
        .model("models/base", "one")
        .file("adapters/one/adapter_config.json", r#"{"peft_type": "LORA"}"#)
        .file("adapters/one/adapter_model.safetensors", safetensors("factors"))
        .file("adapters/one/README.md", "# An adapter\n")
        .file("rows.jsonl", "{\"text\":\"a\"}\n")
}

#[test]
fn a_model_with_an_adapter_is_a_model_to_whatever_reads_it_and_follows_the_adapter() {
    let project = project();
    // The model below the adapter is `base`, found once.
    project.run(&[]).ran(&[
        "models.base",
        "models.tuned/lora",
        "models.tuned",
        "data.rows",
        "grams.tuned",
        "merges.avg",
    ]);
    let weights = [safetensors("one"), safetensors("factors")].concat();
    assert_eq!(fs::read(project.output("x", "models.tuned", "model.safetensors")).unwrap(), weights);
    assert!(fs::read(project.output("x", "merges.avg", "model.safetensors")).unwrap().ends_with(&weights));
    assert!(project.output("x", "models.tuned@lora", "adapter_config.json").exists());
    let card = fs::read_to_string(project.output("x", "grams.tuned", "README.md")).unwrap();
    assert!(card.contains("| model | `tuned` (base with the LoRA adapter one), SHA-256"), "{card}");
    project.run(&[]).ran(&[]);
    project.write("adapters/one/README.md", "# Another card\n");
    project.write("adapters/one/optimizer.pt", "state\n");
    project.run(&[]).ran(&[]);
    project.write("adapters/one/adapter_model.safetensors", safetensors("others"));
    project.run(&[]).ran(&["models.tuned/lora", "models.tuned", "grams.tuned", "merges.avg"]);
    project.mergelab(&["verify"]).exits(0);
}

#[test]
fn another_model_with_the_same_adapter_elsewhere_is_the_same() {
    let project = project();
    project.run(&[]);
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        project.write(&format!("moved/{file}"), fs::read(project.path(&format!("adapters/one/{file}"))).unwrap());
    }
    project.edit("x.yaml", "lora: adapters/one", "lora: { path: moved }");
    project.run(&[]).ran(&[]);
}

#[test]
fn what_is_no_adapter_and_what_is_one_in_the_place_of_a_model_is_said() {
    let project = project();
    project.edit("x.yaml", "lora: adapters/one", "lora: adapters/two");
    let said = project.mergelab(&["run", "x.yaml"]).exits(3);
    said.says("adapters/two: no such file or directory").says("x.yaml:4:");
    project.write("adapters/two/adapter_config.json", "{}");
    project.mergelab(&["run", "x.yaml"]).exits(3).says(
        "adapters/two is no adapter that can be read: it has no adapter_model.safetensors, nor adapter_model.bin",
    );
    project.edit("x.yaml", "path: models/base, lora: adapters/two", "path: adapters/one");
    project
        .mergelab(&["run", "x.yaml"])
        .exits(3)
        .says("adapters/one is not a model: it has no config.json")
        .says("name its model, and the adapter beside it under `lora`");
}

#[cfg(feature = "fetch")]
#[test]
fn an_adapter_comes_from_the_hub_without_what_lies_beside_it() {
    let (project, hub) = HubServer::of(project());
    hub.model("acme/one", "one");
    hub.write("models/acme/adapter/main/adapter_config.json", r#"{"peft_type": "LORA"}"#);
    hub.write("models/acme/adapter/main/adapter_model.safetensors", safetensors("factors"));
    hub.write("models/acme/adapter/main/checkpoint-9/adapter_model.safetensors", safetensors("earlier"));
    hub.write("models/acme/adapter/main/training_args.bin", "arguments\n");
    project.edit("x.yaml", "path: models/base, lora: adapters/one", "hub: acme/one, lora: { hub: acme/adapter }");
    let ran = project.run(&[]);
    assert!(ran.in_state("ran").contains(&"models.tuned"));
    let weights = [safetensors("one"), safetensors("factors")].concat();
    assert_eq!(fs::read(project.output("x", "models.tuned", "model.safetensors")).unwrap(), weights);
    let fetched: Vec<String> =
        hub.requests().iter().filter_map(|request| request["path"].as_str().map(str::to_owned)).collect();
    let of = |file: &str| fetched.iter().any(|path| path.contains(file));
    assert!(of("adapter_model.safetensors") && !of("checkpoint-9") && !of("training_args.bin"), "{fetched:?}");
    assert!(project.read("x.lock").contains("acme/adapter"));
    // An adapter that left the cache comes back where it is applied again.
    fs::remove_dir_all(project.path("cache/models--acme--adapter")).unwrap();
    project.run(&[]).ran(&[]);
    project.run(&["--force", "models.tuned"]).ran(&["models.tuned/lora", "models.tuned"]);
    // What lies in the place of a model is said to be an adapter.
    project.edit("x.yaml", "hub: acme/one, lora: { hub: acme/adapter }", "hub: acme/adapter");
    project.mergelab(&["run", "x.yaml"]).exits(3).says("name its model, and the adapter beside it under `lora`");
}

#[test]
fn a_merge_becomes_an_adapter_for_its_base_and_the_error_of_each_layer_is_told() {
    let project = project();
    project.edit("x.yaml", "models: [base, tuned] }", "models: [base, tuned], base: base }");
    project.mergelab(&["extract-lora", "merges.avg", "x.yaml", "out"]).exits(1).says("merges.avg is not up to date");
    project.run(&[]);
    let said = project.mergelab(&["extract-lora", "merges.avg", "x.yaml", "out", "--rank", "2"]).exits(0);
    insta::assert_snapshot!(said.all());
    let config = project.read("out/adapter_config.json");
    assert!(config.contains(r#""base_name": "models/base""#) && config.contains(r#""rank": 2"#), "{config}");
    assert!(config.contains(r#""whole": false"#), "{config}");
    let base = safetensors("one");
    assert!(fs::read(project.path("out/adapter_model.safetensors")).unwrap().ends_with(&base));
    // What was written is an adapter of an experiment.
    project.edit("x.yaml", "lora: adapters/one", "lora: out");
    project.run(&["--only", "models.tuned"]).ran(&["models.tuned/lora", "models.tuned"]);
}

#[test]
fn what_an_adapter_is_for_is_the_stages_own_base_or_what_is_named() {
    let project = project();
    project.run(&[]);
    let extract = |flags: &[&str]| project.mergelab(&[&["extract-lora"][..], flags].concat());
    extract(&["merges.avg", "x.yaml", "out"]).exits(2).says("merges.avg has no base").says("`--base MODEL`");
    extract(&["merges.avg", "x.yaml", "out", "--base", "nobody"]).exits(2).says("no stage \"nobody\"");
    extract(&["merges.avg", "x.yaml", "out", "--base", "data.rows"]).exits(2).says("data.rows is no model or merge");
    extract(&["grams.tuned", "x.yaml", "out"]).exits(2).says("grams.tuned is no model or merge");
    extract(&["models.tuned/lora", "x.yaml", "out"]).exits(2).says("models.tuned/lora is no model or merge");
    extract(&["merges.avg", "x.yaml", "out", "--rank", "4", "--energy", "0.9"]).exits(2).says("cannot be used with");
    extract(&["merges.avg", "x.yaml", "out", "--energy", "1.5"]).exits(2).says("above 0 and up to 1");
    project.write("full/mine.txt", "mine");
    extract(&["merges.avg", "x.yaml", "full", "--base", "tuned"]).exits(2).says("full is not empty");
    assert!(!project.has("out"));
    extract(&["merges.avg", "x.yaml", "one", "--base", "tuned", "--energy", "0.5", "--modules-to-save"]).exits(0);
    let config = project.read("one/adapter_config.json");
    assert!(config.contains(r#""base_name": "models.tuned""#) && config.contains(r#""energy": 0.5"#), "{config}");
    assert!(config.contains(r#""whole": true"#), "{config}");
    // A model with an adapter has the model below it for its base.
    extract(&["models.tuned", "x.yaml", "two"]).exits(0);
    let config = project.read("two/adapter_config.json");
    assert!(config.contains(r#""base_name": "models/base""#) && config.contains(r#""rank": 32"#), "{config}");
}
