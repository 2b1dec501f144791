//! `models:` and `data:`: what an experiment starts from.

use std::path::PathBuf;

use mergelab_wire::{Message, Rows};

use super::context::{Context, Item};
use super::diagnostics::Diagnostic;
use super::keys::{ADAPTER, DATA, MESSAGE, MODEL, SAMPLE};
use super::read::{Fields, Reading};
use super::types::{Data, DataSource, Lora, Model, Pick};

/// Keys of a data set's sweep that belong into a mapping.
pub(super) const SWEPT_INSIDE: &[(&str, &str)] = &[("sample", "rows"), ("seed", "rows")];

/// Reads one model.
pub(super) fn model(context: &Context<'_>, item: Item<'_>) -> Option<Model> {
    let fields = Fields::open(context.report, &item.member.view, item.place, "a model", &[MODEL])?;
    let base = place(context, item, &fields);
    let adapter = fields.get_or("lora", None, |lora| adapter(context, item, lora).map(Some));
    Some(match (base?, adapter?) {
        (base, None) => base,
        (base, Some(adapter)) => Model::Lora(Box::new(Lora { base, adapter })),
    })
}

/// Where the adapter of a model comes from: a directory, or a mapping as that of a model.
fn adapter(context: &Context<'_>, item: Item<'_>, lora: Reading<'_>) -> Option<Model> {
    if lora.node.as_map().is_none() {
        return lora.path().map(Model::Path);
    }
    let fields = Fields::open(context.report, lora.node, lora.node.span, "`lora`", &[ADAPTER])?;
    place(context, item, &fields)
}

/// Where the files of a model or of an adapter come from.
fn place(context: &Context<'_>, item: Item<'_>, fields: &Fields<'_>) -> Option<Model> {
    if fields.has("from") {
        fields.refuse(&["hub", "revision"], "beside `from`");
        return context.output(item, fields).map(Model::From);
    }
    if fields.exactly_one(&["hub", "path", "from"])? == "hub" {
        let revision = fields.get("revision", Reading::word);
        return fields.get("hub", Reading::repo).map(|repo| Model::Hub { repo, revision });
    }
    fields.refuse(&["revision"], "for a directory");
    fields.get("path", Reading::path).map(Model::Path)
}

/// Reads one data set.
pub(super) fn data(context: &Context<'_>, item: Item<'_>) -> Option<Data> {
    let fields = Fields::open(context.report, &item.member.view, item.place, "a data set", &[DATA])?;
    let source = source(context, item, &fields);
    let rows = fields.get_or("rows", Pick::All, |rows| pick(context, rows));
    let format = match fields.exactly_one(&["messages", "text"]) {
        Some("messages") => {
            fields.get("messages", |list| list.list(|message| self::message(context, message))).map(Rows::Messages)
        }
        Some(_) => fields.get("text", |text| context.template(text)).map(Rows::Text),
        None => None,
    };
    let strict = fields.get("strict", Reading::flag).unwrap_or(false);
    Some(Data { source: source?, rows: rows?, format: format?, strict })
}

fn source(context: &Context<'_>, item: Item<'_>, fields: &Fields<'_>) -> Option<DataSource> {
    const OF_HUB: &[&str] = &["revision", "config", "split"];
    if fields.has("from") {
        fields.refuse(&["hub"], "beside `from`");
        fields.refuse(OF_HUB, "beside `from`");
        return context.output(item, fields).map(DataSource::From);
    }
    if fields.exactly_one(&["hub", "path", "from"])? == "hub" {
        let revision = fields.get("revision", Reading::word);
        let config = fields.get("config", Reading::word);
        let split = fields.get("split", Reading::word).unwrap_or_else(|| "train".to_owned());
        let repo = fields.get("hub", Reading::repo);
        return repo.map(|repo| DataSource::Hub { repo, revision, config, split });
    }
    fields.refuse(OF_HUB, "for a file");
    fields.get("path", data_file).map(DataSource::Path)
}

/// A path with an ending that says how its rows are written.
fn data_file(reading: Reading<'_>) -> Option<PathBuf> {
    const ENDINGS: &[&str] = &[".jsonl", ".json", ".csv"];
    const COMPRESSIONS: &[&str] = &[".gz", ".zst"];
    let path = reading.path()?;
    let text = path.to_string_lossy().to_ascii_lowercase();
    let bare = COMPRESSIONS.iter().find_map(|ending| text.strip_suffix(ending));
    if text.ends_with(".parquet") || ENDINGS.iter().any(|ending| bare.unwrap_or(&text).ends_with(ending)) {
        return Some(path);
    }
    if bare.is_some_and(|bare| bare.ends_with(".parquet")) {
        let message = format!("`{}`: Parquet files are compressed inside, and read as they are", path.display());
        return reading.fail(Diagnostic::new(reading.node.span, message).hint("unpack it"));
    }
    let message = format!("`{}` does not say how its rows are written", path.display());
    let hint = "a data file ends in .parquet, or in .jsonl, .json or .csv, also with .gz or .zst behind it";
    reading.fail(Diagnostic::new(reading.node.span, message).hint(hint))
}

fn pick(context: &Context<'_>, reading: Reading<'_>) -> Option<Pick> {
    if reading.node.as_map().is_none() {
        return reading.whole(1, u64::MAX).map(Pick::First);
    }
    let fields = Fields::open(context.report, reading.node, reading.node.span, "`rows`", &[SAMPLE])?;
    let seed = fields.get("seed", |seed| seed.whole(0, u64::MAX)).unwrap_or(context.settings.seed);
    fields.get("sample", |sample| sample.whole(1, u64::MAX)).map(|sample| Pick::Sample { sample, seed })
}

fn message(context: &Context<'_>, reading: Reading<'_>) -> Option<Message> {
    let fields = Fields::open(context.report, reading.node, reading.node.span, "a message", &[MESSAGE])?;
    let template = |key| fields.get(key, |text| context.template(text));
    let (role, said) = (template("role"), template("content"));
    Some(Message { role: role?, content: said? })
}
