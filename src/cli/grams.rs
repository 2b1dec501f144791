//! `mergelab grams`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mergelab_wire::{Event, exit};

use super::CliError;
use super::export::refused;
use super::interrupts::Interrupts;
use super::progress::describe;
use super::session::Session;
use super::status::{look, whole};
use crate::exec::{Machine, Supervisor};
use crate::plan::Kind;
use crate::stage::{self, Context, GramForm, GramOrigin};
use crate::store::NewDirectory;

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
    let (outlooks, facts) = look(&session)?;
    let (manifest, artifact, _use) = whole(&session, &outlooks, &facts, id)?;
    let new = NewDirectory::begin(&arguments.to).map_err(|error| refused(error, &arguments.to))?;
    let out = new.path();
    let failed = |what: &str, path: &Path| {
        let (what, path) = (what.to_owned(), path.display().to_string());
        move |error: std::io::Error| CliError::Failed(format!("cannot {what} {path}: {error}"))
    };
    let scratch = tempfile::tempdir().map_err(failed("create a directory in", &std::env::temp_dir()))?;

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
    let work = stage::export_grams(&context, name, &artifact.location, (scratch.path(), out), &mut |event| {
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
    let text = stage::gram_card(&session.graph, id, &origin, out, GramForm::Whole);
    std::fs::write(&card, text).map_err(failed("write", &card))?;
    new.finish().map_err(|error| refused(error, &arguments.to))?;
    interrupts.take_back();
    say!("{name}: written to {}", arguments.to.display());
    Ok(exit::DONE)
}
