//! `tokenizer:` of a merge: whose tokens it has, and which rows of embeddings belong together.

use indexmap::IndexMap;
use mergelab_wire::{Alignment, RowSource, TokenRow};

use super::diagnostics::{Diagnostic, Span};
use super::keys::{ROW_KINDS, ROW_SOURCE, ROWS_BY, RULE_MODEL, RowsBy, TOKEN_ROW, TOKENIZER};
use super::merge::Reader;
use super::read::{Fields, Reading, did_you_mean, nearest};
use super::rule::in_merge;
use super::types::Weighted;

/// The models of a merge, where they could be read, and its base.
#[derive(Clone, Copy)]
pub(super) struct Of<'a> {
    pub(super) models: Option<&'a [(Weighted, Span)]>,
    pub(super) base: Option<&'a str>,
}

impl Reader<'_> {
    /// Whose tokenizer it is, and how rows are brought together; not at all where they go by their numbers.
    pub(super) fn tokenizer(&self, reading: Reading<'_>, of: Of<'_>) -> Option<(String, Option<Alignment>)> {
        if reading.node.as_map().is_none() {
            let source = self.giver(reading, of)?;
            let alignment = Alignment { union: is_union(reading), ..Alignment::default() };
            return Some((source, Some(alignment)));
        }
        let report = self.context.report;
        let fields = Fields::open(report, reading.node, reading.node.span, "`tokenizer`", &[TOKENIZER])?;
        let source = fields.get("source", |source| self.giver(source, of));
        let base = fields.get("base", |base| {
            let name = base.name()?;
            self.of_merge(base, &name, of)
        });
        let by = fields.get_or("rows", RowsBy::Tokens, |rows| rows.choice(ROWS_BY));
        let multiple = fields.get("pad_to_multiple_of", |multiple| multiple.whole(1, 1 << 20));
        let tokens = fields.get_or("tokens", IndexMap::new(), |tokens| self.tokens(tokens, of));
        let union = fields.get("source", |source| Some(is_union(source)))?;
        if by? == RowsBy::Ids {
            fields.refuse(&["base", "pad_to_multiple_of", "tokens"], "where rows go by their ids");
            if union {
                let message = "a union has no ids that its models share";
                report.add(Diagnostic::new(fields.place, message).hint("leave `rows: ids` out"));
            }
            return Some((source?, None));
        }
        let pad_to_multiple_of = multiple.and_then(|multiple| usize::try_from(multiple).ok());
        Some((source?, Some(Alignment { union, base, pad_to_multiple_of, tokens: tokens? })))
    }

    /// The model that gives config and tokenizer, or `union`.
    fn giver(&self, reading: Reading<'_>, of: Of<'_>) -> Option<String> {
        if reading.node.as_map().is_some() {
            let fields = Fields::open(self.context.report, reading.node, reading.node.span, "`source`", &[RULE_MODEL])?;
            return fields.get("model", |model| {
                let name = model.name()?;
                self.of_merge(model, &name, of)
            });
        }
        let name = reading.name()?;
        if name == "union" {
            return Some(name);
        }
        if name == "base" && !self.context.names.models.contains("base") && !self.fields.has("base") {
            let diagnostic = Diagnostic::new(reading.node.span, "`tokenizer: base`, and this merge has no `base`");
            return reading.fail(diagnostic.hint("add `base: NAME`"));
        }
        if name == "base" && self.fields.has("base") {
            return of.base.map(str::to_owned);
        }
        self.or_word(reading, &name, source_meant)?;
        self.of_merge(reading, &name, of)
    }

    /// Refuses a name that is no model, where a word is meant by it.
    fn or_word(&self, reading: Reading<'_>, name: &str, meant: impl Fn(&str) -> Option<String>) -> Option<()> {
        let names = &self.context.names.models;
        match meant(name).filter(|_| !names.contains(name)) {
            Some(hint) => reading.fail(names.unknown(reading.node.span, name).hint(hint)),
            None => Some(()),
        }
    }

    fn of_merge(&self, reading: Reading<'_>, name: &str, of: Of<'_>) -> Option<String> {
        if of.base == Some(name) {
            return Some(name.to_owned());
        }
        let name = self.context.names.models.one(reading, name, &self.item.member.picks)?;
        in_merge(reading, &name, of.models).then_some(name)
    }

    fn tokens(&self, reading: Reading<'_>, of: Of<'_>) -> Option<IndexMap<String, TokenRow>> {
        let mut whole = true;
        let mut tokens = IndexMap::new();
        for (token, field) in reading.map()? {
            let row = self.token(reading.item(&field.value), field.key, of);
            whole &= row.is_some();
            tokens.extend(row.map(|row| (token.clone(), row)));
        }
        whole.then_some(tokens)
    }

    fn token(&self, reading: Reading<'_>, place: Span, of: Of<'_>) -> Option<TokenRow> {
        let fields = Fields::open(self.context.report, reading.node, place, "a token", &[TOKEN_ROW])?;
        let source =
            if fields.has("source") { Some(fields.get("source", |source| self.row(source, of))?) } else { None };
        let force = fields.get_or("force", false, Reading::flag)?;
        if force && source.is_none() {
            let message = "`force: true` replaces the token's row, and there is no `source` for it";
            return reading.fail(Diagnostic::new(place, message).hint("add `source: NAME`"));
        }
        Some(TokenRow { source, force })
    }

    fn row(&self, reading: Reading<'_>, of: Of<'_>) -> Option<RowSource> {
        if reading.node.as_map().is_none() {
            let name = reading.name()?;
            self.or_word(reading, &name, row_meant)?;
            return self.of_merge(reading, &name, of).map(RowSource::Model);
        }
        let report = self.context.report;
        let fields = Fields::open(report, reading.node, reading.node.span, "the source of a row", &[ROW_SOURCE])?;
        if fields.get("kind", |kind| kind.choice(ROW_KINDS))? {
            fields.refuse(&["model", "token", "token_id"], "where the row is of zeros");
            return Some(RowSource::Zero);
        }
        fields.require(&["model"]);
        let model = fields.get("model", |model| {
            let name = model.name()?;
            self.of_merge(model, &name, of)
        })?;
        match fields.exactly_one(&["token", "token_id"])? {
            "token" => Some(RowSource::Token { model, token: fields.get("token", Reading::spelling)? }),
            _ => {
                let id = fields.get("token_id", |id| id.whole(0, u64::from(u32::MAX)))?;
                Some(RowSource::Id { model, id: usize::try_from(id).ok()? })
            }
        }
    }
}

/// What a word is nearly that says whose tokenizer a merge has, and is no model.
pub(super) fn source_meant(word: &str) -> Option<String> {
    did_you_mean(word, ["union", "base"].into_iter())
}

/// What a word is nearly that says where the row of a token comes from, and is no model.
pub(super) fn row_meant(word: &str) -> Option<String> {
    let kinds = ROW_KINDS.iter().map(|(kind, _)| *kind);
    nearest(word, kinds).map(|kind| match kind {
        "zero" => "a row of zeros is `{ kind: zero }`".to_owned(),
        _ => "the row of another token is `{ kind: model_token, model: NAME, token: … }`".to_owned(),
    })
}

fn is_union(reading: Reading<'_>) -> bool {
    reading.node.as_scalar() == Some("union")
}
