//! `mergelab render`.

use mergelab_wire::exit;

use super::results;
use super::session::Session;
use super::status::look;
use super::{CliError, Files};
use crate::report::{self, State};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    files: Files,
    /// Write nothing; fail if a file would change
    #[arg(long)]
    check: bool,
}

/// Writes tables and results from what is there.
pub(super) fn run(arguments: &Arguments) -> Result<u8, CliError> {
    let session = Session::open(&arguments.files.files)?;
    let (outlooks, facts) = look(&session)?;
    let results = results::up_to_date(&outlooks, &facts);
    let experiments: Vec<usize> = (0..session.graph.experiments.len()).collect();
    let changes = results::changes(&session, &experiments, &results)?;
    let changed: Vec<_> = changes.iter().filter(|change| change.state != State::Same).collect();
    for change in &changed {
        let word = if change.state == State::New { "new" } else { "changed" };
        say!("{word}: {}", change.path.display());
    }
    if arguments.check {
        if changed.is_empty() {
            return Ok(exit::DONE);
        }
        say!("error: {} files differ from what is there to be rendered", changed.len());
        say!("hint: `mergelab render` writes them");
        return Ok(exit::DISAGREES);
    }
    report::files::write(&session.project.root, &changes)?;
    Ok(exit::DONE)
}
