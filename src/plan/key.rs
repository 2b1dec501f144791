//! Keys: everything that decides a stage's result, in one struct.
//!
//! What is in it is the rule of what reruns. Inputs are digests of the roles that the stage reads, not keys of the stages
//! that made them, so a stage that reran and made the same bytes reruns nothing after it.

mod alignment;
mod evaluation;

use std::collections::BTreeMap;
use std::path::Path;

use mergelab_wire::{Alpha, MergeSlice, Rows, RuleUse, SliceSource, Weight};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use evaluation::model_arguments;
pub(super) use evaluation::{scripts, tokenizer};

use super::facts::{Artifact, Facts, Sighting, Source, digest_of};
use super::stage::{Kind, Repository, Spec, Stage, StageId, repository};
use super::tools;
use crate::artifact::{Output, artifact_digest, is_of_adapter, is_of_grams, subtree};
use crate::digest::{Digest, Key};
use crate::experiment::{
    self, Bold, Calibration, Capture, Command, Data, DataSource, Elsewhere, Fisher, Gram, Merge, Model, Table,
};

/// Version of the struct itself.
const FORMAT: u32 = 1;

/// Everything that decides a stage's result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyStruct {
    /// Version of this struct.
    pub format: u32,
    /// Kind of the stage.
    pub kind: Kind,
    /// Version of the kind's algorithm.
    pub version: u32,
    /// What the experiment file says.
    pub params: Value,
    /// Digests of what is read.
    pub inputs: BTreeMap<String, Digest>,
    /// Versions of programs that the result depends on.
    pub tools: BTreeMap<String, String>,
}

impl KeyStruct {
    /// As JSON.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("a key struct becomes JSON")
    }

    /// Its digest.
    pub fn key(&self) -> Key {
        Key(Digest::of_json(&self.to_value()))
    }
}

/// Why a stage has no key yet.
#[derive(Clone, Debug, PartialEq)]
pub enum Open {
    /// Another stage must be up to date first.
    Waits(StageId),
    /// A source must be hashed first.
    Unhashed(Source),
    /// A source is not there.
    Missing(Source, String),
    /// Nobody has asked the hub yet which commit a revision names.
    Unresolved(Repository),
    /// A Python distribution is not there.
    NoTool(&'static str),
    /// A Python distribution is too old.
    OldTool {
        /// Its name.
        name: &'static str,
        /// Its version.
        found: String,
        /// The oldest version that will do.
        wanted: &'static str,
    },
    /// A command's output lacks a path that is named.
    NoOutput {
        /// The command's stage.
        stage: StageId,
        /// The path.
        path: String,
    },
    /// A model directory lacks a part.
    NoRole {
        /// The model's stage.
        stage: StageId,
        /// The part.
        role: &'static str,
    },
}

/// The key struct of a stage, as far as facts allow.
///
/// # Errors
/// What must be known first.
pub fn key_struct(stage: &Stage, facts: &Facts) -> Result<KeyStruct, Open> {
    let reader = Reader { stage, facts };
    let mut tools = BTreeMap::new();
    let (params, inputs) = match &stage.spec {
        Spec::Model(model) => reader.model(model)?,
        Spec::Adapter(place) => reader.adapter(place)?,
        Spec::Lora(_) => reader.lora()?,
        Spec::Data(data) => reader.data(data)?,
        Spec::Command(command) => reader.command(command)?,
        Spec::Gram { capture, rows, strict, shard } => {
            let made = reader.gram(capture, rows, *strict, *shard)?;
            tools = tools::tools(stage, facts)?;
            made
        }
        Spec::AddGrams(shards) => reader.add_grams(*shards)?,
        Spec::Fisher { fisher, rows, strict } => reader.fisher(fisher, rows, *strict)?,
        Spec::ImportGram(gram) => reader.import(gram)?,
        Spec::Merge(merge) => reader.merge(merge)?,
        Spec::Eval { suite, task, seed, .. } => {
            tools = tools::tools(stage, facts)?;
            reader.eval(suite, task, *seed)?
        }
        Spec::Loss(loss) => reader.loss(loss)?,
        Spec::Table { table, .. } => reader.table(table)?,
    };
    let kind = stage.spec.kind();
    Ok(KeyStruct { format: FORMAT, kind, version: kind.version(), params, inputs, tools })
}

type Inputs = BTreeMap<String, Digest>;

struct Reader<'a> {
    stage: &'a Stage,
    facts: &'a Facts,
}

impl Reader<'_> {
    fn artifact(&self, role: &str) -> Result<&Artifact, Open> {
        let id = self.stage.need(role).expect("the graph gives each stage what it names");
        self.facts.results.get(&id).map(|artifact| &**artifact).ok_or(Open::Waits(id))
    }

    fn source(&self, source: &Source) -> Result<&[Output], Open> {
        match self.facts.sources.get(source) {
            Some(Sighting::Hashed(files)) => Ok(files),
            Some(Sighting::Missing(reason)) => Err(Open::Missing(source.clone(), reason.clone())),
            Some(Sighting::Unhashed) | None => Err(Open::Unhashed(source.clone())),
        }
    }

    /// The repository on the hub that the stage reads, and the commit that its revision names.
    fn commit(&self) -> Result<(Repository, String), Open> {
        let (repository, _) = repository(self.stage).expect("asked of stages that read a repository");
        let commit = self.facts.commit(self.stage.experiment, &repository).map(str::to_ascii_lowercase);
        match commit {
            Some(commit) => Ok((repository, commit)),
            None => Err(Open::Unresolved(repository)),
        }
    }

    fn source_digest(&self, source: &Source) -> Result<Digest, Open> {
        self.source(source).map(|files| digest_of(source, files))
    }

    /// Files of a command's output, or of a path in it.
    fn output(&self, role: &str, path: Option<&Path>) -> Result<Vec<Output>, Open> {
        let artifact = self.artifact(role)?;
        let Some(path) = path else { return Ok(artifact.outputs.clone()) };
        let path = path.to_string_lossy();
        let files = subtree(&artifact.outputs, path.trim_end_matches('/'));
        if files.is_empty() {
            let stage = self.stage.need(role).expect("the artifact was found under this role");
            return Err(Open::NoOutput { stage, path: path.into_owned() });
        }
        Ok(files)
    }

    fn output_digest(&self, role: &str, path: Option<&Path>) -> Result<Digest, Open> {
        let files = self.output(role, path)?;
        match (&*files, path) {
            ([file], Some(path)) if *file.path == *path.to_string_lossy() => Ok(file.sha256),
            _ => Ok(artifact_digest(&files)),
        }
    }

    /// Adds the digests of a model's parts; `must` have to be there, `may` count where they are.
    fn roles(
        &self,
        inputs: &mut Inputs,
        need: &str,
        prefix: &str,
        must: &[&'static str],
        may: &[&str],
    ) -> Result<(), Open> {
        let artifact = self.artifact(need)?;
        for role in must {
            let Some(digest) = artifact.roles.get(*role) else {
                let stage = self.stage.need(need).expect("the artifact was found under this role");
                return Err(Open::NoRole { stage, role });
            };
            inputs.insert(format!("{prefix}.{role}"), *digest);
        }
        for role in may {
            if let Some(digest) = artifact.roles.get(*role) {
                inputs.insert(format!("{prefix}.{role}"), *digest);
            }
        }
        Ok(())
    }

    fn model(&self, model: &Model) -> Result<(Value, Inputs), Open> {
        let files = match model {
            Model::Path(path) => self.source(&Source::Tree(path.clone()))?.to_vec(),
            Model::From(output) => self.output("command", output.path.as_deref())?,
            // The commit decides what the files are, and is known before any of them is there.
            Model::Hub { .. } => {
                let (Repository { name, .. }, commit) = self.commit()?;
                return Ok((json!({ "hub": name, "commit": commit }), Inputs::new()));
            }
            Model::Lora(_) => unreachable!("its model and its adapter are stages of their own"),
        };
        let inputs = files.into_iter().map(|file| (file.path, file.sha256)).collect();
        Ok((json!({}), inputs))
    }

    /// What is read of an adapter: the rest of its directory may be a card, or what its training left behind.
    fn adapter(&self, place: &Model) -> Result<(Value, Inputs), Open> {
        let (params, mut inputs) = self.model(place)?;
        inputs.retain(|path, _| is_of_adapter(path));
        Ok((params, inputs))
    }

    /// A model with an adapter: all that is read of the model, since what is beside its weights is copied.
    fn lora(&self) -> Result<(Value, Inputs), Open> {
        let mut inputs = Inputs::new();
        let beside = ["generation", "tokenizer", "template"];
        self.roles(&mut inputs, "base", "base", &["weights", "config"], &beside)?;
        self.roles(&mut inputs, "lora", "lora", &["adapter"], &[])?;
        Ok((json!({ "apply": "lora" }), inputs))
    }

    fn data(&self, data: &Data) -> Result<(Value, Inputs), Open> {
        let (digest, path) = match &data.source {
            DataSource::Path(path) => (self.source_digest(&Source::File(path.clone()))?, path.as_path()),
            DataSource::From(output) => {
                let path = output.path.as_deref();
                (self.output_digest("command", path)?, path.unwrap_or(Path::new("")))
            }
            DataSource::Hub { config, split, .. } => {
                let (repository, commit) = self.commit()?;
                let mut params = json!({
                    "hub": repository.name, "commit": commit, "config": config, "split": split, "rows": data.rows,
                });
                // Where the rows are read from the hub's own conversion, what they are is decided by its commit too.
                let conversion = repository.conversion();
                let experiment = self.stage.experiment;
                if let Some(commit) = conversion.as_ref().and_then(|of_it| self.facts.commit(experiment, of_it)) {
                    params["conversion"] = json!(commit.to_ascii_lowercase());
                }
                return Ok((params, Inputs::new()));
            }
        };
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let format = name.split_once('.').map_or("", |(_, extensions)| extensions).to_owned();
        let format = known_format(&format);
        Ok((json!({ "format": format, "rows": data.rows }), Inputs::from([("file".to_owned(), digest)])))
    }

    fn command(&self, command: &Command) -> Result<(Value, Inputs), Open> {
        let mut inputs = Inputs::new();
        for (position, (name, input)) in command.inputs.iter().enumerate() {
            let (digest, is_listed) = match input {
                experiment::Input::Path(path) => {
                    (self.source_digest(&Source::Any(path.clone()))?, path.to_string_lossy() == *name)
                }
                experiment::Input::From(output) => (self.output_digest(name, output.path.as_deref())?, false),
                experiment::Input::Model(_) | experiment::Input::Data(_) | experiment::Input::Gram(_) => {
                    (self.artifact(name)?.digest, false)
                }
            };
            // An input of a list has no name but its path, and paths are not in a key.
            let name = if is_listed { position.to_string() } else { name.clone() };
            inputs.insert(name, digest);
        }
        let mut params = json!({ "run": command.run });
        if !command.env.is_empty() {
            params["env"] = json!(command.env);
        }
        if let Some(version) = &command.version {
            params["version"] = json!(version);
        }
        Ok((params, inputs))
    }

    fn gram(
        &self,
        capture: &Capture,
        rows: &Rows,
        strict: bool,
        shard: Option<usize>,
    ) -> Result<(Value, Inputs), Open> {
        let data = self.artifact("data")?;
        // Of a shard its own rows, and not how many others there are: those may be added.
        let digest = shard.map_or(data.digest, |index| data.shards[&capture.shards][index].sha256);
        let inputs = self.run(digest, capture, rows)?;
        let mut params = on_what(capture, rows, strict);
        // What `auto` comes to: a version in which a family has become native captures it anew.
        params["engine"] = json!(capture.engine.resolve(self.artifact("model")?.family.as_deref()));
        if shard.is_none() {
            params["shards"] = json!(1);
        }
        Ok((params, inputs))
    }

    /// Digests of what a model reads when it runs on data of this digest.
    fn run(&self, data: Digest, capture: &Capture, rows: &Rows) -> Result<Inputs, Open> {
        let mut inputs = Inputs::from([("data".to_owned(), data)]);
        self.roles(&mut inputs, "model", "model", &["weights", "config", "tokenizer"], &[])?;
        self.template(&mut inputs, ("model", "chat_template"), capture, rows)?;
        Ok(inputs)
    }

    fn fisher(&self, fisher: &Fisher, rows: &Rows, strict: bool) -> Result<(Value, Inputs), Open> {
        let inputs = self.run(self.artifact("data")?.digest, &fisher.capture, rows)?;
        let mut params = on_what(&fisher.capture, rows, strict);
        // Every parameter has its Fisher information.
        params.as_object_mut().expect("params are an object").remove("exclude");
        params["labels"] = json!(fisher.labels);
        Ok((params, inputs))
    }

    /// Adds the digest of the chat template, where rows go through one: of the model's own, or of the file in its place.
    fn template(
        &self,
        inputs: &mut Inputs,
        (model, file): (&str, &str),
        capture: &Capture,
        rows: &Rows,
    ) -> Result<(), Open> {
        match (&capture.chat_template, rows) {
            (Some(path), Rows::Messages(_)) => {
                inputs.insert(file.to_owned(), self.source_digest(&Source::File(path.clone()))?);
            }
            (None, Rows::Messages(_)) => self.roles(inputs, model, model, &[], &["template"])?,
            (_, Rows::Text(_)) => {}
        }
        Ok(())
    }

    fn add_grams(&self, shards: usize) -> Result<(Value, Inputs), Open> {
        let mut inputs = Inputs::new();
        for need in &self.stage.needs {
            inputs.insert(need.role.clone(), self.artifact(&need.role)?.digest);
        }
        Ok((json!({ "shards": shards }), inputs))
    }

    fn import(&self, gram: &Gram) -> Result<(Value, Inputs), Open> {
        match gram {
            Gram::PicklePath(path) => {
                let digest = self.source_digest(&Source::File(path.clone()))?;
                Ok((json!({}), Inputs::from([("pickle".to_owned(), digest)])))
            }
            // What is read of a directory, and no card or licence beside it.
            Gram::Path(path) => {
                let files = self.source(&Source::Tree(path.clone()))?.iter();
                let inputs = files.filter(|file| is_of_grams(&file.path)).map(|file| (file.path.clone(), file.sha256));
                Ok((json!({}), inputs.collect()))
            }
            // The commit decides what the files are, and is known before any of them is there.
            Gram::PickleHub { .. } | Gram::Hub { .. } => {
                let (Repository { name, .. }, commit) = self.commit()?;
                let mut params = json!({ "hub": name, "commit": commit });
                if let Gram::PickleHub { file, .. } = gram {
                    params["file"] = json!(file);
                }
                Ok((params, Inputs::new()))
            }
            Gram::Capture(_) => unreachable!("a capture is no import"),
        }
    }

    fn merge(&self, merge: &Merge) -> Result<(Value, Inputs), Open> {
        let mut inputs = Inputs::new();
        for index in 0..merge.models.len() {
            self.roles(&mut inputs, &index.to_string(), &index.to_string(), &["weights", "config"], &[])?;
        }
        for (index, Calibration { capture, rows, .. }) in merge.captures.iter().enumerate() {
            let (model, data) = (index.to_string(), format!("data.{index}"));
            self.roles(&mut inputs, &model, &model, &["tokenizer"], &[])?;
            self.template(&mut inputs, (&model, &format!("chat_template.{index}")), capture, rows)?;
            inputs.insert(data.clone(), self.artifact(&data)?.digest);
        }
        let grams = if merge.captures.is_empty() { merge.grams.len() } else { 0 };
        for (role, count) in [("grams", grams), ("held_out", merge.held_out.len()), ("fishers", merge.fishers.len())] {
            for index in 0..count {
                let role = format!("{role}.{index}");
                inputs.insert(role.clone(), self.artifact(&role)?.digest);
            }
        }
        if merge.base.is_some() {
            self.roles(&mut inputs, "base", "base", &["weights", "config"], &[])?;
        }
        let giver = merge.tokenizer_giver();
        let parts = ["config", "generation", "tokenizer", "template"];
        self.roles(&mut inputs, &giver.to_string(), &format!("tokenizer.{giver}"), &[], &parts)?;
        for other in merge.vocabularies().iter().filter(|other| **other != giver) {
            self.roles(&mut inputs, &other.to_string(), &format!("vocabulary.{other}"), &[], &["tokenizer"])?;
        }
        let rules: Vec<Value> = merge
            .rules
            .iter()
            .map(|rule| {
                let action = match &rule.action {
                    Some(RuleUse::Model(name)) => json!({ "model": merge.position(name) }),
                    other => json!(other),
                };
                json!({ "match": rule.pattern, "use": action, "alpha": rule.alpha })
            })
            .collect();
        let weights: Vec<Value> = merge.models.iter().map(|model| weight(&model.weight)).collect();
        let mut params = json!({
            "method": merge.method,
            "weights": weights,
            "alpha": merge.alpha.as_ref().map(alpha),
            "normalize": merge.normalize,
            "solver": merge.solver,
            "dtype": merge.dtype,
            "rules": rules,
        });
        if !merge.captures.is_empty() {
            let captures = merge.captures.iter();
            let captures = captures.map(|Calibration { capture, rows, strict }| on_what(capture, rows, *strict));
            params["captures"] = captures.collect();
        }
        if !merge.params.is_empty() {
            params["parameters"] = json!(merge.params);
        }
        if merge.models.iter().any(|model| !model.params.is_empty()) {
            params["parameters_of_models"] = merge.models.iter().map(|model| json!(model.params)).collect();
        }
        if let Some(size) = merge.shard_size {
            params["shard_size"] = json!(size);
        }
        if !merge.slices.is_empty() {
            params["slices"] = merge.slices.iter().map(|slice| self::slice(merge, slice)).collect();
        }
        if let Some(revision) = revision(merge) {
            params["revision"] = json!(revision);
        }
        if let Some(how) = &merge.alignment {
            params["alignment"] = alignment::of(how, merge);
        }
        Ok((params, inputs))
    }

    fn table(&self, table: &Table) -> Result<(Value, Inputs), Open> {
        let mut inputs = Inputs::new();
        for need in &self.stage.needs {
            inputs.insert(need.role.clone(), self.artifact(&need.role)?.digest);
        }
        if let Some(path) = &table.published {
            inputs.insert("published".to_owned(), self.source_digest(&Source::File(path.clone()))?);
        }
        for path in table.others().into_iter().flat_map(Elsewhere::kept) {
            inputs.insert(path.display().to_string(), self.source_digest(&Source::File(path))?);
        }
        let mut params = json!({ "rows": table.rows, "columns": table.columns });
        if let Some(baseline) = &table.baseline {
            params["baseline"] = json!(baseline);
        }
        if table.bold != Bold::default() {
            params["bold"] = json!(table.bold);
        }
        if table.second {
            params["second"] = json!(true);
        }
        if table.comparison {
            params["comparison"] = json!(true);
        }
        if let Some(across) = &table.across {
            params["across"] = json!(across);
        }
        if table.turned {
            params["turned"] = json!(true);
        }
        Ok((params, inputs))
    }
}

/// What a model is run on, and how: all that decides a capture's result beside what it reads and the engine.
fn on_what(capture: &Capture, rows: &Rows, strict: bool) -> Value {
    json!({
        "rows": rows,
        "strict": strict,
        "max_length": capture.max_length,
        "add_special_tokens": capture.add_special_tokens,
        "tokens": capture.tokens,
        "skip_first": capture.skip_first,
        "exclude": capture.exclude,
        "dtype": capture.dtype,
    })
}

/// α as the experiment file spells it.
fn alpha(alpha: &Alpha) -> Value {
    match alpha {
        Alpha::Number(alpha) => json!(alpha),
        Alpha::Gradient(alphas) => json!(alphas),
        Alpha::Auto => json!("auto"),
        Alpha::AutoLayer => json!("auto-layer"),
    }
}

/// The revision of a method whose results changed, where it is not the first; the others do not run again for it.
///
/// 2, methods that look at rows and columns see layers that are stored as `[in, out]` (GPT-2) turned; what is drawn is drawn
/// in another way; sums of magnitudes, by which `rescale` scales, are added up in another order.
fn revision(merge: &Merge) -> Option<u32> {
    let rescales = || merge.params.get("rescale").is_some_and(|rescale| *rescale == json!(true));
    match merge.method.as_str() {
        "wudi" | "tsv" | "iso_c" | "dare_linear" | "dare_ties" | "della" | "della_linear" => Some(2),
        "ties" | "breadcrumbs" | "breadcrumbs_ties" => rescales().then_some(2),
        _ => None,
    }
}

/// A weight: a list, one number among them.
fn weight(weight: &Weight) -> Value {
    match weight {
        Weight::Number(number) => json!([number]),
        Weight::Gradient(_) | Weight::ByName(_) => json!(weight),
    }
}

/// A slice: its models by their place in the merge, which are names nowhere in a key.
fn slice(merge: &Merge, slice: &MergeSlice) -> Value {
    let source = |source: &SliceSource| {
        let SliceSource { name, first, weight, params } = source;
        json!({
            "model": merge.giver(name).to_string(),
            "first": first,
            "weight": self::weight(weight),
            "parameters": params,
        })
    };
    json!({
        "layers": slice.layers,
        "models": slice.models.iter().map(source).collect::<Vec<_>>(),
        "base": slice.base.as_ref().map(source),
        "parameters": slice.params,
    })
}

/// The part of a file name that says how to read it; `data.v2.jsonl` is JSON Lines.
fn known_format(extensions: &str) -> &str {
    const FORMATS: [&str; 4] = ["jsonl", "json", "csv", "parquet"];
    let start = extensions.split('.').position(|part| FORMATS.contains(&part)).unwrap_or(0);
    extensions.splitn(start + 1, '.').last().unwrap_or(extensions)
}
