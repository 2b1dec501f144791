//! The `README.md` of Gram matrices: what they are of, how they were taken, and how they lie in their files. It stands beside
//! an artifact, outside its digest, and in what is exported of one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::card::{at, file_name, picked, source, source_of_rows};
use super::{Context, Failure, Job};
use crate::experiment::{Capture, Gram};
use crate::plan::{Graph, Spec, StageId};

/// How matrices lie in their files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GramForm {
    /// As an artifact: the upper triangle in square tiles.
    Tiles,
    /// Whole, by the names of modules.
    Whole,
}

/// What a card says beside what the graph knows.
#[derive(Clone, Debug)]
pub struct GramOrigin {
    /// Key of the stage.
    pub key: String,
    /// Digests of what the stage read, by the names that its key gives them.
    pub inputs: BTreeMap<String, String>,
    /// Versions of programs.
    pub versions: BTreeMap<String, String>,
    /// The commit that was read, of what comes from the hub.
    pub commit: Option<String>,
}

/// Writes the card of what a stage made, beside it.
pub(super) fn write(context: &Context<'_>, job: &Job<'_>) -> Result<(), Failure> {
    let mut inputs: BTreeMap<String, String> =
        job.files.iter().map(|file| (file.path.clone(), file.sha256.to_string())).collect();
    for (role, artifact) in &job.inputs {
        inputs.insert(role.clone(), artifact.digest.to_string());
        inputs.extend(artifact.roles.iter().map(|(part, digest)| (format!("{role}.{part}"), digest.to_string())));
    }
    let versions = BTreeMap::from([("mergelab".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
    let origin = GramOrigin { key: job.key.to_string(), inputs, versions, commit: job.commit.clone() };
    let path = job.out.join("README.md");
    let text = text(context.graph, job.id, &origin, &job.out, GramForm::Tiles);
    std::fs::write(&path, text).map_err(|error| Failure::stage(format!("cannot write {}: {error}", path.display())))
}

/// The text of the card for the matrices in a directory.
pub fn text(graph: &Graph, id: StageId, origin: &GramOrigin, directory: &Path, form: GramForm) -> String {
    let stage = graph.stage(id);
    let experiment = &graph.experiments[stage.experiment];
    let name = stage.name.trim_start_matches("grams.");
    let mut card = String::from("---\ntags:\n- gram-matrices\n- mergelab\n---\n");
    let _ = writeln!(card, "# {}: Gram matrices `{name}`\n", experiment.name);
    card += "For each linear module the mean of x xᵀ over its inputs x, `[in, in]`, float32: what RegMean and its kin merge \
             models by.\n\n| | |\n| --- | --- |\n";
    let mut row = |what: &str, value: String| {
        let _ = writeln!(card, "| {what} | {value} |");
    };
    match entry(graph, id) {
        Some(Gram::Capture(capture)) => {
            let (model, data) = (&capture.model, &capture.data);
            let weights = digest(origin, "model.weights", "weights");
            row("model", format!("`{model}` ({}){weights}", source(experiment, model)));
            if let Some(of_it) = experiment.data.get(data) {
                row("data", format!("`{data}` ({}){}", source_of_rows(of_it), digest(origin, "data", "rows")));
                row("rows", picked(of_it.rows));
            }
            row("captured", how(capture));
        }
        Some(Gram::PicklePath(path)) => row("imported from", format!("`{}`{}", file_name(path), files(origin))),
        Some(Gram::Path(path)) => row("imported from", format!("the directory `{}`", file_name(path))),
        Some(Gram::PickleHub { repo, file, revision }) => {
            let commit = origin.commit.as_deref().or(revision.as_deref());
            row("imported from", format!("`{file}` of {repo}{}", at(commit)));
        }
        Some(Gram::Hub { repo, revision }) => {
            row("imported from", format!("{repo}{}", at(origin.commit.as_deref().or(revision.as_deref()))));
        }
        None => {}
    }
    let (modules, tokens) = figures(directory).unwrap_or_default();
    row("tokens", tokens.map_or("not stated".to_owned(), |(_, most)| most.to_string()));
    row("modules", modules.to_string());
    row("stage", format!("`{}` of `{}`, key `{}`", stage.name, experiment.name, origin.key));
    let versions: Vec<_> = origin.versions.iter().map(|(tool, version)| format!("{tool} {version}")).collect();
    row("made by", versions.join(", "));
    card += match form {
        GramForm::Tiles => {
            "\n`index.json` says for each module where its matrix lies and over how many tokens `n` it is the mean. Modules \
             that read one input name one tensor, `[tiles, tile, tile]`: the tiles `(i, j)` with `i ≤ j` of the upper \
             triangle, row by row, zero past the edge. `mergelab grams export` writes them whole.\n\nTo merge by them: \
             `grams: { NAME: { path: DIRECTORY } }` in an experiment file of mergelab.\n"
        }
        GramForm::Whole => {
            "\nEach tensor is the whole matrix of the module whose name it has; `index.json` says in which file it lies, and \
             over how many tokens `n` it is the mean.\n\n```python\nimport json\nfrom safetensors.torch import load_file\n\n\
             index = json.load(open(\"index.json\"))[\"matrices\"]\ngrams = {}\nfor file in {entry[\"file\"] for entry in \
             index.values()}:\n    grams.update(load_file(file))\n```\n\nTo merge by them: `grams: { NAME: { path: DIRECTORY } \
             }` in an experiment file of mergelab.\n"
        }
    };
    card
}

/// What the file says of the entry that a stage is of; of one that adds shards, the capture that was split.
fn entry(graph: &Graph, id: StageId) -> Option<&Gram> {
    let stage = graph.stage(id);
    match &stage.spec {
        Spec::ImportGram(gram) => Some(gram),
        Spec::Gram { .. } | Spec::AddGrams(_) => graph.experiments[stage.experiment].grams.get(&stage.entry.1),
        _ => None,
    }
}

/// How a capture was taken, as the experiment file states it.
fn how(capture: &Capture) -> String {
    let mut said = vec![format!("add_special_tokens: {}", capture.add_special_tokens)];
    said.extend(capture.max_length.map(|length| format!("max_length: {length}")));
    if capture.tokens != mergelab_wire::TokenMask::All {
        said.push("tokens: assistant".to_owned());
    }
    if capture.skip_first > 0 {
        said.push(format!("skip_first: {}", capture.skip_first));
    }
    said.extend(capture.dtype.as_ref().map(|dtype| format!("dtype: {dtype}")));
    if !capture.exclude.is_empty() {
        said.push(format!("exclude: {}", capture.exclude.join(" ")));
    }
    said.extend(capture.chat_template.as_ref().map(|path| format!("chat_template: {}", file_name(path))));
    format!("`{}`", said.join(", "))
}

fn digest(origin: &GramOrigin, input: &str, what: &str) -> String {
    origin.inputs.get(input).map(|digest| format!(", SHA-256 of the {what} `{digest}`")).unwrap_or_default()
}

/// Digest of the one file that was read.
fn files(origin: &GramOrigin) -> String {
    match origin.inputs.values().collect::<Vec<_>>().as_slice() {
        [digest] => format!(", SHA-256 `{digest}`"),
        _ => String::new(),
    }
}

/// How many modules an artifact or an export has, and over how many tokens their matrices are means, as far as it is known:
/// the fewest and the most.
pub(crate) fn figures(directory: &Path) -> Option<(usize, Option<(u64, u64)>)> {
    let index: Value = serde_json::from_slice(&std::fs::read(directory.join("index.json")).ok()?).ok()?;
    let modules = index.get("modules").or_else(|| index.get("matrices"))?.as_object()?;
    let counts = || modules.values().filter_map(|entry| entry["n"].as_u64());
    Some((modules.len(), counts().min().zip(counts().max())))
}
