//! `mergelab explain --cell`: where a number of a table comes from.

use std::collections::BTreeSet;
use std::path::Path;

use super::session::Session;
use super::{CliError, figures, results};
use crate::exec::{Outlook, State};
use crate::experiment::{Column, Row, Table, TableColumn};
use crate::plan::{Facts, StageId};
use crate::report::nearest::{listed, nearest, suggestion};
use crate::report::{Measurement, plain};

/// What a cell is called on the command line.
pub(super) struct Cell<'a> {
    /// The experiment's file, as it was named.
    pub(super) file: &'a Path,
    /// The table's name.
    pub(super) table: &'a str,
    /// A row by its model or its label.
    pub(super) row: &'a str,
    /// A column by its number from 1, its label or its task.
    pub(super) column: &'a str,
}

/// Says what a cell's number is, which stage made it, and what that rests on.
pub(super) fn text(session: &Session, looked: (&[Outlook], &Facts), cell: &Cell<'_>) -> Result<String, CliError> {
    let tables = &session.graph.experiments[0].tables;
    let table = tables.get(cell.table).ok_or_else(|| {
        let names: Vec<String> = tables.keys().cloned().collect();
        unknown("table", cell.table, "tables", &names)
    })?;
    let (model, metric) = if table.turned { (cell.column, cell.row) } else { (cell.row, cell.column) };
    let row = find_row(table, model)?;
    let mut text = String::new();
    match find_column(table, metric)? {
        TableColumn::Metric(column) => text += &explain(session, looked, cell.file, (row, column))?,
        TableColumn::Mean(mean) => {
            text += &format!("{} of {}: the mean over {} columns\n", plain(&mean.label), row.model, mean.of.len());
            for place in &mean.of {
                if let TableColumn::Metric(column) = &table.columns[*place] {
                    text += &format!("\n{}", explain(session, looked, cell.file, (row, column))?);
                }
            }
        }
    }
    Ok(text)
}

fn find_row<'a>(table: &'a Table, wanted: &str) -> Result<&'a Row, CliError> {
    let is_it = |row: &&Row| row.model == wanted || row.label.as_deref() == Some(wanted);
    table.rows.iter().find(is_it).ok_or_else(|| {
        let names: Vec<String> = table.rows.iter().map(|row| row.model.clone()).collect();
        unknown("row", wanted, "rows", &names)
    })
}

fn find_column<'a>(table: &'a Table, wanted: &str) -> Result<&'a TableColumn, CliError> {
    if let Some(column) = wanted.parse::<usize>().ok().and_then(|number| table.columns.get(number.checked_sub(1)?)) {
        return Ok(column);
    }
    let is_it = |column: &&TableColumn| match column {
        TableColumn::Metric(column) => column.task == wanted || column.label.as_deref() == Some(wanted),
        TableColumn::Mean(mean) => mean.label == wanted,
    };
    let found: Vec<_> = table.columns.iter().filter(is_it).collect();
    match found.as_slice() {
        [column] => Ok(column),
        several => {
            let names: Vec<String> = table.columns.iter().map(|column| heading(table, column)).collect();
            if several.is_empty() {
                return Err(unknown("column", wanted, "columns", &names));
            }
            let places: Vec<String> = (1..).zip(&names).map(|(number, name)| format!("{number} {name}")).collect();
            let message = format!(
                "{} columns are called `{wanted}`; name one by its number: {}",
                several.len(),
                places.join(", ")
            );
            Err(CliError::Usage(message))
        }
    }
}

/// What stands over a column.
fn heading(table: &Table, column: &TableColumn) -> String {
    let (label, at) = match column {
        TableColumn::Metric(column) => (column.label.as_ref().unwrap_or(&column.task), &column.at),
        TableColumn::Mean(mean) => (&mean.label, &mean.at),
    };
    let at = table.across.as_ref().zip(at.as_deref()).map(|(across, at)| format!(" ({})", across.says(at)));
    label.clone() + &at.unwrap_or_default()
}

fn unknown(what: &str, wanted: &str, all: &str, names: &[String]) -> CliError {
    let near = suggestion(nearest(wanted, names).as_deref());
    CliError::Usage(format!("there is no {what} `{wanted}`{near}\nhint: the {all} are {}", listed(names)))
}

/// The figures of a row's models on a task that a column may show.
fn explain(
    session: &Session,
    looked: (&[Outlook], &Facts),
    file: &Path,
    (row, column): (&Row, &Column),
) -> Result<String, CliError> {
    let models = row.models(column.at.as_deref());
    let mut texts = Vec::new();
    if models.len() != 1 {
        let name = plain(&row.model);
        texts.push(match row.replicates.as_deref().filter(|_| !models.is_empty()) {
            Some(key) => format!("{name}: the mean over {} replicates, by {}\n", models.len(), plain(key)),
            None => format!("{name} has no model in this column\n"),
        });
    }
    for model in models {
        let mut text = of_model(session, looked, file, (model, column))?;
        if let Some(other) = &row.elsewhere {
            let (results, file) = (other.kept()[0].display().to_string(), other.file.display());
            text += &format!("  from {results}, results of {file}\n");
        }
        texts.push(text);
    }
    Ok(texts.join("\n"))
}

/// The figures of a model on a task that a column may show.
fn of_model(
    session: &Session,
    (outlooks, facts): (&[Outlook], &Facts),
    file: &Path,
    (model, column): (&str, &Column),
) -> Result<String, CliError> {
    let up_to_date = results::up_to_date(outlooks, facts);
    let shows = |figure: &&Measurement| {
        let filter = column.filter.is_none() || figure.filter == column.filter;
        figure.model == model && figure.task == column.task && figure.metric == column.metric && filter
    };
    let found: Vec<Measurement> = results::with_figures(session, 0, &up_to_date, |inputs| {
        let published = inputs.published.values().flatten();
        Ok(inputs.measured.iter().chain(inputs.others).chain(published).filter(shows).cloned().collect())
    })?;
    let mut text = format!("{} of {model} on {}\n", column.metric, column.task);
    for figure in &found {
        text += &format!("  {}\n", line(figure));
    }
    if found.is_empty() {
        text += "  not measured\n";
    }
    let evaluates = |id: &StageId| {
        let stage = session.graph.stage(*id);
        stage.spec.evaluated() == Some((model, column.task.as_str()))
    };
    let Some(id) = session.graph.iter().map(|(id, _)| id).find(evaluates) else { return Ok(text) };
    text += &stages(session, outlooks, id);
    if outlooks[id.0].state == State::UpToDate {
        let (stage, file) = (&session.graph.stage(id).name, file.display());
        text += &format!("  more: `mergelab show {stage} {file}`, `mergelab samples {stage} {file}`\n");
    }
    if let Some(artifact) = facts.results.get(&id)
        && let Some(manifest) = &outlooks[id.0].manifest
    {
        let metrics = std::fs::read(artifact.location.join("metrics.json")).unwrap_or_default();
        let metrics = serde_json::from_slice(&metrics).unwrap_or_default();
        text += &figures::lines(&artifact.location, manifest, &metrics);
    }
    Ok(text)
}

/// `measured 0.704 ± 0.0126, key 12ab…`, or what was published and by whom.
fn line(figure: &Measurement) -> String {
    let stderr = figure.stderr.map(|stderr| format!(" ± {stderr:.4}")).unwrap_or_default();
    let filter = figure.filter.as_deref().map(|filter| format!(" ({})", plain(filter))).unwrap_or_default();
    let by = figure.citation.as_deref().map(|citation| format!(", {}", plain(citation))).unwrap_or_default();
    let key = figure.key.as_deref().map(|key| format!(", key {key}")).unwrap_or_default();
    format!("{} {}{stderr}{filter}{by}{key}", figure.source, figure.value)
}

/// The stage and everything before it, with their states and digests.
fn stages(session: &Session, outlooks: &[Outlook], last: StageId) -> String {
    let mut before = BTreeSet::new();
    let mut open = vec![last];
    while let Some(id) = open.pop() {
        if before.insert(id) {
            open.extend(session.graph.stage(id).needs.iter().map(|need| need.stage));
        }
    }
    let mut text = String::new();
    for id in before.into_iter().rev() {
        let (stage, outlook) = (session.graph.stage(id), &outlooks[id.0]);
        let digest = outlook.manifest.as_ref().filter(|_| outlook.state == State::UpToDate);
        let digest =
            digest.map(|manifest| format!(" {}, made {}", manifest.digest, manifest.ended)).unwrap_or_default();
        let word = if id == last { "from" } else { "rests on" };
        text += &format!("  {word} {}{digest}\n", stage.name);
    }
    text
}
