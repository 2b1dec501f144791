//! `backend: command`: any program that looks at a model directory and writes `metrics.json`. What else it leaves, such as
//! `samples.jsonl.gz`, is kept beside it.

use std::io::ErrorKind;
use std::time::Duration;

use mergelab_wire::Event;

use super::command::run_argv;
use super::{Context, Failure, Job, Product, tail};
use crate::experiment::Suite;
use crate::report::{self, FileError};

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
    let environment = suite.env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let timeout = suite.timeout.map(Duration::from_secs_f64);
    let product = run_argv(context, job, &suite.run, &path, environment, timeout, on_event)?;
    let problem = match report::files::metrics(&job.out.join("metrics.json")) {
        Ok(metrics) if metrics.is_empty() => "metrics.json: an empty list".to_owned(),
        Ok(_) => return Ok(product),
        Err(FileError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            "metrics.json: no such file".to_owned()
        }
        Err(error) => error.to_string().replace(&format!("{}/", job.out.display()), ""),
    };
    let last = match tail(&job.log).as_slice() {
        [] => String::new(),
        last => format!("; its last lines:\n{}", last.join("\n")),
    };
    let program = &suite.run[0];
    Err(Failure::stage(format!("{program} ended well and left no metrics that can be used: {problem}{last}"))
        .hint(
            "it writes {out}/metrics.json: [{\"metric\": …, \"filter\": …, \"value\": …, \"stderr\": …, \"n_samples\": …, \
             \"higher_is_better\": …}]; `metric` and `value` must be there, numbers must be finite",
        )
        .with_log(&job.log))
}
