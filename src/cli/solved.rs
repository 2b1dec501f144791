//! The figures of the layers that a merge solved.

use super::CliError;
use super::session::Session;
use super::status::up_to_date;
use crate::exec::Outlook;
use crate::layers::{FILE, Solved};
use crate::plan::{Facts, Kind, StageId};

/// Those of a merge that is up to date.
///
/// # Errors
/// When it is no merge, not made yet, or of a method that solves no layers.
pub(super) fn of(session: &Session, outlooks: &[Outlook], facts: &Facts, id: StageId) -> Result<Solved, CliError> {
    let stage = &session.graph.stage(id).name;
    if session.graph.stage(id).spec.kind() != Kind::Merge {
        return Err(CliError::Usage(format!("{stage} is no merge: it has no figures of layers")));
    }
    let (manifest, artifact) = up_to_date(session, outlooks, facts, id)?;
    if !manifest.outputs.iter().any(|file| file.path == FILE) {
        return Err(CliError::NotThere {
            message: format!("{stage} has no figures of layers: its method solves none"),
            hint: format!(
                "RegMean and its kin do; `mergelab diff models.BASE {stage} FILE` shows what any merge changed"
            ),
        });
    }
    let path = artifact.location.join(FILE);
    let damaged = |problem: String| CliError::Damaged {
        message: format!("{}: {problem}", path.display()),
        hint: format!(
            "`mergelab verify` finds all that is damaged; `mergelab run FILE --force {stage}` makes this anew"
        ),
    };
    let text = std::fs::read(&path).map_err(|error| damaged(error.to_string()))?;
    Solved::parse(&text).map_err(damaged)
}
