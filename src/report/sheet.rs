//! A grid as CSV for a spreadsheet: the numbers of the table in its own shape.
//!
//! Each column of the table becomes several: the measured value, and where any cell has one its `stderr`, over replicates
//! their `sd` and how many `replicates` there are, the `p` value of a test against the table's baseline, the `published`
//! value with `published by`, a difference `in SE`, and `missing` with the reason. `results.csv` has every figure unrounded.

use super::grid::{Cell, Figure, Grid};
use super::results;

/// One optional column beside a measured value.
type Beside = (&'static str, fn(&Grid, &Cell) -> Option<String>);

const BESIDE: [Beside; 8] = [
    ("stderr", |_, cell| match cell {
        Cell::Measured { figure: Figure { spread, replicates: None, .. }, .. } => spread.clone(),
        _ => None,
    }),
    ("sd", |_, cell| match cell {
        Cell::Measured { figure: Figure { spread, replicates: Some(_), .. }, .. } => spread.clone(),
        _ => None,
    }),
    ("replicates", |_, cell| match cell {
        Cell::Measured { figure, .. } => Some(figure.replicates?.to_string()),
        _ => None,
    }),
    ("p", |_, cell| match cell {
        Cell::Measured { against, .. } => Some(against.as_ref()?.p.clone()),
        _ => None,
    }),
    ("published", |_, cell| Some(cell.published()?.figure.value.clone())),
    ("published by", |grid, cell| Some(text(&grid.origins[cell.published()?.origin].citation))),
    ("in SE", |_, cell| match cell {
        Cell::Compared(compared) => compared.errors.clone(),
        _ => None,
    }),
    ("missing", |grid, cell| match cell {
        Cell::Missing(reason) => Some(text(&grid.reasons[*reason])),
        _ => None,
    }),
];

/// The table; LF, ends with one.
pub fn sheet(grid: &Grid) -> String {
    let mut header = vec![grid.corner().to_owned()];
    let mut lines: Vec<Vec<String>> = grid.rows.iter().map(|row| vec![text(&row.label)]).collect();
    for (i, column) in grid.columns.iter().enumerate() {
        header.push(text(&column.label));
        for (line, row) in lines.iter_mut().zip(&grid.rows) {
            line.push(match &row.cells[i] {
                Cell::Measured { figure, .. } => figure.value.clone(),
                Cell::Compared(compared) => compared.difference.clone(),
                _ => String::new(),
            });
        }
        for (name, of) in BESIDE {
            let fields: Vec<_> = grid.rows.iter().map(|row| of(grid, &row.cells[i])).collect();
            if fields.iter().any(Option::is_some) {
                header.push(text(&format!("{} {name}", column.label)));
                lines.iter_mut().zip(fields).for_each(|(line, field)| line.push(field.unwrap_or_default()));
            }
        }
    }
    results::write(header, lines)
}

/// Text that no spreadsheet takes for a formula: an apostrophe before what begins like one.
fn text(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.to_owned() }
}
