//! The model card of a merge as it is uploaded: with the scores that there are now, and what it was made from.

use std::fmt::Write as _;

use super::scores::{self, DataSet};
use super::{Subject, origin};
use crate::experiment::Merge;

/// The text of `README.md`.
pub(super) fn text(subject: &Subject<'_>, merge: &Merge) -> String {
    let experiment = subject.experiment();
    let name = subject.stage().name.trim_start_matches("merges.");
    let input = |role: &str| subject.input(role);
    let data_set = |task: &str| DataSet::of_evaluation(&subject.evaluation(name, task)?.location);
    let index = scores::model_index(&format!("{}: {name}", experiment.name), name, &subject.figures, &data_set);
    let mut card = crate::stage::card::front_matter(experiment, merge, &input, &index);
    card += &crate::stage::card::body(experiment, merge, (name, subject.version()), &input);

    let sources: Vec<&str> =
        merge.models.iter().map(|model| model.model.as_str()).chain(merge.base.as_deref()).collect();
    let table = scores::table(name, &sources, &subject.figures);
    if table.is_empty() {
        card += "\nIt was not evaluated yet.\n";
    } else {
        let _ = write!(card, "\n## Scores\n\n{table}");
        card += "\nMeasured with mergelab, on each metric's own scale, ± one standard error.\n";
    }
    let _ = write!(card, "\n## How it was made\n\n{}", origin(subject));
    if subject.manifest.outputs.iter().any(|output| output.path == "merge.json") {
        card += "[merge.json](merge.json) has the method with all of its parameters.\n";
    }
    card
}
