//! What stands under a table about its replicates: over what they are, how many there are, and which are missing.

use indexmap::IndexMap;

use super::filled::Filled;
use super::marks;
use super::text::plain;
use crate::experiment::{Row, Table};

/// Remarks on the rows of `table` that are replicates, each with its mark; `columns` are those that show a metric.
pub(super) fn remarks<'a>(table: &Table, columns: impl Iterator<Item = &'a Filled<'a>>) -> Vec<(String, String)> {
    let rows =
        || table.rows.iter().enumerate().filter_map(|(place, row)| Some((place, row, row.replicates.as_deref()?)));
    let mut remarks = Vec::new();
    let columns: Vec<_> = columns.collect();
    let mut over: IndexMap<(&str, usize), Vec<String>> = IndexMap::new();
    for (_, row, key) in rows() {
        let names = over.entry((key, count(row))).or_default();
        names.push(marks::name(table, &row.model));
    }
    for ((key, count), names) in over {
        let text = format!("mean ± standard deviation of {count} replicates: {}", names.join(", "));
        remarks.push((format!("Over {}:", plain(key)), text));
    }
    let lacking = columns
        .iter()
        .flat_map(|filled| rows().filter_map(|(place, row, key)| missing(table, filled, place, row, key)));
    let lacking: Vec<String> = lacking.collect();
    if !lacking.is_empty() {
        remarks.push(("Replicates missing:".to_owned(), lacking.join("; ")));
    }
    remarks
}

/// How many replicates a row has, in each column.
fn count(row: &Row) -> usize {
    let first = row.members.first().map(|member| &member.at);
    row.members.iter().filter(|member| Some(&member.at) == first).count()
}

/// Which of the replicates of a row were not measured; nothing where none was, since the cell says so.
fn missing(table: &Table, filled: &Filled<'_>, place: usize, row: &Row, key: &str) -> Option<String> {
    filled.replicates(place)?;
    let models = row.models(filled.column.at.as_deref());
    let lacking =
        row.members.iter().filter(|member| models.contains(&member.model.as_str()) && !filled.has(&member.model));
    let values: Vec<&str> = lacking.filter_map(|member| member.replicate.as_deref()).collect();
    let at = table.across.as_ref().zip(filled.column.at.as_deref());
    let at = at.map(|(across, at)| format!(", {}", plain(&across.says(at)))).unwrap_or_default();
    let name = marks::name(table, &row.model);
    (!values.is_empty()).then(|| format!("{name} on {}{at}: {} {}", filled.label(), plain(key), values.join(", ")))
}
