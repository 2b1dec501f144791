//! YAML that other tools define, read as they do: task files of `lm_eval`, with `!function module.name`, which refers to
//! Python code, and the header of a data set's README.

use std::collections::HashMap;
use std::rc::Rc;

use serde_yaml::granit_parser::{Event, Parser};

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 64;

/// A value. Numbers and the like are kept as spelled; aliases share their node.
#[derive(Debug)]
pub(super) enum Yaml {
    /// A scalar.
    Text(String),
    /// What `!function` refers to.
    Function(String),
    /// A sequence.
    List(Vec<Rc<Self>>),
    /// A mapping in file order; a key that stands twice has the last value, as in Python.
    Map(Vec<(String, Rc<Self>)>),
}

impl Yaml {
    /// The value of a mapping's key.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(fields) => fields.iter().rev().find(|(name, _)| name == key).map(|(_, value)| &**value),
            _ => None,
        }
    }

    /// The text of a scalar that says something.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// The values of a list; a single value is a list of one.
    pub(super) fn items(&self) -> Vec<&Self> {
        match self {
            Self::List(items) => items.iter().map(|item| &**item).collect(),
            other => vec![other],
        }
    }

    /// The texts among [`Self::items`].
    pub(super) fn texts(&self) -> Vec<&str> {
        self.items().into_iter().filter_map(Self::text).collect()
    }

    /// Calls a function with every scalar at and under this value, each shared one once.
    pub(super) fn scalars<'a>(&'a self, visit: &mut dyn FnMut(&'a Self)) {
        let mut seen = std::collections::HashSet::new();
        let mut pending = vec![self];
        while let Some(value) = pending.pop() {
            if !seen.insert(std::ptr::from_ref(value)) {
                continue;
            }
            match value {
                Self::Text(_) | Self::Function(_) => visit(value),
                Self::List(items) => pending.extend(items.iter().rev().map(|item| &**item)),
                Self::Map(fields) => pending.extend(fields.iter().rev().map(|(_, value)| &**value)),
            }
        }
    }
}

/// Reads a task file; one that is not YAML is searched for what can be made out in it.
pub(super) fn read(text: &str) -> Rc<Yaml> {
    parse(text).unwrap_or_else(|| Rc::new(guess(text)))
}

enum Open {
    List(usize, Vec<Rc<Yaml>>),
    Map(usize, Vec<(String, Rc<Yaml>)>, Option<Rc<Yaml>>),
}

/// Reads a text that must be YAML.
pub(super) fn parse(text: &str) -> Option<Rc<Yaml>> {
    let mut open: Vec<Open> = Vec::new();
    let mut anchors: HashMap<usize, Rc<Yaml>> = HashMap::new();
    for event in Parser::new_from_str(text) {
        let (anchor, node) = match event.ok()?.0 {
            Event::Scalar(text, _, anchor, tag) => {
                let is_function = tag.is_some_and(|tag| tag.suffix() == "function");
                let text = text.into_owned();
                (anchor, Rc::new(if is_function { Yaml::Function(text) } else { Yaml::Text(text) }))
            }
            Event::Alias(id) => (0, Rc::clone(anchors.get(&id)?)),
            Event::SequenceStart(_, anchor, _) => {
                open.push(Open::List(anchor, Vec::new()));
                continue;
            }
            Event::MappingStart(_, anchor, _) => {
                open.push(Open::Map(anchor, Vec::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop()? {
                Open::List(anchor, items) => (anchor, Rc::new(Yaml::List(items))),
                Open::Map(anchor, fields, _) => (anchor, Rc::new(Yaml::Map(fields))),
            },
            _ => continue,
        };
        if open.len() > MAX_DEPTH {
            return None;
        }
        if anchor != 0 {
            anchors.insert(anchor, Rc::clone(&node));
        }
        match open.last_mut() {
            None => return Some(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, fields, key)) => match key.take() {
                None => *key = Some(node),
                Some(name) => merge(fields, &name, node),
            },
        }
    }
    None
}

/// Adds a field; `<<` adds those of another mapping under what the mapping says itself.
fn merge(fields: &mut Vec<(String, Rc<Yaml>)>, key: &Yaml, value: Rc<Yaml>) {
    match key {
        Yaml::Text(name) if name == "<<" => {
            for source in value.items().into_iter().rev() {
                if let Yaml::Map(merged) = source {
                    fields.splice(0..0, merged.iter().map(|(name, value)| (name.clone(), Rc::clone(value))));
                }
            }
        }
        Yaml::Text(name) => fields.push((name.clone(), value)),
        // A key that is a collection says nothing to us, but what stands under it may.
        _ => fields.push((String::new(), value)),
    }
}

/// Lines `key: value` and `- item` of a text that does not parse.
fn guess(text: &str) -> Yaml {
    let scalar = |text: &str| {
        let text = text.split(" #").next().unwrap_or(text).trim().trim_matches(['"', '\'']);
        Rc::new(match text.strip_prefix("!function ") {
            Some(function) => Yaml::Function(function.trim().to_owned()),
            None => Yaml::Text(text.to_owned()),
        })
    };
    let mut fields: Vec<(String, Rc<Yaml>)> = Vec::new();
    let mut items: Vec<Rc<Yaml>> = Vec::new();
    for line in text.lines().chain(["end:"]) {
        if let Some(item) = line.trim().strip_prefix("- ") {
            items.push(scalar(item.trim_start().trim_start_matches("task:")));
        } else if let Some((key, value)) = line.split_once(':') {
            if let Some((_, last)) = fields.last_mut().filter(|_| !items.is_empty()) {
                *last = Rc::new(Yaml::List(std::mem::take(&mut items)));
            }
            // Inner keys do not name a task, but may name data or functions.
            let key = if line.starts_with(' ') { "" } else { key.trim_matches(['"', '\'']) };
            fields.push((key.to_owned(), scalar(value)));
        }
    }
    Yaml::Map(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_told_from_texts_and_the_last_of_two_keys_counts() {
        let yaml = read("task: a\n\"tag\": [x, y]\nf: !function utils.score\ntask: b\n");
        assert_eq!(yaml.get("task").and_then(Yaml::text), Some("b"));
        assert_eq!(yaml.get("tag").unwrap().texts(), ["x", "y"]);
        assert!(matches!(yaml.get("f"), Some(Yaml::Function(name)) if name == "utils.score"));
    }

    #[test]
    fn a_merged_mapping_yields_to_what_stands_beside_it() {
        let yaml = read("x: &x { task: a, tag: t }\n<<: *x\ntask: b\n");
        assert_eq!(yaml.get("task").and_then(Yaml::text), Some("b"));
        assert_eq!(yaml.get("tag").and_then(Yaml::text), Some("t"));
    }

    #[test]
    fn a_file_that_is_no_yaml_is_searched() {
        let yaml = read("task: a # sums\nbroken: {{\ntag:\n  - x\n  - y\nf: !function u.s\n");
        assert_eq!(yaml.get("task").and_then(Yaml::text), Some("a"));
        assert_eq!(yaml.get("tag").unwrap().texts(), ["x", "y"]);
        assert!(matches!(yaml.get("f"), Some(Yaml::Function(name)) if name == "u.s"));
    }
}
