//! Whether the figures of a column were measured alike: with as many shots, on as many documents. Rows of several suites or
//! experiments may not have been, and then a note says so.

use indexmap::IndexMap;

use super::filled::Filled;
use super::marks;
use crate::experiment::Table;

/// What is not alike in the columns of a table, for a remark.
pub(super) fn remark<'a>(table: &Table, columns: impl Iterator<Item = &'a Filled<'a>>) -> Option<(String, String)> {
    let words = [("with", "shot"), ("on", "document")];
    let mut found = Vec::new();
    for filled in columns {
        for (which, (with, unit)) in words.into_iter().enumerate() {
            let mut rows: IndexMap<u64, Vec<String>> = IndexMap::new();
            for (place, row) in table.rows.iter().enumerate() {
                if let Some(count) = filled.conditions(place).and_then(|conditions| conditions[which]) {
                    rows.entry(count).or_default().push(marks::name(table, &row.model));
                }
            }
            if rows.len() > 1 {
                let parts = rows.iter().map(|(count, names)| {
                    let s = if *count == 1 { "" } else { "s" };
                    format!("{} {with} {count} {unit}{s}", names.join(", "))
                });
                found.push(format!("{}: {}", filled.label(), parts.collect::<Vec<_>>().join(", ")));
            }
        }
    }
    (!found.is_empty()).then(|| ("Not measured alike:".to_owned(), found.join("; ")))
}
