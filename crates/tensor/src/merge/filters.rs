//! Filters of weights and parameters that match nothing.

use indexmap::IndexMap;
use mergelab_wire::{MergeJob, Weight};
use serde_json::Value;

use super::sources::Sources;

/// A filter that is stated.
struct Stated<'a> {
    filter: &'a str,
    /// Of what.
    name: &'a str,
    /// Of which model, by its index; `None` of the merge.
    model: Option<usize>,
}

/// Filters that match no tensor, each as `filter "mpl" of density`: misspelt, most likely. A filter of slices may match in any of
/// them.
pub(super) fn unused<'a>(parts: impl Iterator<Item = (&'a MergeJob, &'a Sources)>) -> Vec<String> {
    let mut matched: IndexMap<String, bool> = IndexMap::new();
    for (job, sources) in parts {
        for Stated { filter, name, model } in stated(job) {
            // What a model states sees its own names; what the merge states, those of the result or of a model.
            let of = model.map(|model| format!(" of {}", job.models[model].name)).unwrap_or_default();
            let models = match model {
                Some(model) => &sources.models[model..=model],
                None => &sources.models[..],
            };
            let is_matched = sources.names().iter().any(|tensor| {
                model.is_none() && tensor.contains(filter)
                    || models.iter().any(|source| source.own_name(tensor).contains(filter))
            });
            *matched.entry(format!("filter {filter:?} of {name}{of}")).or_default() |= is_matched;
        }
    }
    matched.into_iter().filter(|(_, is_matched)| !is_matched).map(|(what, _)| what).collect()
}

/// The filters that a merge states.
fn stated<'a>(job: &'a MergeJob) -> Vec<Stated<'a>> {
    let mut all = Vec::new();
    let mut add = |filters: Vec<Option<&'a str>>, name: &'a str, model| {
        let named = filters.into_iter().flatten().filter(|filter| *filter != "*");
        all.extend(named.map(|filter| Stated { filter, name, model }));
    };
    for (name, value) in &job.params {
        add(filters(value), name, None);
    }
    for (index, model) in job.models.iter().enumerate() {
        if let Weight::ByName(named) = &model.weight {
            add(named.iter().map(|named| named.filter.as_deref()).collect(), "weight", Some(index));
        }
        for (name, value) in &model.params {
            add(filters(value), name, Some(index));
        }
    }
    all
}

/// The filters of a parameter's value.
fn filters(value: &Value) -> Vec<Option<&str>> {
    value.as_array().into_iter().flatten().map(|item| item.get("filter")?.as_str()).collect()
}
