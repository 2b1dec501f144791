//! Numbers for people.

/// A number in four digits, short where it is large or small; a dash for none.
pub(super) fn short(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(value) if !(1e-3..1e5).contains(&value.abs()) => format!("{value:.3e}"),
        Some(value) => {
            let whole = value.abs().log10().floor() as i32;
            format!("{value:.*}", usize::try_from(3 - whole).unwrap_or(0))
        }
    }
}

/// Columns of text under their headings, each as wide as its widest cell; the first from the left, the others from the right
/// but for those that `left` names.
pub(super) fn columns(rows: &[Vec<String>], left: &[usize]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = widths[column];
            if column == 0 || left.contains(&column) { format!("{cell:width$}") } else { format!("{cell:>width$}") }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits() {
        let values = [0.0, 1.0, 0.123_456, 12.345_67, 99_999.4, 123_456.0, 0.000_123_4, -2.5, f64::MIN_POSITIVE];
        assert_eq!(
            values.map(|value| short(Some(value))),
            ["0", "1.000", "0.1235", "12.35", "99999", "1.235e5", "1.234e-4", "-2.500", "2.225e-308"]
        );
        assert_eq!(short(None), "-");
    }

    #[test]
    fn columns_are_as_wide_as_they_have_to_be() {
        let rows = [["a", "number", "word"], ["longer", "1", "é"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(columns(&rows, &[2]), "a       number  word\nlonger       1  é\n");
    }
}
