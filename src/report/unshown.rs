//! Published figures of models or tasks that no table shows: most often a slip of the pen in their file.

use std::path::PathBuf;

use indexmap::{IndexMap, IndexSet};

use super::Inputs;
use super::nearest::{nearest, suggestion};

/// What to say of each file with such figures.
pub fn unshown(inputs: &Inputs<'_>) -> Vec<String> {
    let mut shown: IndexMap<&PathBuf, [IndexSet<String>; 2]> = IndexMap::new();
    for table in inputs.tables.values() {
        let Some(file) = &table.published else { continue };
        let [models, tasks] = shown.entry(file).or_default();
        for row in &table.rows {
            models.insert(row.model.clone());
            models.extend(row.members.iter().map(|member| member.model.clone()));
        }
        tasks.extend(table.metrics().map(|column| column.task.clone()));
    }
    let mut notes = Vec::new();
    for (file, known) in shown {
        let mut unknown: IndexSet<String> = IndexSet::new();
        for figure in inputs.published.get(file).into_iter().flatten() {
            for (what, name, known) in [("model", &figure.model, &known[0]), ("task", &figure.task, &known[1])] {
                if !known.contains(name) {
                    let names: Vec<String> = known.iter().cloned().collect();
                    unknown.insert(format!("{what} `{name}`{}", suggestion(nearest(name, &names).as_deref())));
                }
            }
        }
        let in_no_table = |what| format!("{}: in no table: {what}", file.display());
        notes.extend(unknown.into_iter().map(in_no_table));
    }
    notes
}
