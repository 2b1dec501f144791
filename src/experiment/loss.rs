//! `evals:` by `backend: loss`: how the rows of held-out data run through a model, and what its predictions are held against.

use mergelab_wire::{Rows, TokenMask};

use super::context::Context;
use super::diagnostics::{Diagnostic, Span};
use super::keys::{DTYPES, LOSS, TOKENS};
use super::read::{Fields, Reading, wrong_type};
use super::scalar;
use super::types::{Data, Kl, LossOptions, Section, Suite};

/// Names of the keys that no other backend has.
pub(super) fn keys() -> Vec<&'static str> {
    LOSS.iter().map(|key| key.name).collect()
}

/// Reads what a loss suite measures: its data sets, with the place of each. `known` are those that could be read.
pub(super) fn loss(
    context: &Context<'_>,
    fields: &Fields<'_>,
    known: &Section<Data>,
    suite: &mut Suite,
) -> Option<Vec<(String, Span)>> {
    fields.require(&["data"]);
    let before = context.report.count();
    let list = fields.get("data", |data| {
        data.list(|item| Some((context.names.data.all(item, &item.name()?, &context.budget)?, item.node.span)))
    });
    let tokens = fields.get("tokens", |tokens| tokens.choice(TOKENS)).unwrap_or_default();
    suite.loss = LossOptions {
        max_length: fields.get("max_length", |length| length.whole(1, usize::MAX as u64)).map(|length| length as usize),
        add_special_tokens: fields.get("add_special_tokens", Reading::flag).unwrap_or(true),
        tokens,
        chat_template: fields.get("chat_template", Reading::path),
        dtype: fields.get("dtype", |dtype| dtype.choice(DTYPES)).map(str::to_owned),
        kl: fields.get("kl", |kl| self::kl(context, kl)).unwrap_or_default(),
    };
    let measures: Vec<_> =
        list?.into_iter().flat_map(|(names, span)| names.into_iter().map(move |(name, _)| (name, span))).collect();
    suite.data = measures.iter().map(|(name, _)| name.clone()).collect();
    if let Some(node) = fields.node("tokens").filter(|_| tokens == TokenMask::Assistant) {
        let is_text = |name: &&String| known.get(*name).is_some_and(|data| matches!(data.format, Rows::Text(_)));
        for name in suite.data.iter().filter(is_text) {
            let message = format!("`{name}` is plain text, in which no token is the assistant's");
            context.report.add(Diagnostic::new(node.span, message).hint("give the data `messages` in place of `text`"));
        }
    }
    (context.report.count() == before).then_some(measures)
}

/// Whether the KL divergence is measured, or from which models.
fn kl(context: &Context<'_>, reading: Reading<'_>) -> Option<Kl> {
    if reading.node.as_list().is_some() {
        let list = reading.list(|model| context.names.models.all(model, &model.name()?, &context.budget))?;
        let mut names: Vec<String> = Vec::new();
        for (name, _) in list.into_iter().flatten() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        return Some(Kl::From(names));
    }
    match scalar::plain(reading.node).and_then(scalar::flag) {
        Some(true) => Some(Kl::Sources),
        Some(false) => Some(Kl::None),
        None => reading.fail(wrong_type(reading.node, "`kl`", "true, false or a list of models")),
    }
}
