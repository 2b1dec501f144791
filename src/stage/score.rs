//! `backend: command`: any program that looks at a model directory and writes `metrics.json`.

use mergelab_wire::Event;

use super::command::run_argv;
use super::{Context, Failure, Job, Product};
use crate::experiment::Suite;
use crate::report;

/// Runs the program and checks what it wrote.
pub(super) fn run(
    context: &Context<'_>,
    suite: &Suite,
    job: &Job<'_>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    let path = |name: &str| match name {
        "out" => Some(job.out.clone()),
        "model" => Some(job.input("model").location.clone()),
        _ => None,
    };
    let product = run_argv(context, job, &suite.run, &path, Vec::new(), None, on_event)?;
    match report::files::metrics(&job.out.join("metrics.json")) {
        Ok(_) => Ok(product),
        Err(error) => Err(Failure::experiment(format!("{} wrote no metrics that can be used: {error}", suite.run[0]))
            .hint("it writes {out}/metrics.json: [{\"metric\": …, \"filter\": …, \"value\": …, \"stderr\": …, \"n_samples\": …}]")
            .with_log(&job.log)),
    }
}
