//! The models of a merge, each with its weight and what else is said of it alone.

use std::collections::HashMap;

use indexmap::IndexMap;
use mergelab_wire::Weight;
use serde_json::Value as Json;

use super::diagnostics::{Diagnostic, Span};
use super::keys::WEIGHTED;
use super::merge::{Reader, has_not};
use super::methods::Method;
use super::params;
use super::read::{Fields, Reading};
use super::types::Weighted;

impl Reader<'_> {
    /// The models with their weights and places, `None` when it is not known which they are; and whether all that is said of them
    /// could be read.
    pub(super) fn models(&self, reading: Reading<'_>) -> (Option<Vec<(Weighted, Span)>>, bool) {
        let before = self.context.report.count();
        let (mut are_known, mut is_whole) = (true, true);
        let items = reading.list(|item| {
            let (found, is_read) = self.weighted(item);
            are_known &= found.is_some();
            is_whole &= is_read;
            found
        });
        let Some(items) = items else { return (None, false) };
        let models: Vec<_> = items.into_iter().flatten().collect();
        let mut first: HashMap<&str, Span> = HashMap::new();
        for (weighted, span) in &models {
            if let Some(other) = first.insert(&weighted.model, *span) {
                let diagnostic =
                    Diagnostic::new(*span, format!("`{}` is merged twice", weighted.model)).other(other, "first here");
                self.context.report.add(diagnostic.hint("give it a weight instead"));
            }
        }
        let is_whole = is_whole && self.context.report.count() == before;
        (are_known.then_some(models), is_whole)
    }

    /// What a name means, with what is said of it, and whether that could be read.
    fn weighted(&self, reading: Reading<'_>) -> (Option<Vec<(Weighted, Span)>>, bool) {
        let plain = || (Weight::Number(1.0), IndexMap::new());
        let (name, said) = if reading.node.as_map().is_some() {
            let report = self.context.report;
            let fields = Fields::open(report, reading.node, reading.node.span, "a model of a merge", &[WEIGHTED]);
            let Some(fields) = fields else { return (None, false) };
            let said = self.said_of_a_model(&fields);
            (fields.node("model").map(|node| Reading { node, key: "model", ..reading }), said)
        } else {
            (Some(reading), Some(plain()))
        };
        let is_read = said.is_some();
        (name.and_then(|name| self.all_of(name, said.unwrap_or_else(plain))), is_read)
    }

    fn all_of(
        &self,
        name: Reading<'_>,
        (weight, params): (Weight, IndexMap<String, Json>),
    ) -> Option<Vec<(Weighted, Span)>> {
        let all = self.context.names.models.all(name, &name.name()?, &self.context.budget)?;
        let span = name.node.span;
        for (model, _) in &all {
            self.context.link_model(self.item, model, span);
        }
        let weighted = |model| Weighted { model, weight: weight.clone(), params: params.clone() };
        Some(all.into_iter().map(|(model, _)| (weighted(model), span)).collect())
    }

    /// The weight and the parameters that are stated for one model.
    pub(super) fn said_of_a_model(&self, fields: &Fields<'_>) -> Option<(Weight, IndexMap<String, Json>)> {
        let weight = fields.get_or("weight", Weight::Number(1.0), |weight| self.weight(fields, weight));
        let params = self.params_of_a_model(fields);
        Some((weight?, params?))
    }

    fn weight(&self, fields: &Fields<'_>, reading: Reading<'_>) -> Option<Weight> {
        if let Some(method) = self.method.filter(|method| !method.weighs()) {
            fields.refuse(&["weight"], &format!("for `{}`, whose models have none", method.name));
            return None;
        }
        params::weight(reading)
    }

    /// The parameters that a model states for itself.
    fn params_of_a_model(&self, fields: &Fields<'_>) -> Option<IndexMap<String, Json>> {
        let mut own = IndexMap::new();
        let stated = WEIGHTED.iter().map(|key| key.name).filter(|key| !["model", "weight"].contains(key));
        for (name, field) in stated.filter_map(|name| Some((name, fields.field(name)?))) {
            // Without its method, nobody knows which parameters a merge has.
            let method = self.method?;
            let Some(param) = method.param_of_a_model(name) else {
                self.context.report.add(if method.param(name).is_some() {
                    let message = format!("`{}` has one `{name}` for all models", method.name);
                    Diagnostic::new(field.key, message).hint("move it out of `models`, beside `method`")
                } else {
                    has_not(method, name, field.key)
                });
                return None;
            };
            own.insert(name.to_owned(), fields.get(name, |value| params::value(value, param.kind))?);
        }
        Some(own)
    }

    /// Takes the base out of the models of a method to which it is none, as mergekit does.
    pub(super) fn without_base(
        &self,
        mut models: Vec<(Weighted, Span)>,
        base: Option<&str>,
    ) -> Option<Vec<(Weighted, Span)>> {
        let leaves_out = self.method.is_some_and(Method::leaves_the_base_out);
        let Some(at) = models.iter().position(|(weighted, _)| leaves_out && base == Some(&weighted.model)) else {
            return Some(models);
        };
        let (weighted, span) = models.remove(at);
        let method = self.method.map_or("", |method| method.name);
        let diagnostic = if weighted.weight != Weight::Number(1.0) || !weighted.params.is_empty() {
            let message = format!("`{}` is the base of this merge: it has no weight and no parameters", weighted.model);
            Diagnostic::new(span, message).hint("take it out of `models`")
        } else if models.is_empty() {
            let message = format!("`{method}` merges nothing into its base here");
            Diagnostic::new(span, message).label("the base itself").hint("name a model that was trained from it")
        } else {
            return Some(models);
        };
        self.context.report.add(diagnostic);
        None
    }
}
