//! Models whose files are there before anything runs: what can be read of them is looked at before hours of work are put in.

use std::path::PathBuf;

use super::session::Session;
use crate::experiment::{Giver, Model};
use crate::plan::{Facts, Spec, Stage};

/// The directory of a model of a merge, as far as it is there by what is known; it may have to be fetched first all the same.
pub(super) fn directory(session: &Session, stage: &Stage, role: Giver, facts: &Facts) -> Option<PathBuf> {
    let need = stage.need(&role.to_string())?;
    if let Some(made) = facts.results.get(&need) {
        return Some(made.location.clone());
    }
    let model = session.graph.stage(need);
    match &model.spec {
        Spec::Model(Model::Path(path)) => Some(session.project.resolve(path)),
        Spec::Model(Model::Hub { .. }) => crate::exec::hub_location(model, facts),
        _ => None,
    }
}
