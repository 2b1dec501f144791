//! Weights of the models of a merge against each other.

use indexmap::IndexMap;
use mergelab_wire::Weight;
use serde_json::Value as Json;

use super::diagnostics::{Diagnostic, Span};
use super::filters::{Filtered, partner, reached};
use super::merge::Reader;
use super::methods::Method;
use super::types::Weighted;

/// What is left of weights that cancel each other, of the sum of their sizes: so it is where they are merged.
const NOTHING: f64 = 1e-12;

impl Reader<'_> {
    /// Weights of a mean do not add up to zero, and of Gram matrices and Fisher information none is negative.
    pub(super) fn check_weights(&self, models: &[(Weighted, Span)], method: &Method, params: &IndexMap<String, Json>) {
        let is_off = |flag: &str| params.get(flag) == Some(&false.into());
        let divides = match method.name {
            "average" => !is_off("normalize"),
            // One model is what it is, whatever its weight.
            "multislerp" => !is_off("normalize_weights") && models.len() > 1,
            _ => method.takes_a_mean(),
        };
        if !divides {
            return;
        }
        let takes_any = ["average", "multislerp"].contains(&method.name);
        let negative = models.iter().find(|(model, _)| model.weight.stated().iter().any(|weight| *weight < 0.0));
        if let Some((model, span)) = negative.filter(|_| !takes_any) {
            let message = format!("the weight of `{}` is negative", model.model);
            let hint = format!("`{}` takes a mean: its weights are 0 or more", method.name);
            self.context.report.add(Diagnostic::new(*span, message).hint(hint));
            return;
        }
        let lists: Vec<_> = models.iter().map(|(model, _)| by_name(&model.weight)).collect();
        let Some((model, place)) = cancelled(&lists) else { return };
        let diagnostic = Diagnostic::new(self.place_of(models[model].1), format!("the weights add up to 0{place}"));
        self.context.report.add(diagnostic.hint(match method.name {
            "average" => "`normalize: false` takes their sum",
            "multislerp" => "`normalize_weights: false` takes them as they are",
            _ => "one of them must be more than 0",
        }));
    }

    /// Where the weight of the model stands that is named at a place; that place itself where none is stated.
    fn place_of(&self, named: Span) -> Span {
        let items = self.fields.node("models").and_then(|models| models.as_list()).unwrap_or_default();
        let mut maps = items.iter().filter_map(|item| item.as_map());
        let map = maps.find(|map| map.get("model").is_some_and(|model| model.value.span == named));
        map.and_then(|map| map.get("weight")).map_or(named, |weight| weight.value.span)
    }
}

/// A weight by tensor name.
fn by_name(weight: &Weight) -> Vec<Filtered<'_>> {
    let Weight::ByName(named) = weight else {
        return vec![Filtered { filter: None, values: weight.of("").into(), place: None }];
    };
    let stated = named.iter().map(|named| {
        let filter = named.filter.as_deref().filter(|filter| *filter != "*");
        Filtered { filter, values: named.value.as_slice().into(), place: None }
    });
    stated.chain([Filtered::default(1.0)]).collect()
}

/// Where weights add up to nothing, in words, with the model whose weight says for which tensors; `None` where they do nowhere as
/// far as can be known without the names of tensors. A list has its first value at what lies in no layer, and its last at the last
/// layer.
fn cancelled(lists: &[Vec<Filtered<'_>>]) -> Option<(usize, String)> {
    for (model, own) in lists.iter().enumerate() {
        for index in reached(own) {
            let meet = lists
                .iter()
                .enumerate()
                .map(|(other, list)| if other == model { own.get(index) } else { partner(own, index, list) });
            let Some(items) = meet.collect::<Option<Vec<_>>>() else { continue };
            let is_nothing = |share: f64| {
                let weights = items.iter().filter_map(|item| item.at(share));
                let (sum, sizes) = weights.fold((0.0, 0.0), |(sum, sizes), w: f64| (sum + w, sizes + w.abs()));
                f64::abs(sum) <= NOTHING * sizes
            };
            let layer = match (is_nothing(0.0), is_nothing(1.0)) {
                (false, false) => continue,
                (true, true) => "",
                (true, false) => " at the first layer",
                (false, true) => " at the last layer",
            };
            let tensors = match own[index].filter {
                Some(filter) => format!(" for tensors with `{filter}` in their names"),
                None if index > 0 => " for tensors that no filter fits".to_owned(),
                None => String::new(),
            };
            return Some((model, format!("{tensors}{layer}")));
        }
    }
    None
}
