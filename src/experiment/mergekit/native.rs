//! A configuration in the words of this language.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::diagnostics::{Diagnostic, Report, Span};
use super::super::methods::Need;
use super::super::tree::{Field, Map, Node, Value};
use super::config::{Config, Input, Parts, Slice};
use super::parameters::{require, resolve, scalar, spelled};
use super::reference::Reference;
use super::tokenizer::mapping;

impl Config {
    /// The merge that it is, its models under these names; `None` when something is missing.
    pub(super) fn merge(&self, report: &Report, place: Span, names: &HashMap<Reference, String>) -> Option<Arc<Node>> {
        let method = self.method;
        let word = |text: &str, span: Span| Field { key: span, value: scalar(text, span) };
        let mut map = Map::from_iter([("method".to_owned(), word(method.name, self.method_place))]);
        let base = self.base.as_ref().filter(|_| method.leaves_the_base_out());
        let has_base = match &self.parts {
            Parts::Models(_) => base.is_some(),
            Parts::Slices(slices, _) => base.is_some() || slices.iter().all(|slice| slice.base.is_some()),
        };
        if method.base == Need::Must && !has_base {
            let message = format!("`{}` needs a `base_model`", method.name);
            report.add(Diagnostic::new(self.method_place, message));
        }
        match &self.parts {
            Parts::Models(inputs) => {
                let added = self.added(inputs);
                let inputs = inputs.iter().chain(&added);
                let models = inputs.filter(|input| base.is_none_or(|(base, _)| *base != input.model.0));
                let models = models.map(|input| self.model(report, input, None, &names[&input.model.0]));
                map.insert("models".to_owned(), list(place, models.collect()));
                self.require(report, None, self.method_place);
            }
            Parts::Slices(slices, place) => {
                let slices = slices.iter().map(|slice| self.slice(report, slice, names));
                map.insert("slices".to_owned(), list(*place, slices.collect()));
            }
        }
        if let Some((base, span)) = base {
            map.insert("base".to_owned(), word(&names[base], *span));
        }
        map.extend(self.params(None));
        map.extend(self.dtype.clone().map(|field| ("dtype".to_owned(), plain_dtype(field))));
        // mergekit's base, where it has none the first model: what it copies where nothing says whose, rows going by their ids.
        let of_base = self.base.as_ref().map(|(reference, span)| (names[reference].as_str(), *span));
        let tokenizer = match &self.tokenizer {
            Some(stated) => {
                let first = match &self.parts {
                    Parts::Models(inputs) => inputs.first(),
                    Parts::Slices(slices, _) => slices.first().and_then(|slice| slice.sources.first()),
                };
                let first = first.map_or("base", |input| &names[&input.model.0]);
                let base = of_base.map(|(name, _)| name);
                // The base of a merge is that of its tokenizer by itself.
                Some(stated.native(names, first, (base, base.filter(|_| !method.leaves_the_base_out()))))
            }
            None => of_base.map(|(name, span)| {
                let model = mapping(Map::from_iter([("model".to_owned(), word(name, span))]), span);
                let keys = [("source".to_owned(), model), ("rows".to_owned(), word("ids", span))];
                mapping(Map::from_iter(keys), span)
            }),
        };
        map.extend(tokenizer.map(|field| ("tokenizer".to_owned(), field)));
        (report.count() == 0).then(|| Arc::new(Node::new(place, Value::Map(map))))
    }

    /// The base, which to methods without one is one more model where whole models are merged: mergekit adds it.
    fn added(&self, inputs: &[Input]) -> Option<Input> {
        let (base, span) = self.base.as_ref().filter(|_| !self.method.leaves_the_base_out())?;
        let is_there = inputs.iter().any(|input| input.model.0 == *base);
        (!is_there).then(|| Input { model: (base.clone(), *span), params: Map::new(), layers: None })
    }

    fn slice(&self, report: &Report, slice: &Slice, names: &HashMap<Reference, String>) -> Arc<Node> {
        let base = slice.base.as_ref().or(self.base.as_ref()).filter(|_| self.method.leaves_the_base_out());
        let models = slice.sources.iter().map(|source| {
            let name = &names[&source.model.0];
            match base {
                // Of the base, which has neither weight nor parameters, nothing else is said.
                Some((base, _)) if *base == source.model.0 => map_of(source.model.1, named(source, name)),
                _ => self.model(report, source, Some(slice), name),
            }
        });
        let mut map = Map::from_iter([("models".to_owned(), list(slice.place, models.collect()))]);
        if let (Some((base, span)), true) = (base, slice.base.is_some()) {
            map.insert("base".to_owned(), Field { key: *span, value: scalar(&names[base], *span) });
        }
        self.require(report, Some(slice), slice.place);
        map.extend(self.params(Some(slice)));
        map_of(slice.place, map)
    }

    /// The method's parameters, for all slices or where one of them states them.
    fn params(&self, of: Option<&Slice>) -> Map {
        let is_stated = |name: &str| of.is_none_or(|slice| slice.params.contains_key(name));
        let stated = self.method.params.iter().filter(|param| is_stated(param.name));
        let found = stated.filter_map(|param| Some((param, self.resolve(of.map(|slice| &slice.params), param.name)?)));
        found.map(|(param, field)| (param.name.to_owned(), spelled(param, field))).collect()
    }

    /// Reports the parameters without a default that nothing states.
    fn require(&self, report: &Report, of: Option<&Slice>, place: Span) {
        for param in self.method.params.iter().filter(|param| param.default.is_none()) {
            let found = self.resolve(of.map(|slice| &slice.params), param.name);
            require(report, param.name, found.as_ref(), None, place);
        }
    }

    /// A model of the merge or of a slice.
    fn model(&self, report: &Report, input: &Input, slice: Option<&Slice>, name: &str) -> Arc<Node> {
        let span = input.model.1;
        let mut map = named(input, name);
        if self.method.weighs() {
            let of = [&input.params].into_iter().chain(slice.map(|slice| &slice.params));
            let weight = self.resolve(of, "weight");
            require(report, "weight", weight.as_ref(), Some(name), span);
            map.extend(weight.map(|weight| ("weight".to_owned(), weight)));
        }
        // Where none of a model's filters fits, that of the merge counts by itself.
        let own = self.method.params.iter().filter(|param| param.per_model);
        let own = own.filter_map(|param| Some((param, resolve(&[input.params.get(param.name)?])?)));
        map.extend(own.map(|(param, field)| (param.name.to_owned(), field)));
        map_of(span, map)
    }

    /// What counts of a parameter: what is stated at these places, the first before the others, then for all.
    fn resolve<'a>(&'a self, of: impl IntoIterator<Item = &'a Map>, name: &str) -> Option<Field> {
        let stated: Vec<_> = of.into_iter().chain(&self.scopes).filter_map(|scope| scope.get(name)).collect();
        resolve(&stated)
    }
}

/// A model's name, and the layers that it gives.
fn named(input: &Input, name: &str) -> Map {
    let span = input.model.1;
    let model = ("model".to_owned(), Field { key: span, value: scalar(name, span) });
    [model].into_iter().chain(input.layers.clone().map(|layers| ("layers".to_owned(), layers))).collect()
}

fn list(span: Span, items: Vec<Arc<Node>>) -> Field {
    Field { key: span, value: Arc::new(Node::new(span, Value::List(items))) }
}

fn map_of(span: Span, map: Map) -> Arc<Node> {
    Arc::new(Node::new(span, Value::Map(map)))
}

/// A type without the `torch.` that mergekit also takes.
fn plain_dtype(field: Field) -> Field {
    match field.value.as_scalar().and_then(|text| text.strip_prefix("torch.")) {
        Some(text) => Field { value: scalar(text, field.value.span), ..field },
        None => field,
    }
}
