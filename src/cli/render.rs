//! `mergelab render`.

use super::results;
use super::session::Session;
use super::status::look;
use super::{CliError, Files};

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
    let mut changes = results::changes(&session, &experiments, &results)?;
    if !arguments.check {
        // What they say of times and answers is the store's, so where there is none they stay, and are not checked.
        let is_known = |experiment: &usize| {
            let has_results = || results.keys().any(|id| session.graph.stage(*id).experiment == *experiment);
            !session.graph.experiments[*experiment].evals.is_empty() && has_results()
        };
        let known: Vec<usize> = experiments.into_iter().filter(is_known).collect();
        changes.extend(super::report::changes(&session, &known, (&outlooks, &facts))?);
    }
    results::settle(&session.project.root, &changes, arguments.check, "mergelab render")
}
