//! A configuration in the words of this language.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::diagnostics::{Diagnostic, Report, Span};
use super::super::methods::Need;
use super::super::tree::{Field, Map, Node, Value};
use super::config::{Config, Input, Placed};
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
        if method.base == Need::Must && base.is_none() {
            let message = format!("`{}` needs a `base_model`", method.name);
            report.add(Diagnostic::new(self.method_place, message));
        }
        // To the other methods the base is one more model, which mergekit adds where whole models are merged.
        let added = self.base.iter().filter(|base| self.whole && !method.leaves_the_base_out() && !self.has(base));
        let added: Vec<_> = added.map(|base| Input { model: base.clone(), params: Map::new() }).collect();
        let models: Vec<_> = (self.inputs.iter().chain(&added))
            .filter(|input| base.is_none_or(|(base, _)| *base != input.model.0))
            .map(|input| self.model(report, input, &names[&input.model.0]))
            .collect();
        let span = self.inputs.first().map_or(place, |input| input.model.1);
        map.insert("models".to_owned(), Field { key: span, value: Arc::new(Node::new(span, Value::List(models))) });
        if let Some((base, span)) = base {
            map.insert("base".to_owned(), word(&names[base], *span));
        }
        for param in method.params {
            let found = self.resolve(None, param.name);
            if param.default.is_none() {
                require(report, param.name, found.as_ref(), None, self.method_place);
            }
            map.extend(found.map(|field| (param.name.to_owned(), spelled(param, field))));
        }
        map.extend(self.dtype.clone().map(|field| ("dtype".to_owned(), plain_dtype(field))));
        // mergekit's base, where it has none the first model: what it copies where nothing says whose, rows going by their ids.
        let of_base = self.base.as_ref().map(|(reference, span)| (names[reference].as_str(), *span));
        let tokenizer = match &self.tokenizer {
            Some(stated) => {
                let first = self.inputs.first().map_or("base", |input| &names[&input.model.0]);
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

    fn has(&self, (base, _): &Placed) -> bool {
        self.inputs.iter().any(|input| input.model.0 == *base)
    }

    fn model(&self, report: &Report, input: &Input, name: &str) -> Arc<Node> {
        let span = input.model.1;
        let mut map = Map::from_iter([("model".to_owned(), Field { key: span, value: scalar(name, span) })]);
        if self.method.weighs() {
            let weight = self.resolve(Some(&input.params), "weight");
            require(report, "weight", weight.as_ref(), Some(name), span);
            map.extend(weight.map(|weight| ("weight".to_owned(), weight)));
        }
        // Where none of a model's filters fits, that of the merge counts by itself.
        let own = self.method.params.iter().filter(|param| param.per_model);
        let own = own.filter_map(|param| Some((param, resolve(&[input.params.get(param.name)?])?)));
        map.extend(own.map(|(param, field)| (param.name.to_owned(), field)));
        Arc::new(Node::new(span, Value::Map(map)))
    }

    /// What counts of a parameter, of one model or of all.
    fn resolve(&self, of: Option<&Map>, name: &str) -> Option<Field> {
        let stated: Vec<_> = of.into_iter().chain(&self.scopes).filter_map(|scope| scope.get(name)).collect();
        resolve(&stated)
    }
}

/// A type without the `torch.` that mergekit also takes.
fn plain_dtype(field: Field) -> Field {
    match field.value.as_scalar().and_then(|text| text.strip_prefix("torch.")) {
        Some(text) => Field { value: scalar(text, field.value.span), ..field },
        None => field,
    }
}
