//! Rows of tables: models, and expansions of a sweep that share a row.

use super::context::Context;
use super::diagnostics::Diagnostic;
use super::keys::{ACROSS, ROW};
use super::layout::{self, Across, Row};
use super::read::{Fields, Reading, did_you_mean, listed};
use super::sweep::Member;
use super::table::{Evaluated, is_evaluated};

/// What a row says beside its model.
#[derive(Default)]
struct Said<'a> {
    label: Option<String>,
    replicates: Option<(String, Reading<'a>)>,
}

/// Reads the rows of a table; the swept key `across` makes one row of what differs in nothing else.
pub(super) fn rows(
    context: &Context<'_>,
    reading: Reading<'_>,
    across: Option<&Across>,
    evaluated: Option<&Evaluated<'_>>,
) -> Option<Vec<Row>> {
    let rows = reading.list(|row| self::row(context, row, across, evaluated))?;
    Some(rows.into_iter().flatten().collect())
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
        let said = Said { label: fields.get("label", Reading::text), replicates };
        (Reading { node: fields.node("model")?, key: "model", ..reading }, said)
    } else {
        (reading, Said::default())
    };
    let name = model.name()?;
    let all = context.names.models.all(model, &name, &context.budget)?;
    for (name, _) in &all {
        if !is_evaluated(context, model, name, evaluated, "this row would be empty") {
            break;
        }
    }
    let expansions = context.names.models.expansions(model, &name)?;
    if let Some((key, place)) = &said.replicates {
        check_replicates(*place, &name, key, across, expansions)?;
    }
    let replicates = said.replicates.map(|(key, _)| key);
    let shared = |key: &str| replicates.as_deref() == Some(key) || across.is_some_and(|across| across.key == key);
    if !expansions.iter().flat_map(|member| &member.coordinates).any(|(key, _)| shared(key)) {
        let row = |(model, values): (String, String)| Row {
            label: labelled(said.label.as_deref(), &values),
            model,
            replicates: None,
            members: Vec::new(),
        };
        return Some(all.into_iter().map(row).collect());
    }
    let mut rows: Vec<Row> = Vec::new();
    for member in expansions {
        let values = |of: &dyn Fn(&str) -> bool| -> Option<String> {
            let values: Vec<_> =
                member.coordinates.iter().filter(|(key, _)| of(key)).map(|(_, value)| value.as_str()).collect();
            (!values.is_empty()).then(|| values.join("-"))
        };
        let rest = values(&|key| !shared(key)).unwrap_or_default();
        let one = layout::Member {
            model: member.name.clone(),
            at: across.and_then(|across| values(&|key| key == across.key)),
            replicate: replicates.as_ref().and_then(|replicates| values(&|key| key == replicates)),
        };
        let model = if rest.is_empty() { name.clone() } else { format!("{name}-{rest}") };
        match rows.iter_mut().find(|row| row.model == model) {
            Some(row) => row.members.push(one),
            None => {
                let label = labelled(said.label.as_deref(), &rest);
                rows.push(Row { model, label, replicates: replicates.clone(), members: vec![one] });
            }
        }
    }
    Some(rows)
}

/// A label with the values of a sweep behind it.
fn labelled(label: Option<&str>, values: &str) -> Option<String> {
    label.map(|label| if values.is_empty() { label.to_owned() } else { format!("{label} {values}") })
}

fn check_replicates(
    place: Reading<'_>,
    name: &str,
    key: &str,
    across: Option<&Across>,
    expansions: &[Member],
) -> Option<()> {
    let fail =
        |message: String, hint: Option<String>| place.fail(Diagnostic::new(place.node.span, message).maybe_hint(hint));
    if across.is_some_and(|across| across.key == key) {
        let hint = Some("take it away here, or under `across`".to_owned());
        return fail(format!("`{key}` stands across the table, so its values are no replicates"), hint);
    }
    let Some(first) = expansions.first() else {
        let hint = format!("name an entry that is swept over it, as by `sweep: {{ {key}: [0, 1, 2] }}`");
        return fail(format!("`{name}` is not swept, so it has no replicates"), Some(hint));
    };
    if first.coordinates.iter().any(|(known, _)| known == key) {
        return Some(());
    }
    fail(format!("`{name}` is not swept over `{key}`"), swept_over(key, [first]))
}

/// What there is in place of a key that nothing is swept over.
fn swept_over<'m>(key: &str, members: impl IntoIterator<Item = &'m Member>) -> Option<String> {
    let mut keys: Vec<&str> = Vec::new();
    for (known, _) in members.into_iter().flat_map(|member| &member.coordinates) {
        if !keys.contains(&known.as_str()) {
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
        let names = rows.iter().flat_map(|row| context.names.models.members(&row.model));
        let message = format!("no row is swept over `{}`", across.key);
        return place.fail(Diagnostic::new(place.node.span, message).maybe_hint(swept_over(&across.key, names)));
    }
    if rows.iter().any(|row| !row.models(None).is_empty()) {
        values.insert(0, None);
    }
    Some(values)
}
