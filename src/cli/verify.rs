//! `mergelab verify`.

use std::path::PathBuf;

use mergelab_wire::exit;

use super::{CliError, output};
use crate::project::Project;
use crate::store::{Store, Verification};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Directory of the project [default: the working directory]
    #[arg(value_name = "DIR", default_value = ".", hide_default_value = true)]
    directory: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Hashes everything in the store; no store has nothing wrong with it.
pub(super) fn run(arguments: &Arguments) -> Result<u8, CliError> {
    if !arguments.directory.is_dir() {
        return Err(CliError::Usage(format!("{}: no such directory", arguments.directory.display())));
    }
    let project = Project::find(&arguments.directory)?;
    let found = match Store::open_existing(&project.store_path())? {
        Some(store) => store.verify()?,
        None => Verification::default(),
    };
    if arguments.json {
        output::print_json(&found);
    } else {
        for bad in &found.bad {
            let stage =
                if bad.stage.is_empty() { String::new() } else { format!(" ({} {})", bad.experiment, bad.stage) };
            output::print(&format!("{}{stage}: {}\n", bad.path.display(), bad.problem));
        }
        let (artifacts, files, bytes) = (found.artifacts, found.files, found.bytes);
        say!("{artifacts} artifacts, {files} files, {bytes} bytes: {} bad", found.bad.len());
        if !found.bad.is_empty() {
            say!("hint: `mergelab run` moves what is bad to quarantine and makes it again");
        }
    }
    Ok(if found.bad.is_empty() { exit::DONE } else { exit::DISAGREES })
}
