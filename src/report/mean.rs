//! Columns that are means over other columns.
//!
//! - **Scores.** `Σ vᵢ / k` over the values as the columns show them: of one scale and one direction, or it is an error.
//! - **Normalized.** `Σ 100 rᵢ / k`, where `rᵢ` is the share that a value has of the specialist's: `v / s`, and where less is
//!   better `s / v`. More is better.
//! - **±** is `√(Σ eᵢ²) / k`, with `eᵢ` the standard error of a part: of a score its own, of a share `100 se / s`, or
//!   `100 s se / v²` where less is better. The specialists' values are taken as exact, so a specialist's own part, which is
//!   always 100, has none. Where a part has no standard error, the mean has none.
//!
//! - **Replicates.** Each has its own mean, and the row shows the mean of those with their standard deviation.
//!
//! Only measured figures count, and no test is made of a mean. A row that lacks one has no mean.

use indexmap::IndexSet;

use super::filled::{Figures, Filled, Ranks, not_there, print};
use super::grid::{Cell, Figure};
use super::marks;
use super::measurement::Measurement;
use super::score::Score;
use super::table::ColumnProblem;
use crate::experiment::{Mean, MeanOf, Notation, Row, Table};

/// A column of means.
pub(super) struct Averaged<'a> {
    pub(super) mean: &'a Mean,
    /// Whether more is better.
    pub(super) higher: Option<bool>,
    /// Row by row; why there is none.
    pub(super) rows: Vec<Result<Score, String>>,
    /// What it is over, and what is 100 %.
    pub(super) remark: String,
}

impl<'a> Averaged<'a> {
    /// Of a table's columns, one entry a column: those that show a metric.
    pub(super) fn of(
        mean: &'a Mean,
        columns: &[Option<Filled<'a>>],
        table: &Table,
        figures: &Figures<'a>,
    ) -> Result<Self, ColumnProblem> {
        let over: Vec<&Filled<'_>> = mean.of.iter().filter_map(|place| columns[*place].as_ref()).collect();
        let parts: Vec<Part<'_>> = match mean.mean {
            MeanOf::Scores => over.iter().map(|filled| Part { filled, specialist: None }).collect(),
            MeanOf::Normalized => over
                .iter()
                .map(|filled| Part { filled, specialist: Some(Specialist::of(filled, table, figures)) })
                .collect(),
        };
        let higher = match mean.mean {
            MeanOf::Scores => of_one_kind(&over)?,
            MeanOf::Normalized => Some(true),
        };
        let undirected = parts.iter().find(|part| part.specialist.is_some() && part.filled.higher.is_none());
        if let Some(part) = undirected.filter(|part| part.filled.is_measured()) {
            return Err(ColumnProblem::NoDirection { column: part.filled.label() });
        }
        let rows = table.rows.iter().map(|row| of_row(&parts, (table, row), mean, figures)).collect();
        let names: Vec<String> = parts.iter().map(Part::name).collect();
        let exact = if mean.mean == MeanOf::Normalized { "; its ± takes what is 100 % as exact" } else { "" };
        let remark = format!("mean over {}{exact}", names.join(", "));
        Ok(Self { mean, higher, rows, remark })
    }

    /// How the best means print.
    pub(super) fn ranks(&self) -> Option<Ranks> {
        let means = self.rows.iter().flatten();
        Ranks::of(means.map(|mean| (mean.value, print(mean.value, self.mean.digits, Notation::Fixed))), self.higher)
    }

    /// The cell of a row.
    pub(super) fn cell(&self, row: usize, reasons: &mut IndexSet<String>) -> Cell {
        let print = |number| print(number, self.mean.digits, Notation::Fixed);
        match &self.rows[row] {
            Ok(Score { value, spread, replicates, .. }) => Cell::Measured {
                figure: Figure { value: print(*value), spread: spread.map(print), replicates: *replicates },
                best: false,
                second: false,
                against: None,
                beside: None,
                difference: None,
            },
            Err(reason) => Cell::Missing(reasons.insert_full(reason.clone()).0),
        }
    }
}

/// Whether more is better in all of some columns, which have to be of one scale and direction.
fn of_one_kind(over: &[&Filled<'_>]) -> Result<Option<bool>, ColumnProblem> {
    for pair in over.windows(2) {
        let columns = || [pair[0].label(), pair[1].label()];
        if let (Some(first), Some(second)) = (pair[0].higher, pair[1].higher)
            && first != second
        {
            return Err(ColumnProblem::MixedDirections { columns: columns() });
        }
        if pair[0].scale.total_cmp(&pair[1].scale).is_ne() {
            return Err(ColumnProblem::MixedScales { columns: columns(), scales: [pair[0].scale, pair[1].scale] });
        }
    }
    let directions: Option<Vec<bool>> = over.iter().map(|filled| filled.higher).collect();
    Ok(directions.and_then(|directions| directions.first().copied()))
}

/// The specialist of a column.
struct Specialist<'a> {
    model: &'a str,
    /// What the table calls it.
    name: String,
    figure: Option<&'a Measurement>,
}

impl<'a> Specialist<'a> {
    fn of(filled: &Filled<'a>, table: &Table, figures: &Figures<'a>) -> Self {
        let model = filled.column.specialist.as_deref().unwrap_or_default();
        Self { model, name: marks::name(table, model), figure: filled.measured_of(model, figures) }
    }
}

/// One column in a mean.
struct Part<'a> {
    filled: &'a Filled<'a>,
    specialist: Option<Specialist<'a>>,
}

impl Part<'_> {
    fn name(&self) -> String {
        let label = self.filled.label();
        match &self.specialist {
            None => label,
            Some(specialist) => format!("{label} (100 % is {})", specialist.name),
        }
    }

    /// What a model adds: a value with its standard error, or why there is none.
    fn of(&self, model: &str, figures: &Figures<'_>) -> Result<(f64, Option<f64>), String> {
        let label = || self.filled.label();
        let figure = self.filled.measured_of(model, figures).ok_or_else(|| format!("no mean without {}", label()))?;
        let (value, stderr) = (figure.value, figure.stderr);
        let Some(Specialist { model: specialist, name, figure: full }) = &self.specialist else {
            let scale = self.filled.scale;
            return Ok((value * scale, stderr.map(|stderr| (stderr * scale).abs())));
        };
        let full = full.ok_or_else(|| format!("no mean without {name} on {}", label()))?.value;
        let higher = self.filled.higher.unwrap_or(true);
        if full <= 0.0 || value < 0.0 || (!higher && value <= 0.0) {
            return Err(format!("no mean: a share of what is not above 0 on {}", label()));
        }
        if *specialist == model {
            return Ok((100.0, Some(0.0)));
        }
        let (share, slope) = if higher { (value / full, 1.0 / full) } else { (full / value, full / value.powi(2)) };
        Ok((100.0 * share, stderr.map(|stderr| 100.0 * slope * stderr)))
    }
}

/// The mean of a row, over its replicates where it has some.
fn of_row(
    parts: &[Part<'_>],
    (table, row): (&Table, &Row),
    mean: &Mean,
    figures: &Figures<'_>,
) -> Result<Score, String> {
    let models = row.models(mean.at.as_deref());
    let means: Vec<Result<Score, String>> = models.iter().map(|model| average(parts, model, figures)).collect();
    let first = means.first().cloned().unwrap_or_else(|| Err(not_there(row, mean.at.as_deref(), table)));
    if row.replicates.is_none() {
        return first;
    }
    let values: Vec<f64> = means.into_iter().flatten().map(|mean| mean.value).collect();
    Score::over(&values).map_or(first, Ok)
}

/// The mean of one model.
fn average(parts: &[Part<'_>], model: &str, figures: &Figures<'_>) -> Result<Score, String> {
    let parts = parts.iter().map(|part| part.of(model, figures)).collect::<Result<Vec<_>, _>>()?;
    let count = parts.len() as f64;
    let value = parts.iter().map(|part| part.0).sum::<f64>() / count;
    let squares: Option<f64> = parts.iter().map(|part| part.1.map(|stderr| stderr * stderr)).sum();
    let stderr = squares.map(|squares| squares.sqrt() / count);
    Ok(Score { value, spread: stderr, stderr, replicates: None })
}
