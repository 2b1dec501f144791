//! `commands:`.

use std::path::PathBuf;

use indexmap::IndexMap;

use super::context::{Context, Item};
use super::diagnostics::Diagnostic;
use super::keys::{COMMAND, INPUT};
use super::placeholders::{Piece, fill, pieces};
use super::read::{Fields, Reading, check_name, did_you_mean, wrong_type};
use super::sweep::unused_placeholder;
use super::tree::Field;
use super::types::{Command, Input, Output};

/// Keys of a command that a sweep may set; others are placeholders.
pub(super) const SWEPT_COMMAND_KEYS: &[&str] = &["run", "inputs", "env", "version", "timeout", "sweep"];

/// Reads one command. `field` is the entry as it stands in the file.
pub(super) fn command(context: &Context<'_>, item: Item<'_>, field: &Field) -> Option<Command> {
    let fields = Fields::open(context.report, &item.member.view, item.place, "a command", &[COMMAND])?;
    let inputs = fields.get_or("inputs", IndexMap::new(), |inputs| self::inputs(context, item, inputs));
    let swept: Vec<_> = (item.member.coordinates.iter())
        .filter(|(key, _)| !SWEPT_COMMAND_KEYS.contains(&key.as_str()))
        .cloned()
        .collect();
    for (key, _) in swept.iter().filter(|(key, _)| key == "out" || key.starts_with("inputs.")) {
        context.report.add(
            Diagnostic::new(item.place, format!("a sweep over `{key}` hides the placeholder `{{{key}}}`"))
                .hint("rename it"),
        );
    }
    let mut allowed = vec!["out".to_owned()];
    allowed.extend(inputs.iter().flat_map(IndexMap::keys).map(|name| format!("inputs.{name}")));
    allowed.extend(swept.iter().map(|(key, _)| key.clone()));
    // With inputs that could not be read nobody knows which placeholders exist.
    let known = inputs.is_some().then_some(allowed.as_slice());
    let mut used = Vec::new();
    let run = fields.get("run", |run| run.list(|argument| self::argument(argument, known, &mut used)));
    for (key, _) in swept.iter().filter(|(key, _)| !used.contains(key)) {
        unused_placeholder(context.report, field, key, &used);
    }
    let env = fields.get("env", environment).unwrap_or_default();
    let version = fields.get("version", Reading::word);
    let timeout = fields.get("timeout", Reading::positive);
    let run = run?.iter().map(|argument| fill(argument, &swept)).collect();
    Some(Command { run, inputs: inputs?, env, version, timeout })
}

/// One argument; its placeholders must be among `known`, where that is known.
pub(super) fn argument(reading: Reading<'_>, known: Option<&[String]>, used: &mut Vec<String>) -> Option<String> {
    let text = reading.text()?;
    let mut good = true;
    for piece in pieces(&text) {
        let (name, hint) = match piece {
            Piece::Text(_) => continue,
            Piece::Stray(brace) => (brace, Some(format!("write `{brace}{brace}` for a brace"))),
            Piece::Name(name) => {
                used.push(name.to_owned());
                let Some(known) = known else { continue };
                if known.iter().any(|known| known == name) {
                    continue;
                }
                (name, did_you_mean(name, known.iter().map(String::as_str)))
            }
        };
        good = false;
        let message = match piece {
            Piece::Name(_) => format!("there is no placeholder `{{{name}}}` here"),
            _ => format!("a `{name}` that belongs to no placeholder"),
        };
        let all =
            known.unwrap_or_default().iter().take(6).map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(", ");
        let hint = hint.unwrap_or_else(|| format!("there is {all}; write `{{{{` and `}}}}` for braces"));
        reading.report.add(Diagnostic::new(reading.node.span, message).hint(hint));
    }
    good.then_some(text)
}

pub(super) fn environment(reading: Reading<'_>) -> Option<IndexMap<String, String>> {
    let mut variables = IndexMap::new();
    for (name, field) in reading.map()? {
        if name.is_empty() || name.contains('=') {
            reading.report.add(Diagnostic::new(field.key, format!("`{name}` cannot be the name of a variable")));
            continue;
        }
        if let Some(value) = (Reading { node: &field.value, key: name, ..reading }).spelling() {
            variables.insert(name.clone(), value);
        }
    }
    Some(variables)
}

fn inputs(context: &Context<'_>, item: Item<'_>, reading: Reading<'_>) -> Option<IndexMap<String, Input>> {
    let before = context.report.count();
    let mut inputs = IndexMap::new();
    if let Some(items) = reading.node.as_list() {
        for node in items {
            if node.as_map().is_some() {
                let diagnostic = Diagnostic::new(node.span, "an input from another entry needs a name");
                reading
                    .report
                    .add(diagnostic.hint("make `inputs` a mapping: `inputs: { NAME: { from: commands.x } }`"));
                continue;
            }
            let Some(path) = reading.item(node).word() else { continue };
            if inputs.insert(path.clone(), Input::Path(PathBuf::from(&path))).is_some() {
                reading.report.add(Diagnostic::new(node.span, format!("the input `{path}` stands twice")));
            }
        }
    } else if reading.node.as_map().is_some() {
        for (name, field) in reading.map()? {
            if !check_name(context.report, name, field.key) {
                continue;
            }
            let value = Reading { node: &field.value, key: name, ..reading };
            let input = match field.value.as_map() {
                None => value.path().map(Input::Path),
                Some(_) => input(context, item, value, field),
            };
            if let Some(input) = input {
                inputs.insert(name.clone(), input);
            }
        }
    } else {
        let diagnostic = wrong_type(reading.node, "`inputs`", "a list of paths or a mapping from names to inputs");
        return reading.fail(diagnostic);
    }
    (context.report.count() == before).then_some(inputs)
}

fn input(context: &Context<'_>, item: Item<'_>, reading: Reading<'_>, field: &Field) -> Option<Input> {
    let fields = Fields::open(context.report, reading.node, field.key, "an input", &[INPUT])?;
    let (section, name) =
        fields.get("from", |from| context.reference(item, from, &["commands", "models", "merges", "data", "grams"]))?;
    if section == "commands" {
        let path = fields.get("path", Reading::inner_path);
        return Some(Input::From(Output { command: name, path }));
    }
    fields.refuse(&["path"], "for an input that is not a command's");
    Some(match section {
        "data" => Input::Data(name),
        "grams" => Input::Gram(name),
        _ => Input::Model(name),
    })
}
