//! What changed between two key structs, in words.

use serde_json::Value;

/// What differs, one line each: `alpha: 0.1 -> 0.2`. Digests are named, not printed.
pub fn differences(before: &Value, after: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for (section, name) in [("params", None), ("inputs", Some("input")), ("tools", Some("version of"))] {
        walk(name.unwrap_or(""), "", before.get(section), after.get(section), &mut lines);
    }
    for field in ["kind", "version", "format"] {
        if before.get(field) != after.get(field) {
            let name = match field {
                "version" => "version of the algorithm",
                other => other,
            };
            lines.push(format!("{name}: {} -> {}", show(before.get(field)), show(after.get(field))));
        }
    }
    lines
}

/// What differs between two objects, one line each: `alpha: 0.1 -> 0.2`, `sweep.seed: not set -> 1`.
pub fn changes(before: &Value, after: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    walk("", "", Some(before), Some(after), &mut lines);
    lines
}

/// How many things differ; to find the nearest of several.
pub fn distance(before: &Value, after: &Value) -> usize {
    differences(before, after).len()
}

fn walk(prefix: &str, path: &str, before: Option<&Value>, after: Option<&Value>, lines: &mut Vec<String>) {
    match (before, after) {
        (one, other) if one == other => {}
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            let names: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).collect();
            for name in names {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                walk(prefix, &path, one.get(name), other.get(name), lines);
            }
        }
        (one, other) => {
            let name = if prefix.is_empty() { path.to_owned() } else { format!("{prefix} {path}") };
            lines.push(match (one, other) {
                (Some(_), Some(_)) if prefix == "input" => format!("{name} changed"),
                (None, Some(_)) if prefix == "input" => format!("{name} is new"),
                (Some(_), None) if prefix == "input" => format!("{name} is gone"),
                _ => format!("{name}: {} -> {}", show(one), show(other)),
            });
        }
    }
}

fn show(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "not set".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn changes_are_told_in_words() {
        let before = json!({
            "format": 1, "kind": "merge", "version": 1,
            "params": { "alpha": 0.1, "dtype": null, "rules": [] },
            "inputs": { "0.weights": "aa", "grams.0": "bb" },
            "tools": { "lm_eval": "0.4.12" },
        });
        let after = json!({
            "format": 1, "kind": "merge", "version": 2,
            "params": { "alpha": 0.2, "dtype": "bfloat16", "rules": [] },
            "inputs": { "0.weights": "cc", "1.weights": "dd" },
            "tools": { "lm_eval": "0.4.13" },
        });
        assert_eq!(
            differences(&before, &after),
            [
                "alpha: 0.1 -> 0.2",
                "dtype: not set -> bfloat16",
                "input 0.weights changed",
                "input 1.weights is new",
                "input grams.0 is gone",
                "version of lm_eval: 0.4.12 -> 0.4.13",
                "version of the algorithm: 1 -> 2",
            ]
        );
        assert_eq!(distance(&before, &before), 0);
    }
}
