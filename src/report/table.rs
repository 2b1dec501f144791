//! From an experiment's table and the figures to a [`Grid`].
//!
//! - **Which figure.** A column names task, metric and filter (`""` for none); without it, it means the one that the task
//!   has for that metric. What was measured anywhere in the experiment says what a task has; where nothing was, the published
//!   figures do.
//! - **Scale.** The column's own, else 100 for rates. A column holds rates if its metric has the name of one
//!   ([`metric::is_rate`]) and all its measured values are in [0, 1]; a published value outside [0, 1] is then an error,
//!   unless the column gives its scale and nothing was measured.
//! - **Best.** Among at least two measured values, those that print like the best one. Published values do not compete,
//!   and where nobody says which way is better, nothing is the best.
//! - **Both.** A figure that was measured and published shows the measured one, the published one beside it, and how far
//!   they are apart in standard errors: `(m - p) / √(sₘ² + sₚ²)`, an unknown `sₚ` counting as 0. Without `sₘ`, with
//!   `sₘ = 0`, or between different numbers of shots, there is no such number.

use std::collections::BTreeMap;

use indexmap::IndexSet;

use super::Errors;
use super::grid::{Cell, Figure, Grid, Heading, Line, Origin, Published};
use super::measurement::Measurement;
use super::metric;
use super::nearest::{listed, nearest, suggestion};
use super::select::Index;
use super::text::plain;
use crate::experiment::{Column, Row, Table};

/// Digits after the point where a column gives none.
const DIGITS: usize = 2;

/// More digits than an `f64` has would be noise.
const MOST_DIGITS: usize = 17;

/// Why there is no measurement, by (model, task), where more is known than "not measured". For output that must not
/// change between runs, only reasons that follow from the experiment file belong here.
pub type Absent = BTreeMap<(String, String), String>;

/// A column that the figures cannot fill.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("table `{table}`: `{metric}` of task `{task}`: {problem}")]
pub struct TableError {
    /// The table.
    pub table: String,
    /// The column's task.
    pub task: String,
    /// The column's metric.
    pub metric: String,
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
}

/// What tables are filled from.
pub(super) struct Figures<'a> {
    /// Measured here.
    pub(super) measured: &'a Index<'a>,
    /// Published by others.
    pub(super) published: &'a Index<'a>,
    /// Why figures are missing.
    pub(super) absent: &'a Absent,
}

/// Fills a table.
///
/// # Errors
/// Every column that cannot be filled, see [`TableError`].
pub(super) fn build(name: &str, table: &Table, figures: &Figures<'_>) -> Result<Grid, Errors<TableError>> {
    let mut errors = Vec::new();
    let (mut origins, mut reasons) = (IndexSet::new(), IndexSet::new());
    let mut columns = Vec::new();
    for column in &table.columns {
        match Filled::of(column, &table.rows, figures) {
            Ok(filled) => columns.push(filled),
            Err(problem) => {
                let (table, task, metric) = (name.to_owned(), column.task.clone(), column.metric.clone());
                errors.push(TableError { table, task, metric, problem });
            }
        }
    }
    let best: Vec<Option<String>> = columns.iter().map(Filled::best).collect();
    // Row by row, so that marks are given out in reading order.
    let rows = table.rows.iter().enumerate().map(|(i, row)| Line {
        label: plain(row.label.as_ref().unwrap_or(&row.model)),
        cells: columns
            .iter()
            .zip(&best)
            .map(|(filled, best)| filled.cell(i, row, best.as_deref(), figures, &mut origins, &mut reasons))
            .collect(),
    });
    let rows = rows.collect();
    let columns = table.columns.iter().map(|column| Heading {
        label: plain(column.label.as_ref().unwrap_or(&column.task)),
        note: column.note.as_deref().map(plain).filter(|note| !note.is_empty()),
    });
    let (origins, reasons) = (origins.into_iter().collect(), reasons.into_iter().collect());
    let grid = Grid { name: name.to_owned(), columns: columns.collect(), rows, origins, reasons };
    Errors::unless_any(errors, grid)
}

/// What there is for one row of a column.
#[derive(Clone, Copy)]
struct Found<'a> {
    measured: Option<&'a Measurement>,
    published: Option<&'a Measurement>,
}

/// The figures of a column, one entry a row.
fn find<'a>(column: &Column, rows: &[Row], figures: &Figures<'a>) -> Result<Vec<Found<'a>>, ColumnProblem> {
    let filter = filter(column, figures)?;
    let (task, metric) = (column.task.as_str(), column.metric.as_str());
    let found = rows.iter().map(|Row { model, .. }| Found {
        measured: figures.measured.get(model, task, metric, filter),
        // An empty filter of a published figure is "not stated" and stands beside any.
        published: figures
            .published
            .get(model, task, metric, filter)
            .or_else(|| figures.published.get(model, task, metric, None)),
    });
    Ok(found.collect())
}

/// The filter that a column means.
fn filter<'c>(column: &'c Column, figures: &Figures<'c>) -> Result<Option<&'c str>, ColumnProblem> {
    if let Some(metrics) = figures.measured.task(&column.task) {
        let Some(filters) = metrics.get(column.metric.as_str()) else {
            let available: Vec<String> = metrics.keys().map(ToString::to_string).collect();
            let nearest = nearest(&column.metric, &available);
            return Err(ColumnProblem::UnknownMetric { available, nearest });
        };
        let available = || filters.iter().map(|filter| filter.unwrap_or("").to_owned()).collect::<Vec<_>>();
        return match column.filter.as_deref() {
            Some("") if filters.contains(&None) => Ok(None),
            Some(filter) if filters.contains(&Some(filter)) => Ok(Some(filter)),
            Some(filter) => {
                let (available, filter) = (available(), filter.to_owned());
                let nearest = nearest(&filter, &available);
                Err(ColumnProblem::UnknownFilter { filter, available, nearest })
            }
            None if filters.len() == 1 => Ok(filters[0]),
            None => Err(ColumnProblem::SeveralFilters { available: available() }),
        };
    }
    if column.filter.is_some() {
        return Ok(column.filter.as_deref().filter(|filter| !filter.is_empty()));
    }
    let published = figures.published.task(&column.task).and_then(|metrics| metrics.get(column.metric.as_str()));
    let stated: Vec<&str> = published.into_iter().flatten().filter_map(|filter| *filter).collect();
    match stated[..] {
        [] => Ok(None),
        [filter] => Ok(Some(filter)),
        _ => Err(ColumnProblem::SeveralFilters { available: stated.into_iter().map(str::to_owned).collect() }),
    }
}

/// The scale of a column, if all its values can be shown under it.
fn scale(column: &Column, found: &[Found<'_>], rows: &[Row]) -> Result<f64, ColumnProblem> {
    let in_range = |figure: &Measurement| (0.0..=1.0).contains(&figure.value);
    let rates = metric::is_rate(&column.metric) && found.iter().filter_map(|found| found.measured).all(in_range);
    let scale = column.scale.unwrap_or(if rates { 100.0 } else { 1.0 });
    let held_to_rates = rates && (column.scale.is_none() || found.iter().any(|found| found.measured.is_some()));
    for (Row { model, .. }, found) in rows.iter().zip(found) {
        if let Some(figure) = found.published.filter(|figure| held_to_rates && !in_range(figure)) {
            return Err(ColumnProblem::NotARate { model: model.clone(), value: figure.value });
        }
        let numbers = [found.measured, found.published].into_iter().flatten();
        let mut numbers = numbers.flat_map(|figure| [Some(figure.value), figure.stderr]).flatten();
        if let Some(value) = numbers.find(|value| !(value * scale).is_finite()) {
            return Err(ColumnProblem::NotFinite { model: model.clone(), value, scale });
        }
    }
    Ok(scale)
}

/// A column with what was found for it.
struct Filled<'a> {
    column: &'a Column,
    found: Vec<Found<'a>>,
    scale: f64,
}

impl<'a> Filled<'a> {
    fn of(column: &'a Column, rows: &[Row], figures: &Figures<'a>) -> Result<Self, ColumnProblem> {
        let found = find(column, rows, figures)?;
        let scale = scale(column, &found, rows)?;
        Ok(Self { column, found, scale })
    }

    /// How the best measured value prints; `None` if nothing competes.
    fn best(&self) -> Option<String> {
        let measured: Vec<&Measurement> = self.found.iter().filter_map(|found| found.measured).collect();
        let higher = measured
            .iter()
            .find_map(|figure| figure.higher_is_better)
            .or_else(|| metric::higher_is_better(&self.column.metric))?;
        let values = measured.iter().map(|figure| figure.value);
        let best = if higher { values.max_by(f64::total_cmp) } else { values.min_by(f64::total_cmp) }?;
        (measured.len() > 1).then(|| self.print(best * self.scale))
    }

    fn cell(
        &self,
        row: usize,
        Row { model, .. }: &Row,
        best: Option<&str>,
        figures: &Figures<'_>,
        origins: &mut IndexSet<Origin>,
        reasons: &mut IndexSet<String>,
    ) -> Cell {
        let Found { measured, published } = self.found[row];
        let mut quote = |published: &Measurement, shots| {
            let citation = plain(published.citation.as_deref().unwrap_or("no source given"));
            let origin = Origin { citation, note: published.note.as_deref().map(plain), shots };
            Published { figure: self.figure(published), origin: origins.insert_full(origin).0 }
        };
        match (measured, published) {
            (Some(measured), published) => {
                let figure = self.figure(measured);
                let best = best == Some(&figure.value);
                let shots =
                    published.and_then(|published| published.n_shot.filter(|_| other_shots(measured, published)));
                let difference = published.and_then(|published| difference(measured, published));
                let beside = published.map(|published| quote(published, shots));
                Cell::Measured { figure, best, beside, difference }
            }
            (None, Some(published)) => Cell::Published(quote(published, None)),
            (None, None) => {
                let task = &self.column.task;
                let reason = if figures.measured.has(model, task) {
                    "the evaluation did not give this figure".to_owned()
                } else {
                    let known = figures.absent.get(&(model.clone(), task.clone()));
                    known.map_or_else(|| "not measured".to_owned(), |reason| plain(reason))
                };
                Cell::Missing(reasons.insert_full(reason).0)
            }
        }
    }

    fn figure(&self, figure: &Measurement) -> Figure {
        Figure {
            value: self.print(figure.value * self.scale),
            stderr: figure.stderr.map(|stderr| self.print((stderr * self.scale).abs())),
        }
    }

    fn print(&self, number: f64) -> String {
        let digits = self.column.digits.unwrap_or(DIGITS).min(MOST_DIGITS);
        // From here on a fixed point would print digits that the number does not have.
        if number.abs() >= 1e15 { format!("{number:.digits$e}") } else { unsigned_zero(format!("{number:.digits$}")) }
    }
}

fn other_shots(measured: &Measurement, published: &Measurement) -> bool {
    measured.n_shot.zip(published.n_shot).is_some_and(|(ours, theirs)| ours != theirs)
}

/// Measured minus published in standard errors of the difference, with sign, to one digit.
fn difference(measured: &Measurement, published: &Measurement) -> Option<String> {
    let stderr = measured.stderr.filter(|stderr| *stderr > 0.0 && !other_shots(measured, published))?;
    let difference = (measured.value - published.value) / stderr.hypot(published.stderr.unwrap_or(0.0));
    difference.is_finite().then(|| match unsigned_zero(format!("{difference:.1}")) {
        number if number.starts_with('-') || number == "0.0" => number,
        number => format!("+{number}"),
    })
}

/// `-0.00` as `0.00`.
fn unsigned_zero(number: String) -> String {
    match number.strip_prefix('-') {
        Some(rest) if rest.bytes().all(|byte| matches!(byte, b'0' | b'.')) => rest.to_owned(),
        _ => number,
    }
}
