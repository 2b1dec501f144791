//! What merges and captures report of each layer (`layers.json`), as figures over layers and modules.

use std::path::Path;

use indexmap::IndexSet;
use serde::Serialize;
use serde_json::Value;

use super::Inputs;
use super::stages::Stages;
use crate::plan::{Kind, StageId};

/// The figures of one stage.
#[derive(Debug, Serialize)]
pub(super) struct Layers {
    /// The stage's place.
    stage: usize,
    /// What its figures are of, by place among the layouts.
    layout: usize,
    /// Each with as many values as the layout has places.
    figures: Vec<Values>,
}

#[derive(Debug, Serialize)]
struct Values {
    name: &'static str,
    values: Vec<Option<f64>>,
}

/// What figures are of: modules, and the layers that have them.
#[derive(Debug, PartialEq, Eq, Hash, Serialize)]
pub(super) struct Layout {
    /// Names without the layer's number.
    modules: Vec<String>,
    /// The number of the layer, where there is one, and the place of the module.
    places: Vec<(Option<u32>, usize)>,
}

/// One figure in `layers.json`: its name here, and where it stands there.
type Field = (&'static str, fn(&Value) -> Option<f64>);

/// What a merge says of a layer that was solved; the crate `mergelab-tensor` says what each is.
const OF_MERGES: [Field; 10] = [
    ("relative change", |layer| layer["correction_over_weights"].as_f64()),
    ("objective", |layer| ratio(&layer["objective"])),
    ("held-out objective", |layer| ratio(&layer["objective_held_out"])),
    ("condition", |layer| layer["condition"].as_f64()),
    ("residual", |layer| layer["residual"].as_f64()),
    ("error", |layer| layer["error_over_correction"].as_f64()),
    ("rounding", |layer| layer["rounding_over_correction"].as_f64()),
    ("cut eigenvalues", |layer| layer["cut_eigenvalues"].as_f64()),
    ("unseen features", |layer| layer["unseen_features"].as_f64()),
    ("alpha", |layer| layer["alpha"].as_f64()),
];

const OF_GRAMS: [Field; 2] = [
    ("trace", |input| Some(input["trace"].as_f64()? / input["width"].as_f64()?)),
    ("first tokens", |input| input["first_token_share"].as_f64()),
];

/// Figures that say nothing where all of them are the same.
const ONLY_IF_THEY_DIFFER: [&str; 3] = ["cut eigenvalues", "unseen features", "alpha"];

fn ratio(objective: &Value) -> Option<f64> {
    let ratio = objective["merge"].as_f64()? / objective["average"].as_f64()?;
    ratio.is_finite().then_some(ratio)
}

/// The figures of all merges and captures whose results have some.
pub(super) fn layers(inputs: &Inputs<'_>, stages: &Stages) -> (Vec<Layers>, IndexSet<Layout>) {
    let (mut all, mut layouts) = (Vec::new(), IndexSet::new());
    for (id, place) in &stages.places {
        let kind = inputs.graph.stage(*id).spec.kind();
        if !matches!(kind, Kind::Merge | Kind::Gram) || stages.list[*place].made.is_none() {
            continue;
        }
        let Some((layout, figures)) = read(inputs, *id).and_then(|json| of_json(&json)) else { continue };
        all.push(Layers { stage: *place, layout: layouts.insert_full(layout).0, figures });
    }
    (all, layouts)
}

fn read(inputs: &Inputs<'_>, id: StageId) -> Option<Value> {
    let location: &Path = &inputs.facts.results.get(&id)?.location;
    serde_json::from_slice(&std::fs::read(location.join("layers.json")).ok()?).ok()
}

/// The figures of a `layers.json`; `None` without any.
fn of_json(json: &Value) -> Option<(Layout, Vec<Values>)> {
    let (of_one, fields): (Vec<(&str, &Value)>, &[Field]) = if let Some(layers) = json["layers"].as_array() {
        (layers.iter().filter_map(|layer| Some((layer["tensor"].as_str()?, layer))).collect(), &OF_MERGES)
    } else {
        let inputs = json["inputs"].as_array()?.iter();
        let modules = inputs.flat_map(|input| {
            input["modules"].as_array().into_iter().flatten().filter_map(move |module| Some((module.as_str()?, input)))
        });
        (modules.collect(), &OF_GRAMS)
    };
    let mut modules = IndexSet::new();
    let mut found: Vec<_> = of_one
        .into_iter()
        .map(|(name, figures)| {
            let (layer, module) = place(name);
            (layer, modules.insert_full(module).0, figures)
        })
        .collect();
    // By name the tenth layer would come before the second.
    found.sort_by_key(|(layer, module, _)| (*layer, *module));
    let figures: Vec<Values> = fields
        .iter()
        .map(|(name, field)| Values { name, values: found.iter().map(|(_, _, of)| field(of).map(short)).collect() })
        .filter(|figure| figure.values.iter().any(Option::is_some))
        .filter(|figure| {
            !ONLY_IF_THEY_DIFFER.contains(&figure.name) || figure.values.windows(2).any(|pair| pair[0] != pair[1])
        })
        .collect();
    let places = found.iter().map(|(layer, module, _)| (*layer, *module)).collect();
    (!figures.is_empty()).then(|| (Layout { modules: modules.into_iter().collect(), places }, figures))
}

/// Three digits of a number: more would only be read by nobody and sent by everybody.
fn short(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}

/// `model.layers.12.self_attn.q_proj.weight`: layer 12, module `self_attn.q_proj`.
fn place(tensor: &str) -> (Option<u32>, String) {
    let name = tensor.strip_suffix(".weight").unwrap_or(tensor);
    let parts: Vec<&str> = name.split('.').collect();
    let number = parts.iter().position(|part| part.parse::<u32>().is_ok());
    match number {
        Some(at) if at + 1 < parts.len() => (parts[at].parse().ok(), parts[at + 1..].join(".")),
        _ => (None, name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tensors_name_says_its_layer_and_module() {
        assert_eq!(place("model.layers.12.self_attn.q_proj.weight"), (Some(12), "self_attn.q_proj".to_owned()));
        assert_eq!(place("lm_head.weight"), (None, "lm_head".to_owned()));
        assert_eq!(place("classifier.0.weight"), (None, "classifier.0".to_owned()));
    }

    #[test]
    fn figures_stand_in_the_order_of_layers_and_only_where_they_say_something() {
        let layer = |number: u32, change: f64| {
            json!({
                "tensor": format!("model.layers.{number}.mlp.up_proj.weight"), "alpha": 0.5, "cut_eigenvalues": 0,
                "condition": 1234.567, "residual": null, "correction_over_weights": change,
                "objective": { "average": 4.0, "merge": 1.0 }, "objective_held_out": null,
            })
        };
        let (layout, figures) = of_json(&json!({ "layers": [layer(10, 0.5), layer(2, 0.25)] })).unwrap();
        assert_eq!(
            (layout.modules, layout.places),
            (vec!["mlp.up_proj".to_owned()], vec![(Some(2), 0), (Some(10), 0)])
        );
        let figures: Vec<_> = figures.into_iter().map(|figure| (figure.name, figure.values)).collect();
        assert_eq!(
            figures,
            [
                ("relative change", vec![Some(0.25), Some(0.5)]),
                ("objective", vec![Some(0.25), Some(0.25)]),
                ("condition", vec![Some(1230.0), Some(1230.0)]),
            ]
        );
    }

    #[test]
    fn a_grams_figures_count_for_each_module_that_reads_it() {
        let input =
            json!({ "modules": ["layers.0.q", "layers.0.k"], "width": 4, "trace": 8.0, "first_token_share": 0.5 });
        let (layout, figures) = of_json(&json!({ "inputs": [input] })).unwrap();
        assert_eq!((layout.modules.len(), layout.places), (2, vec![(Some(0), 0), (Some(0), 1)]));
        assert_eq!(figures[0].values, [Some(2.0), Some(2.0)]);
        assert!(of_json(&json!({ "layers": [] })).is_none() && of_json(&Value::Null).is_none());
    }
}
