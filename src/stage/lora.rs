//! A model with a LoRA adapter: both go to the tensor program, and a model directory comes back, which is a model like any
//! other to whatever reads it. And the other way round: an adapter of what one model has more than another.

use std::path::Path;

use mergelab_wire::{ApplyLoraJob, Event, ExtractLoraJob, Job as Work};

use super::card::file_name;
use super::{Context, Failure, Job, Product, model, tensor};
use crate::experiment::{Lora, Model};
use crate::plan::{Spec, Stage};

/// Applies the adapter.
pub(super) fn run(
    context: &Context<'_>,
    lora: &Lora,
    job: &Job<'_>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    let work = ApplyLoraJob {
        name: model::place(&lora.base),
        base: job.input("base").location.clone(),
        adapter: job.input("lora").location.clone(),
    };
    tensor::run(context, job, Work::ApplyLora(work), on_event)
}

/// Writes an adapter into an empty directory. `scratch` holds what the program needs meanwhile.
///
/// # Errors
/// When the program fails, in words.
pub fn extract(
    context: &Context<'_>,
    job: ExtractLoraJob,
    (scratch, out): (&Path, &Path),
    on_event: &mut dyn FnMut(Event),
) -> Result<(), Failure> {
    let name = job.name.clone();
    tensor::run_alone(context, &name, (scratch, out), Work::ExtractLora(job), on_event).map(drop)
}

/// The name by which an adapter says which model it is for: that on the hub, a path in the project, or the stage's.
pub fn name_of_model(stage: &Stage) -> String {
    match &stage.spec {
        Spec::Model(Model::Hub { repo, .. }) => repo.clone(),
        Spec::Model(Model::Path(path)) if path.is_relative() => path.display().to_string(),
        // Where things lie on one machine is nobody else's business.
        Spec::Model(Model::Path(path)) => file_name(path),
        _ => stage.name.clone(),
    }
}
