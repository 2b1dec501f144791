//! `mergelab export`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mergelab_wire::exit;

use super::interrupts::Interrupts;
use super::session::Session;
use super::status::{look, whole};
use super::transfer::Transfer;
use super::{CliError, output};
use crate::exec::size;
use crate::store::{CopyError, copy_out};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Stage, such as merges.regmean
    stage: String,
    /// Experiment file
    file: PathBuf,
    /// Directory that receives the files; made if it is not there, and must be empty
    dir: PathBuf,
}

/// Copies an artifact out of the store.
pub(super) fn run(arguments: &Arguments, interrupts: &Interrupts) -> Result<u8, CliError> {
    let session = Session::open(std::slice::from_ref(&arguments.file))?;
    let id = session.find_one(&arguments.stage)?;
    let (outlooks, facts) = look(&session)?;
    let (manifest, artifact, _use) = whole(&session, &outlooks, &facts, id)?;
    let total = manifest.outputs.iter().map(|output| output.size).sum();

    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    interrupts.give_to(Box::new(move || told.store(true, Ordering::Relaxed)));
    let mut transfer = Transfer::new("copied", total);
    let copied = copy_out(&artifact.location, &manifest.outputs, &arguments.dir, &mut |bytes| {
        transfer.advance(bytes as i64);
        !stop.load(Ordering::Relaxed)
    });
    drop(transfer);
    interrupts.take_back();
    match copied {
        Ok(()) => {}
        Err(CopyError::Stopped) => {
            say!("interrupted: nothing was left in {}", arguments.dir.display());
            return Ok(exit::INTERRUPTED);
        }
        Err(error) => return Err(refused(error, &arguments.dir)),
    }
    say!("{}: {} files, {}", arguments.stage, manifest.outputs.len(), size(total));
    output::print(&format!("{}\n", arguments.dir.display()));
    Ok(exit::DONE)
}

/// What kept a directory from being written, in words.
pub(super) fn refused(error: CopyError, dir: &Path) -> CliError {
    match error {
        CopyError::Store(error) => error.into(),
        CopyError::InTheWay { .. } => {
            let hint = "name a directory that is not there, or an empty one";
            CliError::Usage(format!("{error}\nhint: {hint}"))
        }
        CopyError::Changed { .. } => CliError::Damaged {
            message: error.to_string(),
            hint: format!("`mergelab verify` finds all that is damaged; nothing was left in {}", dir.display()),
        },
        CopyError::Stopped => unreachable!("handled where it is known"),
    }
}
