//! Any program as a stage: it reads its declared inputs and writes into `{out}`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mergelab_wire::Event;

use super::{Context, Failure, Job, Product, Program};
use crate::experiment::{Command, Input, Output};
use crate::project::Python;

/// Starts the program in the project's root, without a shell.
pub(super) fn run(
    context: &Context<'_>,
    command: &Command,
    job: &Job<'_>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    let fill = |argument: &String| {
        substitute(argument, |name| match name {
            "out" => Some(job.out.clone()),
            _ => input_path(context, command, job, name.strip_prefix("inputs.")?),
        })
    };
    let mut arguments: Vec<OsString> = command.run.iter().map(fill).collect();
    let program = arguments.remove(0);
    let name = program.to_string_lossy().into_owned();
    let environment = command.env.iter().map(|(name, value)| (name.into(), value.into()));
    let program = Program {
        program,
        arguments,
        directory: context.project.root.clone(),
        environment: python_first(context.python).into_iter().chain(environment).collect(),
        unset: Vec::new(),
        locks: vec![job.lock],
        log: job.log.clone(),
        events: None,
        timeout: command.timeout.map(Duration::from_secs_f64),
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
        Input::Model(_) => job.input(name).location.clone(),
        Input::Data(_) => job.input(name).location.join("rows.jsonl"),
    })
}

/// Fills in `{name}`; `{{` and `}}` are braces, and what is no placeholder stays.
pub(super) fn substitute(text: &str, value: impl Fn(&str) -> Option<PathBuf>) -> OsString {
    let mut filled = OsString::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        filled.push(before);
        let name = from.strip_prefix('{').and_then(|name| name.split_once('}'));
        rest = if from.starts_with("{{") || from.starts_with("}}") {
            filled.push(&from[..1]);
            &from[2..]
        } else if let Some((path, after)) = name.and_then(|(name, after)| Some((value(name)?, after))) {
            filled.push(path);
            after
        } else {
            filled.push(&from[..1]);
            &from[1..]
        };
    }
    filled.push(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_and_doubled_braces_are_braces() {
        let fill = |text| substitute(text, |name| (name == "out").then(|| PathBuf::from("/o p"))).into_string().unwrap();
        assert_eq!(fill("{out}"), "/o p");
        assert_eq!(fill("--out={out}/x"), "--out=/o p/x");
        assert_eq!(fill("{{out}} {other} }"), "{out} {other} }");
        assert_eq!(fill("{"), "{");
        assert_eq!(fill("é{out}é"), "é/o pé");
    }
}
