//! A merge that captures by itself: it reads what a capture reads, and no Gram artifact.

use super::*;

/// The experiment with `merges.reg` by RegMean++.
fn flowing() -> String {
    EXPERIMENT.replace("method: regmean,", "method: regmean++,")
}

/// Whether an edit changes the merge's key.
fn reruns(from: &str, to: &str) -> bool {
    let text = flowing();
    assert!(text.contains(from), "{from}");
    let keys = |text: &str| World::default().keys(text);
    differing(&keys(&text), &keys(&text.replacen(from, to, 1))).contains(&"merges.reg".to_owned())
}

/// Whether other contents of a file change the merge's key.
fn reruns_with(file: &str) -> bool {
    let keys = |world: World| world.keys(&flowing());
    differing(&keys(World::default()), &keys(World::with(file, "other"))).contains(&"merges.reg".to_owned())
}

fn graph() -> Graph {
    Graph::new(vec![Arc::new(parse(Path::new("x.yaml"), &flowing()).unwrap().experiment)])
}

#[test]
fn it_needs_models_and_rows_and_no_grams() {
    let graph = graph();
    let stage = graph.stage(graph.find("merges.reg").unwrap()[0]);
    let needs: Vec<_> = stage.needs.iter().map(|need| (&*need.role, &*graph.stage(need.stage).name)).collect();
    assert_eq!(needs, [("0", "models.a"), ("1", "models.b"), ("data.0", "data.chat"), ("data.1", "data.plain")]);
}

#[test]
fn it_reruns_for_what_its_models_run_on() {
    assert!(reruns("max_length: 256", "max_length: 128"));
    for entry in ["skip_first: 1", "tokens: assistant", "dtype: bfloat16", "exclude: ['*.lm_head']"] {
        assert!(reruns("max_length: 256", &format!("max_length: 256, {entry}")), "{entry}");
    }
    assert!(reruns("{{ q }}", "{{ question }}"));
    assert!(reruns("{{ text }}", "{{ prompt }}"));
    assert!(reruns("rows: 10", "rows: 11"));
    assert!(reruns("alpha: 0.1", "alpha: 0.2"));
    for file in ["chat.jsonl", "plain.jsonl", "models/b/tokenizer.json", "models/b/model.safetensors"] {
        assert!(reruns_with(file), "{file}");
    }
    // Rows of `a` go through its template, and those of `b` are plain text.
    assert!(reruns_with("models/a/chat_template.jinja"));
    assert!(!reruns_with("models/b/chat_template.jinja"));
}

#[test]
fn it_does_not_rerun_for_how_its_entries_would_be_captured() {
    assert!(!reruns("max_length: 256", "max_length: 256, shards: 3"));
    assert!(!reruns("max_length: 256", "max_length: 256, engine: native"));
}

#[test]
fn a_template_file_in_place_of_the_models_is_a_source_of_the_merge() {
    let text = flowing().replace("max_length: 256", "max_length: 256, chat_template: t.jinja");
    let keys = |world: World| world.keys(&text);
    let changed = differing(&keys(World::default()), &keys(World::with("t.jinja", "other")));
    assert!(changed.contains(&"merges.reg".to_owned()), "{changed:?}");
}
