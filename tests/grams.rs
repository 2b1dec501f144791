//! Gram matrices from and for other programs, with a stand-in for the program that reads and writes them.

use std::fs;

#[cfg(feature = "fetch")]
use crate::hub_server::HubServer;
use crate::project::Project;

/// A merge of Grams of which one is captured, one imported from a pickle.
const EXPERIMENT: &str = r#"name: x
models: { a: { path: models/a }, b: { path: models/b } }
data: { rows: { path: rows.jsonl, rows: 5, text: "{{ text }}" } }
grams:
  a: { model: a, data: rows, max_length: 9 }
  b: { pickle: { path: published/grams.pkl } }
merges:
  m: { method: regmean, models: [a, b], grams: [a, b] }
"#;

fn project() -> Project {
    Project::with(EXPERIMENT)
        .with_fakes()
        .model("models/a", "one")
        .model("models/b", "two")
        .file("rows.jsonl", "{\"text\":\"a\"}\n")
        .file("published/grams.pkl", "matrices\n")
}

#[test]
fn an_import_is_a_stage_and_runs_again_with_its_file_and_not_with_its_place() {
    let project = project();
    assert_eq!(project.run(&[]).in_state("ran").len(), 6);
    assert_eq!(fs::read_to_string(project.output("x", "grams.b", "grams.safetensors")).unwrap(), "matrices\n");
    project.run(&[]).ran(&[]);
    project.write("other.pkl", "matrices\n");
    project.edit("x.yaml", "published/grams.pkl", "other.pkl");
    project.run(&[]).ran(&[]);
    project.write("other.pkl", "other matrices\n");
    project.run(&[]).ran(&["grams.b", "merges.m"]);
}

#[test]
fn a_file_that_is_not_there_is_shown_at_its_place() {
    let project = project();
    project.edit("x.yaml", "published/grams.pkl", "published/gram.pkl");
    let said = project.mergelab(&["run", "x.yaml"]).exits(3);
    said.says("published/gram.pkl: no such file or directory").says("x.yaml:6:");
}

#[test]
fn gram_matrices_have_a_card_that_is_not_in_their_digest() {
    let project = project();
    project.run(&[]);
    let card = |stage: &str| fs::read_to_string(project.output("x", stage, "README.md")).unwrap();
    let captured = card("grams.a");
    for said in [
        "# x: Gram matrices `a`",
        "| model | `a` (a), SHA-256 of the weights `",
        "| data | `rows` (rows.jsonl), SHA-256 of the rows `",
        "| rows | the first 5 |",
        "| captured | `add_special_tokens: true, max_length: 9` |",
        "`[tiles, tile, tile]`",
    ] {
        assert!(captured.contains(said), "{said:?} is not in\n{captured}");
    }
    let imported = card("grams.b");
    assert!(imported.contains("| imported from | `grams.pkl`, SHA-256 `"), "{imported}");
    assert!(imported.contains("| tokens | 7 |") && imported.contains("| modules | 1 |"), "{imported}");
    let manifest = project.mergelab(&["show", "grams.b", "x.yaml", "--json"]).exits(0).json()["manifest"].clone();
    let aside = |path: &str| {
        let outputs = manifest["outputs"].as_array().unwrap().iter();
        outputs.clone().find(|file| file["path"] == path).unwrap()["aside"] == true
    };
    assert!(aside("README.md") && !aside("index.json"));
    project.mergelab(&["verify"]).exits(0);
}

#[test]
fn what_is_exported_is_a_directory_with_a_card_and_can_be_imported() {
    let project = project();
    project.run(&[]);
    project
        .mergelab(&["grams", "export", "grams.b", "x.yaml", "--to", "shared/b"])
        .exits(0)
        .says("written to shared/b");
    let files: Vec<_> = project.contents("shared").into_iter().map(|(path, _)| path.display().to_string()).collect();
    assert_eq!(files, ["shared/b/README.md", "shared/b/grams.safetensors", "shared/b/index.json"]);
    let card = project.read("shared/b/README.md");
    assert!(card.contains("from safetensors.torch import load_file") && card.contains("| tokens | 7 |"), "{card}");
    assert!(card.contains("| imported from | `grams.pkl`, SHA-256 `"), "{card}");
    project.edit("x.yaml", "b: { pickle: { path: published/grams.pkl } }", "b: { path: shared/b }");
    // What the stand-in makes of a directory is what it made of the pickle, so that nothing rests on another artifact.
    project.run(&[]).ran(&["grams.b"]);
    project.write("shared/b/README.md", "# Mine\n");
    project.run(&[]).ran(&[]);
}

#[test]
fn an_export_overwrites_nothing_and_leaves_nothing_where_it_fails() {
    let project = project();
    let export = |stage: &str, to: &str| project.mergelab(&["grams", "export", stage, "x.yaml", "--to", to]);
    export("grams.b", "out").exits(1).says("grams.b is not up to date");
    project.run(&[]);
    export("merges.m", "out").exits(2).says("merges.m is no gram stage");
    export("grams.c", "out").exits(2).says("did you mean");
    project.write("full/mine.txt", "mine");
    export("grams.b", "full").exits(2).says("full is not empty");
    export("grams.b", "full/mine.txt").exits(2).says("full/mine.txt is there and no directory");
    assert_eq!(project.contents("full").len(), 1);
    fs::create_dir(project.path("empty")).unwrap();
    export("grams.b", "empty").exits(0);
    assert_eq!(project.contents("empty").len(), 3);
    let project =
        project.variable("TENSOR_ERROR", r#"{"event":"error","message":"no room","hint":"make some","fault":"stage"}"#);
    project
        .mergelab(&["grams", "export", "grams.b", "x.yaml", "--to", "out"])
        .exits(1)
        .says("no room")
        .says("make some");
    assert!(!project.has("out"));
    let left = fs::read_dir(project.root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(left.into_iter().all(|name| !name.starts_with(".out.")));
}

#[cfg(feature = "fetch")]
#[test]
fn grams_come_from_the_hub_and_nothing_else_of_their_repository_does() {
    let index =
        r#"{"format":1,"modules":{"a.b":{"file":"layer.safetensors","tensor":"a.b","n":7,"width":1,"tile":1}}}"#;
    let project = project()
        .file("hub/models/acme/merge/main/grams_math.pkl", "matrices\n")
        .file("hub/models/acme/merge/main/model.safetensors", "weights\n")
        .file("hub/models/acme/grams/main/index.json", index)
        .file("hub/models/acme/grams/main/layer.safetensors", "tiles\n")
        .file("hub/models/acme/grams/main/other.safetensors", "others\n");
    let (project, hub) = HubServer::of(project);
    project.edit("x.yaml", "a: { model: a, data: rows, max_length: 9 }", "a: { hub: acme/grams }");
    project.edit("x.yaml", "{ path: published/grams.pkl }", "{ hub: acme/merge, file: grams_math.pkl }");
    assert_eq!(project.run(&["--only", "merges.m"]).in_state("ran").len(), 5);
    let read = |stage: &str| fs::read_to_string(project.output("x", stage, "grams.safetensors")).unwrap();
    assert_eq!((read("grams.a"), read("grams.b")), ("tiles\n".to_owned(), "matrices\n".to_owned()));
    let fetched: Vec<String> =
        hub.transfers().iter().map(|request| request["path"].as_str().unwrap().to_owned()).collect();
    let of = |file: &str| fetched.iter().filter(|path| path.contains(file)).count();
    assert_eq!((of("grams_math.pkl"), of("layer.safetensors")), (1, 1), "{fetched:?}");
    assert_eq!((of("model.safetensors"), of("other.safetensors")), (0, 0), "{fetched:?}");
    let card = fs::read_to_string(project.output("x", "grams.b", "README.md")).unwrap();
    assert!(card.contains("| imported from | `grams_math.pkl` of acme/merge at "), "{card}");

    // A branch that moved is another commit only when it is asked for.
    project.write("hub/models/acme/merge/main/grams_math.pkl", "other matrices\n");
    project.run(&["--only", "merges.m"]).ran(&[]);
    project.run(&["--only", "merges.m", "--update"]).ran(&["grams.b", "merges.m"]);

    project.edit("x.yaml", "file: grams_math.pkl", "file: gram.pkl");
    let summary = project.run(&["--only", "merges.m"]).failed(3, &["grams.b"], &["merges.m"]);
    summary.says("acme/merge has no gram.pkl at ").says("it has grams_math.pkl");
    project.edit("x.yaml", "a: { hub: acme/grams }", "a: { hub: acme/merge }");
    project.run(&["--only", "grams.a"]).failed(3, &["grams.a"], &[]).says("acme/merge has no index.json at ");
}
