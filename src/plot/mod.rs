//! Tables as pictures, for papers and documents: [`files`] makes them as values, as `report` does its tables.
//!
//! What a picture shows is what stands in the [`Grid`], printed and scaled by it; here numbers become lengths and nothing
//! else. The same grid gives the same bytes on every machine: no time, no fonts, no random names.
//!
//! | file | what |
//! |---|---|
//! | `TABLE-bars.svg` | a panel for each column, a bar for each row (`bars`) |
//! | `TABLE-sweep.svg` | the score against a swept number (`sweep`, of what `series` finds) |
//!
//! Beside tables, figures that every layer of a model has are drawn as heat maps (`heat`): how two models differ
//! ([`difference`]), and what a merge reports of the layers that it solved ([`layers`]).
//! Each may also be a PNG (`png`).
//!
//! The crate `svg` writes elements and escapes text. Libraries of charts draw axes and bars, but not what a table has
//! beside its numbers: marks of published values, reasons of missing ones, whole names behind those that were cut.

mod bars;
mod difference;
mod heat;
mod layers;
mod measure;
mod page;
#[cfg(feature = "png")]
pub mod png;
pub(crate) mod scale;
pub(crate) mod series;
mod svg;
mod sweep;
#[cfg(test)]
mod tests;

pub use difference::difference;
pub use layers::layers;

use crate::experiment::{Expansion, Loaded, Row};
use crate::report::Grid;

/// What a picture has to know of a row beside its cells.
#[derive(Clone, Debug, Default)]
pub struct RowOrigin {
    /// Whether it is a merge.
    pub merge: bool,
    /// The sweep that it comes from.
    pub expansion: Option<Expansion>,
}

impl RowOrigin {
    /// What the file says of a row's model. Replicates are one point of whatever else they are swept over.
    pub fn of(loaded: &Loaded, row: &Row) -> Self {
        let model = row.members.first().map_or(&row.model, |member| &member.model);
        let expansion = loaded.expansion(&format!("merges.{model}")).cloned().map(|mut expansion| {
            expansion.coordinates.retain(|(key, _)| row.replicates.as_ref() != Some(key));
            expansion
        });
        // What stands across the table is on no axis.
        let is_across = row.members.iter().any(|member| member.at.is_some());
        Self {
            merge: loaded.experiment.merges.contains_key(model),
            expansion: expansion.filter(|expansion| !is_across && !expansion.coordinates.is_empty()),
        }
    }
}

/// The pictures of a table by file name; `rows` are those of the grid with models as rows.
pub fn files(experiment: &str, grid: &Grid, rows: &[RowOrigin]) -> Vec<(String, String)> {
    let upright = if grid.turned { grid.clone().turn() } else { grid.clone() };
    let grid = &upright.without_comparisons();
    let mut files = vec![(format!("{}-bars.svg", grid.name), bars::bars(experiment, grid))];
    let charts = series::charts(grid, rows);
    let alone = charts.len() == 1;
    files.extend(charts.iter().map(|chart| {
        let name = if alone { "sweep".to_owned() } else { format!("sweep-{}", chart.key) };
        (format!("{}-{name}.svg", grid.name), sweep::sweep(experiment, grid, chart))
    }));
    files
}
