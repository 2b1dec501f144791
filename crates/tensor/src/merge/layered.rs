//! What a configuration says of layers one by one, where slices stack or cut them.

use std::collections::HashMap;
use std::path::Path;

use indexmap::IndexMap;
use mergelab_wire::MergeJob;
use serde_json::{Map, Value, json};

use super::error::MergeError;
use crate::failure::FileError;

/// Keys that say how many layers a model has.
const COUNTS: [&str; 4] = ["num_hidden_layers", "n_layer", "n_layers", "num_layers"];

/// Keys that list the numbers of those layers that are of some kind.
const NUMBERS: [&str; 4] = ["mlp_only_layers", "moe_layers", "attn_layer_indices", "full_attn_idxs"];

/// Values of `config.json` in place of those of the model that gives it; none where there are no slices.
///
/// What stands there once for each layer is that of the layer's first model, its base before the others.
///
/// # Errors
/// When a configuration does not say how many layers its model has, or says of its layers less than another does.
pub(super) fn values(job: &MergeJob) -> Result<IndexMap<String, Value>, MergeError> {
    let mut values = IndexMap::new();
    if job.slices.is_empty() {
        return Ok(values);
    }
    let giver = config(&job.tokenizer)?;
    let count = COUNTS.iter().find_map(|key| giver.get(*key)?.as_u64());
    let count =
        count.ok_or_else(|| wrong(&job.tokenizer, "it does not say how many layers the model has".to_owned()))?;
    let layers = layers(job);
    let mut configs = HashMap::new();
    for (path, _) in &layers {
        if !configs.contains_key(path) {
            configs.insert(*path, config(path)?);
        }
    }
    for key in COUNTS.iter().filter(|key| giver.contains_key(**key)) {
        values.insert((*key).to_owned(), json!(layers.len()));
    }
    for (key, list) in giver.iter().filter_map(|(key, value)| Some((key, value.as_array()?))) {
        if NUMBERS.contains(&key.as_str()) {
            let is_one = |(path, number): &(&Path, usize)| {
                let list = configs[path].get(key).and_then(Value::as_array);
                list.is_some_and(|list| list.contains(&json!(number)))
            };
            let of_result = layers.iter().enumerate().filter(|(_, layer)| is_one(layer)).map(|(number, _)| number);
            values.insert(key.clone(), of_result.collect());
        } else if list.len() as u64 == count && ["layer", "block"].iter().any(|part| key.contains(part)) {
            let of_layer = |(path, number): &(&Path, usize)| {
                let value = configs[path].get(key).and_then(|list| list.get(*number)).cloned();
                value.ok_or_else(|| wrong(path, format!("its `{key}` has nothing of layer {number}")))
            };
            values.insert(key.clone(), layers.iter().map(of_layer).collect::<Result<_, _>>()?);
        }
    }
    Ok(values)
}

/// Refuses a configuration by which the head is the embedding where the result has a head, or the other way round.
///
/// # Errors
/// When it is so.
pub(super) fn check_head(job: &MergeJob, has_head: bool) -> Result<(), MergeError> {
    let config = config(&job.tokenizer)?;
    let is_tied = config.get("tie_word_embeddings").and_then(Value::as_bool);
    let class = config.get("architectures").and_then(|classes| classes.get(0)?.as_str());
    // A checkpoint that was read as it is may lack a head that its configuration does not tie: old libraries wrote such.
    if (job.slices.is_empty() && !has_head)
        || is_tied != Some(has_head)
        || class.is_some_and(|class| !class.ends_with("ForCausalLM"))
    {
        return Ok(());
    }
    let has = if has_head { "has a head of its own" } else { "has none" };
    let whose = job.slices.last().map(|last| format!("{}, which the last slice is of,", last.models[0].name));
    let whose = whose.unwrap_or_else(|| "the merge".to_owned());
    Err(wrong(&job.tokenizer, format!("tie_word_embeddings is {has_head}, and {whose} {has}")))
}

/// For each layer of the result the directory of its base or first model, and its number there.
fn layers(job: &MergeJob) -> Vec<(&Path, usize)> {
    let mut layers = Vec::new();
    for slice in &job.slices {
        let first = slice.base.iter().chain(&slice.models).next();
        let model = first.and_then(|first| {
            let path = job.models.iter().chain(&job.base).find(|model| model.name == first.name)?;
            Some((path.path.as_path(), first.first))
        });
        layers.extend(
            model.into_iter().flat_map(|(path, first)| (first..first + slice.layers).map(move |layer| (path, layer))),
        );
    }
    layers
}

fn config(model: &Path) -> Result<Map<String, Value>, MergeError> {
    let path = model.join("config.json");
    let text = std::fs::read(&path).map_err(FileError::of("read", &path))?;
    serde_json::from_slice(&text).map_err(|error| MergeError::Config { path, reason: error.to_string() })
}

fn wrong(model: &Path, reason: String) -> MergeError {
    MergeError::Config { path: model.join("config.json"), reason }
}
