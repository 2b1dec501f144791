//! Columns of tables: metrics of tasks, and means over them.

use std::collections::BTreeSet;

use super::context::{Context, Item};
use super::diagnostics::Diagnostic;
use super::keys::{COLUMN, MEAN, MEANS, NOTATIONS};
use super::layout::{Column, Mean, MeanOf, TableColumn};
use super::read::{Fields, Reading, did_you_mean, listed};
use super::row::link;
use super::table::{Evaluated, reference};

/// What is known of evaluations: those of this experiment, and the tasks also of others that the table shows.
pub(super) type Known<'a> = (Option<&'a Evaluated<'a>>, Option<&'a BTreeSet<String>>);

/// A column as it is read: which columns a mean is over is known when all have been read.
enum Read<'a> {
    Metric(Column),
    Mean(Mean, Option<Reading<'a>>, Reading<'a>),
}

/// Reads the columns of a table.
pub(super) fn columns(
    context: &Context<'_>,
    item: Item<'_>,
    reading: Reading<'_>,
    known: Known<'_>,
) -> Option<Vec<TableColumn>> {
    let before = context.report.count();
    let read = reading.list(|column| {
        let is_mean = column.node.as_map().is_some_and(|map| map.contains_key("mean"));
        if is_mean { mean(context, column) } else { self::column(context, item, column, known).map(Read::Metric) }
    })?;
    // A column that could not be read may be the one that is meant.
    let complete = context.report.count() == before;
    let metrics: Vec<(usize, Column)> = read
        .iter()
        .enumerate()
        .filter_map(|(place, column)| match column {
            Read::Metric(column) => Some((place, column.clone())),
            Read::Mean(..) => None,
        })
        .collect();
    let column = |read| match read {
        Read::Metric(column) => Some(TableColumn::Metric(column)),
        Read::Mean(mean, of, place) => {
            let of = if complete { over(context, &mean, of, place, &metrics)? } else { Vec::new() };
            Some(TableColumn::Mean(Mean { of, ..mean }))
        }
    };
    Some(read.into_iter().filter_map(column).collect())
}

fn mean<'a>(context: &Context<'a>, reading: Reading<'a>) -> Option<Read<'a>> {
    let fields = Fields::open(context.report, reading.node, reading.node.span, "a mean", &[MEAN])?;
    let mean = fields.get("mean", |mean| mean.choice(MEANS));
    if mean == Some(MeanOf::Normalized) {
        fields.refuse(&["of"], "for `mean: normalized`: it is over the columns that have a `specialist`");
    }
    let label = fields.get("label", Reading::word);
    let note = fields.get("note", Reading::text);
    let digits = fields.get("digits", |digits| digits.whole(0, 17)).map(|digits| digits as usize);
    let unit = fields.get("unit", Reading::word);
    let of = fields.node("of").map(|node| Reading { node, key: "of", ..reading });
    Some(Read::Mean(Mean { mean: mean?, of: Vec::new(), label: label?, note, digits, unit, at: None }, of, reading))
}

/// The columns that a mean is over, by their places.
fn over(
    context: &Context<'_>,
    mean: &Mean,
    of: Option<Reading<'_>>,
    place: Reading<'_>,
    metrics: &[(usize, Column)],
) -> Option<Vec<usize>> {
    let fail = |message: &str, hint: &str| place.fail(Diagnostic::new(place.node.span, message).hint(hint));
    let all = match (mean.mean, of) {
        (MeanOf::Normalized, _) => {
            let normalized: Vec<_> =
                metrics.iter().filter(|(_, column)| column.specialist.is_some()).map(|(place, _)| *place).collect();
            if normalized.is_empty() {
                let hint = "name the model that is 100 % under `specialist` of each column that the mean is over";
                return fail("no column of this table has a `specialist`, so there is nothing to normalize by", hint);
            }
            normalized
        }
        (MeanOf::Scores, None) => metrics.iter().map(|(place, _)| *place).collect(),
        (MeanOf::Scores, Some(of)) => {
            let before = context.report.count();
            let named = of.list(|name| self::named(name, &name.word()?, metrics))?;
            if context.report.count() > before {
                return None;
            }
            named
        }
    };
    if all.is_empty() {
        return fail("this table has no column that the mean could be over", "add a column with `task` and `metric`");
    }
    Some(all)
}

/// The column that a label means, or else a task.
fn named(reading: Reading<'_>, name: &str, metrics: &[(usize, Column)]) -> Option<usize> {
    let by = |what: fn(&Column) -> Option<&str>| -> Vec<usize> {
        metrics.iter().filter(|(_, column)| what(column) == Some(name)).map(|(place, _)| *place).collect()
    };
    let labelled = by(|column| column.label.as_deref());
    let found = if labelled.is_empty() { by(|column| Some(&column.task)) } else { labelled };
    match found[..] {
        [one] => Some(one),
        [] => {
            let names: Vec<&str> =
                metrics.iter().map(|(_, column)| column.label.as_deref().unwrap_or(&column.task)).collect();
            let hint = did_you_mean(name, names.iter().copied()).or_else(|| listed(&names, "columns"));
            let message = format!("this table has no column `{name}`");
            reading.fail(Diagnostic::new(reading.node.span, message).maybe_hint(hint))
        }
        _ => {
            let message = format!("`{name}` means {} columns", found.len());
            reading.fail(Diagnostic::new(reading.node.span, message).hint("give each a `label` of its own"))
        }
    }
}

fn column(
    context: &Context<'_>,
    item: Item<'_>,
    reading: Reading<'_>,
    (evaluated, tasks): Known<'_>,
) -> Option<Column> {
    let fields = Fields::open(context.report, reading.node, reading.node.span, "a column", &[COLUMN])?;
    let task = fields.get("task", Reading::word);
    if let (Some(task), Some(tasks), Some(node)) = (&task, tasks, fields.node("task"))
        && !tasks.contains(task.as_str())
    {
        let names: Vec<&str> = tasks.iter().map(String::as_str).collect();
        let hint = did_you_mean(task, names.iter().copied()).or_else(|| listed(&names, "tasks"));
        let message = format!("no suite evaluates the task `{task}`, so this column would be empty");
        context.report.add(Diagnostic::new(node.span, message).maybe_hint(hint));
    }
    let metric = fields.get("metric", Reading::word);
    let filter = fields.get("filter", Reading::word);
    let label = fields.get("label", Reading::text);
    let note = fields.get("note", Reading::text);
    let scale = fields.get("scale", |scale| scale.number(f64::MIN, f64::MAX));
    let digits = fields.get("digits", |digits| digits.whole(0, 17)).map(|digits| digits as usize);
    let specialist = fields.get("specialist", |specialist| {
        let name = reference(context, item, specialist, evaluated, "nothing could be held against it")?;
        let cell = |evaluated: &Evaluated<'_>| task.as_ref().is_none_or(|task| evaluated.has(&name, task));
        if evaluated.is_none_or(cell) {
            return Some(name);
        }
        let message = format!("no suite evaluates `{name}` on `{}`", task.as_deref().unwrap_or_default());
        let hint = "add it to the `models` of the suite with this task";
        specialist.fail(Diagnostic::new(specialist.node.span, message).hint(hint))
    });
    let notation = fields.get("notation", |notation| notation.choice(NOTATIONS)).unwrap_or_default();
    let (unit, link) = (fields.get("unit", Reading::word), fields.get("link", link));
    let (task, metric, at) = (task?, metric?, None);
    Some(Column { task, metric, filter, label, note, scale, digits, notation, specialist, unit, link, at })
}

/// Each column once for each value that stands across the table: `None` for rows that are not swept over its key.
pub(super) fn spread(columns: &[TableColumn], values: &[Option<String>]) -> Vec<TableColumn> {
    let at = |column: &TableColumn, place: usize| {
        let mut column = column.clone();
        match &mut column {
            TableColumn::Metric(column) => column.at.clone_from(&values[place]),
            TableColumn::Mean(mean) => {
                mean.at.clone_from(&values[place]);
                mean.of.iter_mut().for_each(|of| *of = *of * values.len() + place);
            }
        }
        column
    };
    columns.iter().flat_map(|column| (0..values.len()).map(move |place| at(column, place))).collect()
}
