//! What merges and captures report of each layer (`layers.json`), as figures over layers and modules.

use std::path::Path;

use indexmap::IndexSet;
use mergelab_wire::Place;
use serde::Serialize;
use serde_json::Value;

use super::Inputs;
use super::stages::Stages;
use crate::layers::{FILE, Layer, Solved, kind};
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
    places: Vec<(Option<usize>, usize)>,
}

/// One figure: its name here, and where it stands in what is said of a layer.
type Field<T> = (&'static str, fn(&T) -> Option<f64>);

/// What a merge says of a layer that was solved.
const OF_MERGES: [Field<Layer>; 10] = [
    ("relative change", |layer| layer.correction_over_weights),
    ("objective", |layer| layer.objective.over_average()),
    ("held-out objective", |layer| layer.objective_held_out.as_ref()?.over_average()),
    ("condition", |layer| layer.condition),
    ("residual", |layer| layer.residual),
    ("error", |layer| layer.error_over_correction),
    ("rounding", |layer| layer.rounding_over_correction),
    ("cut eigenvalues", |layer| Some(layer.cut_eigenvalues as f64)),
    ("unseen features", |layer| Some(layer.unseen_features as f64)),
    ("alpha", |layer| Some(layer.alpha)),
];

const OF_GRAMS: [Field<Value>; 2] = [
    ("trace", |input| Some(input["trace"].as_f64()? / input["width"].as_f64()?)),
    ("first tokens", |input| input["first_token_share"].as_f64()),
];

/// Figures that say nothing where all of them are the same.
const ONLY_IF_THEY_DIFFER: [&str; 3] = ["cut eigenvalues", "unseen features", "alpha"];

/// The figures of all merges and captures whose results have some.
pub(super) fn layers(inputs: &Inputs<'_>, stages: &Stages) -> (Vec<Layers>, IndexSet<Layout>) {
    let (mut all, mut layouts) = (Vec::new(), IndexSet::new());
    for (id, place) in &stages.places {
        let kind = inputs.graph.stage(*id).spec.kind();
        if !matches!(kind, Kind::Merge | Kind::Gram) || stages.list[*place].made.is_none() {
            continue;
        }
        let Some((layout, figures)) = read(inputs, *id).and_then(|text| figures_of(&text)) else { continue };
        all.push(Layers { stage: *place, layout: layouts.insert_full(layout).0, figures });
    }
    (all, layouts)
}

fn read(inputs: &Inputs<'_>, id: StageId) -> Option<Vec<u8>> {
    let location: &Path = &inputs.facts.results.get(&id)?.location;
    std::fs::read(location.join(FILE)).ok()
}

/// The figures of a `layers.json`, of a merge or of a capture; `None` without any.
fn figures_of(text: &[u8]) -> Option<(Layout, Vec<Values>)> {
    if let Ok(solved) = Solved::parse(text) {
        return laid_out(solved.layers.iter().map(|layer| (layer.tensor.as_str(), layer)), &OF_MERGES);
    }
    let json: Value = serde_json::from_slice(text).ok()?;
    let inputs = json["inputs"].as_array()?.iter();
    let modules = inputs.flat_map(|input| {
        input["modules"].as_array().into_iter().flatten().filter_map(move |module| Some((module.as_str()?, input)))
    });
    laid_out(modules, &OF_GRAMS)
}

/// Figures of tensors or modules by their names, in the order of layers.
fn laid_out<'a, T: 'a>(
    of_one: impl Iterator<Item = (&'a str, &'a T)>,
    fields: &[Field<T>],
) -> Option<(Layout, Vec<Values>)> {
    let mut modules = IndexSet::new();
    let mut found: Vec<_> = of_one
        .map(|(name, figures)| {
            let layer = Place::of(name).layer.map(|layer| layer.number);
            (layer, modules.insert_full(kind(name).to_owned()).0, figures)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of_json(json: &Value) -> Option<(Layout, Vec<Values>)> {
        figures_of(json.to_string().as_bytes())
    }

    #[test]
    fn figures_stand_in_the_order_of_layers_and_only_where_they_say_something() {
        let layer = |number: u32, change: f64| {
            json!({
                "tensor": format!("model.layers.{number}.mlp.up_proj.weight"), "shape": [8, 4], "alpha": 0.5,
                "path": "cholesky", "cut_eigenvalues": 0, "unseen_features": 0, "error_over_correction": null,
                "condition": 1234.567, "residual": null, "correction_over_weights": change,
                "rounding_over_correction": null,
                "objective": { "sources": [], "average": 4.0, "merge": 1.0 }, "objective_held_out": null,
            })
        };
        let (layout, figures) = of_json(&json!({ "format": 1, "layers": [layer(10, 0.5), layer(2, 0.25)] })).unwrap();
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
        assert!(of_json(&json!({ "format": 1, "layers": [] })).is_none() && of_json(&Value::Null).is_none());
    }
}
