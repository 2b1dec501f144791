//! Merging: models, and Grams where the method uses them, go to the tensor program; a model directory comes back.

use std::fmt::Write as _;

use mergelab_wire::{Event, Job as Work, MergeJob, MergeSource};

use super::{Context, Failure, Job, Product, tensor};
use crate::experiment::Merge;

/// Methods that the tensor program has.
const METHODS: [&str; 2] = ["average", "regmean"];

/// What this version cannot merge yet.
pub(super) fn unsupported(merge: &Merge) -> Option<String> {
    use mergelab_wire::Alpha;
    if !METHODS.contains(&merge.method.as_str()) {
        return Some(format!("`method: {}` is not in this version, which has {}", merge.method, METHODS.join(" and ")));
    }
    if let Some(name) = merge.params.keys().next() {
        return Some(format!("the parameter `{name}` of `{}` is not in this version", merge.method));
    }
    if matches!(merge.alpha, Some(Alpha::Auto | Alpha::AutoLayer)) {
        return Some("`alpha: auto` is not in this version".to_owned());
    }
    if merge.tokenizer.as_deref() == Some("union") {
        return Some("`tokenizer: union` is not in this version".to_owned());
    }
    let is_gradient = merge.models.iter().any(|model| model.weight.len() > 1);
    is_gradient.then(|| "a `weight` that is a gradient over depth is not in this version".to_owned())
}

/// Merges models into one directory.
pub(super) fn run(
    context: &Context<'_>,
    merge: &Merge,
    job: &Job<'_>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    let source = |role: &str, name: &str, weight: f64| MergeSource {
        name: name.to_owned(),
        path: job.input(role).location.clone(),
        weight,
        grams: job.inputs.get(&format!("grams.{role}")).map(|grams| grams.location.clone()),
        held_out: job.inputs.get(&format!("held_out.{role}")).map(|grams| grams.location.clone()),
    };
    let models: Vec<_> = merge
        .models
        .iter()
        .enumerate()
        .map(|(index, model)| source(&index.to_string(), &model.model, model.weight.first().copied().unwrap_or(1.0)))
        .collect();
    let base = merge.base.as_deref().map(|name| source("base", name, 1.0));
    let giver = merge.tokenizer_givers().first().map_or("0".to_owned(), ToString::to_string);
    let work = Work::Merge(MergeJob {
        method: merge.method.clone(),
        models,
        base,
        alpha: merge.alpha.clone(),
        params: merge.params.clone(),
        rules: merge.rules.clone(),
        normalize: merge.normalize,
        solver: merge.solver,
        dtype: merge.dtype.clone(),
        tokenizer: job.input(&giver).location.clone(),
        card: card(context, merge, job),
    });
    tensor::run(context, job, work, on_event)
}

/// The model card: what was merged and how, with the digests that say what the sources were.
fn card(context: &Context<'_>, merge: &Merge, job: &Job<'_>) -> String {
    let experiment = &context.graph.experiments[job.stage.experiment];
    let name = job.stage.name.trim_start_matches("merges.");
    let mut card = String::from("---\nlibrary_name: transformers\ntags:\n- merge\n- mergelab\n---\n");
    let _ = writeln!(card, "# {}: {name}\n", experiment.name);
    if let Some(description) = &experiment.description {
        let _ = writeln!(card, "{description}\n");
    }
    let _ = write!(card, "Merged with mergelab {}, method `{}`", env!("CARGO_PKG_VERSION"), merge.method);
    if let Some(mergelab_wire::Alpha::Number(alpha)) = merge.alpha {
        let _ = write!(card, ", α = {alpha}");
    }
    card.push_str(".\n\n| model | weight | SHA-256 of the weights |\n| --- | --- | --- |\n");
    for (index, model) in merge.models.iter().enumerate() {
        let digest = job.input(&index.to_string()).roles.get("weights").map(ToString::to_string).unwrap_or_default();
        let weight = model.weight.first().copied().unwrap_or(1.0);
        let _ = writeln!(card, "| {} | {weight} | `{digest}` |", model.model);
    }
    let _ = writeln!(card, "\nThe stage is `{}`, its key `{}`.", job.stage.name, job.key);
    card
}
