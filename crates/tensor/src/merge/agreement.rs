//! What must agree between models beside the shapes of their tensors: the same numbers mean something else under another
//! head layout or other token ids.

use mergelab_wire::{MergeJob, MergeSource, TokenIds};
use serde_json::Value;

use super::error::MergeError;
use crate::report::Reporter;

/// Keys of `config.json` that say how weights are laid out.
const LAYOUT: [&str; 5] = ["model_type", "num_attention_heads", "num_key_value_heads", "head_dim", "n_head"];

/// Keys of `config.json` that may differ, and that a person should know of where they do.
const NOTED: [&str; 5] = ["rope_theta", "rope_scaling", "rope_parameters", "rms_norm_eps", "hidden_act"];

/// Compares every model with the one that gives the output its config and tokenizer.
///
/// # Errors
/// When a `config.json` is not JSON, a layout differs, or a token has another id.
pub(super) fn check(job: &MergeJob, reporter: &Reporter) -> Result<(), MergeError> {
    let giver = MergeSource::new(&name_of(job), &job.tokenizer);
    let Some(first) = config(&giver)? else { return Ok(()) };
    let ids = if job.alignment.is_none() { TokenIds::read(&giver.path) } else { TokenIds::default() };
    for other in job.models.iter().chain(&job.base).filter(|other| other.path != giver.path) {
        let Some(theirs) = config(other)? else { continue };
        for key in LAYOUT {
            let (left, right) = (layout(&first, key), layout(&theirs, key));
            if left != right {
                return Err(MergeError::Layout {
                    key,
                    first: giver.name.clone(),
                    first_value: show(left.as_ref()),
                    other: other.name.clone(),
                    other_value: show(right.as_ref()),
                });
            }
        }
        for key in NOTED {
            let (left, right) = (first.get(key), theirs.get(key));
            if left != right {
                reporter.note(format!(
                    "{key} is {} in {}, which gives the config, and {} in {}",
                    show(left),
                    giver.name,
                    show(right),
                    other.name
                ));
            }
        }
        if job.alignment.is_some() {
            continue;
        }
        compare_ids((&giver.name, &ids), (&other.name, &TokenIds::read(&other.path)), reporter)?;
    }
    Ok(())
}

fn name_of(job: &MergeJob) -> String {
    let giver = job.models.iter().chain(&job.base).find(|model| model.path == job.tokenizer);
    giver.map_or_else(|| job.tokenizer.display().to_string(), |model| model.name.clone())
}

fn config(model: &MergeSource) -> Result<Option<Value>, MergeError> {
    let path = model.path.join("config.json");
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| MergeError::Config { path, reason: format!("not JSON: {error}") })
}

/// A key of the layout, with the default that `transformers` gives it.
fn layout(config: &Value, key: &str) -> Option<Value> {
    let given = config.get(key).filter(|value| !value.is_null());
    given.cloned().or_else(|| match key {
        "num_key_value_heads" => config.get("num_attention_heads").cloned(),
        "head_dim" => {
            let heads = config.get("num_attention_heads")?.as_u64().filter(|heads| *heads > 0)?;
            Some((config.get("hidden_size")?.as_u64()? / heads).into())
        }
        _ => None,
    })
}

fn show(value: Option<&Value>) -> String {
    value.map_or_else(|| "not set".to_owned(), ToString::to_string)
}

/// A token with another id is an error: rows of the embeddings would be mixed up. Tokens that only one model has, such as
/// renamed special tokens, are noted.
fn compare_ids(
    (first, ids): (&str, &TokenIds),
    (other, theirs): (&str, &TokenIds),
    reporter: &Reporter,
) -> Result<(), MergeError> {
    if ids.is_same(theirs) {
        return Ok(());
    }
    if ids.is_empty() || theirs.is_empty() {
        // Models without any tokenizer are nobody's mistake.
        if ids.is_empty() != theirs.is_empty() {
            let lacks = if ids.is_empty() { first } else { other };
            reporter.note(format!(
                "{lacks} has no tokenizer.json that can be read: whether {first} and {other} number their tokens in the same \
                 way was not looked at"
            ));
        }
        return Ok(());
    }
    if let Some(two) = ids.conflict(theirs) {
        return Err(MergeError::TokenIds {
            token: two.token,
            first: first.to_owned(),
            first_id: two.first,
            other: other.to_owned(),
            other_id: two.other,
        });
    }
    let lacking = ids.lacks(theirs);
    if lacking > 0 {
        reporter.note(format!("{lacking} token(s) of {other} are not in {first}, which gives the tokenizer"));
    }
    Ok(())
}
