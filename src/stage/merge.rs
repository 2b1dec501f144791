//! Merging: models, and Grams where the method uses them, go to the tensor program; a model directory comes back.

use mergelab_wire::{Event, Job as Work, MergeJob, MergeSource};

use serde_json::{Value, json};

use super::{Context, Failure, Job, Product, card, gram, tensor};
use crate::experiment::{Calibration, Merge};

/// Merges models into one directory.
pub(super) fn run(
    context: &Context<'_>,
    merge: &Merge,
    job: &Job<'_>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    let beside = |kind: &str, role: &str| job.inputs.get(&format!("{kind}.{role}")).map(|made| made.location.clone());
    let source = |role: &str, name: &str| MergeSource {
        grams: beside("grams", role),
        held_out: beside("held_out", role),
        fisher: beside("fishers", role),
        ..MergeSource::new(name, &job.input(role).location)
    };
    let capture = |index: usize| {
        let Calibration { capture, rows, strict } = merge.captures.get(index)?;
        let roles = (&*index.to_string(), &*format!("data.{index}"));
        Some(gram::work(context, (capture, rows, *strict), job, roles))
    };
    let models: Vec<_> = merge
        .models
        .iter()
        .enumerate()
        .map(|(index, model)| {
            let (weight, params) = (model.weight.clone(), model.params.clone());
            MergeSource { capture: capture(index), weight, params, ..source(&index.to_string(), &model.model) }
        })
        .collect();
    let base = merge.base.as_deref().map(|name| source("base", name));
    let work = Work::Merge(MergeJob {
        base,
        slices: merge.slices.clone(),
        alpha: merge.alpha.clone(),
        params: merge.params.clone(),
        rules: merge.rules.clone(),
        normalize: merge.normalize,
        solver: merge.solver,
        dtype: merge.dtype.clone(),
        shard_size: merge.shard_size,
        tokenizer: job.input(&merge.tokenizer_giver().to_string()).location.clone(),
        alignment: merge.alignment.clone(),
        card: card::text(context, merge, job),
        origin: origin(context, merge, job),
        ..MergeJob::new(&merge.method, models)
    });
    tensor::run(context, job, work, on_event)
}

/// Where a merge comes from: names, and the digests that say what its sources were.
fn origin(context: &Context<'_>, merge: &Merge, job: &Job<'_>) -> Value {
    let models: Vec<_> = merge.models.iter().map(|model| model.model.as_str()).collect();
    let source = |role: &str, name: &str| json!({ "name": name, "digests": job.input(role).roles });
    let mut sources: Vec<_> = models.iter().enumerate().map(|(index, name)| source(&index.to_string(), name)).collect();
    sources.extend(merge.base.as_deref().map(|base| source("base", base)));
    json!({
        "program": concat!("mergelab ", env!("CARGO_PKG_VERSION")),
        "experiment": context.graph.experiments[job.stage.experiment].name,
        "stage": job.stage.name,
        "key": job.key,
        "sources": sources,
        "grams": merge.grams,
        "fishers": merge.fishers,
    })
}
