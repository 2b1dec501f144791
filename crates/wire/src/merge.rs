//! Merges with everything at its default, slices of merges, and what a filter fits.

use std::path::Path;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::job::{MergeJob, MergeSource, Normalize, Solver, Weight};

/// Some layers of the result, one after the other, with the models that they are merged from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MergeSlice {
    /// How many layers it has.
    pub layers: usize,
    /// What it is merged from.
    pub models: Vec<SliceSource>,
    /// Its base, where it has one; of that weight and parameters say nothing.
    pub base: Option<SliceSource>,
    /// Parameters of the method, in place of those of the merge.
    pub params: IndexMap<String, serde_json::Value>,
}

/// Layers of one model of a merge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SliceSource {
    /// Name of a model of the merge, or of its base.
    pub name: String,
    /// The first of its layers.
    pub first: usize,
    /// Its weight.
    pub weight: Weight,
    /// Parameters of the method for these layers.
    pub params: IndexMap<String, serde_json::Value>,
}

impl MergeJob {
    /// A merge of models of which nothing else is said; config and tokenizer come from the first.
    ///
    /// # Panics
    /// When there are no models.
    #[must_use]
    pub fn new(method: &str, models: Vec<MergeSource>) -> Self {
        Self {
            method: method.to_owned(),
            tokenizer: models[0].path.clone(),
            models,
            base: None,
            slices: Vec::new(),
            alpha: None,
            params: IndexMap::new(),
            rules: Vec::new(),
            normalize: Normalize::None,
            solver: Solver::Auto,
            dtype: None,
            shard_size: None,
            alignment: None,
            card: String::new(),
            origin: serde_json::Value::Null,
        }
    }
}

impl MergeSource {
    /// A model directory of which nothing else is said.
    #[must_use]
    pub fn new(name: &str, path: &Path) -> Self {
        Self {
            name: name.to_owned(),
            path: path.to_path_buf(),
            weight: 1.0.into(),
            grams: None,
            held_out: None,
            fisher: None,
            capture: None,
            params: IndexMap::new(),
        }
    }
}

/// Whether a value by tensor name is for a tensor: its filter is part of the name, is `*`, or is not there.
#[must_use]
pub fn fits(filter: Option<&str>, tensor: &str) -> bool {
    filter.is_none_or(|part| part == "*" || tensor.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_part_of_a_name_and_none_or_a_star_fits_all() {
        let name = "model.layers.1.mlp.up_proj.weight";
        assert!([None, Some("*"), Some("mlp"), Some("layers.1.")].into_iter().all(|filter| fits(filter, name)));
        assert!([Some("self_attn"), Some("m*p"), Some("layers.11.")].into_iter().all(|filter| !fits(filter, name)));
    }
}
