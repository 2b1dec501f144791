//! `mergelab import mergekit`: the experiment that a configuration is.

use std::fmt::Write as _;
use std::path::Path;

use indexmap::IndexMap;
use mergelab_wire::{Alignment, MergeSlice, RowSource, TokenRow, Weight};
use serde_json::Value as Json;

use super::super::diagnostics::Diagnostics;
use super::super::loaded::Files;
use super::super::parse::parse_with;
use super::super::read::is_name_byte;
use super::super::scalar;
use super::super::types::{Experiment, Merge, Model, Weighted};

/// The experiment that does what the configuration in `file` says, as text. It and its merge have this name.
///
/// # Errors
/// Everything that is wrong with the configuration, each with its place.
pub fn import(file: &Path, name: &str, files: &dyn Files) -> Result<String, Diagnostics> {
    let config = Json::from(file.to_string_lossy());
    let text = format!("name: {name}\nmerges: {{ {name}: {{ method: mergekit, config: {config} }} }}\n");
    let experiment = parse_with(Path::new("(import)"), &text, files)?.experiment;
    Ok(written(&experiment, &experiment.merges[name]))
}

fn written(experiment: &Experiment, merge: &Merge) -> String {
    let name = word(&experiment.name);
    let mut text = format!("name: {name}\nmodels:\n");
    for (name, model) in &experiment.models {
        let _ = writeln!(text, "  {}: {}", word(name), model_entry(model));
    }
    let _ = writeln!(text, "merges:\n  {name}:\n    method: {}", merge.method);
    if merge.slices.is_empty() {
        text += "    models:\n";
        for model in &merge.models {
            let _ = writeln!(text, "      - {}", weighted(model));
        }
    } else {
        text += "    slices:\n";
        for slice in &merge.slices {
            text += &sliced(merge, slice);
        }
    }
    let mut key = |name: &str, value: String| {
        let _ = writeln!(text, "    {name}: {value}");
    };
    for (name, value) in [("base", &merge.base), ("dtype", &merge.dtype)] {
        if let Some(value) = value {
            key(name, word(value));
        }
    }
    if let Some(source) = &merge.tokenizer {
        // Words that mean something else here go by the longer form.
        let is_plain = source != "union" && (source != "base" || merge.base.as_deref() == Some("base"));
        let source = if is_plain { word(source) } else { format!("{{ model: {} }}", word(source)) };
        key("tokenizer", tokenizer(&source, merge.alignment.as_ref()));
    }
    for (name, value) in &merge.params {
        key(name, flow(value));
    }
    text
}

fn model_entry(model: &Model) -> String {
    format!("{{ {} }}", keys_of(model))
}

/// The keys that say where a model comes from.
fn keys_of(model: &Model) -> String {
    let revision = |revision: &Option<String>| {
        revision.as_ref().map(|revision| format!(", revision: {}", word(revision))).unwrap_or_default()
    };
    match model {
        Model::Hub { repo, revision: at } => format!("hub: {}{}", word(repo), revision(at)),
        Model::Path(path) => format!("path: {}", word(&path.to_string_lossy())),
        Model::From(output) => format!("from: commands.{}", output.command),
        Model::Lora(lora) => format!("{}, lora: {}", keys_of(&lora.base), model_entry(&lora.adapter)),
    }
}

fn weighted(model: &Weighted) -> String {
    let name = word(&model.model);
    match said(&model.weight, &model.params) {
        said if said.is_empty() => name,
        said => format!("{{ model: {name}{said} }}"),
    }
}

/// A slice, with what it states of itself.
fn sliced(merge: &Merge, slice: &MergeSlice) -> String {
    let mut text = String::from("      - models:\n");
    for source in slice.base.iter().chain(&slice.models) {
        let (name, layers) = (word(&source.name), format!("[{}, {}]", source.first, source.first + slice.layers));
        let _ =
            writeln!(text, "          - {{ model: {name}, layers: {layers}{} }}", said(&source.weight, &source.params));
    }
    let base = slice.base.as_ref().map(|base| &base.name).filter(|base| merge.base.as_ref() != Some(base));
    if let Some(base) = base {
        let _ = writeln!(text, "        base: {}", word(base));
    }
    for (name, value) in slice.params.iter().filter(|(name, value)| merge.params.get(*name) != Some(value)) {
        let _ = writeln!(text, "        {name}: {}", flow(value));
    }
    text
}

/// What is said of a model beside its name.
fn said(weight: &Weight, params: &IndexMap<String, Json>) -> String {
    let mut keys = String::new();
    if *weight != 1.0.into() {
        let _ = write!(keys, ", weight: {}", flow(&serde_json::json!(weight)));
    }
    for (name, value) in params {
        let _ = write!(keys, ", {name}: {}", flow(value));
    }
    keys
}

/// Whose tokenizer the merge has, and how rows belong together.
fn tokenizer(source: &str, alignment: Option<&Alignment>) -> String {
    let Some(Alignment { union, base, pad_to_multiple_of, tokens }) = alignment else {
        return format!("{{ source: {source}, rows: ids }}");
    };
    let mut keys = vec![if *union { "source: union".to_owned() } else { format!("source: {source}") }];
    keys.extend(base.as_ref().map(|base| format!("base: {}", word(base))));
    keys.extend(pad_to_multiple_of.map(|multiple| format!("pad_to_multiple_of: {multiple}")));
    if !tokens.is_empty() {
        let tokens = tokens.iter().map(|(token, row)| format!("{}: {}", Json::from(token.as_str()), token_row(row)));
        keys.push(format!("tokens: {{ {} }}", tokens.collect::<Vec<_>>().join(", ")));
    }
    format!("{{ {} }}", keys.join(", "))
}

fn token_row(row: &TokenRow) -> String {
    let source = row.source.as_ref().map(|source| match source {
        RowSource::Zero => "{ kind: zero }".to_owned(),
        RowSource::Model(model) => word(model),
        RowSource::Token { model, token } => {
            format!("{{ kind: model_token, model: {}, token: {} }}", word(model), Json::from(token.as_str()))
        }
        RowSource::Id { model, id } => format!("{{ kind: model_token, model: {}, token_id: {id} }}", word(model)),
    });
    let force = row.force.then(|| "force: true".to_owned());
    let keys: Vec<String> = source.map(|source| format!("source: {source}")).into_iter().chain(force).collect();
    if keys.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", keys.join(", ")) }
}

/// A value in one line.
fn flow(value: &Json) -> String {
    match value {
        Json::String(text) => word(text),
        Json::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Json::Object(map) => {
            let there = map.iter().filter(|(_, value)| !value.is_null());
            let keys = there.map(|(name, value)| format!("{name}: {}", flow(value)));
            format!("{{ {} }}", keys.collect::<Vec<_>>().join(", "))
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => value.to_string(),
    }
}

/// A word, in quotes where YAML would take it for something else.
fn word(text: &str) -> String {
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '/')
        && text.bytes().all(|byte| is_name_byte(byte) || byte == b'/');
    let means_more =
        scalar::flag(text).is_some() || scalar::number(text).is_some() || text.eq_ignore_ascii_case("null");
    if is_plain && !means_more { text.to_owned() } else { Json::from(text).to_string() }
}
