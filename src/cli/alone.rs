//! Work of the tensor program that is no stage's: what it makes goes where somebody wants it, and not into the store.

use std::path::Path;
use std::sync::Arc;

use mergelab_wire::{Event, Fault};

use super::CliError;
use super::export::refused;
use super::interrupts::Interrupts;
use super::progress::describe;
use super::session::Session;
use crate::exec::{Machine, Supervisor};
use crate::plan::Graph;
use crate::project::Project;
use crate::stage::{Context, Failure};
use crate::store::NewDirectory;

/// Fills what is to be the directory `place`; nothing where it was interrupted. The work gets a directory for what it needs
/// meanwhile and the one to fill. Notes are shown.
///
/// # Errors
/// What is in the way, and what the work says.
pub(super) fn fill<T>(
    session: &Session,
    place: &Path,
    interrupts: &Interrupts,
    work: impl FnOnce(&Context<'_>, (&Path, &Path), &mut dyn FnMut(Event)) -> Result<T, Failure>,
) -> Result<Option<(NewDirectory, T)>, CliError> {
    let new = NewDirectory::begin(place).map_err(|error| refused(error, place))?;
    let of = (&session.project, &session.graph);
    let made = run(of, interrupts, |context, scratch, on_event| work(context, (scratch, new.path()), on_event))?;
    Ok(made.map(|made| (new, made)))
}

/// Does work with a directory that is gone when it is done; nothing where it was interrupted. Notes are shown.
///
/// # Errors
/// What the work says.
pub(super) fn run<T>(
    (project, graph): (&Project, &Graph),
    interrupts: &Interrupts,
    work: impl FnOnce(&Context<'_>, &Path, &mut dyn FnMut(Event)) -> Result<T, Failure>,
) -> Result<Option<T>, CliError> {
    let temporary = std::env::temp_dir();
    let scratch = tempfile::tempdir().map_err(failed("create a directory in", &temporary))?;
    let supervisor =
        Arc::new(Supervisor::new().map_err(|error| CliError::Failed(format!("cannot supervise programs: {error}")))?);
    let stopper = supervisor.clone();
    interrupts.give_to(Box::new(move || stopper.stop()));
    let machine = Machine::look(&project.store_path());
    let context = Context {
        project,
        python: None,
        tensor: project.tensor_program(),
        launcher: &*supervisor,
        graph,
        threads: machine.cores,
        memory: Some(machine.memory / 10 * 9).filter(|memory| *memory > 0),
    };
    let mut tenths = 0;
    let made = work(&context, scratch.path(), &mut |event| match event {
        Event::Note { message } => say!("note: {message}"),
        Event::Progress { done, total, unit } if done * 10 / total.max(1) > tenths => {
            tenths = done * 10 / total.max(1);
            say!("{done} of {total} {unit}");
        }
        _ => {}
    });
    match made {
        Ok(made) => Ok(Some(made)),
        Err(failure) if failure.interrupted => Ok(None),
        Err(Failure { message, hint, fault: Fault::Experiment, .. }) => Err(CliError::Source { message, hint }),
        Err(failure) => Err(CliError::Failed(describe(&failure))),
    }
}

/// For `map_err`: what was tried, on which file.
pub(super) fn failed(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> CliError {
    let (what, path) = (what.to_owned(), path.display().to_string());
    move |error| CliError::Failed(format!("cannot {what} {path}: {error}"))
}
