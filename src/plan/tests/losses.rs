//! `backend: loss`: which stages there are, what they read, and what of it makes them run again.

use super::*;

const SUITE: &str = "  held: { models: [a, reg], backend: loss, data: [plain, chat], max_length: 64 }\ntables:\n";

/// The example with a loss suite of these keys beside its own.
fn with(keys: &str) -> String {
    EXPERIMENT.replace("tables:\n", &SUITE.replace("max_length: 64", keys))
}

/// Losses that run again when some keys of the suite become others.
fn changed(keys: &str, to: &str) -> Vec<String> {
    losses(&differing(&World::default().keys(&with(keys)), &World::default().keys(&with(to))))
}

/// Losses that run again when a file has other contents.
fn rewritten(path: &str) -> Vec<String> {
    let text = with("max_length: 64");
    losses(&differing(&World::default().keys(&text), &World::with(path, "other contents").keys(&text)))
}

/// Of the names of stages those of losses, without what all of them begin with.
fn losses(names: &[String]) -> Vec<String> {
    names.iter().filter_map(|name| name.strip_prefix("evals.held/")).map(str::to_owned).collect()
}

const ALL: [&str; 4] = ["a/chat", "a/plain", "reg/chat", "reg/plain"];

#[test]
fn a_merge_is_held_against_its_sources_and_another_model_against_none() {
    let needs = |keys: &str, name: &str| {
        let loaded = parse(Path::new("x.yaml"), &with(keys)).unwrap();
        let graph = Graph::new(vec![Arc::new(loaded.experiment)]);
        let stage = graph.stage(graph.find(name).unwrap()[0]).clone();
        assert_eq!(stage.spec.kind(), Kind::Eval);
        let named = |need: &super::super::Need| format!("{}: {}", need.role, graph.stage(need.stage).name);
        stage.needs.iter().map(named).collect::<Vec<_>>()
    };
    let own = ["model: merges.reg", "data: data.plain"];
    let sources = ["source.0: models.a", "source.1: models.b"];
    assert_eq!(needs("max_length: 64", "evals.held/reg/plain"), [own, sources].concat());
    assert_eq!(needs("kl: false", "evals.held/reg/plain"), own);
    assert_eq!(needs("kl: [b]", "evals.held/reg/plain"), [&own[..], &["source.0: models.b"]].concat());
    let plain = ["model: models.a", "data: data.plain"];
    assert_eq!(needs("kl: true", "evals.held/a/plain"), plain);
    assert_eq!(needs("kl: [a, b]", "evals.held/a/plain"), [plain, sources].concat());
}

#[test]
fn a_loss_needs_no_python() {
    assert!(World::default().keys(&with("max_length: 64"))["evals.held/a/plain"].tools.is_empty());
}

#[test]
fn how_rows_run_reruns_losses_and_no_other_evaluation() {
    for to in ["max_length: 65", "max_length: 64, add_special_tokens: false", "max_length: 64, dtype: float32"] {
        let text = |keys| World::default().keys(&with(keys));
        let names = differing(&text("max_length: 64"), &text(to));
        assert_eq!((losses(&names), names.len()), (ALL.map(str::to_owned).to_vec(), 4), "{to}");
    }
    assert_eq!(changed("max_length: 64", "max_length: 64, chat_template: t.jinja"), ["a/chat", "reg/chat"]);
    assert_eq!(changed("max_length: 64", "max_length: 64, kl: true"), NOTHING);
}

#[test]
fn what_predictions_are_held_against_reruns_where_it_is_another() {
    assert_eq!(changed("max_length: 64", "max_length: 64, kl: false"), ["reg/chat", "reg/plain"]);
    assert_eq!(changed("kl: [a, b]", "kl: [b, a]"), ALL);
    // Without `kl` the weights of `b` are seen through the merge alone.
    let text = with("kl: false");
    let other = World::with("models/b/model.safetensors", "other contents");
    assert_eq!(losses(&differing(&World::default().keys(&text), &other.keys(&text))), ["reg/chat", "reg/plain"]);
    let key = &World::default().keys(&with("max_length: 64"))["evals.held/reg/plain"];
    for input in ["source.0.weights", "source.0.config", "source.0.tokenizer", "source.1.weights", "model.tokenizer"] {
        assert!(key.inputs.contains_key(input), "{input}");
    }
    assert_eq!(key.params["kl"], serde_json::json!(["a", "b"]), "the names of metrics are made of them");
}

#[test]
fn what_a_model_reads_reruns_its_losses_and_nothing_else_does() {
    assert_eq!(rewritten("plain.jsonl"), ["a/plain", "reg/chat", "reg/plain"], "a Gram of `reg` is on it");
    assert_eq!(rewritten("models/a/tokenizer.json"), ALL);
    // The merge's template is that of `a`, its first model; plain text has none. What the merge was made from is not asked.
    let mut template = rewritten("models/a/chat_template.jinja");
    template.retain(|name| name.starts_with("a/"));
    assert_eq!(template, ["a/chat"]);
    assert_eq!(rewritten("models/b/chat_template.jinja"), NOTHING);
    let mut generation = rewritten("models/a/generation_config.json");
    generation.retain(|name| name.starts_with("a/"));
    assert_eq!(generation, NOTHING);
    assert_eq!(rewritten("models/a/README.md"), NOTHING);
}

#[test]
fn a_template_file_is_a_source_of_the_stage() {
    let text = with("chat_template: t.jinja");
    let keys = |world: World| world.keys(&text);
    let names = differing(&keys(World::default()), &keys(World::with("t.jinja", "other")));
    assert_eq!(losses(&names), ["a/chat", "reg/chat"]);
}
