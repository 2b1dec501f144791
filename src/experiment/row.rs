//! Rows of tables: models, and expansions of a sweep that share a row.

use super::context::Context;
use super::diagnostics::Diagnostic;
use super::elsewhere;
use super::keys::{ACROSS, ROW};
use super::layout::{Across, Elsewhere, Member, Row};
use super::names::Expanded;
use super::read::{Fields, Reading, did_you_mean, listed};
use super::table::{Evaluated, is_evaluated};

/// What may stand in a web address beside letters and digits.
const LINK_MARKS: &str = "-._~:/?#@!&*+,;=%";

/// What a row says beside its model.
#[derive(Default)]
struct Said<'a> {
    label: Option<String>,
    link: Option<String>,
    replicates: Option<(String, Reading<'a>)>,
    from: Option<Reading<'a>>,
}

/// What decides how a sweep becomes rows.
#[derive(Clone, Copy)]
struct Shared<'a> {
    across: Option<&'a Across>,
    replicates: Option<&'a str>,
}

impl Shared<'_> {
    /// Whether what differs in this key alone shares a row.
    fn has(self, key: &str) -> bool {
        self.replicates == Some(key) || self.across.is_some_and(|across| across.key == key)
    }
}

/// Reads the rows of a table; the swept key `across` makes one row of what differs in nothing else.
pub(super) fn rows(
    context: &Context<'_>,
    reading: Reading<'_>,
    across: Option<&Across>,
    evaluated: Option<&Evaluated<'_>>,
) -> Option<Vec<Row>> {
    let before = context.report.count();
    let rows = reading.list(|row| self::row(context, row, across, evaluated))?;
    (context.report.count() == before).then(|| rows.into_iter().flatten().collect())
}

fn row(
    context: &Context<'_>,
    reading: Reading<'_>,
    across: Option<&Across>,
    evaluated: Option<&Evaluated<'_>>,
) -> Option<Vec<Row>> {
    let (model, said) = if reading.node.as_map().is_some() {
        let fields = Fields::open(context.report, reading.node, reading.node.span, "a row", &[ROW])?;
        let replicates = fields.get("replicates", |key| Some((key.word()?, key)));
        let (label, link) = (fields.get("label", Reading::text), fields.get("link", link));
        let said = Said { label, link, replicates, from: fields.get("from", Some) };
        (Reading { node: fields.node("model")?, key: "model", ..reading }, said)
    } else {
        (reading, Said::default())
    };
    let name = model.name()?;
    let (expanded, other) = match said.from {
        None => (context.names.models.expanded(model, &name, &context.budget)?, None),
        Some(from) => {
            let (file, loaded) = context.others.experiment(from)?;
            let expanded = elsewhere::expanded(&file, &loaded, model)?;
            (expanded, Some(Elsewhere { experiment: loaded.experiment.name.clone(), file }))
        }
    };
    for one in expanded.iter().filter(|_| other.is_none()) {
        if !is_evaluated(context, model, &one.model, evaluated, "this row would be empty") {
            break;
        }
    }
    if let Some((key, place)) = &said.replicates {
        check_replicates(*place, &name, key, across, &expanded)?;
    }
    let replicates = said.replicates.map(|(key, _)| key);
    let shared = Shared { across, replicates: replicates.as_deref() };
    let rows = together(&name, said.label.as_deref(), expanded, shared);
    let rows = rows.into_iter().map(|row| Row { link: said.link.clone(), ..row });
    Some(match other {
        None => rows.collect(),
        Some(other) => rows.map(|row| of_another(row, &other)).collect(),
    })
}

/// The rows of what a name means.
fn together(name: &str, label: Option<&str>, expanded: Vec<Expanded>, shared: Shared<'_>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for Expanded { model, coordinates } in expanded {
        let values = |of: &dyn Fn(&str) -> bool| -> Option<String> {
            let values = coordinates.iter().filter(|(key, _)| of(key)).map(|(_, value)| value.as_str());
            let values: Vec<_> = values.collect();
            (!values.is_empty()).then(|| values.join("-"))
        };
        let rest = values(&|key| !shared.has(key)).unwrap_or_default();
        let label = labelled(label, &rest);
        if !coordinates.iter().any(|(key, _)| shared.has(key)) {
            rows.push(Row { model, label, ..Row::default() });
            continue;
        }
        let shown = if rest.is_empty() { name.to_owned() } else { format!("{name}-{rest}") };
        let member = Member {
            at: shared.across.and_then(|across| values(&|key| key == across.key)),
            replicate: shared.replicates.and_then(|replicates| values(&|key| key == replicates)),
            model,
        };
        match rows.iter_mut().find(|row| row.model == shown) {
            Some(row) => row.members.push(member),
            None => {
                let replicates = shared.replicates.map(str::to_owned);
                rows.push(Row { model: shown, label, replicates, members: vec![member], ..Row::default() });
            }
        }
    }
    rows
}

/// A row under the name that its models have outside of their experiment.
fn of_another(row: Row, elsewhere: &Elsewhere) -> Row {
    let outside = |model: &str| elsewhere.outside(model);
    let member = |member: Member| Member { model: outside(&member.model), ..member };
    let members = row.members.into_iter().map(member).collect();
    Row { model: outside(&row.model), members, elsewhere: Some(elsewhere.clone()), ..row }
}

/// A label with the values of a sweep behind it.
fn labelled(label: Option<&str>, values: &str) -> Option<String> {
    label.map(|label| if values.is_empty() { label.to_owned() } else { format!("{label} {values}") })
}

/// Reads a web address, of characters that cannot end a link in any format.
pub(super) fn link(reading: Reading<'_>) -> Option<String> {
    let text = reading.word()?;
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_part = |c: char| c.is_ascii_alphanumeric() || LINK_MARKS.contains(c);
    if host.is_some_and(|host| host.starts_with(|c: char| c.is_ascii_alphanumeric()) && host.chars().all(is_part)) {
        return Some(text);
    }
    let message = format!("`{text}` is not a web address");
    let hint = format!("write it whole, as https://…; what is no ASCII letter or digit nor one of {LINK_MARKS} as %XX");
    reading.fail(Diagnostic::new(reading.node.span, message).hint(hint))
}

fn check_replicates(
    place: Reading<'_>,
    name: &str,
    key: &str,
    across: Option<&Across>,
    expanded: &[Expanded],
) -> Option<()> {
    let fail =
        |message: String, hint: Option<String>| place.fail(Diagnostic::new(place.node.span, message).maybe_hint(hint));
    if across.is_some_and(|across| across.key == key) {
        let hint = Some("take it away here, or under `across`".to_owned());
        return fail(format!("`{key}` stands across the table, so its values are no replicates"), hint);
    }
    let keys = || expanded.iter().flat_map(|one| &one.coordinates).map(|(key, _)| key.as_str());
    if keys().next().is_none() {
        let hint = format!("name an entry that is swept over it, as by `sweep: {{ {key}: [0, 1, 2] }}`");
        return fail(format!("`{name}` is not swept, so it has no replicates"), Some(hint));
    }
    if keys().any(|known| known == key) {
        return Some(());
    }
    fail(format!("`{name}` is not swept over `{key}`"), swept_over(key, keys()))
}

/// What there is in place of a key that nothing is swept over.
fn swept_over<'k>(key: &str, all: impl Iterator<Item = &'k str>) -> Option<String> {
    let mut keys: Vec<&str> = Vec::new();
    for known in all {
        if !keys.contains(&known) {
            keys.push(known);
        }
    }
    did_you_mean(key, keys.iter().copied()).or_else(|| listed(&keys, "swept keys"))
}

/// Reads the key whose values stand across a table: itself, or with a label.
pub(super) fn across(reading: Reading<'_>) -> Option<Across> {
    if reading.node.as_map().is_none() {
        return Some(Across { key: reading.word()?, label: None });
    }
    let fields = Fields::open(reading.report, reading.node, reading.node.span, "`across`", &[ACROSS])?;
    Some(Across { key: fields.get("key", Reading::word)?, label: fields.get("label", Reading::text) })
}

/// The values that stand across a table, in order of first appearance: `None` first, where rows are not swept over the key.
/// Reports a key that none is swept over.
pub(super) fn values(
    context: &Context<'_>,
    place: Reading<'_>,
    across: &Across,
    rows: &[Row],
) -> Option<Vec<Option<String>>> {
    let mut values: Vec<Option<String>> = Vec::new();
    for at in rows.iter().flat_map(|row| &row.members).map(|member| &member.at) {
        if at.is_some() && !values.contains(at) {
            values.push(at.clone());
        }
    }
    if values.is_empty() {
        let keys = rows.iter().flat_map(|row| context.names.models.swept_over(&row.model));
        let message = format!("no row is swept over `{}`", across.key);
        return place.fail(Diagnostic::new(place.node.span, message).maybe_hint(swept_over(&across.key, keys)));
    }
    if rows.iter().any(|row| !row.models(None).is_empty()) {
        values.insert(0, None);
    }
    Some(values)
}
