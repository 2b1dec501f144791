//! Slices of layers that models do not have, found before anything runs. Those of directories are found when a file is read.

use super::at_hand;
use super::error::CliError;
use super::session::Session;
use crate::experiment::{self, Merge};
use crate::plan::{Facts, Spec, Stage};

/// Refuses wanted merges with slices of layers that their models do not have, as far as those are there to look at.
///
/// # Errors
/// For each such slice, at its place in its file.
pub(super) fn check(session: &Session, wanted: &[bool], facts: &Facts) -> Result<(), CliError> {
    let mut wrong = Vec::new();
    for (id, stage) in session.graph.iter().filter(|(id, _)| wanted[id.0]) {
        let Spec::Merge(merge) = &stage.spec else { continue };
        for (index, message) in beyond(session, stage, merge, facts) {
            let place = ["slices".to_owned(), index.to_string()];
            let hint = "layers are counted from 0, and the second number is one past the last";
            let error = session.error_with_hint(id, &place, &message, Some(hint.to_owned()));
            if !wrong.contains(&error) {
                wrong.push(error);
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(CliError::Experiment(wrong)) }
}

/// Which slices go beyond the layers of a model, in words.
fn beyond(session: &Session, stage: &Stage, merge: &Merge, facts: &Facts) -> Vec<(usize, String)> {
    let depth = |name: &str| {
        let directory = at_hand::directory(session, stage, merge.giver(name), facts)?;
        experiment::layers(&std::fs::read(directory.join("config.json")).ok()?)
    };
    let mut found = Vec::new();
    for (index, slice) in merge.slices.iter().enumerate() {
        for source in slice.models.iter().chain(&slice.base) {
            let (first, end) = (source.first, source.first + slice.layers);
            if let Some(depth) = depth(&source.name).filter(|depth| end as u64 > *depth) {
                let name = &source.name;
                found.push((
                    index,
                    format!("slice {}: layers {first} to {end} of `{name}`, which has {depth}", index + 1),
                ));
            }
        }
    }
    found
}
