//! `mergelab grams`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mergelab_wire::exit;

use super::export::refused;
use super::interrupts::Interrupts;
use super::session::Session;
use super::status::{look, whole};
use super::{CliError, alone};
use crate::plan::Kind;
use crate::stage::{self, GramForm, GramOrigin};

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
    let filled = alone::fill(&session, &arguments.to, interrupts, |context, places, on_event| {
        stage::export_grams(context, name, &artifact.location, places, on_event)
    })?;
    let Some((new, ())) = filled else { return Ok(exit::INTERRUPTED) };
    let out = new.path();
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
    std::fs::write(&card, text).map_err(alone::failed("write", &card))?;
    new.finish().map_err(|error| refused(error, &arguments.to))?;
    interrupts.take_back();
    say!("{name}: written to {}", arguments.to.display());
    Ok(exit::DONE)
}
