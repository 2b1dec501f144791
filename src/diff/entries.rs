//! Two experiment files, entry by entry, as they are spelled.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::plan::changes;
use crate::report::plain;

/// Sections of an experiment file that hold entries.
const SECTIONS: [&str; 8] = ["models", "data", "commands", "grams", "fishers", "merges", "evals", "tables"];

/// What an item of a list goes by: the first of these that it has.
const NAMES: [&str; 6] = ["name", "task", "model", "match", "label", "mean"];

/// How two experiment files differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entries {
    /// Changes outside of entries: `name: x -> y`, `settings.seed: 0 -> 1`.
    pub file: Vec<String>,
    /// Entries that are not the same, in the order of sections.
    pub entries: Vec<Entry>,
}

/// An entry that is not the same in both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// `merges.regmean`.
    pub entry: String,
    /// What became of it.
    pub change: Change,
    /// What differs in one that both have: `alpha: 0.1 -> 0.2`.
    pub changes: Vec<String>,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// B has it.
    Added,
    /// A has it.
    Removed,
    /// Both have it.
    Changed,
}

impl Entries {
    /// Of two files as objects of spelled values.
    pub fn of(a: &Value, b: &Value) -> Self {
        let is_section = |key: &String| SECTIONS.contains(&key.as_str());
        let rest = |file: &Value| -> Value {
            let fields = file.as_object().into_iter().flatten();
            fields.filter(|(key, _)| !is_section(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        let mut entries = Vec::new();
        for section in SECTIONS {
            let of = |file: &Value| file[section].as_object().cloned().unwrap_or_default();
            let (of_a, of_b) = (of(a), of(b));
            let entry = |name: &String, change, changes| Entry { entry: format!("{section}.{name}"), change, changes };
            for (name, before) in &of_a {
                match of_b.get(name) {
                    None => entries.push(entry(name, Change::Removed, Vec::new())),
                    Some(after) => {
                        let mut lone = Vec::new();
                        let (one, other) = aligned("", before, after, &mut lone);
                        let lines = [changes(&one, &other), lone, moved(before, after)].concat();
                        if !lines.is_empty() {
                            entries.push(entry(name, Change::Changed, lines));
                        }
                    }
                }
            }
            let added = of_b.keys().filter(|name| !of_a.contains_key(*name));
            entries.extend(added.map(|name| entry(name, Change::Added, Vec::new())));
        }
        Self { file: changes(&rest(a), &rest(b)), entries }
    }

    /// Whether anything differs.
    pub fn differ(&self) -> bool {
        !self.file.is_empty() || !self.entries.is_empty()
    }

    /// For people: a line for each entry and each change, which `paint` colours by what became of the entry.
    pub fn text(&self, paint: impl Fn(Change, &str) -> String) -> String {
        let mut text = String::new();
        for line in &self.file {
            text += &format!("  {}\n", plain(line));
        }
        for Entry { entry, change, changes } in &self.entries {
            let sign = match change {
                Change::Added => '+',
                Change::Removed => '-',
                Change::Changed => '~',
            };
            text += &paint(*change, &format!("{sign} {}", plain(entry)));
            text.push('\n');
            for line in changes {
                text += &format!("    {}\n", plain(line));
            }
        }
        if text.is_empty() { "no entry differs\n".to_owned() } else { text }
    }
}

/// What an item of a list goes by, and under which key it says so.
fn name_of(item: &Value) -> Option<(&str, Option<&'static str>)> {
    match item {
        Value::String(word) => Some((word, None)),
        Value::Object(fields) => NAMES.iter().find_map(|key| Some((fields.get(*key)?.as_str()?, Some(*key)))),
        _ => None,
    }
}

/// What the items of a list go by; nothing where one has no name, or two have the same.
fn names(items: &[Value]) -> Option<Vec<&str>> {
    let names = items.iter().map(|item| Some(name_of(item)?.0)).collect::<Option<Vec<_>>>()?;
    let distinct: HashSet<&str> = names.iter().copied().collect();
    (distinct.len() == names.len()).then_some(names)
}

/// What an item says beside its name: `gsm8k` is `{ task: gsm8k }`.
fn beside_name(item: &Value) -> Value {
    match (item, name_of(item)) {
        (Value::String(_), _) => Value::Object(Map::new()),
        (Value::Object(fields), Some((_, Some(key)))) => {
            fields.iter().filter(|(other, _)| *other != key).map(|(key, value)| (key.clone(), value.clone())).collect()
        }
        _ => item.clone(),
    }
}

/// Whether two lists are told apart item by item: those of words and numbers are told whole.
fn is_of_items(a: &[Value], b: &[Value]) -> bool {
    a.iter().chain(b).any(Value::is_object)
}

/// Two values in which the items of lists stand under their names, or else their places from 1, so that one that changed is
/// told by that and not with all others. Named items that only one list has are told in `lines` and left out.
fn aligned(path: &str, a: &Value, b: &Value, lines: &mut Vec<String>) -> (Value, Value) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => fields(path, a.clone(), b.clone(), lines),
        (Value::Array(a), Value::Array(b)) if is_of_items(a, b) => match (names(a), names(b)) {
            (Some(names_a), Some(names_b)) => {
                let lone = |names: &[&str], items: &[Value], others: &[&str], word: &str| -> Vec<String> {
                    let lone = names.iter().zip(items).filter(|(name, _)| !others.contains(name));
                    lone.map(|(name, item)| format!("{path}: {word} {name}{}", beside(item))).collect()
                };
                lines.extend(lone(&names_a, a, &names_b, "without"));
                lines.extend(lone(&names_b, b, &names_a, "with"));
                let shared = |names: &[&str], items: &[Value], others: &[&str]| -> Map<String, Value> {
                    let shared = names.iter().zip(items).filter(|(name, _)| others.contains(name));
                    shared.map(|(name, item)| ((*name).to_owned(), beside_name(item))).collect()
                };
                fields(path, shared(&names_a, a, &names_b), shared(&names_b, b, &names_a), lines)
            }
            _ => {
                let placed = |items: &[Value]| -> Map<String, Value> {
                    (1..).map(|place: usize| place.to_string()).zip(items.iter().cloned()).collect()
                };
                fields(path, placed(a), placed(b), lines)
            }
        },
        _ => (a.clone(), b.clone()),
    }
}

/// As [`aligned`], for the fields that both have.
fn fields(path: &str, mut a: Map<String, Value>, mut b: Map<String, Value>, lines: &mut Vec<String>) -> (Value, Value) {
    for (key, value) in &mut a {
        if let Some(also) = b.get_mut(key) {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            (*value, *also) = aligned(&path, value, also, lines);
        }
    }
    (Value::Object(a), Value::Object(b))
}

/// What an item says beside its name, if it says anything.
fn beside(item: &Value) -> String {
    match beside_name(item) {
        Value::Object(fields) if fields.is_empty() => String::new(),
        other => format!(" {other}"),
    }
}

/// Lists of named items that have the same names in another order.
fn moved(a: &Value, b: &Value) -> Vec<String> {
    let (Value::Object(a), Value::Object(b)) = (a, b) else { return Vec::new() };
    let is_moved = |key: &str, one: &Value| {
        let (one, other) = (one.as_array()?, b.get(key)?.as_array()?);
        let (names_a, names_b) = (names(one)?, names(other)?);
        let common = |these: &[&str], those: &[&str]| -> Vec<String> {
            these.iter().filter(|name| those.contains(name)).map(|name| (*name).to_owned()).collect()
        };
        Some(is_of_items(one, other) && common(&names_a, &names_b) != common(&names_b, &names_a))
    };
    let moved = a.iter().filter(|(key, one)| is_moved(key, one) == Some(true));
    moved.map(|(key, _)| format!("{key}: in another order")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(a: &Value, b: &Value) -> Vec<String> {
        let found = Entries::of(&json!({ "merges": { "m": a } }), &json!({ "merges": { "m": b } }));
        found.entries.into_iter().flat_map(|entry| entry.changes).collect()
    }

    #[test]
    fn entries_are_added_removed_and_changed_in_words() {
        let a = json!({ "name": "x", "settings": { "seed": "0" }, "models": { "a": { "path": "m" }, "b": {} } });
        let b = json!({ "name": "y", "models": { "b": {}, "a": { "path": "n" }, "c": {} }, "merges": { "avg": {} } });
        let found = Entries::of(&a, &b);
        assert_eq!(found.file, ["name: x -> y", "settings: {\"seed\":\"0\"} -> not set"]);
        let entries: Vec<_> = found.entries.iter().map(|entry| (&*entry.entry, entry.change)).collect();
        let expected = [("models.a", Change::Changed), ("models.c", Change::Added), ("merges.avg", Change::Added)];
        assert_eq!(entries, expected);
        assert_eq!(found.entries[0].changes, ["path: m -> n"]);
        assert!(!Entries::of(&a, &a).differ() && found.differ());
        assert_eq!(Entries::of(&b, &a).entries[1].change, Change::Removed);
    }

    #[test]
    fn items_of_lists_go_by_their_names() {
        let before = json!({ "tasks": ["mbpp", { "task": "gsm8k", "num_fewshot": "5" }] });
        let after = json!({ "tasks": [{ "task": "gsm8k", "num_fewshot": "0" }, "mbpp", "mathqa"] });
        assert_eq!(
            lines(&before, &after),
            ["tasks.gsm8k.num_fewshot: 5 -> 0", "tasks: with mathqa", "tasks: in another order"]
        );
        let gone = json!({ "tasks": ["mathqa"] });
        assert_eq!(
            lines(&before, &gone),
            ["tasks: without mbpp", r#"tasks: without gsm8k {"num_fewshot":"5"}"#, "tasks: with mathqa"]
        );
        // A word and an object of the same name are one item.
        let (plain, weighted) =
            (json!({ "models": ["a", "b"] }), json!({ "models": ["a", { "model": "b", "weight": "2" }] }));
        assert_eq!(lines(&plain, &weighted), ["models.b.weight: not set -> 2"]);
        // Lists of words are told whole, in their order.
        let turned = json!({ "models": ["b", "a"] });
        assert_eq!(lines(&plain, &turned), [r#"models: ["a","b"] -> ["b","a"]"#]);
    }

    #[test]
    fn items_that_share_a_name_or_have_none_go_by_their_places() {
        let columns =
            |digits: &str| json!({ "columns": [{ "task": "t", "metric": "a" }, { "task": "t", "digits": digits }] });
        assert_eq!(lines(&columns("1"), &columns("2")), ["columns.2.digits: 1 -> 2"]);
        let messages = |role: &str| json!({ "messages": [{ "role": role, "content": "c" }] });
        assert_eq!(lines(&messages("user"), &messages("system")), ["messages.1.role: user -> system"]);
    }
}
