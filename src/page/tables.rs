//! Tables: as the HTML builder writes them, each cell a button that leads to where its number comes from, and the
//! numbers that bars and lines are drawn of. They are those that the table prints.

use std::collections::HashMap;

use serde::Serialize;

use super::Inputs;
use super::stages::Stages;
use crate::experiment::{Column, Notation, Row, Table, TableColumn};
use crate::plot::RowOrigin;
use crate::plot::scale::number;
use crate::plot::series::{self, Chart};
use crate::report::{self, Cell, Figure, Grid, Measurement, Published, html_with, mark};

/// A table.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    /// Its name.
    pub(super) name: String,
    /// The table with its notes, as HTML.
    #[serde(skip)]
    pub(super) html: String,
    columns: Vec<Heading>,
    rows: Vec<Line>,
    /// By row and column.
    cells: Vec<Vec<Number>>,
    /// Whether metrics stand as rows and models as columns where the table is read; rows are models here.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    turned: bool,
    /// Of each metric as it is read, its column here, and whether it says how far that is from what was published.
    heads: Vec<(usize, bool)>,
    /// Pictures of sweeps.
    pub(super) sweeps: Vec<Sweep>,
}

#[derive(Debug, Serialize)]
struct Heading {
    label: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    /// Columns of one unit may share an axis.
    unit: String,
    /// Whether its values are written with powers of ten.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    powers: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    higher: Option<bool>,
}

#[derive(Debug, Serialize)]
struct Line {
    label: String,
    /// What the command line calls it.
    model: String,
    /// Whether it is a merge.
    merge: bool,
}

/// A cell.
#[derive(Debug, Default, Serialize)]
struct Number {
    #[serde(flatten)]
    measured: Drawn,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    best: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    published: Option<Drawn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
    /// The figures that it shows, or is a mean of.
    from: Vec<usize>,
}

/// A printed number, and where it lies on an axis.
#[derive(Debug, Default, Serialize)]
struct Drawn {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<f64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    text: String,
}

impl Drawn {
    fn of(figure: &Figure, end: &str) -> Self {
        let error = figure.spread.as_deref().and_then(number);
        Self { value: number(&figure.value), error, text: format!("{figure}{end}") }
    }

    fn published(Published { figure, origin }: &Published) -> Self {
        Self::of(figure, &format!(" {}", mark(*origin)))
    }
}

/// A sweep over one key.
#[derive(Debug, Serialize)]
pub(super) struct Sweep {
    /// The key.
    pub(super) key: String,
    lines: Vec<SweepLine>,
    /// Rows that are not of the sweep, by place.
    others: Vec<usize>,
}

#[derive(Debug, Serialize)]
struct SweepLine {
    label: String,
    /// The swept value, as the file spells it, and the row.
    points: Vec<(f64, String, usize)>,
}

impl Sweep {
    fn of(chart: Chart) -> Self {
        let lines = chart.series.into_iter().map(|line| SweepLine {
            label: line.label,
            points: line.points.into_iter().map(|point| (point.x, point.spelling, point.row)).collect(),
        });
        Self { key: chart.key, lines: lines.collect(), others: chart.others.into_iter().map(|(row, _)| row).collect() }
    }
}

/// A figure, and the stage that made it.
#[derive(Debug, Serialize)]
pub(super) struct FigureOf<'a> {
    model: &'a str,
    task: &'a str,
    metric: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shots: Option<u64>,
    value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    samples: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    higher: Option<bool>,
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<usize>,
    /// The key of what made it, as `results.csv` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    citation: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
}

/// All figures, measured first.
pub(super) fn figures<'a>(inputs: &Inputs<'a>, stages: &Stages) -> Vec<FigureOf<'a>> {
    let evaluations = inputs.graph.iter().filter(|(_, stage)| stage.experiment == inputs.experiment);
    let by_cell: HashMap<(&str, &str), usize> =
        evaluations.filter_map(|(id, stage)| Some((stage.spec.evaluated()?, stages.places[&id]))).collect();
    let source = |figure: &'a Measurement| FigureOf {
        model: &figure.model,
        task: &figure.task,
        metric: &figure.metric,
        filter: figure.filter.as_deref(),
        shots: figure.n_shot,
        value: figure.value,
        error: figure.stderr,
        samples: figure.n_samples,
        higher: figure.higher_is_better.or_else(|| report::higher_is_better(&figure.metric)),
        source: figure.source.word(),
        stage: by_cell.get(&(&*figure.model, &*figure.task)).copied().filter(|_| figure.key.is_some()),
        key: figure.key.as_deref(),
        citation: figure.citation.as_deref(),
        note: figure.note.as_deref(),
    };
    inputs.figures().map(source).collect()
}

/// The tables of an experiment.
pub(super) fn tables(inputs: &Inputs<'_>) -> Vec<Shown> {
    let mut by_cell: HashMap<(&str, &str, &str), Vec<usize>> = HashMap::new();
    for (place, figure) in inputs.figures().enumerate() {
        by_cell.entry((&figure.model, &figure.task, &figure.metric)).or_default().push(place);
    }
    let figures: Vec<&Measurement> = inputs.figures().collect();
    let of_model = |model: &str, column: &Column| {
        let filter = column.filter.as_deref().filter(|filter| !filter.is_empty());
        let is_meant = |place: &usize| {
            let found = figures[*place].filter.as_deref();
            column.filter.is_none() || found == filter || found.is_none()
        };
        let all = by_cell.get(&(model, &*column.task, &*column.metric));
        all.into_iter().flatten().copied().filter(is_meant).collect::<Vec<_>>()
    };
    let from = |row: &Row, column: &Column| {
        row.models(column.at.as_deref()).into_iter().flat_map(|model| of_model(model, column)).collect()
    };
    let tables = inputs.graph.experiments[inputs.experiment].tables.values();
    let grids = inputs.grids.iter().zip(tables).enumerate();
    grids.map(|(i, (grid, table))| shown(inputs, i, grid, table, &from)).collect()
}

fn shown(
    inputs: &Inputs<'_>,
    index: usize,
    grid: &Grid,
    table: &Table,
    from: &dyn Fn(&Row, &Column) -> Vec<usize>,
) -> Shown {
    let places = |row: &Row, column: &TableColumn| match column {
        TableColumn::Metric(column) => from(row, column),
        TableColumn::Mean(mean) => {
            let of = mean.of.iter().filter_map(|place| match &table.columns[*place] {
                TableColumn::Metric(column) => Some(from(row, column)),
                TableColumn::Mean(_) => None,
            });
            of.flatten().collect()
        }
    };
    // With models as rows and nothing but the columns that the file names, as charts have it.
    let upright = if grid.turned { grid.clone().turn() } else { grid.clone() };
    let heads = heads(&upright);
    let upright = upright.without_comparisons();
    let cells: Vec<Vec<Number>> = (upright.rows.iter().zip(&table.rows))
        .map(|(line, row)| {
            let cells = line.cells.iter().zip(&table.columns);
            cells.map(|(cell, column)| cell_number(cell, grid, places(row, column))).collect()
        })
        .collect();
    let html = html_with(grid, &|i, j, inside| {
        let (row, head) = if grid.turned { (j, i) } else { (i, j) };
        let column = heads[head].0;
        if cells[row][column].from.is_empty() {
            return inside;
        }
        format!(
            "<button type=\"button\" class=\"cell\" data-cell=\"{index}-{row}-{column}\" \
             aria-haspopup=\"dialog\">{inside}</button>"
        )
    });
    let origins: Vec<RowOrigin> = table.rows.iter().map(|row| RowOrigin::of(inputs.loaded, row)).collect();
    let sweeps = series::charts(&upright, &origins).into_iter().map(Sweep::of).collect();
    let headings = upright.columns.iter().zip(&table.columns).map(|(heading, column)| Heading {
        label: heading.label.clone(),
        note: heading.note.clone(),
        unit: match column {
            TableColumn::Metric(column) => {
                format!("{} {:?} {:?}", column.metric, column.scale, column.notation)
            }
            TableColumn::Mean(mean) => format!("mean {:?}", mean.mean),
        },
        powers: matches!(column, TableColumn::Metric(Column { notation: Notation::Scientific, .. })),
        higher: match column {
            TableColumn::Metric(column) => report::higher_is_better(&column.metric),
            TableColumn::Mean(_) => None,
        },
    });
    let rows = upright.rows.iter().zip(&table.rows).zip(&origins).map(|((line, row), origin)| Line {
        label: line.label.clone(),
        model: row.model.clone(),
        merge: origin.merge,
    });
    Shown {
        name: grid.name.clone(),
        html,
        columns: headings.collect(),
        rows: rows.collect(),
        cells,
        turned: grid.turned,
        heads,
        sweeps,
    }
}

/// Of each metric of a table with models as rows, the column that it is, or that it compares.
fn heads(upright: &Grid) -> Vec<(usize, bool)> {
    let mut named = 0;
    let of = |heading: &report::Heading| {
        named += usize::from(!heading.compares);
        (named.max(1) - 1, heading.compares)
    };
    upright.columns.iter().map(of).collect()
}

fn cell_number(cell: &Cell, grid: &Grid, from: Vec<usize>) -> Number {
    match cell {
        Cell::Measured { figure, best, beside, .. } => {
            let end = cell.arrow().map_or_else(String::new, |arrow| format!(" {arrow}"));
            let published = beside.as_ref().map(Drawn::published);
            Number { measured: Drawn::of(figure, &end), best: *best, published, missing: None, from }
        }
        Cell::Published(published) => {
            Number { published: Some(Drawn::published(published)), from, ..Number::default() }
        }
        Cell::Blank | Cell::Compared(_) => Number { from, ..Number::default() },
        Cell::Missing(reason) => Number { missing: Some(grid.reasons[*reason].clone()), from, ..Number::default() },
    }
}
