//! `mergelab key`.

use std::path::PathBuf;

use mergelab_wire::exit;

use super::session::Session;
use super::status::look;
use super::{CliError, output};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Stage, such as merges.regmean
    stage: String,
    /// Experiment file
    file: PathBuf,
}

/// Prints the key struct of a stage.
pub(super) fn run(arguments: &Arguments) -> Result<u8, CliError> {
    let session = Session::open(std::slice::from_ref(&arguments.file))?;
    let id = session.find_one(&arguments.stage)?;
    let (outlooks, _) = look(&session)?;
    let outlook = &outlooks[id.0];
    match &outlook.key_struct {
        Some(key_struct) => {
            output::print_json(key_struct);
            Ok(exit::DONE)
        }
        None => Err(CliError::Failed(format!("{} has no key yet: {}", arguments.stage, outlook.reason))),
    }
}
