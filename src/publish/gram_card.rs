//! The card of Gram matrices: what they were captured on and how, and how an experiment imports them.

use std::fmt::Write as _;

use mergelab_wire::{Rows, TokenMask};
use serde_json::Value;

use super::text::{facts, list, thousands};
use super::{Place, Subject, origin};
use crate::exec::size;
use crate::experiment::{Capture, Data, DataSource, Gram};
use crate::stage::card::{picked, source, source_of_rows};
use crate::stage::gram_figures as figures;

/// The text of `README.md`, which names the place where it will lie.
pub(super) fn text(subject: &Subject<'_>, place: Place<'_>) -> String {
    let experiment = subject.experiment();
    let name = subject.stage().name.trim_start_matches("grams.");
    let capture = match experiment.grams.get(name) {
        Some(Gram::Capture(capture)) => Some(capture),
        _ => None,
    };
    let base: Vec<String> = match capture.and_then(|capture| experiment.models.get(&capture.model)) {
        Some(model) => model.repositories().into_iter().map(str::to_owned).collect(),
        None => Vec::new(),
    };
    let data: Vec<String> = match capture.and_then(|capture| experiment.data.get(&capture.data)) {
        Some(Data { source: DataSource::Hub { repo, .. }, .. }) => vec![repo.clone()],
        _ => Vec::new(),
    };
    let mut card =
        format!("---\nlibrary_name: mergelab\ntags:\n- gram\n- regmean\n- mergelab\n{}", list("base_model", &base));
    card += &list("datasets", &data);
    let _ = write!(card, "---\n# {}: Gram matrices of `{name}`\n\n", experiment.name);
    if let Some(description) = &experiment.description {
        let _ = writeln!(card, "{description}\n");
    }
    let _ = writeln!(
        card,
        "`XᵀX / n` of the inputs X of every linear layer, in fp32, for methods that merge by activations (RegMean and \
         its like). {} with mergelab {}.\n",
        if capture.is_some() { "Captured" } else { "Imported" },
        subject.version()
    );
    let mut rows: Vec<(&str, String)> = Vec::new();
    if let Some(capture) = capture {
        captured(subject, capture, &mut rows);
    }
    matrices(subject, &mut rows);
    card += &facts(&rows);
    let _ = write!(card, "\n## Use\n\nIn an experiment of mergelab:\n\n```yaml\n{}```\n", import(name, place));
    card += "\n`index.json` says in which file and tensor each module's matrix lies, as square tiles of its upper triangle.\n";
    let _ = write!(card, "\n## How they were made\n\n{}", origin(subject));
    card
}

/// How an experiment names what was published.
fn import(name: &str, place: Place<'_>) -> String {
    let revision = place.branch.map(|branch| format!(", revision: {branch}")).unwrap_or_default();
    format!("grams:\n  {name}: {{ hub: {}{revision} }}\n", place.repo)
}

/// What they were captured on, and how.
fn captured(subject: &Subject<'_>, capture: &Capture, rows: &mut Vec<(&str, String)>) {
    let experiment = subject.experiment();
    let fact = |name: &str| subject.manifest.facts.get(name).and_then(Value::as_str).map(str::to_owned);
    let params = &subject.manifest.key_struct["params"];
    let model = subject.input("model");
    let weights = model.and_then(|model| model.roles.get("weights")).map(|digest| format!(", weights `{digest}`"));
    let source = source(experiment, &capture.model);
    rows.push(("model", format!("{} ({source}){}", capture.model, weights.unwrap_or_default())));
    if let Some(data) = experiment.data.get(&capture.data) {
        rows.push(("data", format!("{} ({})", capture.data, source_of_rows(data))));
        rows.push(("rows", picked(data.rows)));
        let form = match &data.format {
            Rows::Messages(_) => "messages, through the chat template",
            Rows::Text(_) => "plain text",
        };
        rows.push(("each row as", form.to_owned()));
    }
    let tokens = match capture.tokens {
        TokenMask::All => "all",
        TokenMask::Assistant => "the assistant's",
    };
    let skipped = match capture.skip_first {
        0 => String::new(),
        skipped => format!(", without the first {skipped} of each sequence"),
    };
    rows.push(("tokens that count", format!("{tokens}{skipped}")));
    rows.push(("longest sequence", capture.max_length.map(|length| format!("{length} tokens")).unwrap_or_default()));
    let special = if capture.add_special_tokens { "added by the tokenizer" } else { "not added" };
    rows.push(("special tokens", special.to_owned()));
    let stated = capture.dtype.clone().unwrap_or_else(|| "that of the checkpoint".to_owned());
    rows.push(("dtype of the forward pass", fact("forward_dtype").unwrap_or(stated)));
    let engine = fact("engine").or_else(|| params["engine"].as_str().map(str::to_owned));
    rows.push(("engine", engine.unwrap_or_default()));
    rows.push(("device", subject.manifest.device.clone().unwrap_or_default()));
    rows.push((
        "without a matrix",
        capture.exclude.iter().map(|glob| format!("`{glob}`")).collect::<Vec<_>>().join(", "),
    ));
}

/// How many matrices there are, over how many tokens.
fn matrices(subject: &Subject<'_>, rows: &mut Vec<(&str, String)>) {
    if let Some((modules, tokens)) = figures(&subject.artifact.location) {
        let n = match tokens {
            Some((least, most)) if least == most => thousands(least),
            Some((least, most)) => format!("{} to {}, by module", thousands(least), thousands(most)),
            None => "not known".to_owned(),
        };
        rows.push(("tokens, n", n));
        rows.push(("linear modules", modules.to_string()));
    }
    // The artifact's own README.md gives way to this card.
    let sizes: Vec<u64> =
        subject.manifest.outputs.iter().filter(|output| !output.aside).map(|output| output.size).collect();
    rows.push(("files", format!("{}, {}", sizes.len(), size(sizes.iter().sum()))));
}
