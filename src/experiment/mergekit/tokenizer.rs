//! `tokenizer_source` and `tokenizer` of a configuration.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::diagnostics::{Diagnostic, Report, Span};
use super::super::keys::{Key, Shape, key, required};
use super::super::loaded::Files;
use super::super::read::{Fields, Reading};
use super::super::tree::{Field, Map, Node, Value};
use super::config::present;
use super::parameters::scalar;
use super::reference::Reference;

const TOKENIZER: &[Key] =
    &[key("source", Shape::Any, ""), key("tokens", Shape::Any, ""), key("pad_to_multiple_of", Shape::Any, "")];
const TOKEN: &[Key] = &[key("source", Shape::Any, ""), key("force", Shape::Any, "")];
const ROW: &[Key] = &[
    required("kind", Shape::Any, ""),
    key("model", Shape::Any, ""),
    key("token", Shape::Any, ""),
    key("token_id", Shape::Any, ""),
];

/// Whose tokenizer the merge has, and what is said of rows.
pub(super) struct Tokenizer {
    source: Source,
    place: Span,
    pad_to_multiple_of: Option<Field>,
    tokens: Vec<Token>,
}

enum Source {
    /// The tokens of all models.
    Union,
    /// The base's.
    Base,
    /// A model's.
    Model(Reference),
}

/// A token with where its row comes from.
struct Token {
    name: String,
    place: Span,
    force: Option<Field>,
    row: Option<Row>,
}

enum Row {
    Model(Reference, Span),
    /// A mapping, but for its model.
    Stated {
        keys: Map,
        model: Option<(Reference, Field)>,
        place: Span,
    },
}

impl Tokenizer {
    /// What a configuration says of it, if anything.
    pub(super) fn read(report: &Report, fields: &Fields<'_>, files: &dyn Files) -> Option<Self> {
        let reader = Reader { report, files };
        let Some(block) = present(fields, "tokenizer") else {
            let field = present(fields, "tokenizer_source")?;
            let source = fields.get("tokenizer_source", |source| reader.source(source))?;
            let place = field.value.span;
            return Some(Self { source, place, pad_to_multiple_of: None, tokens: Vec::new() });
        };
        if let Some(other) = present(fields, "tokenizer_source") {
            let diagnostic =
                Diagnostic::new(other.key, "mergekit takes only one of `tokenizer` and `tokenizer_source`");
            report.add(diagnostic.other(block.key, "and this"));
            return None;
        }
        let fields = Fields::open(report, &block.value, block.key, "`tokenizer`", &[TOKENIZER])?;
        let source = match present(&fields, "source") {
            Some(_) => fields.get("source", |source| reader.source(source))?,
            None => Source::Union,
        };
        let pad_to_multiple_of = present(&fields, "pad_to_multiple_of").cloned();
        let tokens = match present(&fields, "tokens") {
            Some(_) => fields.get("tokens", |tokens| reader.tokens(tokens))?,
            None => Vec::new(),
        };
        Some(Self { source, place: block.value.span, pad_to_multiple_of, tokens })
    }

    /// The models that it names, with their places.
    pub(super) fn references(&self) -> impl Iterator<Item = (&Reference, Span)> {
        let source = match &self.source {
            Source::Model(reference) => Some((reference, self.place)),
            Source::Union | Source::Base => None,
        };
        let rows = self.tokens.iter().filter_map(|token| match token.row.as_ref()? {
            Row::Model(reference, place) => Some((reference, *place)),
            Row::Stated { model, .. } => model.as_ref().map(|(reference, field)| (reference, field.value.span)),
        });
        source.into_iter().chain(rows)
    }

    /// `tokenizer` in the words of this language. Of the bases the first is mergekit's, in whose place the first model stands
    /// where there is none, and the second the one to name here.
    pub(super) fn native(
        &self,
        names: &HashMap<Reference, String>,
        first: &str,
        (base, named): (Option<&str>, Option<&str>),
    ) -> Field {
        let place = self.place;
        let word = |text: &str| Field { key: place, value: scalar(text, place) };
        let model = |name: &str| mapping(Map::from_iter([("model".to_owned(), word(name))]), place);
        let source = match &self.source {
            Source::Union => word("union"),
            Source::Base => model(base.unwrap_or(first)),
            Source::Model(reference) => model(&names[reference]),
        };
        let mut map = Map::from_iter([("source".to_owned(), source)]);
        map.extend(named.map(|name| ("base".to_owned(), word(name))));
        map.extend(self.pad_to_multiple_of.clone().map(|field| ("pad_to_multiple_of".to_owned(), field)));
        if !self.tokens.is_empty() {
            let tokens = self.tokens.iter().map(|token| (token.name.clone(), token.native(names)));
            map.insert("tokens".to_owned(), mapping(tokens.collect(), place));
        }
        mapping(map, place)
    }
}

impl Token {
    fn native(&self, names: &HashMap<Reference, String>) -> Field {
        let mut map = Map::new();
        map.extend(self.row.as_ref().map(|row| ("source".to_owned(), row.native(names))));
        map.extend(self.force.clone().map(|field| ("force".to_owned(), field)));
        mapping(map, self.place)
    }
}

impl Row {
    fn native(&self, names: &HashMap<Reference, String>) -> Field {
        let named = |reference: &Reference, place: Span| Field { key: place, value: scalar(&names[reference], place) };
        match self {
            Self::Model(reference, place) => named(reference, *place),
            Self::Stated { keys, model, place } => {
                let mut map = keys.clone();
                let model = model.as_ref().map(|(reference, field)| named(reference, field.value.span));
                map.extend(model.map(|field| ("model".to_owned(), field)));
                mapping(map, *place)
            }
        }
    }
}

/// A mapping at a place.
pub(super) fn mapping(map: Map, place: Span) -> Field {
    Field { key: place, value: Arc::new(Node::new(place, Value::Map(map))) }
}

struct Reader<'a> {
    report: &'a Report,
    files: &'a dyn Files,
}

impl Reader<'_> {
    fn source(&self, reading: Reading<'_>) -> Option<Source> {
        match reading.node.as_scalar() {
            Some("union") => Some(Source::Union),
            Some("base") => Some(Source::Base),
            _ => Reference::read(reading, self.files).map(Source::Model),
        }
    }

    fn tokens(&self, reading: Reading<'_>) -> Option<Vec<Token>> {
        let token = |(name, field): (&String, &Field)| self.token(name, field, reading);
        reading.map()?.iter().map(token).collect()
    }

    fn token(&self, name: &str, field: &Field, reading: Reading<'_>) -> Option<Token> {
        let fields = Fields::open(self.report, &field.value, field.key, "a token", &[TOKEN])?;
        let row = match present(&fields, "source") {
            Some(_) => Some(fields.get("source", |source| self.row(source))?),
            None => None,
        };
        let force = present(&fields, "force").cloned();
        Some(Token { name: name.to_owned(), place: reading.item(&field.value).node.span, force, row })
    }

    fn row(&self, reading: Reading<'_>) -> Option<Row> {
        let place = reading.node.span;
        let Some(map) = reading.node.as_map() else {
            return Reference::read(reading, self.files).map(|reference| Row::Model(reference, place));
        };
        // mergekit writes a model as a mapping too.
        let fields = Fields::open(self.report, reading.node, place, "the source of a row", &[ROW])?;
        let model = match present(&fields, "model") {
            Some(field) => Some((fields.get("model", |model| Reference::read(model, self.files))?, field.clone())),
            None => None,
        };
        let keys = map.iter().filter(|(key, field)| *key != "model" && !field.value.is_null());
        Some(Row::Stated { keys: keys.map(|(key, field)| (key.clone(), field.clone())).collect(), model, place })
    }
}
