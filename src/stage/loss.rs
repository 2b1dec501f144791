//! `backend: loss`: held-out rows go through the tensor program, and metrics come back. No harness and no Python.

use mergelab_wire::{Event, Job as Work, LossJob, LossSource};

use super::{Context, Failure, Job, Product, gram, tensor};
use crate::experiment::Calibration;
use crate::plan::Loss;

/// Measures how well a model predicts its rows, and how far from other models.
pub(super) fn run(
    context: &Context<'_>,
    Loss { on, sources }: &Loss,
    job: &Job<'_>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    let Calibration { capture, rows, strict } = on;
    let source = |(index, name): (usize, &String)| LossSource {
        name: name.clone(),
        path: job.input(&format!("source.{index}")).location.clone(),
    };
    let work = LossJob {
        capture: gram::work(context, (capture, rows, *strict), job, ("model", "data")),
        sources: sources.iter().enumerate().map(source).collect(),
    };
    tensor::run(context, job, Work::Loss(work), on_event)
}
