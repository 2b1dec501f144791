//! Fisher information: what a stage and a merge by it depend on.

use super::*;

/// The experiment with Fisher information of both models, and a merge by it.
fn with_fishers() -> String {
    let fishers = "fishers:\n  a: { model: a, data: chat, max_length: 64 }\n  b: { model: b, data: plain }\nmerges:\n";
    let merge = "  reg: { method: fisher, models: [a, b], fishers: [a, b], floor: 0.1 }\n";
    let reg = "  reg: { method: regmean, models: [a, b], grams: [a, b], alpha: 0.1 }\n";
    EXPERIMENT.replace("merges:\n", fishers).replace(reg, merge)
}

/// The stages whose keys an edit changes.
fn edited(from: &str, to: &str) -> Vec<String> {
    let text = with_fishers();
    assert_eq!(text.matches(from).count(), 1, "{from:?}");
    let world = World::default();
    differing(&world.keys(&text), &world.keys(&text.replace(from, to)))
}

/// The stages whose keys other contents of a file change.
fn rewritten(file: &str) -> Vec<String> {
    let text = with_fishers();
    differing(&World::default().keys(&text), &World::with(file, "other").keys(&text))
}

#[test]
fn a_merge_needs_its_models_and_their_fisher_information() {
    let graph = Graph::new(vec![Arc::new(parse(Path::new("x.yaml"), &with_fishers()).unwrap().experiment)]);
    let needs = |name: &str| {
        let stage = graph.stage(graph.find(name).unwrap()[0]);
        let need = |need: &crate::plan::Need| (need.role.clone(), graph.stage(need.stage).name.clone());
        stage.needs.iter().map(need).collect::<Vec<_>>()
    };
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(role, stage)| ((*role).to_owned(), (*stage).to_owned())).collect()
    };
    assert_eq!(needs("fishers.a"), pairs(&[("model", "models.a"), ("data", "data.chat")]));
    let expected = [("0", "models.a"), ("1", "models.b"), ("fishers.0", "fishers.a"), ("fishers.1", "fishers.b")];
    assert_eq!(needs("merges.reg"), pairs(&expected));
}

#[test]
fn what_a_model_runs_on_reruns_its_fisher_information_and_the_merge() {
    let rerun = with_reg(&["fishers.a"]);
    assert_eq!(edited("max_length: 64", "max_length: 65"), rerun);
    for entry in ["skip_first: 1", "tokens: assistant", "dtype: bfloat16", "add_special_tokens: false", "labels: model"]
    {
        assert_eq!(edited("max_length: 64", &format!("max_length: 64, {entry}")), rerun, "{entry}");
    }
    assert_eq!(edited("{{ text }}", "{{ prompt }}"), with_reg(&["grams.b", "fishers.b"]));
    let both = ["models.b", "grams.b", "fishers.b", "merges.avg"];
    assert_eq!(rewritten("models/b/model.safetensors"), with_reg(&both));
    assert_eq!(rewritten("models/b/chat_template.jinja"), ["models.b"], "plain text goes through none");
}

#[test]
fn the_seed_counts_where_labels_are_drawn() {
    assert_eq!(edited("seed: 1", "seed: 2"), EVALS, "evaluations alone draw by it");
    let drawn = with_fishers().replace("max_length: 64", "max_length: 64, labels: model");
    let keys = |text: &str| World::default().keys(text);
    let changed = differing(&keys(&drawn), &keys(&drawn.replace("seed: 1", "seed: 2")));
    assert!(changed.contains(&"fishers.a".to_owned()) && !changed.contains(&"fishers.b".to_owned()), "{changed:?}");
    let seeded = drawn.replace("labels: model", "labels: model, seed: 1");
    assert_eq!(differing(&keys(&drawn), &keys(&seeded)), NOTHING);
}

#[test]
fn what_says_how_elements_are_weighed_reruns_the_merge_only() {
    assert_eq!(edited("floor: 0.1", "floor: 0.2"), REG);
    assert_eq!(edited("floor: 0.1", "floor: 0.1, normalize: true"), REG);
    assert_eq!(edited("fishers: [a, b], floor", "fishers: [a, b], keep: recipe, floor"), NOTHING);
}

#[test]
fn an_engine_or_shards_of_a_gram_have_no_part_in_it() {
    let key = &World::default().keys(&with_fishers())["fishers.b"];
    let params = key.params.as_object().unwrap();
    let names: Vec<&str> = params.keys().map(String::as_str).collect();
    let expected = ["add_special_tokens", "dtype", "labels", "max_length", "rows", "skip_first", "strict", "tokens"];
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    assert_eq!(key.inputs.keys().collect::<Vec<_>>(), ["data", "model.config", "model.tokenizer", "model.weights"]);
    assert!(key.tools.is_empty());
}
