//! From an experiment's table and the figures to a [`Grid`].
//!
//! Columns that show a metric are in [`super::filled`], those that show a mean in [`super::mean`], and what tests say in
//! [`super::marks`]. This is where they become one table.

use std::collections::BTreeMap;

use indexmap::IndexSet;

use super::Errors;
use super::alike;
use super::filled::{Figures, Filled, Ranks};
use super::grid::{Cell, Grid, Heading};
use super::marks::{self, Tests};
use super::mean::Averaged;
use super::nearest::{listed, suggestion};
use super::replicates;
use super::text::plain;
use crate::experiment::{Column, Mean, Row, Table, TableColumn};
use crate::stats::SIGNIFICANCE;

/// Why there is no measurement, by (model, task), where more is known than "not measured". For output that must not
/// change between runs, only reasons that follow from the experiment file belong here.
pub type Absent = BTreeMap<(String, String), String>;

/// A column that the figures cannot fill.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("table `{table}`: {column}: {problem}")]
pub struct TableError {
    /// The table.
    pub table: String,
    /// The column: its metric and task, or its label.
    pub column: String,
    /// What is wrong.
    pub problem: ColumnProblem,
}

/// The ways in which a column can fail.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ColumnProblem {
    /// The task was measured, but has no such metric.
    #[error("the task has no such metric; it has {}{}", listed(available), suggestion(nearest.as_deref()))]
    UnknownMetric {
        /// What the task has.
        available: Vec<String>,
        /// The nearest of them.
        nearest: Option<String>,
    },
    /// The metric exists, but not under this filter.
    #[error("there is no filter `{filter}`; there are {}{}", listed(available), suggestion(nearest.as_deref()))]
    UnknownFilter {
        /// What the column asks for.
        filter: String,
        /// What the metric has.
        available: Vec<String>,
        /// The nearest of them.
        nearest: Option<String>,
    },
    /// The column names no filter, and there are several.
    #[error("there are several filters, {}; name one with `filter:`", listed(available))]
    SeveralFilters {
        /// What the metric has.
        available: Vec<String>,
    },
    /// A published value of a rate that is no rate.
    #[error(
        "the published value for model `{model}` is {value:?}, but a rate is in [0, 1]; write 0.704 for 70.4 per cent, \
         or give the column its `scale:`"
    )]
    NotARate {
        /// The model.
        model: String,
        /// The value.
        value: f64,
    },
    /// A value that the column's scale takes out of the range of numbers.
    #[error("the value for model `{model}` is {value:?}, which times {scale:?} is no finite number")]
    NotFinite {
        /// The model.
        model: String,
        /// The value.
        value: f64,
        /// The scale.
        scale: f64,
    },
    /// A mean of values of which some are better when they are more, and some when they are less.
    #[error(
        "in one of the columns `{}` and `{}` more is better, in the other less; name columns of one kind under `of:`, or \
         use `mean: normalized`",
        columns[0], columns[1]
    )]
    MixedDirections {
        /// Labels of two columns.
        columns: [String; 2],
    },
    /// A mean of values on two scales.
    #[error(
        "the columns `{}` and `{}` are shown times {:?} and {:?}; name columns of one scale under `of:`, or use \
         `mean: normalized`",
        columns[0], columns[1], scales[0], scales[1]
    )]
    MixedScales {
        /// Labels of two columns.
        columns: [String; 2],
        /// What their values are multiplied by.
        scales: [f64; 2],
    },
    /// A share of a specialist's value of which nobody says whether it is to be more or less.
    #[error("nobody says which way is better in the column `{column}`, so it has no share of its specialist's value")]
    NoDirection {
        /// Label of the column.
        column: String,
    },
}

/// The columns of a table that show a metric, one entry a column.
///
/// # Errors
/// Every column that cannot be filled, see [`TableError`].
pub(super) fn fill<'a>(
    name: &str,
    table: &'a Table,
    figures: &Figures<'a>,
) -> Result<Vec<Option<Filled<'a>>>, Errors<TableError>> {
    let mut errors = Vec::new();
    let mut columns = Vec::new();
    for column in &table.columns {
        columns.push(match column {
            TableColumn::Mean(_) => None,
            TableColumn::Metric(column) => match Filled::of(column, table, figures) {
                Ok(filled) => Some(filled),
                Err(problem) => {
                    let column = format!("`{}` of task `{}`", column.metric, column.task);
                    errors.push(TableError { table: name.to_owned(), column, problem });
                    None
                }
            },
        });
    }
    Errors::unless_any(errors, columns)
}

/// Builds a table from its columns and what tests say of them, both with one entry a column.
///
/// # Errors
/// Every mean that there cannot be, see [`TableError`].
pub(super) fn build<'a>(
    name: &str,
    table: &'a Table,
    columns: &[Option<Filled<'a>>],
    tests: &[Tests<'_>],
    figures: &Figures<'a>,
) -> Result<Grid, Errors<TableError>> {
    let mut errors = Vec::new();
    let (mut origins, mut reasons) = (IndexSet::new(), IndexSet::new());
    let (mut shown, mut headings) = (Vec::new(), Vec::new());
    for ((column, filled), tests) in table.columns.iter().zip(columns).zip(tests) {
        match (column, filled) {
            (TableColumn::Metric(column), Some(filled)) => {
                let heading = Head::of(column).heading(table);
                let beside = (table.comparison && filled.is_compared()).then(|| Heading {
                    label: format!("{} minus published", filled.label()),
                    note: heading.note.clone(),
                    link: None,
                    compares: true,
                });
                headings.push(heading);
                shown.push((Shown::Metric(filled, tests), filled.ranks()));
                if let Some(beside) = beside {
                    headings.push(beside);
                    shown.push((Shown::Comparison(filled), None));
                }
            }
            (TableColumn::Metric(_), None) => {}
            (TableColumn::Mean(mean), _) => match Averaged::of(mean, columns, table, figures) {
                Ok(averaged) => {
                    let ranks = averaged.ranks();
                    headings.push(Head::of_mean(mean).heading(table));
                    shown.push((Shown::Mean(averaged), ranks));
                }
                Err(problem) => {
                    let column = format!("`{}`", mean.label);
                    errors.push(TableError { table: name.to_owned(), column, problem });
                }
            },
        }
    }
    let mut cell = |row: usize, column: usize| {
        let (column, ranks) = &shown[column];
        let mut cell = match column {
            Shown::Metric(filled, tests) => {
                filled.cell(row, &table.rows[row], tests, figures, &mut origins, &mut reasons)
            }
            Shown::Mean(averaged) => averaged.cell(row, &mut reasons),
            Shown::Comparison(filled) => filled.comparison(row, &mut reasons),
        };
        if let (Cell::Measured { figure, best, second, .. }, Some(ranks)) = (&mut cell, ranks) {
            *best |= figure.value == ranks.best;
            *second = table.second && ranks.second.as_ref() == Some(&figure.value);
        }
        cell
    };
    let (all_rows, all_columns) = (0..table.rows.len(), 0..shown.len());
    // In the order of reading, in which marks are given out.
    let cells: Vec<Vec<Cell>> = if table.turned {
        let mut columns: Vec<_> = all_columns
            .map(|column| all_rows.clone().map(|row| cell(row, column)).collect::<Vec<_>>().into_iter())
            .collect();
        all_rows.map(|_| columns.iter_mut().filter_map(Iterator::next).collect()).collect()
    } else {
        all_rows.map(|row| all_columns.clone().map(|column| cell(row, column)).collect()).collect()
    };
    let line = |(row, cells): (&Row, Vec<Cell>)| {
        let label = plain(row.label.as_ref().unwrap_or(&row.model));
        Heading { label, note: None, link: row.link.clone(), compares: false }.line(cells)
    };
    let rows = table.rows.iter().zip(cells).map(line).collect();
    let (origins, reasons) = (origins.into_iter().collect(), reasons.into_iter().collect());
    let grid = Grid {
        name: name.to_owned(),
        columns: headings,
        rows,
        origins,
        reasons,
        bold: table.bold,
        turned: false,
        remarks: remarks(table, &shown, figures),
    };
    Errors::unless_any(errors, if table.turned { grid.turn() } else { grid })
}

/// A column, ready to give its cells.
enum Shown<'a> {
    Metric(&'a Filled<'a>, &'a Tests<'a>),
    Mean(Averaged<'a>),
    Comparison(&'a Filled<'a>),
}

/// What is said over a column.
struct Head<'a> {
    label: &'a str,
    unit: Option<&'a str>,
    note: Option<&'a str>,
    link: Option<&'a str>,
    at: Option<&'a str>,
}

impl<'a> Head<'a> {
    fn of(column: &'a Column) -> Self {
        let Column { task, label, unit, note, link, at, .. } = column;
        let label = label.as_ref().unwrap_or(task);
        Self { label, unit: unit.as_deref(), note: note.as_deref(), link: link.as_deref(), at: at.as_deref() }
    }

    fn of_mean(mean: &'a Mean) -> Self {
        let Mean { label, unit, note, at, .. } = mean;
        Self { label, unit: unit.as_deref(), note: note.as_deref(), link: None, at: at.as_deref() }
    }

    fn heading(&self, table: &Table) -> Heading {
        let at = table.across.as_ref().zip(self.at).map(|(across, at)| plain(&across.says(at)));
        let note = self.note.map(plain).filter(|note| !note.is_empty());
        let notes: Vec<String> = at.into_iter().chain(note).collect();
        let unit = self.unit.map(|unit| format!(" ({})", plain(unit))).unwrap_or_default();
        Heading {
            label: plain(self.label) + &unit,
            note: (!notes.is_empty()).then(|| notes.join("; ")),
            link: self.link.map(str::to_owned),
            compares: false,
        }
    }
}

impl<'a> Shown<'a> {
    /// The column, if it shows a metric.
    fn filled(&self) -> Option<&'a Filled<'a>> {
        match self {
            Self::Metric(filled, _) => Some(filled),
            Self::Mean(_) | Self::Comparison(_) => None,
        }
    }
}

/// What stands under a table about its tests and means.
fn remarks(table: &Table, shown: &[(Shown<'_>, Option<Ranks>)], figures: &Figures<'_>) -> Vec<(String, String)> {
    let mut remarks = Vec::new();
    let (mut count, mut untested) = (0, Vec::new());
    for (column, _) in shown {
        match column {
            Shown::Metric(filled, tests) => {
                count += tests.count();
                if table.is_tested() {
                    untested.extend(tests.untested(table, filled, figures));
                }
            }
            Shown::Mean(averaged) if table.is_tested() => {
                untested.push(format!("{} (a mean)", plain(&averaged.mean.label)));
            }
            Shown::Mean(_) | Shown::Comparison(_) => {}
        }
    }
    if let Some(baseline) = table.baseline.as_deref().filter(|_| count > 0) {
        let (name, s) = (marks::name(table, baseline), if count == 1 { "" } else { "s" });
        let text = format!(
            "better, worse than {name} (paired test on the same documents, p < {SIGNIFICANCE}); {count} comparison{s}: of \
             twenty between equal models, one is below that"
        );
        remarks.push(("↑ ↓:".to_owned(), text));
    }
    if !untested.is_empty() {
        remarks.push(("Not tested:".to_owned(), untested.join("; ")));
    }
    let filled = || shown.iter().filter_map(|(column, _)| column.filled());
    remarks.extend(replicates::remarks(table, filled()));
    remarks.extend(alike::remark(table, filled()));
    for (column, _) in shown {
        if let Shown::Mean(averaged) = column {
            let remark = (format!("{}:", plain(&averaged.mean.label)), averaged.remark.clone());
            // One mean at several values of what stands across is over columns of one name.
            if !remarks.contains(&remark) {
                remarks.push(remark);
            }
        }
    }
    remarks
}
