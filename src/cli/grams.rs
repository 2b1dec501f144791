//! `mergelab grams`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mergelab_wire::{Event, exit};
use tempfile::TempDir;

use super::CliError;
use super::interrupts::Interrupts;
use super::progress::describe;
use super::session::Session;
use super::status::{look, up_to_date};
use crate::exec::{Machine, Supervisor};
use crate::plan::Kind;
use crate::stage::{self, Context, GramForm, GramOrigin};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Write the matrices of a gram stage whole, by the names of modules
    ///
    /// One float32 tensor [in, in] for each linear module, in safetensors files with an index, and a README that says what
    /// they are. A Gram entry `{ path: DIR }` reads them again.
    Export(Export),
}

#[derive(Debug, clap::Args)]
pub(super) struct Export {
    /// Stage, such as grams.math
    stage: String,
    /// Experiment file
    file: PathBuf,
    /// Directory to write; what is there must be empty
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

/// Runs a subcommand.
pub(super) fn run(command: &Command, interrupts: &Interrupts) -> Result<u8, CliError> {
    let Command::Export(arguments) = command;
    export(arguments, interrupts)
}

fn export(arguments: &Export, interrupts: &Interrupts) -> Result<u8, CliError> {
    let session = Session::open(std::slice::from_ref(&arguments.file))?;
    let id = session.find_one(&arguments.stage)?;
    let name = &session.graph.stage(id).name;
    if session.graph.stage(id).spec.kind() != Kind::Gram {
        return Err(CliError::Usage(format!("{name} is no gram stage")));
    }
    check_place(&arguments.to)?;
    let (outlooks, facts) = look(&session)?;
    let (manifest, artifact) = up_to_date(&session, &outlooks, &facts, id)?;
    let store = session.existing_store()?.ok_or_else(|| CliError::Failed(format!("{name} is not up to date")))?;
    let _use = store.hold(&manifest.key)?;

    let failed = |what: &str, path: &Path| {
        let path = path.display().to_string();
        let what = what.to_owned();
        move |error: std::io::Error| CliError::Failed(format!("cannot {what} {path}: {error}"))
    };
    let parent = match arguments.to.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent).map_err(failed("create", parent))?;
    let parent = parent.canonicalize().map_err(failed("find", parent))?;
    // Beside the place, so that the finished directory is moved there at once.
    let scratch = tempfile::Builder::new().prefix(".mergelab-export-").tempdir_in(&parent);
    let scratch: TempDir = scratch.map_err(failed("create a directory in", &parent))?;
    let out = scratch.path().join("out");
    std::fs::create_dir(&out).map_err(failed("create", &out))?;

    let supervisor = std::sync::Arc::new(
        Supervisor::new().map_err(|error| CliError::Failed(format!("cannot supervise programs: {error}")))?,
    );
    let stopper = supervisor.clone();
    interrupts.give_to(Box::new(move || stopper.stop()));
    let context = Context {
        project: &session.project,
        python: None,
        tensor: session.project.tensor_program(),
        launcher: &*supervisor,
        graph: &session.graph,
        threads: Machine::look(&session.project.store_path()).cores,
        memory: None,
    };
    let work = stage::export_grams(&context, name, &artifact.location, (scratch.path(), &out), &mut |event| {
        if let Event::Note { message } = event {
            say!("note: {message}");
        }
    });
    match work {
        Ok(()) => {}
        Err(failure) if failure.interrupted => return Ok(exit::INTERRUPTED),
        Err(failure) => return Err(CliError::Failed(describe(&failure))),
    }
    let inputs = manifest.key_struct["inputs"].as_object();
    let inputs =
        inputs.into_iter().flatten().filter_map(|(name, digest)| Some((name.clone(), digest.as_str()?.to_owned())));
    let origin = GramOrigin {
        key: manifest.key.to_string(),
        inputs: inputs.collect::<BTreeMap<_, _>>(),
        versions: manifest.versions.clone(),
        commit: manifest.facts.get("commit").and_then(|commit| commit.as_str()).map(str::to_owned),
    };
    let card = out.join("README.md");
    let text = stage::gram_card(&session.graph, id, &origin, &out, GramForm::Whole);
    std::fs::write(&card, text).map_err(failed("write", &card))?;
    sync(&out).map_err(failed("flush", &out))?;
    let place = parent.join(arguments.to.file_name().unwrap_or_default());
    // An empty directory is replaced, and one that something was put into meanwhile is not.
    std::fs::rename(&out, &place).map_err(failed("write", &arguments.to))?;
    interrupts.take_back();
    say!("{name}: written to {}", arguments.to.display());
    Ok(exit::DONE)
}

/// Refuses a place where something is.
fn check_place(place: &Path) -> Result<(), CliError> {
    let refuse = |reason: &str| Err(CliError::Usage(format!("{} {reason}", place.display())));
    if place.file_name().is_none() {
        return refuse("is no name of a directory");
    }
    match std::fs::read_dir(place) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                refuse("is not empty: name another directory, or empty it")
            } else {
                Ok(())
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => refuse("is a file"),
        Err(error) => refuse(&format!("cannot be used: {error}")),
    }
}

/// Waits until the files of a directory, and the directory, have reached the disk.
fn sync(directory: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        std::fs::File::open(entry?.path())?.sync_all()?;
    }
    std::fs::File::open(directory)?.sync_all()
}
