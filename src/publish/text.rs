//! Small pieces of YAML and Markdown that cards are made of.

use std::fmt::Write as _;

/// A YAML scalar that is this text, whatever it holds.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A list under a key of the front matter; nothing where it is empty.
pub(super) fn list(key: &str, items: &[String]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let mut text = format!("{key}:\n");
    for item in items {
        let _ = writeln!(text, "- {item}");
    }
    text
}

/// A table of two columns without headings that matter.
pub(super) fn facts(rows: &[(&str, String)]) -> String {
    let mut text = String::from("| | |\n| --- | --- |\n");
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "| {name} | {} |", value.replace('|', "\\|").replace('\n', " "));
    }
    text
}

/// A number with its thousands apart.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([0, 999, 1000, 2_600_123].map(thousands), ["0", "999", "1,000", "2,600,123"]);
    }

    #[test]
    fn a_cell_stays_a_cell() {
        assert_eq!(
            facts(&[("a", "x | y\nz".into()), ("b", String::new())]),
            "| | |\n| --- | --- |\n| a | x \\| y z |\n"
        );
    }
}
