//! Fisher information: the model's directory and the rows go to the tensor program.

use mergelab_wire::{Event, FisherJob, Job as Work, Rows};

use super::{Context, Failure, Job, Product, gram, tensor};
use crate::experiment::Fisher;

/// Estimates the Fisher information of one model on one data set.
pub(super) fn run(
    context: &Context<'_>,
    (fisher, rows, strict): (&Fisher, &Rows, bool),
    job: &Job<'_>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    let run = gram::work(context, (&fisher.capture, rows, strict), job, ("model", "data"));
    tensor::run(context, job, Work::Fisher(FisherJob { run, labels: fisher.labels }), on_event)
}
