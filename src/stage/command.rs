//! Any program as a stage: it reads its declared inputs and writes into `{out}`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mergelab_wire::Event;

use super::launch::TOKENS;
use super::{Context, Failure, Job, Product, Program};
use crate::experiment::{Command, Input, Output, substitute};
use crate::project::Python;

/// Starts the program in the project's root, without a shell.
pub(super) fn run(
    context: &Context<'_>,
    command: &Command,
    job: &Job<'_>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    let path = |name: &str| match name {
        "out" => Some(job.out.clone()),
        _ => input_path(context, command, job, name.strip_prefix("inputs.")?),
    };
    let environment = command.env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let timeout = command.timeout.map(Duration::from_secs_f64);
    run_argv(context, job, &command.run, &path, environment, timeout, on_event)
}

/// Fills in the placeholders of an argument list and runs it to its end in the project's root.
pub(super) fn run_argv(
    context: &Context<'_>,
    job: &Job<'_>,
    argv: &[String],
    path: &dyn Fn(&str) -> Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    timeout: Option<Duration>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    let fill = |argument: &String| substitute(argument, |name| path(name)?.into_os_string().into_string().ok());
    let mut arguments =
        argv.iter().map(fill).collect::<Result<Vec<_>, _>>().map_err(|error| Failure::experiment(error.to_string()))?;
    let name = arguments.remove(0);
    // One that the entry declares is meant.
    let is_declared = |token: &&str| environment.iter().any(|(name, _)| name == *token);
    let unset = TOKENS.iter().filter(|token| !is_declared(token)).map(OsString::from).collect();
    let program = Program {
        program: name.clone().into(),
        arguments: arguments.into_iter().map(OsString::from).collect(),
        directory: context.project.root.clone(),
        environment: python_first(context.python).into_iter().chain(job.visible_gpus()).chain(environment).collect(),
        unset,
        locks: vec![job.lock],
        log: job.log.clone(),
        events: None,
        timeout,
        stalled_after: None,
    };
    match context.launcher.run(&program, on_event) {
        Ok(super::Ending::Code(0)) => Ok(Product { logged: true, ..Product::default() }),
        Ok(ending) => Err(Failure::of_program(&name, ending, &job.log)),
        Err(error) => Err(Failure::stage(format!("cannot start {name}: {error}"))),
    }
}

/// `python` in a command means the project's.
fn python_first(python: Option<&Python>) -> Option<(OsString, OsString)> {
    let bin = python?.executable.parent()?.to_path_buf();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&path))).ok()?;
    Some(("PATH".into(), path))
}

fn input_path(context: &Context<'_>, command: &Command, job: &Job<'_>, name: &str) -> Option<PathBuf> {
    Some(match command.inputs.get(name)? {
        Input::Path(path) => context.project.resolve(path),
        Input::From(Output { path, .. }) => job.input(name).location.join(path.as_deref().unwrap_or(Path::new(""))),
        Input::Model(_) | Input::Gram(_) => job.input(name).location.clone(),
        Input::Data(_) => job.input(name).location.join("rows.jsonl"),
    })
}
