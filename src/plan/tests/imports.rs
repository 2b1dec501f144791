//! What reruns an import of Grams, and what does not.

use super::*;

const IMPORTS: &str = "name: x
models: { a: { path: models/a }, b: { path: models/b } }
grams:
  a: { pickle: { path: published/a.pkl } }
  b: { path: exported/b }
merges:
  reg: { method: regmean, models: [a, b], grams: [a, b] }
";

/// What reruns when a file has other contents.
fn changed(path: &str) -> Vec<String> {
    differing(&World::default().keys(IMPORTS), &World::with(path, "other contents").keys(IMPORTS))
}

#[test]
fn the_contents_of_a_pickle_rerun_the_import_and_what_rests_on_it() {
    assert_eq!(changed("published/a.pkl"), ["grams.a", "merges.reg"]);
}

#[test]
fn the_files_of_a_directory_rerun_the_import_and_its_card_does_not() {
    assert_eq!(changed("exported/b/model.safetensors"), ["grams.b", "merges.reg"]);
    assert_eq!(changed("exported/b/README.md"), NOTHING);
    assert_eq!(changed("exported/b/config.json"), NOTHING);
}

#[test]
fn another_place_for_the_same_files_reruns_nothing() {
    let world = World {
        files: HashMap::from([
            ("elsewhere/grams.pkl".to_owned(), "published/a.pkl".to_owned()),
            ("elsewhere/b/model.safetensors".to_owned(), "exported/b/model.safetensors".to_owned()),
        ]),
        ..World::default()
    };
    let moved = IMPORTS.replace("published/a.pkl", "elsewhere/grams.pkl").replace("exported/b", "elsewhere/b");
    assert_eq!(differing(&world.keys(IMPORTS), &world.keys(&moved)), NOTHING);
}

#[test]
fn an_import_in_place_of_a_capture_reruns_the_merge() {
    let captured = IMPORTS.replace("a: { pickle: { path: published/a.pkl } }", "a: { model: a, data: d }");
    let captured = captured + "data: { d: { path: d.jsonl, text: x } }\n";
    assert_eq!(
        differing(&World::default().keys(&captured), &World::default().keys(IMPORTS)),
        ["grams.a", "merges.reg"]
    );
}

#[test]
fn from_the_hub_the_commit_and_the_file_rerun_the_import() {
    let (one, two) = ("1".repeat(40), "2".repeat(40));
    let from = |pickle: &str, directory: &str| {
        let text = IMPORTS.replace("{ path: published/a.pkl }", &format!("{{ hub: acme/merge, {pickle} }}"));
        World::default().keys(&text.replace("{ path: exported/b }", &format!("{{ hub: acme/grams, {directory} }}")))
    };
    let before = from(&format!("file: a.pkl, revision: '{one}'"), &format!("revision: '{one}'"));
    assert_eq!(before["grams.a"].params, serde_json::json!({ "hub": "acme/merge", "commit": one, "file": "a.pkl" }));
    let moved = from(&format!("file: a.pkl, revision: '{two}'"), &format!("revision: '{one}'"));
    assert_eq!(differing(&before, &moved), ["grams.a", "merges.reg"]);
    let other = from(&format!("file: b.pkl, revision: '{one}'"), &format!("revision: '{one}'"));
    assert_eq!(differing(&before, &other), ["grams.a", "merges.reg"]);
    let other = from(&format!("file: a.pkl, revision: '{one}'"), &format!("revision: '{two}'"));
    assert_eq!(differing(&before, &other), ["grams.b", "merges.reg"]);
}
