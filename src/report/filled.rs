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

use std::collections::HashSet;

use indexmap::IndexSet;

use super::grid::{Cell, Compared, FAR, Figure, Origin, Published};
use super::marks::Tests;
use super::measurement::Measurement;
use super::metric;
use super::nearest::nearest;
use super::score::Score;
use super::select::Index;
use super::table::{Absent, ColumnProblem};
use super::text::plain;
use crate::experiment::{Column, Notation, Row, Table};

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
    /// The measured figure of the one model of this experiment that stands there; none of replicates.
    one: Option<&'a Measurement>,
    /// The measured figure, or that over replicates.
    score: Option<Score>,
    /// Examples in the prompt of what was measured, and documents.
    n_shot: Option<u64>,
    n_samples: Option<u64>,
    /// Whether more is better, as the evaluation says.
    higher_is_better: Option<bool>,
    published: Option<&'a Measurement>,
}

/// The figures of a column, one entry a row.
fn find<'a>(column: &Column, filter: Option<&str>, rows: &[Row], figures: &Figures<'a>) -> Vec<Found<'a>> {
    let (task, metric) = (column.task.as_str(), column.metric.as_str());
    let found = rows.iter().map(|row| {
        let models = row.models(column.at.as_deref());
        let measured: Vec<&Measurement> =
            models.iter().filter_map(|model| figures.measured.get(model, task, metric, filter)).collect();
        let first = measured.first().copied();
        let single = first.filter(|_| row.replicates.is_none());
        let values: Vec<f64> = measured.iter().map(|figure| figure.value).collect();
        // A figure that others published of replicates is one of their mean, under the name of the row.
        let name = if row.replicates.is_some() { Some(row.model.as_str()) } else { models.first().copied() };
        // An empty filter of a published figure is "not stated" and stands beside any.
        let published = name.filter(|_| !models.is_empty()).and_then(|name| {
            let with = |filter| figures.published.get(name, task, metric, filter);
            with(filter).or_else(|| with(None))
        });
        Found {
            one: single.filter(|_| row.elsewhere.is_none()),
            score: single.map(Score::of).or_else(|| Score::over(&values)),
            n_shot: first.and_then(|figure| figure.n_shot),
            n_samples: first.and_then(|figure| figure.n_samples),
            higher_is_better: first.and_then(|figure| figure.higher_is_better),
            published,
        }
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
    let in_range = |value: f64| (0.0..=1.0).contains(&value);
    let measured = || found.iter().filter_map(|found| found.score);
    let rates = metric::is_rate(&column.metric) && measured().all(|score| in_range(score.value));
    let scale = column.scale.unwrap_or(if rates { 100.0 } else { 1.0 });
    let held_to_rates = rates && (column.scale.is_none() || measured().next().is_some());
    for (Row { model, .. }, found) in rows.iter().zip(found) {
        if let Some(figure) = found.published.filter(|figure| held_to_rates && !in_range(figure.value)) {
            return Err(ColumnProblem::NotARate { model: model.clone(), value: figure.value });
        }
        let measured = found.score.map(|score| [Some(score.value), score.spread]);
        let published = found.published.map(|figure| [Some(figure.value), figure.stderr]);
        let mut numbers = [measured, published].into_iter().flatten().flatten().flatten();
        if let Some(value) = numbers.find(|value| !(value * scale).is_finite()) {
            return Err(ColumnProblem::NotFinite { model: model.clone(), value, scale });
        }
    }
    Ok(scale)
}

/// A column with what was found for it.
pub(super) struct Filled<'a> {
    pub(super) column: &'a Column,
    table: &'a Table,
    found: Vec<Found<'a>>,
    /// The models of its rows that were measured.
    measured: HashSet<&'a str>,
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
    pub(super) fn of(column: &'a Column, table: &'a Table, figures: &Figures<'a>) -> Result<Self, ColumnProblem> {
        let rows = &table.rows;
        let filter = filter(column, figures)?;
        let found = find(column, filter, rows, figures);
        let scale = scale(column, &found, rows)?;
        let said = found.iter().find_map(|found| found.higher_is_better);
        let higher = said.or_else(|| metric::higher_is_better(&column.metric));
        let (task, metric, at) = (&column.task, &column.metric, column.at.as_deref());
        let models = rows.iter().flat_map(|row| row.models(at));
        let measured = models.filter_map(|model| figures.measured.get(model, task, metric, filter));
        let measured = measured.map(|figure| figure.model.as_str()).collect();
        Ok(Self { column, table, found, measured, filter, scale, higher })
    }

    /// The column's heading.
    pub(super) fn label(&self) -> String {
        plain(self.column.label.as_ref().unwrap_or(&self.column.task))
    }

    /// The shots and documents of what was measured for a row.
    pub(super) fn conditions(&self, row: usize) -> Option<[Option<u64>; 2]> {
        let found = &self.found[row];
        found.score.map(|_| [found.n_shot, found.n_samples])
    }

    /// The measured figure of a row that is one model of this experiment.
    pub(super) fn measured(&self, row: usize) -> Option<&'a Measurement> {
        self.found[row].one
    }

    /// How many replicates of a row were measured, where it is one of replicates.
    pub(super) fn replicates(&self, row: usize) -> Option<usize> {
        self.found[row].score?.replicates
    }

    /// Whether a model of any row was measured.
    pub(super) fn has(&self, model: &str) -> bool {
        self.measured.contains(model)
    }

    /// Whether any row has a measured figure.
    pub(super) fn is_measured(&self) -> bool {
        self.found.iter().any(|found| found.score.is_some())
    }

    /// The measured figure of any model.
    pub(super) fn measured_of(&self, model: &str, figures: &Figures<'a>) -> Option<&'a Measurement> {
        figures.measured.get(model, &self.column.task, &self.column.metric, self.filter)
    }

    /// The best measured figure, if it has others beside it and is that of one model of this experiment; the first of
    /// several.
    pub(super) fn best_figure(&self) -> Option<&'a Measurement> {
        let higher = self.higher?;
        let measured: Vec<(f64, Option<&Measurement>)> =
            self.found.iter().filter_map(|found| Some((found.score?.value, found.one))).collect();
        // The last of equal ones is taken, so that from the back it is the first.
        let best = measured.iter().rev().max_by(|one, other| {
            let order = one.0.total_cmp(&other.0);
            if higher { order } else { order.reverse() }
        });
        best.filter(|_| measured.len() > 1)?.1
    }

    /// How the best measured values print; `None` if nothing competes.
    pub(super) fn ranks(&self) -> Option<Ranks> {
        let measured = self.found.iter().filter_map(|found| found.score);
        Ranks::of(measured.map(|score| (score.value, self.print(score.value * self.scale))), self.higher)
    }

    /// The cell of a row.
    pub(super) fn cell(
        &self,
        row: usize,
        of: &Row,
        tests: &Tests<'_>,
        figures: &Figures<'_>,
        origins: &mut IndexSet<Origin>,
        reasons: &mut IndexSet<String>,
    ) -> Cell {
        let found = self.found[row];
        let mut quote = |published: &Measurement, shots| {
            let citation = plain(published.citation.as_deref().unwrap_or("no source given"));
            let origin = Origin { citation, note: published.note.as_deref().map(plain), shots };
            let figure = self.figure(&Score::of(published));
            Published { figure, origin: origins.insert_full(origin).0 }
        };
        match (found.score, found.published) {
            (Some(score), published) => {
                let shots = published.and_then(|published| published.n_shot.filter(|_| found.other_shots()));
                let beside = published.map(|published| quote(published, shots));
                let model = found.one.map(|figure| figure.model.as_str());
                Cell::Measured {
                    figure: self.figure(&score),
                    best: model.is_some_and(|model| tests.is_not_worse(model)),
                    second: false,
                    against: model.and_then(|model| tests.against(model)),
                    beside,
                    // A table with a column for it has it there.
                    difference: found.errors().filter(|_| !self.table.comparison).map(|errors| signed(errors, 1)),
                }
            }
            (None, Some(published)) => Cell::Published(quote(published, None)),
            (None, None) => Cell::Missing(reasons.insert_full(self.reason(of, figures)).0),
        }
    }

    /// Whether any row has a measured and a published figure.
    pub(super) fn is_compared(&self) -> bool {
        self.found.iter().any(|found| found.score.is_some() && found.published.is_some())
    }

    /// How far the measured figure of a row is from the published one.
    pub(super) fn comparison(&self, row: usize, reasons: &mut IndexSet<String>) -> Cell {
        let found = self.found[row];
        let Some((score, published)) = found.score.zip(found.published) else { return Cell::Blank };
        if found.other_shots() {
            let reason = "other numbers of shots are not compared".to_owned();
            return Cell::Missing(reasons.insert_full(reason).0);
        }
        let errors = found.errors();
        Cell::Compared(Compared {
            difference: with_sign(self.print((score.value - published.value) * self.scale)),
            errors: errors.map(|errors| signed(errors, 1)),
            far: errors.is_some_and(|errors| errors.abs() > FAR),
        })
    }

    /// Why a row has nothing.
    fn reason(&self, row: &Row, figures: &Figures<'_>) -> String {
        let (at, task) = (self.column.at.as_deref(), &self.column.task);
        let models = row.models(at);
        if models.is_empty() {
            return not_there(row, at, self.table);
        }
        if models.iter().any(|model| figures.measured.has(model, task)) {
            return "the evaluation did not give this figure".to_owned();
        }
        let known = figures.absent.get(&(models[0].to_owned(), task.clone()));
        known.map_or_else(|| "not measured".to_owned(), |reason| plain(reason))
    }

    fn figure(&self, score: &Score) -> Figure {
        Figure {
            value: self.print(score.value * self.scale),
            spread: score.spread.map(|spread| self.print((spread * self.scale).abs())),
            replicates: score.replicates,
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

impl Found<'_> {
    fn other_shots(&self) -> bool {
        let published = self.published.and_then(|published| published.n_shot);
        self.n_shot.zip(published).is_some_and(|(ours, theirs)| ours != theirs)
    }

    /// Measured minus published in standard errors of the difference.
    fn errors(&self) -> Option<f64> {
        let (score, published) = self.score.zip(self.published)?;
        let stderr = score.stderr.filter(|stderr| *stderr > 0.0 && !self.other_shots())?;
        let errors = (score.value - published.value) / stderr.hypot(published.stderr.unwrap_or(0.0));
        errors.is_finite().then_some(errors)
    }
}

/// A number with its sign, and so many digits after the point.
fn signed(number: f64, digits: usize) -> String {
    with_sign(unsigned_zero(format!("{number:.digits$}")))
}

/// A printed number with a plus sign where it is above zero.
fn with_sign(number: String) -> String {
    let is_zero = number.bytes().all(|byte| matches!(byte, b'0' | b'.')) || number.starts_with("0.0e");
    if number.starts_with('-') || is_zero { number } else { format!("+{number}") }
}

/// Why no model of a row stands at a value of the key that stands across the table.
pub(super) fn not_there(row: &Row, at: Option<&str>, table: &Table) -> String {
    let Some(across) = &table.across else { return "no such model".to_owned() };
    match at {
        Some(at) if !row.members.is_empty() => format!("not swept to {}", plain(&across.says(at))),
        _ if row.members.is_empty() => format!("not swept over {}", plain(&across.key)),
        _ => format!("swept over {}", plain(&across.key)),
    }
}

/// `-0.00` as `0.00`.
fn unsigned_zero(number: String) -> String {
    match number.strip_prefix('-') {
        Some(rest) if rest.bytes().all(|byte| matches!(byte, b'0' | b'.')) => rest.to_owned(),
        _ => number,
    }
}
