//! A model with a LoRA adapter: both go to the tensor program, and a model directory comes back, which is a model like any
//! other to whatever reads it.

use mergelab_wire::{ApplyLoraJob, Event, Job as Work};

use super::{Context, Failure, Job, Product, model, tensor};
use crate::experiment::Lora;

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
