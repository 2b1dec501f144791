//! `tables:`.

use std::collections::{BTreeSet, HashSet};

use super::column::{columns, spread};
use super::context::{Context, Item};
use super::diagnostics::Diagnostic;
use super::keys::{BOLD, TABLE};
use super::layout::Table;
use super::read::{Fields, Reading};
use super::row::{across, rows, values};
use super::suite::Placed;
use super::tree::Node;

/// What the suites evaluate; a table can show nothing else.
pub(super) struct Evaluated<'a> {
    models: HashSet<&'a str>,
    tasks: BTreeSet<&'a str>,
    cells: HashSet<(&'a str, &'a str)>,
}

impl<'a> Evaluated<'a> {
    pub(super) fn by(suites: impl Iterator<Item = &'a Placed> + Clone) -> Self {
        let models = suites.clone().flat_map(|placed| placed.suite.models.iter().map(String::as_str)).collect();
        let tasks = suites.clone().flat_map(|placed| placed.measures.iter().map(|(name, _)| name.as_str())).collect();
        let cells = suites.flat_map(|placed| {
            let tasks = move |model| placed.measures.iter().map(move |(task, _)| (model, task.as_str()));
            placed.suite.models.iter().map(String::as_str).flat_map(tasks)
        });
        Self { models, tasks, cells: cells.collect() }
    }

    pub(super) fn has(&self, model: &str, task: &str) -> bool {
        self.cells.contains(&(model, task))
    }
}

/// Reads one table. Without `evaluated` (a suite could not be read) nobody knows what is missing.
pub(super) fn table(context: &Context<'_>, item: Item<'_>, evaluated: Option<&Evaluated<'_>>) -> Option<Table> {
    let fields = Fields::open(context.report, &item.member.view, item.place, "a table", &[TABLE])?;
    let turned = fields.node("rows").is_some_and(|rows| holds_metrics(rows));
    if turned {
        fields.refuse(&["across"], "where models stand across already");
    }
    let before = context.report.count();
    let across = fields.get("across", self::across).filter(|_| !turned);
    let (models, metrics) = if turned { ("columns", "rows") } else { ("rows", "columns") };
    let rows = fields.get(models, |rows| self::rows(context, rows, across.as_ref(), evaluated));
    // Without the rows nobody knows which tasks other experiments add.
    let tasks = rows.as_deref().zip(evaluated).map(|(rows, evaluated)| {
        let own = evaluated.tasks.iter().map(|task| (*task).to_owned());
        own.chain(context.others.tasks(rows)).collect()
    });
    let columns = fields.get(metrics, |columns| self::columns(context, item, columns, (evaluated, tasks.as_ref())));
    let baseline = fields.get("baseline", |baseline| {
        reference(context, item, baseline, evaluated, "nothing could be tested against it")
    });
    let bold = fields.get("bold", |bold| bold.choice(BOLD)).unwrap_or_default();
    let second = fields.get("second", Reading::flag).unwrap_or_default();
    let published = fields.get("published", Reading::path);
    let comparison = fields.get("comparison", Reading::flag).unwrap_or_default();
    if published.is_none() {
        fields.refuse(&["comparison"], "without `published`");
    }
    let into = fields.get("into", Reading::path);
    let (rows, mut columns) = (rows?, columns?);
    // A row that could not be read may be one of those that are swept over it.
    if let Some(across) = across.as_ref().filter(|_| context.report.count() == before) {
        let values = fields.get("across", |place| values(context, place, across, &rows))?;
        columns = spread(&columns, &values);
    }
    Some(Table { rows, columns, turned, across, baseline, bold, second, published, comparison, into })
}

/// Whether the rows of a table are metrics, so that its columns are models.
fn holds_metrics(rows: &Node) -> bool {
    let first = rows.as_list().and_then(|rows| rows.first()).and_then(|first| first.as_map());
    first.is_some_and(|first| first.contains_key("task") || first.contains_key("mean"))
}

/// One evaluated model; a swept name only if it is one expansion.
pub(super) fn reference(
    context: &Context<'_>,
    item: Item<'_>,
    reading: Reading<'_>,
    evaluated: Option<&Evaluated<'_>>,
    otherwise: &str,
) -> Option<String> {
    let name = context.names.models.one(reading, &reading.name()?, &item.member.picks)?;
    is_evaluated(context, reading, &name, evaluated, otherwise).then_some(name)
}

/// Whether a suite evaluates a model; reports it where none does.
pub(super) fn is_evaluated(
    context: &Context<'_>,
    reading: Reading<'_>,
    name: &str,
    evaluated: Option<&Evaluated<'_>>,
    otherwise: &str,
) -> bool {
    let known = evaluated.is_none_or(|evaluated| evaluated.models.contains(name));
    if !known {
        let message = format!("no suite evaluates `{name}`, so {otherwise}");
        context.report.add(Diagnostic::new(reading.node.span, message).hint("add it to the `models` of a suite"));
    }
    known
}
