//! Data sets on the hub: what of an entry decides their rows.

use super::*;
use crate::plan::{Holds, Repository};

/// The commits that a lock file gives.
fn locked(commits: &[(&str, &str)]) -> Facts {
    let one = |&(revision, digit): &(&str, &str)| {
        let repository = Repository { holds: Holds::Dataset, name: "acme/sums".into(), revision: revision.into() };
        ((0, repository), digit.repeat(40))
    };
    Facts { commits: commits.iter().map(one).collect(), ..Facts::default() }
}

fn key(entry: &str, facts: &Facts) -> Result<Key, Open> {
    let text = format!("name: x\ndata: {{ d: {{ hub: acme/sums, text: \"{{{{ a }}}}\"{entry} }} }}\n");
    let loaded = parse(Path::new("x.yaml"), &text).unwrap_or_else(|errors| panic!("{errors}"));
    let graph = Graph::new(vec![Arc::new(loaded.experiment)]);
    key_struct(&graph.stages[0], facts).map(|key_struct| key_struct.key())
}

#[test]
fn commit_configuration_split_and_rows_decide() {
    let facts = locked(&[("main", "a"), ("v1", "b")]);
    let plain = key("", &facts).unwrap();
    for entry in [
        ", revision: v1",
        ", config: main",
        ", split: test",
        ", rows: 10",
        ", rows: { sample: 10 }",
        ", rows: { sample: 10, seed: 1 }",
    ] {
        assert_ne!(key(entry, &facts).unwrap(), plain, "{entry}");
    }
    assert_ne!(key(", rows: { sample: 10 }", &facts), key(", rows: { sample: 10, seed: 1 }", &facts));
    assert_ne!(key("", &locked(&[("main", "b")])).unwrap(), plain);
}

#[test]
fn how_the_commit_is_named_and_how_rows_become_text_decide_nothing() {
    let facts = locked(&[("main", "a"), ("v1", "a")]);
    let plain = key("", &facts).unwrap();
    for entry in [", revision: main", ", revision: v1", ", split: train", ", strict: true"] {
        assert_eq!(key(entry, &facts).unwrap(), plain, "{entry}");
    }
    assert_eq!(key(&format!(", revision: {}", "a".repeat(40)), &Facts::default()).unwrap(), plain);
}

#[test]
fn the_commit_of_the_conversion_decides_where_rows_are_read_from_it() {
    let with = |digit| locked(&[("main", "a"), ("refs/convert/parquet", digit)]);
    let plain = key("", &locked(&[("main", "a")])).unwrap();
    assert_ne!(key("", &with("b")).unwrap(), plain);
    assert_ne!(key("", &with("b")), key("", &with("c")));
    // There is none of another revision.
    assert_eq!(key(&format!(", revision: {}", "a".repeat(40)), &with("b")).unwrap(), plain);
}

#[test]
fn there_is_no_key_before_the_commit_is_known() {
    assert!(matches!(key("", &Facts::default()), Err(Open::Unresolved(_))));
}
