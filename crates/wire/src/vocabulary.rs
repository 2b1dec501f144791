//! The tokens of a model, as far as both programs compare them: before any work, and before a merge.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;

/// Ids by token, from a `tokenizer.json`. Most models that are merged have the same file, of many megabytes: it is taken apart
/// only where two differ.
#[derive(Clone, Debug, Default)]
pub struct TokenIds {
    text: String,
    ids: OnceLock<BTreeMap<String, u64>>,
}

/// A token that has two ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TwoIds {
    /// The token.
    pub token: String,
    /// Its id in the first model.
    pub first: u64,
    /// Its id in the other.
    pub other: u64,
}

impl TokenIds {
    /// Those of a model directory; none where it has no tokenizer of this form.
    #[must_use]
    pub fn read(model: &Path) -> Self {
        let text = std::fs::read_to_string(model.join("tokenizer.json")).unwrap_or_default();
        Self { text, ids: OnceLock::new() }
    }

    /// Whether both are of the same file, or of none.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.text == other.text
    }

    fn ids(&self) -> &BTreeMap<String, u64> {
        self.ids.get_or_init(|| Self::of(&serde_json::from_str(&self.text).unwrap_or_default()))
    }

    fn of(tokenizer: &Value) -> BTreeMap<String, u64> {
        let vocabulary = tokenizer.pointer("/model/vocab");
        let mapped = vocabulary.and_then(Value::as_object).into_iter().flatten();
        let mapped = mapped.filter_map(|(token, id)| Some((token.clone(), id.as_u64()?)));
        let listed = vocabulary.and_then(Value::as_array).into_iter().flatten().zip(0..);
        let listed = listed.filter_map(|(entry, id)| Some((entry.get(0)?.as_str()?.to_owned(), id)));
        let added = tokenizer.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
        let added =
            added.filter_map(|token| Some((token.get("content")?.as_str()?.to_owned(), token.get("id")?.as_u64()?)));
        mapped.chain(listed).chain(added).collect()
    }

    /// Whether there are none to compare.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids().is_empty()
    }

    /// The first token that another model knows by another id: rows of the embeddings would be mixed up.
    #[must_use]
    pub fn conflict(&self, other: &Self) -> Option<TwoIds> {
        if self.is_same(other) {
            return None;
        }
        self.ids().iter().find_map(|(token, id)| {
            let theirs = *other.ids().get(token).filter(|theirs| *theirs != id)?;
            Some(TwoIds { token: token.clone(), first: *id, other: theirs })
        })
    }

    /// How many tokens of another model are not among these.
    #[must_use]
    pub fn lacks(&self, other: &Self) -> usize {
        other.ids().keys().filter(|token| !self.ids().contains_key(*token)).count()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_of_every_form_of_vocabulary() {
        let ids = |tokenizer: &Value| TokenIds::of(tokenizer).into_iter().collect::<Vec<_>>();
        let expected = [("<a>".to_owned(), 2), ("x".to_owned(), 0), ("y".to_owned(), 1)];
        let added = json!([{ "id": 2, "content": "<a>" }]);
        assert_eq!(ids(&json!({ "model": { "vocab": { "x": 0, "y": 1 } }, "added_tokens": added })), expected);
        assert_eq!(ids(&json!({ "model": { "vocab": [["x", -1.5], ["y", -2]] }, "added_tokens": added })), expected);
        assert!(TokenIds::of(&Value::Null).is_empty());
    }

    #[test]
    fn a_token_of_two_ids_is_a_conflict_and_a_renamed_one_is_not() {
        let of = |tokens: &[(&str, u64)]| {
            let vocabulary: serde_json::Map<String, Value> =
                tokens.iter().map(|(token, id)| ((*token).to_owned(), json!(id))).collect();
            TokenIds { text: json!({ "model": { "vocab": vocabulary } }).to_string(), ids: OnceLock::new() }
        };
        let first = of(&[("x", 0), ("y", 1), ("<reserved>", 2)]);
        assert_eq!(first.conflict(&of(&[("x", 0), ("y", 1), ("<chat>", 2)])), None);
        assert_eq!(first.lacks(&of(&[("x", 0), ("<chat>", 2)])), 1);
        let conflict = TwoIds { token: "y".to_owned(), first: 1, other: 0 };
        assert_eq!(first.conflict(&of(&[("y", 0), ("z", 1)])), Some(conflict));
        let same = first.clone();
        assert!(first.is_same(&same) && first.conflict(&same).is_none() && !first.is_same(&of(&[("x", 0)])));
    }
}
