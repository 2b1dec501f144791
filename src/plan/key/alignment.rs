//! What rows that belong together by token are in a key.

use indexmap::IndexMap;
use mergelab_wire::{Alignment, RowSource, TokenRow};
use serde_json::{Value, json};

use crate::experiment::Merge;

/// How rows belong together, models by their places.
pub(super) fn of(how: &Alignment, merge: &Merge) -> Value {
    let place = |model: &str| merge.giver(model).to_string();
    let row = |row: &TokenRow| {
        let source = row.source.as_ref().map(|source| match source {
            RowSource::Zero => json!("zero"),
            RowSource::Model(model) => json!({ "model": place(model) }),
            RowSource::Token { model, token } => json!({ "model": place(model), "token": token }),
            RowSource::Id { model, id } => json!({ "model": place(model), "id": id }),
        });
        json!({ "source": source, "force": row.force })
    };
    let tokens: IndexMap<&String, Value> = how.tokens.iter().map(|(token, at)| (token, row(at))).collect();
    let base = how.base.as_deref().map(place);
    json!({ "union": how.union, "base": base, "pad_to_multiple_of": how.pad_to_multiple_of, "tokens": tokens })
}
