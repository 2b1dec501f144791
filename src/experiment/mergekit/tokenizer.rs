//! `tokenizer_source` and `tokenizer` of a configuration.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::diagnostics::{Diagnostic, Report, Span};
use super::super::keys::{Key, Shape, key, required};
use super::super::read::{Fields, Reading};
use super::super::tokenizer::{row_meant, source_meant};
use super::super::tree::{Field, Map, Node, Value};
use super::config::{Placed, present};
use super::native::Names;
use super::parameters::scalar;
use super::reference::{Place, Reference};

const TOKENIZER: &[Key] =
    &[key("source", Shape::Any, ""), key("tokens", Shape::Any, ""), key("pad_to_multiple_of", Shape::Any, "")];
const TOKEN: &[Key] = &[key("source", Shape::Any, ""), key("force", Shape::Any, "")];
const ROW: &[Key] = &[
    required("kind", Shape::Any, ""),
    key("model", Shape::Any, ""),
    key("token", Shape::Any, ""),
    key("token_id", Shape::Any, ""),
];

/// Whose tokenizer the merge has, and what is said of rows, as far as it could be read.
pub(super) struct Tokenizer {
    /// `None` where it is wrong.
    source: Option<Source>,
    place: Span,
    pad_to_multiple_of: Option<Field>,
    /// `None` where they are no mapping.
    tokens: Option<Vec<Token>>,
}

enum Source {
    /// The tokens of all models.
    Union,
    /// The base's.
    Base,
    /// A model's.
    Model(Placed),
}

/// A token with where its row comes from.
struct Token {
    name: String,
    place: Span,
    /// `None` where it is no mapping.
    row: Option<Stated>,
}

/// What a token says.
struct Stated {
    force: Option<Field>,
    row: Option<Row>,
}

enum Row {
    Model(Placed),
    /// A mapping, but for its model; `None` where its keys are wrong.
    Stated {
        keys: Option<Map>,
        model: Option<Placed>,
        place: Span,
    },
}

impl Tokenizer {
    /// What a configuration of these models says of it, if anything.
    pub(super) fn read(
        report: &Report,
        fields: &Fields<'_>,
        place: Place<'_>,
        models: &HashSet<&Reference>,
    ) -> Option<Self> {
        let reader = Reader { report, place, models };
        let unread = |place| Self { source: None, place, pad_to_multiple_of: None, tokens: Some(Vec::new()) };
        let Some(block) = present(fields, "tokenizer") else {
            let field = present(fields, "tokenizer_source")?;
            let source = fields.get("tokenizer_source", |source| reader.source(source));
            return Some(Self { source, ..unread(field.value.span) });
        };
        if let Some(other) = present(fields, "tokenizer_source") {
            let diagnostic =
                Diagnostic::new(other.key, "mergekit takes only one of `tokenizer` and `tokenizer_source`");
            report.add(diagnostic.other(block.key, "and this"));
            return Some(unread(block.key));
        }
        let Some(fields) = Fields::open(report, &block.value, block.key, "`tokenizer`", &[TOKENIZER]) else {
            return Some(unread(block.key));
        };
        let source = match present(&fields, "source") {
            Some(_) => fields.get("source", |source| reader.source(source)),
            None => Some(Source::Union).filter(|_| fields.field("source").is_some() || !fields.has("source")),
        };
        let pad_to_multiple_of = present(&fields, "pad_to_multiple_of").cloned();
        let tokens = match present(&fields, "tokens") {
            Some(_) => fields.get("tokens", |tokens| reader.tokens(tokens)),
            None => Some(Vec::new()),
        };
        Some(Self { source, place: block.value.span, pad_to_multiple_of, tokens })
    }

    /// The models that it names, with their places.
    pub(super) fn references(&self) -> impl Iterator<Item = &Placed> {
        let source = match &self.source {
            Some(Source::Model(model)) => Some(model),
            Some(Source::Union | Source::Base) | None => None,
        };
        let stated = self.tokens.iter().flatten().filter_map(|token| token.row.as_ref()?.row.as_ref());
        let rows = stated.filter_map(|row| match row {
            Row::Model(model) => Some(model),
            Row::Stated { model, .. } => model.as_ref(),
        });
        source.into_iter().chain(rows)
    }

    /// `tokenizer` in the words of this language. `base` is mergekit's, in whose place the first model stands where there is
    /// none; `named` is the one to name here.
    pub(super) fn native(&self, names: Names<'_>, base: Option<&Placed>, named: Option<&Placed>) -> Field {
        let place = self.place;
        let unread = || Field { key: place, value: Node::unread(place) };
        let at_place = |model: &Placed| names.of(&(model.0.clone(), place));
        let model = |model: &Placed| mapping(Map::from_iter([("model".to_owned(), at_place(model))]), place);
        let source = match &self.source {
            Some(Source::Union) => Field { key: place, value: scalar("union", place) },
            Some(Source::Base) => base.map_or_else(unread, model),
            Some(Source::Model(named)) => model(named),
            None => unread(),
        };
        let mut map = Map::from_iter([("source".to_owned(), source)]);
        map.extend(named.map(|base| ("base".to_owned(), at_place(base))));
        map.extend(self.pad_to_multiple_of.clone().map(|field| ("pad_to_multiple_of".to_owned(), field)));
        let tokens = match &self.tokens {
            Some(tokens) if tokens.is_empty() => None,
            Some(tokens) => {
                let tokens = tokens.iter().map(|token| (token.name.clone(), token.native(names)));
                Some(mapping(tokens.collect(), place))
            }
            None => Some(unread()),
        };
        map.extend(tokens.map(|tokens| ("tokens".to_owned(), tokens)));
        mapping(map, place)
    }
}

impl Token {
    fn native(&self, names: Names<'_>) -> Field {
        let Some(stated) = &self.row else { return Field { key: self.place, value: Node::unread(self.place) } };
        let mut map = Map::new();
        map.extend(stated.row.as_ref().map(|row| ("source".to_owned(), row.native(names))));
        map.extend(stated.force.clone().map(|field| ("force".to_owned(), field)));
        mapping(map, self.place)
    }
}

impl Row {
    fn native(&self, names: Names<'_>) -> Field {
        match self {
            Self::Model(model) => names.of(model),
            Self::Stated { keys: None, place, .. } => Field { key: *place, value: Node::unread(*place) },
            Self::Stated { keys: Some(keys), model, place } => {
                let mut map = keys.clone();
                map.extend(model.as_ref().map(|model| ("model".to_owned(), names.of(model))));
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
    place: Place<'a>,
    models: &'a HashSet<&'a Reference>,
}

impl Reader<'_> {
    fn source(&self, reading: Reading<'_>) -> Option<Source> {
        match reading.node.as_scalar() {
            Some("union") => Some(Source::Union),
            Some("base") => Some(Source::Base),
            _ => {
                let model = self.model(reading, source_meant)?;
                Some(Source::Model((Some(model), reading.node.span)))
            }
        }
    }

    /// A model, which is none of the merge's where it is a misspelled word.
    fn model(&self, reading: Reading<'_>, meant: impl Fn(&str) -> Option<String>) -> Option<Reference> {
        let model = Reference::read(reading, self.place)?;
        let word = match &model {
            Reference::Hub(repo, None) if !self.models.contains(&model) => meant(repo),
            _ => None,
        };
        match word {
            Some(hint) => {
                let message =
                    format!("`{}` is not a model of this merge", reading.node.as_scalar().unwrap_or_default());
                reading.fail(Diagnostic::new(reading.node.span, message).hint(hint))
            }
            None => Some(model),
        }
    }

    fn tokens(&self, reading: Reading<'_>) -> Option<Vec<Token>> {
        Some(reading.map()?.iter().map(|(name, field)| self.token(name, field)).collect())
    }

    fn token(&self, name: &str, field: &Field) -> Token {
        let row = Fields::open(self.report, &field.value, field.key, "a token", &[TOKEN]).map(|fields| {
            let row = present(&fields, "source").and_then(|_| fields.get("source", |source| Some(self.row(source))));
            Stated { force: present(&fields, "force").cloned(), row }
        });
        Token { name: name.to_owned(), place: field.value.span, row }
    }

    fn row(&self, reading: Reading<'_>) -> Row {
        let place = reading.node.span;
        let Some(map) = reading.node.as_map() else {
            return Row::Model((self.model(reading, row_meant), place));
        };
        // mergekit writes a model as a mapping too.
        let before = self.report.count();
        let fields = Fields::open(self.report, reading.node, place, "the source of a row", &[ROW]);
        let is_wrong = self.report.count() > before;
        let model = fields.as_ref().and_then(|fields| {
            let span = present(fields, "model")?.value.span;
            Some((fields.get("model", |model| Reference::read(model, self.place)), span))
        });
        let keys = map.iter().filter(|(key, field)| *key != "model" && !field.value.is_null());
        let keys = keys.map(|(key, field)| (key.clone(), field.clone())).collect();
        Row::Stated { keys: Some(keys).filter(|_| !is_wrong), model, place }
    }
}
