//! A configuration in the words of this language.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::diagnostics::{Diagnostic, Report, Span};
use super::super::methods::{Method, Need};
use super::super::tree::{Field, Map, Node, Value};
use super::config::{Config, Input, Parts, Placed, Slice, is_same};
use super::parameters::{Stated, is_for_all, require, resolve, scalar, spelled};
use super::reference::Reference;
use super::tokenizer::mapping;

/// The models of a configuration under the names that they have here.
#[derive(Clone, Copy)]
pub(super) struct Names<'a>(pub(super) &'a HashMap<Reference, String>);

impl Names<'_> {
    /// A model's name at its place; what could not be read stays so.
    pub(super) fn of(self, (reference, span): &Placed) -> Field {
        let value = match self.text(reference.as_ref()) {
            Some(name) => scalar(name, *span),
            None => Node::unread(*span),
        };
        Field { key: *span, value }
    }

    fn text(&self, reference: Option<&Reference>) -> Option<&str> {
        Some(&self.0[reference?])
    }
}

impl Config {
    /// The merge that it is, its models under these names. What is wrong is reported, and is unread in it.
    pub(super) fn merge(&self, report: &Report, place: Span, names: Names<'_>) -> Arc<Node> {
        let method =
            self.method.map_or_else(|| Node::unread(self.method_place), |of| scalar(of.name, self.method_place));
        let mut map = Map::from_iter([("method".to_owned(), Field { key: self.method_place, value: method })]);
        let base = self.base.as_ref().filter(|_| self.leaves_the_base_out());
        map.extend(base.map(|base| ("base".to_owned(), names.of(base))));
        if self.lacks_a_base() {
            let message = format!("`{}` needs a `base_model`", self.method.map_or("", |method| method.name));
            let diagnostic = Diagnostic::new(self.method_place, message);
            report.add(diagnostic.hint("add `base_model: MODEL`, the model that the others were trained from"));
            map.insert("base".to_owned(), unread(self.method_place));
        }
        match &self.parts {
            Some(Parts::Models(inputs, place)) => {
                let added = self.added(inputs);
                let inputs = inputs.iter().chain(&added);
                let models = inputs.filter(|input| base.is_none_or(|base| !is_same(base, &input.model)));
                let models = models.map(|input| self.model(report, input, None, names));
                map.insert("models".to_owned(), list(*place, models.collect()));
                map.extend(self.needed(report, None, self.method_place));
            }
            Some(Parts::Slices(slices, place)) => {
                let slices = slices.iter().map(|slice| self.slice(report, slice, names));
                map.insert("slices".to_owned(), list(*place, slices.collect()));
            }
            None => {
                map.insert("models".to_owned(), unread(place));
            }
        }
        // What each slice needs for all tensors it has whole, or it is reported there.
        let is_of_slices = |name: &str, field: &Field| {
            let is_needed =
                self.method.and_then(|method| method.param(name)).is_some_and(|param| param.default.is_none());
            is_needed && !is_for_all(field) && matches!(self.parts, Some(Parts::Slices(..)))
        };
        for (name, field) in self.params(None).into_iter().filter(|(name, field)| !is_of_slices(name, field)) {
            map.entry(name).or_insert(field);
        }
        map.extend(self.dtype.clone().map(|field| ("dtype".to_owned(), plain_dtype(field))));
        map.extend(self.tokenizer(names).map(|field| ("tokenizer".to_owned(), field)));
        Arc::new(Node::new(place, Value::Map(map)))
    }

    /// Whether the base is none of the models; so it is taken where nobody knows the method.
    fn leaves_the_base_out(&self) -> bool {
        self.method.is_none_or(Method::leaves_the_base_out)
    }

    /// Whether its method needs a base, and there is none for some part.
    fn lacks_a_base(&self) -> bool {
        let has_base = match &self.parts {
            Some(Parts::Slices(slices, _)) => {
                slices.iter().all(|slice| slice.base.is_some() || slice.sources.is_none())
            }
            _ => false,
        };
        self.base.is_none() && !has_base && self.method.is_some_and(|method| method.base == Need::Must)
    }

    /// mergekit's base, where it has none the first model: what it copies where nothing says whose, rows going by their ids.
    fn tokenizer(&self, names: Names<'_>) -> Option<Field> {
        let Some(stated) = &self.tokenizer else {
            let (base, span) = (self.base.as_ref()?, self.base.as_ref()?.1);
            let model = mapping(Map::from_iter([("model".to_owned(), names.of(base))]), span);
            let ids = Field { key: span, value: scalar("ids", span) };
            return Some(mapping(Map::from_iter([("source".to_owned(), model), ("rows".to_owned(), ids)]), span));
        };
        let first = match &self.parts {
            Some(Parts::Models(inputs, _)) => inputs.first(),
            Some(Parts::Slices(slices, _)) => slices.first().and_then(|slice| slice.sources.as_ref()?.first()),
            None => None,
        };
        let base = self.base.as_ref();
        // The base of a merge is that of its tokenizer by itself.
        let named = base.filter(|_| !self.leaves_the_base_out());
        Some(stated.native(names, base.or(first.map(|input| &input.model)), named))
    }

    /// The base, which to methods without one is one more model where whole models are merged: mergekit adds it.
    fn added(&self, inputs: &[Input]) -> Option<Input> {
        let base = self.base.as_ref().filter(|_| !self.leaves_the_base_out())?;
        let is_there = inputs.iter().any(|input| is_same(base, &input.model));
        (!is_there).then(|| Input { model: base.clone(), params: Stated::default(), layers: None })
    }

    fn slice(&self, report: &Report, slice: &Slice, names: Names<'_>) -> Arc<Node> {
        let base = slice.base.as_ref().or(self.base.as_ref()).filter(|_| self.leaves_the_base_out());
        let models = slice.sources.as_ref().map(|sources| {
            let models = sources.iter().map(|source| match base {
                // Of the base, which has neither weight nor parameters, nothing else is said.
                Some(base) if is_same(base, &source.model) => map_of(source.model.1, named(source, names)),
                _ => self.model(report, source, Some(slice), names),
            });
            list(slice.place, models.collect())
        });
        let mut map = Map::from_iter([("models".to_owned(), models.unwrap_or_else(|| unread(slice.place)))]);
        if let (Some(base), true) = (base, slice.base.is_some()) {
            map.insert("base".to_owned(), names.of(base));
        }
        map.extend(self.needed(report, Some(slice), slice.place));
        for (name, field) in self.params(Some(slice)) {
            map.entry(name).or_insert(field);
        }
        map_of(slice.place, map)
    }

    /// The method's parameters, for all slices or where one of them states them.
    fn params(&self, of: Option<&Slice>) -> Map {
        let is_stated = |name: &str| of.is_none_or(|slice| slice.params.get(name).is_some());
        let all = self.method.map_or(&[][..], |method| method.params);
        let stated = all.iter().filter(|param| is_stated(param.name));
        let found = stated.filter_map(|param| Some((param, self.resolve(of.map(|slice| &slice.params), param.name)?)));
        found.map(|(param, field)| (param.name.to_owned(), spelled(param, field))).collect()
    }

    /// The parameters without a default; reports those that nothing states. Of slices only what is not as for all is given.
    fn needed(&self, report: &Report, of: Option<&Slice>, place: Span) -> Map {
        let all = self.method.map_or(&[][..], |method| method.params);
        let mut found = Map::new();
        for param in all.iter().filter(|param| param.default.is_none()) {
            let stated = self.resolve(of.map(|slice| &slice.params), param.name);
            let field = require(report, param.name, stated, None, place);
            if field.value.is_unread() {
                found.insert(param.name.to_owned(), field);
            }
        }
        found
    }

    /// A model of the merge or of a slice.
    fn model(&self, report: &Report, input: &Input, slice: Option<&Slice>, names: Names<'_>) -> Arc<Node> {
        let span = input.model.1;
        let mut map = named(input, names);
        if self.method.is_none_or(Method::weighs) {
            let of = [&input.params].into_iter().chain(slice.map(|slice| &slice.params));
            let weight = self.resolve(of, "weight");
            // A base has no weight, and where one of the two could not be read, this may be it.
            let may_be_base = self.leaves_the_base_out()
                && (input.model.0.is_none() || self.bases(slice).any(|(base, _)| base.is_none()));
            let weight = match (names.text(input.model.0.as_ref()), self.method) {
                (Some(name), Some(_)) if !may_be_base => Some(require(report, "weight", weight, Some(name), span)),
                _ => weight,
            };
            map.extend(weight.map(|weight| ("weight".to_owned(), weight)));
        }
        // Where none of a model's filters fits, that of the merge counts by itself.
        let own = self.method.map_or(&[][..], |method| method.params).iter().filter(|param| param.per_model);
        let own = own.filter_map(|param| Some((param, resolve(&[input.params.get(param.name)?])?)));
        map.extend(own.map(|(param, field)| (param.name.to_owned(), field)));
        map_of(span, map)
    }

    /// The bases of the merge and of a slice.
    fn bases<'a>(&'a self, slice: Option<&'a Slice>) -> impl Iterator<Item = &'a Placed> {
        slice.and_then(|slice| slice.base.as_ref()).into_iter().chain(&self.base)
    }

    /// What counts of a parameter: what is stated at these places, the first before the others, then for all. Where it may be
    /// meant by what could not be read, it counts as unread.
    fn resolve<'a>(&'a self, of: impl IntoIterator<Item = &'a Stated>, name: &str) -> Option<Field> {
        let scopes: Vec<&Stated> = of.into_iter().chain(&self.scopes).collect();
        let stated: Vec<_> = scopes.iter().filter_map(|scope| scope.get(name)).collect();
        let found = resolve(&stated);
        let is_whole = found.as_ref().is_some_and(is_for_all);
        if !is_whole && scopes.iter().any(|scope| scope.may_mean(self.method, name)) {
            return Some(unread(found.map_or(self.method_place, |field| field.key)));
        }
        found
    }
}

/// A model's name, and the layers that it gives.
fn named(input: &Input, names: Names<'_>) -> Map {
    let model = ("model".to_owned(), names.of(&input.model));
    [model].into_iter().chain(input.layers.clone().map(|layers| ("layers".to_owned(), layers))).collect()
}

fn unread(place: Span) -> Field {
    Field { key: place, value: Node::unread(place) }
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
