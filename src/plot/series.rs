//! Which rows of a table are the points of a sweep over a number, and which are what it is held against.

use super::RowOrigin;
use super::scale::{Range, number};
use crate::report::Grid;

/// A sweep over one key: what one picture shows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chart {
    /// The key.
    pub(crate) key: String,
    /// Its lines.
    pub(crate) series: Vec<Series>,
    /// The rows that no sweep over a number has, by place; true where it is a merge.
    pub(crate) others: Vec<(usize, bool)>,
}

/// One line: the expansions of one entry that differ in nothing but the key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    /// What it is called.
    pub(crate) label: String,
    /// Its points by value.
    pub(crate) points: Vec<Point>,
}

/// One expansion.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Point {
    /// The swept value.
    pub(crate) x: f64,
    /// As the file spells it.
    pub(crate) spelling: String,
    /// The place of its row.
    pub(crate) row: usize,
}

/// One chart for each key; entries that are swept over the same one share it.
pub(crate) fn charts(grid: &Grid, rows: &[RowOrigin]) -> Vec<Chart> {
    let mut entries: Vec<(&str, Vec<usize>)> = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        let Some(expansion) = &row.expansion else { continue };
        match entries.iter_mut().find(|(entry, _)| *entry == expansion.entry) {
            Some((_, members)) => members.push(place),
            None => entries.push((&expansion.entry, vec![place])),
        }
    }
    let swept: Vec<_> =
        entries.into_iter().filter_map(|(entry, members)| Some((axis(rows, &members)?, entry, members))).collect();
    let charted = |place: &usize| swept.iter().any(|(_, _, members)| members.contains(place));
    let others: Vec<_> =
        (0..rows.len()).filter(|place| !charted(place)).map(|place| (place, rows[place].merge)).collect();

    let mut charts: Vec<Chart> = Vec::new();
    for (at, entry, members) in &swept {
        let key = &coordinates(rows, members[0])[*at].0;
        let series = lines(grid, rows, *at, entry, members);
        match charts.iter_mut().find(|chart| chart.key == *key) {
            Some(chart) => chart.series.extend(series),
            None => charts.push(Chart { key: key.clone(), series, others: others.clone() }),
        }
    }
    charts
}

fn coordinates(rows: &[RowOrigin], place: usize) -> &[(String, String)] {
    rows[place].expansion.as_ref().map_or(&[], |expansion| &expansion.coordinates)
}

/// Which coordinate goes on the axis: the first that is a number everywhere and takes two values or more. A seed is a name
/// and no quantity, so only where there is nothing else.
fn axis(rows: &[RowOrigin], members: &[usize]) -> Option<usize> {
    let numeric = |at: &usize| {
        let numbers: Option<Vec<f64>> =
            members.iter().map(|place| number(&coordinates(rows, *place).get(*at)?.1)).collect();
        Range::of(numbers.unwrap_or_default()).is_some_and(|range| range.span() > 0.0)
    };
    let found: Vec<usize> = (0..coordinates(rows, members[0]).len()).filter(numeric).collect();
    let quantity = found.iter().find(|at| coordinates(rows, members[0])[**at].0 != "seed");
    quantity.or(found.first()).copied()
}

/// A line for each combination of the other coordinates.
fn lines(grid: &Grid, rows: &[RowOrigin], at: usize, entry: &str, members: &[usize]) -> Vec<Series> {
    let labels: Vec<&str> = members.iter().map(|place| grid.rows[*place].label.as_str()).collect();
    let name = common(&labels, &coordinates(rows, members[0])[at].0).unwrap_or_else(|| entry.to_owned());
    let mut lines: Vec<(Vec<&(String, String)>, Series)> = Vec::new();
    for place in members {
        let coordinates = coordinates(rows, *place);
        let spelling = coordinates[at].1.clone();
        let Some(x) = number(&spelling) else { continue };
        let others: Vec<_> = coordinates.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, other)| other).collect();
        let point = Point { x, spelling, row: *place };
        match lines.iter_mut().find(|(known, _)| *known == others) {
            Some((_, series)) => series.points.push(point),
            None => {
                let others_said = others.iter().map(|(key, value)| format!(", {key} = {value}"));
                let label = name.clone() + &others_said.collect::<String>();
                lines.push((others, Series { label, points: vec![point] }));
            }
        }
    }
    for (_, series) in &mut lines {
        series.points.sort_by(|a, b| a.x.total_cmp(&b.x));
    }
    lines.into_iter().map(|(_, series)| series).collect()
}

/// What labels begin with, without the name of the key: `RegMean` of `RegMean, α = 0.1` and `RegMean, α = 0.5`.
fn common(labels: &[&str], key: &str) -> Option<String> {
    let first = labels.first()?;
    let ends = first.char_indices().map(|(at, c)| at + c.len_utf8());
    let shared = ends.take_while(|end| labels.iter().all(|label| label.starts_with(&first[..*end]))).last()?;
    // Digits at the end are a part of the value: the `1.` of 1.0 and 1.5.
    let shared = &first[..shared];
    let trim = |text: &str| text.trim_end_matches(|c: char| c.is_whitespace() || ",;:=-_/([".contains(c)).to_owned();
    let name = trim(shared.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.'));
    let greek = if key == "alpha" { "α" } else { key };
    let bare = name.strip_suffix(key).or_else(|| name.strip_suffix(greek)).map(trim).unwrap_or(name);
    // The closing isolate of right-to-left text is no part of what the labels share.
    let isolated = bare.starts_with('\u{2068}') && !bare.ends_with('\u{2069}');
    let bare = if isolated { bare + "\u{2069}" } else { bare };
    bare.chars().any(char::is_alphabetic).then_some(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_called_by_what_its_rows_share_without_the_key() {
        assert_eq!(common(&["RegMean, α = 0.1", "RegMean, α = 0.5", "RegMean, α = 1"], "alpha").unwrap(), "RegMean");
        assert_eq!(common(&["dare-0.1", "dare-0.12"], "density").unwrap(), "dare");
        assert_eq!(common(&["RegMean++ alpha 1.0", "RegMean++ alpha 1.5"], "alpha").unwrap(), "RegMean++");
        assert_eq!(common(&["Llama 3, α = 0.1", "Llama 3, α = 1"], "alpha").unwrap(), "Llama 3");
        assert_eq!(common(&["0.1", "0.5"], "alpha"), None);
        assert_eq!(common(&["low", "high"], "alpha"), None);
        assert_eq!(
            common(&["\u{2068}שלום 0.1\u{2069}", "\u{2068}שלום 0.5\u{2069}"], "alpha").unwrap(),
            "\u{2068}שלום\u{2069}"
        );
    }
}
