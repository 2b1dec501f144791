//! What reruns a model with an adapter, and what does not.

use super::*;
use crate::plan::repository;

const LORAS: &str = "name: x
models:
  a: { path: models/a }
  tuned: { path: models/a, lora: adapters/one }
data: { d: { path: d.jsonl, text: x } }
grams: { tuned: { model: tuned, data: d } }
merges: { avg: { method: average, models: [a, tuned] } }
";

/// What reruns when a file has other contents.
fn changed(path: &str) -> Vec<String> {
    differing(&World::default().keys(LORAS), &World::with(path, "other contents").keys(LORAS))
}

#[test]
fn a_model_with_an_adapter_is_a_stage_after_the_model_and_the_adapter() {
    let graph = Graph::new(vec![Arc::new(parse(Path::new("x.yaml"), LORAS).unwrap().experiment)]);
    let needs = |name: &str| {
        let stage = graph.stage(graph.find(name).unwrap()[0]);
        stage.needs.iter().map(|need| (&*need.role, &*graph.stage(need.stage).name)).collect::<Vec<_>>()
    };
    assert_eq!(needs("models.tuned"), [("base", "models.tuned/base"), ("lora", "models.tuned/lora")]);
    assert_eq!(needs("grams.tuned"), [("model", "models.tuned"), ("data", "data.d")]);
}

#[test]
fn the_adapter_reruns_the_model_and_what_lies_beside_it_does_not() {
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        let expected = ["models.tuned", "models.tuned/lora", "grams.tuned", "merges.avg"];
        assert_eq!(changed(&format!("adapters/one/{file}")), expected, "{file}");
    }
    assert_eq!(changed("adapters/one/README.md"), NOTHING);
    assert_eq!(changed("adapters/one/optimizer.pt"), NOTHING);
}

#[test]
fn any_part_of_the_model_reruns_it_and_the_card_does_not() {
    for file in ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json"]
    {
        assert!(changed(&format!("models/a/{file}")).contains(&"models.tuned".to_owned()), "{file}");
    }
    let of_card = changed("models/a/README.md");
    assert!(!of_card.contains(&"models.tuned".to_owned()), "{of_card:?}");
}

#[test]
fn two_names_for_one_model_with_one_adapter_have_one_key() {
    let twice = LORAS.replace("data: {", "  again: { path: models/a, lora: { path: adapters/one } }\ndata: {");
    let keys = World::default().keys(&twice);
    assert_eq!(keys["models.tuned"].key(), keys["models.again"].key());
    assert_eq!(keys["models.tuned/base"].key(), keys["models.a"].key());
}

#[test]
fn an_adapter_on_the_hub_is_known_by_its_commit() {
    let text = "name: x\nmodels: { m: { hub: acme/one, lora: { hub: acme/adapter, revision: v1 } } }\n";
    let graph = Graph::new(vec![Arc::new(parse(Path::new("x.yaml"), text).unwrap().experiment)]);
    let named = |name: &str| repository(graph.stage(graph.find(name).unwrap()[0]));
    let (base, place) = named("models.m/base").unwrap();
    assert_eq!((&*base.name, &*base.revision, place), ("acme/one", "main", &["hub"][..]));
    let (adapter, place) = named("models.m/lora").unwrap();
    assert_eq!((&*adapter.name, &*adapter.revision, place), ("acme/adapter", "v1", &["lora", "hub"][..]));
    let stage = graph.stage(graph.find("models.m/lora").unwrap()[0]);
    assert_eq!(key_struct(stage, &Facts::default()), Err(Open::Unresolved(adapter.clone())));
    let facts = Facts { commits: HashMap::from([((0, adapter), "c".repeat(40))]), ..Facts::default() };
    let known = key_struct(stage, &facts).unwrap();
    assert_eq!(known.params, serde_json::json!({ "hub": "acme/adapter", "commit": "c".repeat(40) }));
}
