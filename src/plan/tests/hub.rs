//! Repositories on the hub: known by their commit, and by nothing before it is known.

use super::*;
use crate::plan::{Holds, Repository, repository};

fn model(entry: &str) -> Stage {
    let text = format!("name: x\nmodels: {{ m: {{ {entry} }} }}\n");
    let graph = Graph::new(vec![Arc::new(parse(Path::new("x.yaml"), &text).unwrap().experiment)]);
    graph.stages.into_iter().next().unwrap()
}

/// Facts of an experiment whose lock file has one commit.
fn locked(experiment: usize, revision: &str, commit: &str) -> Facts {
    let repository = Repository { holds: Holds::Model, name: "acme/one".to_owned(), revision: revision.to_owned() };
    Facts { commits: HashMap::from([((experiment, repository), commit.to_owned())]), ..Facts::default() }
}

#[test]
fn a_model_on_the_hub_has_no_key_until_its_commit_is_known() {
    let stage = model("hub: acme/one");
    let (named, place) = repository(&stage).unwrap();
    assert_eq!((named.revision.as_str(), place), ("main", &["hub"][..]));
    assert_eq!(key_struct(&stage, &Facts::default()), Err(Open::Unresolved(named)));
    let commit = "c".repeat(40);
    let known = key_struct(&stage, &locked(0, "main", &commit)).unwrap();
    assert_eq!(known.params, serde_json::json!({ "hub": "acme/one", "commit": commit }));
    assert!(sources(&stage).is_empty(), "nothing of it is looked at for a key");
}

#[test]
fn the_commit_decides_and_not_how_it_was_named() {
    let commit = "c".repeat(40);
    let key = |entry: &str, facts: &Facts| key_struct(&model(entry), facts).unwrap().key();
    let by_branch = key("hub: acme/one", &locked(0, "main", &commit));
    assert_eq!(key("hub: acme/one, revision: main", &locked(0, "main", &commit)), by_branch);
    assert_eq!(key("hub: acme/one, revision: v1", &locked(0, "v1", &commit)), by_branch);
    assert_eq!(key(&format!("hub: acme/one, revision: {commit}"), &Facts::default()), by_branch);
    assert_eq!(key(&format!("hub: acme/one, revision: {}", "C".repeat(40)), &Facts::default()), by_branch);
    assert_ne!(key("hub: acme/one", &locked(0, "main", &"d".repeat(40))), by_branch);
}

#[test]
fn each_experiment_has_its_own_lock_file() {
    assert!(key_struct(&model("hub: acme/one"), &locked(1, "main", &"c".repeat(40))).is_err());
}
