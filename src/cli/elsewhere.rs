//! Figures of other experiments, for tables that show models of them.
//!
//! They come from what `results/` keeps. Where the other experiment's file and the store say today that a figure there is of
//! another evaluation than the file asks for, it is refused: the table would show a model that nobody describes any more.

use std::collections::HashSet;

use super::CliError;
use super::session::Session;
use super::status::look;
use crate::exec::State;
use crate::experiment::{Elsewhere, Section, Table};
use crate::plan::Spec;
use crate::report::{self, Measurement};

/// The figures of the other experiments that the tables of one show models of.
pub(super) fn figures(session: &Session, index: usize) -> Result<Vec<Measurement>, CliError> {
    let tables = &session.graph.experiments[index].tables;
    let figures = report::files::others(&session.project.root, tables)?;
    let mut others: Vec<&Elsewhere> = Vec::new();
    for other in tables.values().flat_map(Table::others) {
        if !others.contains(&other) {
            check(session, tables, other, &figures)?;
            others.push(other);
        }
    }
    Ok(figures)
}

/// Refuses, before anything runs, wanted tables whose other experiments have no results, or old ones.
pub(super) fn check_wanted(session: &Session, wanted: &[bool]) -> Result<(), CliError> {
    let tables = session.graph.iter().filter(|(id, _)| wanted[id.0]);
    let with_others = tables.filter(|(_, stage)| match &stage.spec {
        Spec::Table { table, .. } => !table.others().is_empty(),
        _ => false,
    });
    let experiments: HashSet<usize> = with_others.map(|(_, stage)| stage.experiment).collect();
    (0..session.graph.experiments.len())
        .filter(|index| experiments.contains(index))
        .try_for_each(|index| figures(session, index).map(|_| ()))
}

/// Holds what is kept of one experiment against its file as it is now, as far as tables show it.
fn check(
    session: &Session,
    tables: &Section<Table>,
    other: &Elsewhere,
    figures: &[Measurement],
) -> Result<(), CliError> {
    let shown: HashSet<(&str, &str)> = tables.values().flat_map(cells).collect();
    let theirs = Session::open(&[session.project.root.join(&other.file)])?;
    let (outlooks, _) = look(&theirs)?;
    for (id, stage) in theirs.graph.iter() {
        let outlook = &outlooks[id.0];
        let (Some((model, task)), Some(key)) = (stage.spec.evaluated(), &outlook.key) else { continue };
        let outside = other.outside(model);
        if !shown.contains(&(outside.as_str(), task)) {
            continue;
        }
        let key = key.to_string();
        let kept = figures.iter().find(|figure| figure.model == outside && figure.task == task);
        let kept = kept.map(|figure| figure.key.as_deref().unwrap_or("none"));
        let is_made = outlook.state == State::UpToDate;
        let what = match kept {
            Some(kept) if kept == key => continue,
            Some(kept) => format!(
                "`{model}` on `{task}` is of another evaluation than {} asks for: its key is {kept}, not {key}",
                other.file.display()
            ),
            // What was not measured is shown as such.
            None if !is_made => continue,
            None => format!("`{model}` on `{task}` was evaluated, but is not there"),
        };
        let results = &other.kept()[0];
        let word = if is_made { "render" } else { "run" };
        return Err(CliError::Source {
            message: format!("{}: {what}", results.display()),
            hint: Some(format!("`mergelab {word} {}` writes it anew", other.file.display())),
        });
    }
    Ok(())
}

/// The models and tasks that a table shows.
fn cells(table: &Table) -> impl Iterator<Item = (&str, &str)> {
    table.metrics().flat_map(|column| table.models(column).map(|model| (model, column.task.as_str())))
}
