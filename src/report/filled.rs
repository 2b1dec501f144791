//! A column that shows a metric, with the figures of its rows.
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

use indexmap::IndexSet;

use super::grid::{Cell, Figure, Origin, Published};
use super::marks::Tests;
use super::measurement::Measurement;
use super::metric;
use super::nearest::nearest;
use super::select::Index;
use super::table::{Absent, ColumnProblem};
use super::text::plain;
use crate::experiment::{Column, Notation, Row};

/// Digits after the point where a column gives none.
const DIGITS: usize = 2;

/// More digits than an `f64` has would be noise.
const MOST_DIGITS: usize = 17;

/// What tables are filled from.
pub(super) struct Figures<'a> {
    /// Measured here.
    pub(super) measured: &'a Index<'a>,
    /// Published by others.
    pub(super) published: &'a Index<'a>,
    /// Why figures are missing.
    pub(super) absent: &'a Absent,
}

/// What there is for one row of a column.
#[derive(Clone, Copy)]
struct Found<'a> {
    measured: Option<&'a Measurement>,
    published: Option<&'a Measurement>,
}

/// The figures of a column, one entry a row.
fn find<'a>(column: &Column, filter: Option<&str>, rows: &[Row], figures: &Figures<'a>) -> Vec<Found<'a>> {
    let (task, metric) = (column.task.as_str(), column.metric.as_str());
    let found = rows.iter().map(|Row { model, .. }| Found {
        measured: figures.measured.get(model, task, metric, filter),
        // An empty filter of a published figure is "not stated" and stands beside any.
        published: figures
            .published
            .get(model, task, metric, filter)
            .or_else(|| figures.published.get(model, task, metric, None)),
    });
    found.collect()
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
pub(super) struct Filled<'a> {
    pub(super) column: &'a Column,
    found: Vec<Found<'a>>,
    filter: Option<&'a str>,
    /// What values are multiplied by.
    pub(super) scale: f64,
    /// Whether more is better, where somebody says so.
    pub(super) higher: Option<bool>,
}

impl<'a> Filled<'a> {
    /// Fills a column.
    ///
    /// # Errors
    /// When the figures do not fit it.
    pub(super) fn of(column: &'a Column, rows: &[Row], figures: &Figures<'a>) -> Result<Self, ColumnProblem> {
        let filter = filter(column, figures)?;
        let found = find(column, filter, rows, figures);
        let scale = scale(column, &found, rows)?;
        let said = found.iter().filter_map(|found| found.measured).find_map(|figure| figure.higher_is_better);
        let higher = said.or_else(|| metric::higher_is_better(&column.metric));
        Ok(Self { column, found, filter, scale, higher })
    }

    /// The column's heading.
    pub(super) fn label(&self) -> String {
        plain(self.column.label.as_ref().unwrap_or(&self.column.task))
    }

    /// The measured figure of a row.
    pub(super) fn measured(&self, row: usize) -> Option<&'a Measurement> {
        self.found[row].measured
    }

    /// Whether any row has a measured figure.
    pub(super) fn is_measured(&self) -> bool {
        self.found.iter().any(|found| found.measured.is_some())
    }

    /// The measured figure of any model.
    pub(super) fn measured_of(&self, model: &str, figures: &Figures<'a>) -> Option<&'a Measurement> {
        figures.measured.get(model, &self.column.task, &self.column.metric, self.filter)
    }

    /// The best measured figure, if it has others beside it; the first of several.
    pub(super) fn best_figure(&self) -> Option<&'a Measurement> {
        let higher = self.higher?;
        let measured: Vec<&Measurement> = self.found.iter().filter_map(|found| found.measured).collect();
        // The last of equal ones is taken, so that from the back it is the first.
        let best = measured.iter().rev().copied().max_by(|one, other| {
            let order = one.value.total_cmp(&other.value);
            if higher { order } else { order.reverse() }
        });
        best.filter(|_| measured.len() > 1)
    }

    /// How the best measured values print; `None` if nothing competes.
    pub(super) fn ranks(&self) -> Option<Ranks> {
        let measured = self.found.iter().filter_map(|found| found.measured);
        Ranks::of(measured.map(|figure| (figure.value, self.print(figure.value * self.scale))), self.higher)
    }

    /// The cell of a row.
    pub(super) fn cell(
        &self,
        row: usize,
        Row { model, .. }: &Row,
        tests: &Tests<'_>,
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
                let shots =
                    published.and_then(|published| published.n_shot.filter(|_| other_shots(measured, published)));
                let difference = published.and_then(|published| difference(measured, published));
                let beside = published.map(|published| quote(published, shots));
                let (best, against) = (tests.is_not_worse(model), tests.against(model));
                Cell::Measured { figure, best, second: false, against, beside, difference }
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
        print(number, self.column.digits, self.column.notation)
    }
}

/// A number as a table shows it, with so many digits after the point.
pub(super) fn print(number: f64, digits: Option<usize>, notation: Notation) -> String {
    let digits = digits.unwrap_or(DIGITS).min(MOST_DIGITS);
    // From here on a fixed point would print digits that the number does not have.
    if notation == Notation::Scientific || number.abs() >= 1e15 {
        format!("{number:.digits$e}")
    } else {
        unsigned_zero(format!("{number:.digits$}"))
    }
}

/// How the best values of a column print.
pub(super) struct Ranks {
    /// The best of all.
    pub(super) best: String,
    /// The best of those that print otherwise.
    pub(super) second: Option<String>,
}

impl Ranks {
    /// Of values with what they print; `None` if nothing competes, or nobody says which way is better.
    pub(super) fn of(values: impl Iterator<Item = (f64, String)>, higher: Option<bool>) -> Option<Self> {
        let higher = higher?;
        let mut values: Vec<_> = values.collect();
        if values.len() < 2 {
            return None;
        }
        values.sort_by(|(one, _), (other, _)| if higher { other.total_cmp(one) } else { one.total_cmp(other) });
        let mut printed = values.into_iter().map(|(_, printed)| printed);
        let best = printed.next()?;
        let second = printed.find(|printed| *printed != best);
        Some(Self { best, second })
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
