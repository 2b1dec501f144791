//! `backend: command`: any program that looks at a model directory and writes `metrics.json`.

use std::ffi::OsString;

use mergelab_wire::Event;

use super::command::python_first;
use super::{Context, Ending, Failure, Job, Product, Program};
use crate::experiment::{Suite, substitute};
use crate::report;

/// Runs the program and checks what it wrote.
pub(super) fn run(
    context: &Context<'_>,
    suite: &Suite,
    job: &Job<'_>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    let fill = |argument: &String| {
        substitute(argument, |name| {
            let path = match name {
                "out" => &job.out,
                "model" => &job.input("model").location,
                _ => return None,
            };
            path.to_str().map(str::to_owned)
        })
    };
    let arguments: Result<Vec<_>, _> = suite.run.iter().map(fill).collect();
    let mut arguments = arguments.map_err(|error| Failure::experiment(error.to_string()))?;
    let name = arguments.remove(0);
    let program = Program {
        program: name.clone().into(),
        arguments: arguments.into_iter().map(OsString::from).collect(),
        directory: context.project.root.clone(),
        environment: python_first(context.python).into_iter().chain(job.visible_gpus()).collect(),
        unset: Vec::new(),
        locks: vec![job.lock],
        log: job.log.clone(),
        events: None,
        timeout: None,
    };
    match context.launcher.run(&program, on_event) {
        Ok(Ending::Code(0)) => {}
        Ok(ending) => return Err(Failure::of_program(&name, ending, &job.log)),
        Err(error) => return Err(Failure::stage(format!("cannot start {name}: {error}"))),
    }
    match report::files::metrics(&job.out.join("metrics.json")) {
        Ok(_) => Ok(Product { logged: true, ..Product::default() }),
        Err(error) => Err(Failure::experiment(format!("{name} wrote no metrics that can be used: {error}"))
            .hint("it writes {out}/metrics.json: [{\"metric\": …, \"filter\": …, \"value\": …, \"stderr\": …, \"n_samples\": …}]")
            .with_log(&job.log)),
    }
}
