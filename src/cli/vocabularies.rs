//! Vocabularies that do not go together, found before hours of work are put into their models.

use std::collections::HashMap;
use std::path::PathBuf;

use mergelab_wire::{RuleUse, TokenIds};

use super::error::CliError;
use super::{at_hand, session::Session};
use crate::experiment::{Giver, Merge};
use crate::plan::{Facts, Spec, Stage};
use crate::stage;

const WAY_OUT: &str =
    "add `tokenizer: NAME`, the model whose tokens and rows the merge has, or `tokenizer: union` for those of all";
const OF_MERGEKIT: &str = "add `tokenizer_source: MODEL` to the configuration, the model whose tokens and rows the merge has, or \
     `tokenizer_source: union` for those of all";
const OF_IDS: &str =
    "take `rows: ids` away, so that rows belong together by token, or merge models that number their tokens alike";

/// What is known of a model that is there.
struct Seen {
    ids: TokenIds,
    rows: Option<u64>,
}

/// Refuses wanted merges by ids whose models have different ones, as far as those are there to look at. What is made on the way
/// is looked at when it is merged.
///
/// # Errors
/// For each such merge, at its place in its file.
pub(super) fn check(session: &Session, wanted: &[bool], facts: &Facts) -> Result<(), CliError> {
    let mut seen: HashMap<PathBuf, Seen> = HashMap::new();
    let mut wrong = Vec::new();
    for (id, stage) in session.graph.iter().filter(|(id, _)| wanted[id.0]) {
        let Spec::Merge(merge) = &stage.spec else { continue };
        if merge.alignment.is_some() {
            continue;
        }
        let places = places(session, stage, merge, facts);
        for (_, place) in &places {
            seen.entry(place.clone()).or_insert_with(|| Seen {
                ids: TokenIds::read(place),
                rows: stage::config_number(place, "vocab_size"),
            });
        }
        let Some(((first, of_first), others)) = places.split_first() else { continue };
        let others = others.iter().map(|(name, place)| (name.as_str(), &seen[place]));
        if let Some(message) = others.into_iter().find_map(|other| differ((first, &seen[of_first]), other, merge)) {
            let (place, hint) = if session.states(id, &["config"]) {
                (vec!["config"], OF_MERGEKIT)
            } else if merge.tokenizer.is_some() {
                (vec!["tokenizer", "rows"], OF_IDS)
            } else {
                (vec!["models"], WAY_OUT)
            };
            let place: Vec<String> = place.into_iter().map(str::to_owned).collect();
            let error = session.error_with_hint(id, &place, &message, Some(hint.to_owned()));
            if !wrong.contains(&error) {
                wrong.push(error);
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(CliError::Experiment(wrong)) }
}

/// Names and directories of the models of a merge that are there, the one that gives the tokenizer first.
fn places(session: &Session, stage: &Stage, merge: &Merge, facts: &Facts) -> Vec<(String, PathBuf)> {
    let giver = merge.tokenizer_giver();
    let roles = (0..merge.models.len()).map(Giver::Model).chain(merge.base.iter().map(|_| Giver::Base));
    let mut roles: Vec<Giver> = roles.collect();
    roles.sort_by_key(|role| *role != giver);
    let place = |role: &Giver| {
        let name = match role {
            Giver::Model(index) => &merge.models[*index].model,
            Giver::Base => merge.base.as_ref()?,
        };
        Some((name.clone(), at_hand::directory(session, stage, *role, facts)?))
    };
    // Without its giver nobody knows whose ids count.
    let found: Vec<Option<_>> = roles.iter().map(place).collect();
    if found.first().is_some_and(Option::is_some) { found.into_iter().flatten().collect() } else { Vec::new() }
}

/// What differs between two vocabularies, in words.
fn differ((first, ours): (&str, &Seen), (other, theirs): (&str, &Seen), merge: &Merge) -> Option<String> {
    if let Some(two) = ours.ids.conflict(&theirs.ids) {
        return Some(format!(
            "the token {:?} is {} in `{first}` and {} in `{other}`: rows of their embeddings do not belong together",
            two.token, two.first, two.other
        ));
    }
    // Tables that a rule takes from one model may be of any size.
    let takes = |action: &Option<RuleUse>| matches!(action, Some(RuleUse::Base | RuleUse::Model(_)));
    let (ours, theirs) = (ours.rows?, theirs.rows?);
    (ours != theirs && !merge.rules.iter().any(|rule| takes(&rule.action)))
        .then(|| format!("`vocab_size` in the config.json of `{first}` is {ours}, and in that of `{other}` {theirs}"))
}
