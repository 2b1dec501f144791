//! `grams:`.

use mergelab_wire::{Engine, Rows, TokenMask};

use super::context::{Context, Item};
use super::diagnostics::Diagnostic;
use super::keys::{DTYPES, ENGINES, GRAM, PICKLE, RUN, TOKENS, Words};
use super::read::{Fields, Reading};
use super::types::{Capture, Data, Gram, Section};

/// Reads one Gram entry. `known` are the data sets that could be read.
pub(super) fn gram(context: &Context<'_>, item: Item<'_>, known: &Section<Data>) -> Option<Gram> {
    let fields = Fields::open(context.report, &item.member.view, item.place, "a Gram entry", &[GRAM, RUN])?;
    if let Some(from) = ["pickle", "path", "hub"].into_iter().find(|key| fields.has(key)) {
        return import(context, &fields, from);
    }
    fields.refuse(&["revision"], "without `hub`");
    let missing = ["model", "data"].into_iter().filter(|key| !fields.has(key)).count();
    if missing == 2 {
        let message = "a Gram entry needs `model` and `data`, or one of `pickle`, `path` and `hub`";
        context.report.add(Diagnostic::new(item.place, message));
    } else {
        fields.require(&["model", "data"]);
    }
    let capture = Capture {
        exclude: fields.get("exclude", |reading| reading.list(Reading::glob)).unwrap_or_default(),
        shards: fields.get("shards", |reading| reading.whole(1, 100_000)).unwrap_or(1) as usize,
        engine: fields.get("engine", |reading| reading.choice(ENGINES)).unwrap_or_default(),
        ..capture(context, item, &fields, known, DTYPES)?
    };
    Some(Gram::Capture(capture))
}

/// Reads what a model runs on and how, in one of these types.
pub(super) fn capture(
    context: &Context<'_>,
    item: Item<'_>,
    fields: &Fields<'_>,
    known: &Section<Data>,
    dtypes: &Words<&str>,
) -> Option<Capture> {
    let model = fields.get("model", |model| context.model(item, model));
    let data = fields.get("data", |data| context.data(item, data));
    let usize_max = usize::MAX as u64;
    let capture = Capture {
        max_length: fields.get("max_length", |reading| reading.whole(1, usize_max)).map(|length| length as usize),
        add_special_tokens: fields.get("add_special_tokens", Reading::flag).unwrap_or(true),
        tokens: fields.get("tokens", |reading| reading.choice(TOKENS)).unwrap_or_default(),
        skip_first: fields.get("skip_first", |reading| reading.whole(0, usize_max)).unwrap_or(0) as usize,
        chat_template: fields.get("chat_template", Reading::path),
        exclude: Vec::new(),
        dtype: fields.get("dtype", |reading| reading.choice(dtypes)).map(str::to_owned),
        shards: 1,
        engine: Engine::Native,
        model: model?,
        data: data?,
    };
    let text = known.get(&capture.data).is_some_and(|data| matches!(data.format, Rows::Text(_)));
    if let Some(node) = fields.node("tokens").filter(|_| text && capture.tokens == TokenMask::Assistant) {
        let message = format!("`{}` is plain text, in which no token is the assistant's", capture.data);
        context.report.add(Diagnostic::new(node.span, message).hint("give the data `messages` in place of `text`"));
    }
    Some(capture)
}

/// Reads an entry whose matrices are made already; `from` is the key that says where they are.
fn import(context: &Context<'_>, fields: &Fields<'_>, from: &str) -> Option<Gram> {
    let beside = format!("beside `{from}`: these matrices are made already");
    let of_hub = ["revision"].into_iter().filter(|_| from == "hub");
    let mine: Vec<_> = [from, "sweep"].into_iter().chain(of_hub).collect();
    let others: Vec<_> = GRAM.iter().chain(RUN).map(|key| key.name).filter(|key| !mine.contains(key)).collect();
    fields.refuse(&others, &beside);
    match from {
        "pickle" => fields.get("pickle", |pickle| self::pickle(context, pickle)),
        "path" => fields.get("path", Reading::path).map(Gram::Path),
        _ => {
            let revision = fields.get("revision", Reading::word);
            fields.get("hub", Reading::repo).map(|repo| Gram::Hub { repo, revision })
        }
    }
}

fn pickle(context: &Context<'_>, reading: Reading<'_>) -> Option<Gram> {
    let fields = Fields::open(context.report, reading.node, reading.node.span, "`pickle`", &[PICKLE])?;
    if fields.exactly_one(&["hub", "path"])? == "path" {
        fields.refuse(&["file", "revision"], "for a file on disk");
        return fields.get("path", Reading::path).map(Gram::PicklePath);
    }
    fields.require(&["file"]);
    let revision = fields.get("revision", Reading::word);
    let repo = fields.get("hub", Reading::repo);
    let file = fields.get("file", Reading::word);
    Some(Gram::PickleHub { repo: repo?, file: file?, revision })
}
