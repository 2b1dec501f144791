//! `tables:`.

use std::collections::{BTreeSet, HashSet};

use super::context::{Context, Item};
use super::diagnostics::Diagnostic;
use super::keys::{COLUMN, ROW, TABLE};
use super::read::{Fields, Reading, did_you_mean, listed};
use super::suite::Placed;
use super::types::{Column, Row, Table};

/// What the suites evaluate; a table can show nothing else.
pub(super) struct Evaluated<'a> {
    models: HashSet<&'a str>,
    tasks: BTreeSet<&'a str>,
}

impl<'a> Evaluated<'a> {
    pub(super) fn by(suites: impl Iterator<Item = &'a Placed> + Clone) -> Self {
        let models = suites.clone().flat_map(|placed| placed.suite.models.iter().map(String::as_str)).collect();
        let tasks = suites.flat_map(|placed| placed.measures.iter().map(|(name, _)| name.as_str())).collect();
        Self { models, tasks }
    }
}

/// Reads one table. Without `evaluated` (a suite could not be read) nobody knows what is missing.
pub(super) fn table(context: &Context<'_>, item: Item<'_>, evaluated: Option<&Evaluated<'_>>) -> Option<Table> {
    let fields = Fields::open(context.report, &item.member.view, item.place, "a table", &[TABLE])?;
    let rows = fields.get("rows", |rows| rows.list(|row| self::row(context, row, evaluated)));
    let columns = fields.get("columns", |columns| columns.list(|column| self::column(context, column, evaluated)));
    let published = fields.get("published", Reading::path);
    let into = fields.get("into", Reading::path);
    Some(Table { rows: rows?.into_iter().flatten().collect(), columns: columns?, published, into })
}

fn row(context: &Context<'_>, reading: Reading<'_>, evaluated: Option<&Evaluated<'_>>) -> Option<Vec<Row>> {
    let (model, label) = if reading.node.as_map().is_some() {
        let fields = Fields::open(context.report, reading.node, reading.node.span, "a row", &[ROW])?;
        (Reading { node: fields.node("model")?, key: "model", ..reading }, fields.get("label", Reading::text))
    } else {
        (reading, None)
    };
    let all = context.names.models.all(model, &model.name()?, &context.budget)?;
    if let Some(missing) =
        all.iter().find(|(name, _)| evaluated.is_some_and(|evaluated| !evaluated.models.contains(name.as_str())))
    {
        let message = format!("no suite evaluates `{}`, so this row would be empty", missing.0);
        context.report.add(Diagnostic::new(model.node.span, message).hint("add it to the `models` of a suite"));
    }
    let row = |(model, values): (String, String)| {
        let label =
            label.as_ref().map(|label| if values.is_empty() { label.clone() } else { format!("{label} {values}") });
        Row { model, label }
    };
    Some(all.into_iter().map(row).collect())
}

fn column(context: &Context<'_>, reading: Reading<'_>, evaluated: Option<&Evaluated<'_>>) -> Option<Column> {
    let fields = Fields::open(context.report, reading.node, reading.node.span, "a column", &[COLUMN])?;
    let task = fields.get("task", Reading::word);
    if let (Some(task), Some(evaluated), Some(node)) = (&task, evaluated, fields.node("task"))
        && !evaluated.tasks.contains(task.as_str())
    {
        let names: Vec<_> = evaluated.tasks.iter().copied().collect();
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
    Some(Column { task: task?, metric: metric?, filter, label, note, scale, digits })
}
