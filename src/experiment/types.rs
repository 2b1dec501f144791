//! The typed experiment: what a valid file means, after sweeps are expanded.
//!
//! Nothing here can be wrong in itself: names resolve, ranges hold, every sweep is expanded and no two stages share a
//! name. [`super::parse`] is the only way to make one from a file.

use std::path::PathBuf;

use indexmap::IndexMap;
use mergelab_wire::{
    Alignment, Alpha, Engine, Labels, MergeSlice, Normalize, Rows as RowFormat, Rule, Solver, TokenMask, Weight,
};
use serde::Serialize;

use super::layout::Table;

/// Entries of one section by their (expanded) name, in file order.
pub type Section<T> = IndexMap<String, T>;

/// One experiment file.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    /// The file, as it was named on the command line.
    pub file: PathBuf,
    /// `name:`; names the folder under `results/`.
    pub name: String,
    /// `description:`.
    pub description: Option<String>,
    /// Models that are not made by a merge.
    pub models: Section<Model>,
    /// Data sets.
    pub data: Section<Data>,
    /// Programs as stages.
    pub commands: Section<Command>,
    /// Gram captures and imports.
    pub grams: Section<Gram>,
    /// Estimates of Fisher information.
    pub fishers: Section<Fisher>,
    /// Merges.
    pub merges: Section<Merge>,
    /// Evaluation suites.
    pub evals: Section<Suite>,
    /// Results tables.
    pub tables: Section<Table>,
    /// `settings:`.
    pub settings: Settings,
}

/// Where an expansion of a sweep comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expansion {
    /// The entry that is swept.
    pub entry: String,
    /// What it is swept over, with the value that makes this expansion, as the file spells it: also what swept entries that
    /// it names add. In the order of the values in its name.
    pub coordinates: Vec<(String, String)>,
}

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Model {
    /// A hub repository at a revision.
    Hub {
        /// `org/name`.
        repo: String,
        /// Branch, tag or commit; `main` if absent.
        revision: Option<String>,
    },
    /// A directory; relative to the project root.
    Path(PathBuf),
    /// The output of a command.
    From(Output),
    /// A model with a LoRA adapter applied.
    Lora(Box<Lora>),
}

impl Model {
    /// Names on the hub of what it is made of.
    pub fn repositories(&self) -> Vec<&str> {
        match self {
            Self::Hub { repo, .. } => vec![repo],
            Self::Path(_) | Self::From(_) => Vec::new(),
            Self::Lora(lora) => [lora.base.repositories(), lora.adapter.repositories()].concat(),
        }
    }
}

/// A model, and an adapter that is applied to it. Both are found like a model, and neither has an adapter of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// Where the model comes from.
    pub base: Model,
    /// Where the adapter comes from.
    pub adapter: Model,
}

/// The output of a `commands` entry, or a path inside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Output {
    /// Name of the command.
    pub command: String,
    /// Path inside its `{out}`; the whole of it if absent.
    pub path: Option<PathBuf>,
}

/// A data set: where its rows come from, which of them count, and how a row becomes text.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// Where from.
    pub source: DataSource,
    /// Which rows.
    pub rows: Pick,
    /// How a row becomes text.
    pub format: RowFormat,
    /// Refuse rows that cannot be used, in place of counting them.
    pub strict: bool,
}

/// Where a data set comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum DataSource {
    /// A hub data set.
    Hub {
        /// `org/name`.
        repo: String,
        /// Branch, tag or commit.
        revision: Option<String>,
        /// Configuration.
        config: Option<String>,
        /// Split; `train` if absent.
        split: String,
    },
    /// A file (`.jsonl`, `.json`, `.csv`, `.parquet`, also `.gz` and `.zst`), relative to the project root.
    Path(PathBuf),
    /// A file in the output of a command.
    From(Output),
}

/// Which rows of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pick {
    /// Every row.
    All,
    /// The first N.
    First(u64),
    /// N rows drawn by a seed, in file order.
    Sample {
        /// How many.
        sample: u64,
        /// Seed of the draw.
        seed: u64,
    },
}

/// A program as a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Program and arguments, with `{out}`, `{inputs.NAME}` still in them.
    pub run: Vec<String>,
    /// Declared inputs by name; a list in the file gets the paths themselves as names.
    pub inputs: IndexMap<String, Input>,
    /// Declared environment.
    pub env: IndexMap<String, String>,
    /// Raised by the author when the program changed in a way that `inputs` do not show.
    pub version: Option<String>,
    /// Limit in seconds.
    pub timeout: Option<f64>,
}

/// One input of a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A file or directory, relative to the project root.
    Path(PathBuf),
    /// The output of another command.
    From(Output),
    /// A model or merge of this experiment, by name (its directory).
    Model(String),
    /// A data set of this experiment, by name (its `rows.jsonl`).
    Data(String),
    /// Gram matrices of this experiment, by name (the directory with their `index.json`).
    Gram(String),
}

/// Gram matrices: captured, or imported.
#[derive(Clone, Debug, PartialEq)]
pub enum Gram {
    /// Captured from a model on data.
    Capture(Capture),
    /// Imported from a pickle of `{module name: tensor}` in a hub repository.
    PickleHub {
        /// `org/name`.
        repo: String,
        /// File in the repository.
        file: String,
        /// Branch, tag or commit.
        revision: Option<String>,
    },
    /// Imported from a pickle on disk.
    PicklePath(PathBuf),
    /// Imported from a hub repository that holds an artifact, or what was exported of one.
    Hub {
        /// `org/name`.
        repo: String,
        /// Branch, tag or commit.
        revision: Option<String>,
    },
    /// Imported from such a directory; relative to the project root.
    Path(PathBuf),
}

/// How to capture Gram matrices.
#[derive(Clone, Debug, PartialEq)]
pub struct Capture {
    /// Name of a model or merge.
    pub model: String,
    /// Name of a data set.
    pub data: String,
    /// Truncation in tokens.
    pub max_length: Option<usize>,
    /// Whether the tokenizer adds its special tokens; true by default.
    pub add_special_tokens: bool,
    /// Which tokens count.
    pub tokens: TokenMask,
    /// Tokens at the start of each sequence that do not count.
    pub skip_first: usize,
    /// Template file in place of the model's.
    pub chat_template: Option<PathBuf>,
    /// Globs on module names without a Gram.
    pub exclude: Vec<String>,
    /// Type of the forward pass; the checkpoint's if absent.
    pub dtype: Option<String>,
    /// In how many parts the rows are captured.
    pub shards: usize,
    /// Which engine.
    pub engine: Engine,
}

/// How to estimate the diagonal of a model's Fisher information.
#[derive(Clone, Debug, PartialEq)]
pub struct Fisher {
    /// What the model runs on, and how. `exclude`, `shards` and `engine` mean nothing here.
    pub capture: Capture,
    /// Whose next tokens the likelihood is of.
    pub labels: Labels,
}

/// One merge.
#[derive(Clone, Debug, PartialEq)]
pub struct Merge {
    /// Name in the method registry.
    pub method: String,
    /// The models with their weights, names of models or merges.
    pub models: Vec<Weighted>,
    /// Names of Gram entries, as many as models, in their order; empty for methods without.
    pub grams: Vec<String>,
    /// Names of Fisher entries, as many as models, in their order; empty for methods without.
    pub fishers: Vec<String>,
    /// For a method that captures by itself: what the entries under `grams` say of how, one per model; else empty.
    pub captures: Vec<Calibration>,
    /// Base model, by name.
    pub base: Option<String>,
    /// α of `RegMean`.
    pub alpha: Option<Alpha>,
    /// Names of Gram entries on held-out data, as many as models; or empty.
    pub held_out: Vec<String>,
    /// Other parameters, validated against the method's.
    pub params: IndexMap<String, serde_json::Value>,
    /// Rules by tensor name.
    pub rules: Vec<Rule>,
    /// Scale of the Grams.
    pub normalize: Normalize,
    /// Solver.
    pub solver: Solver,
    /// Output type (`float32`, `bfloat16`, `float16`); the first model's if absent.
    pub dtype: Option<String>,
    /// Bytes of tensors in a file of the output; 5 GB if absent.
    pub shard_size: Option<u64>,
    /// Which model gives config and tokenizer: a model of the merge, `base`, `union`; the first if absent.
    pub tokenizer: Option<String>,
    /// How rows of embeddings belong together by their tokens; by their ids if absent.
    pub alignment: Option<Alignment>,
    /// Whether weights stay once nothing needs them.
    pub keep: Keep,
    /// What its layers are merged from, where they are not those of all models in their order; models by name. The models of
    /// all slices are those of the merge, or its base.
    pub slices: Vec<MergeSlice>,
}

/// What a merge runs one of its models on.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// The Gram entry that says it. Its `shards` and `engine` mean nothing here.
    pub capture: Capture,
    /// How a row becomes text.
    pub rows: RowFormat,
    /// Refuse rows that cannot be used.
    pub strict: bool,
}

/// Which model of a merge gives something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Giver {
    /// One of the models, by its position.
    Model(usize),
    /// The base model.
    Base,
}

impl Merge {
    /// Which model gives config, generation config, tokenizer and chat template.
    pub fn tokenizer_giver(&self) -> Giver {
        match (&self.tokenizer, &self.alignment) {
            (None, _) => Giver::Model(0),
            (_, Some(Alignment { union: true, base: None, .. })) => {
                self.base.as_ref().map_or(Giver::Model(0), |_| Giver::Base)
            }
            (_, Some(Alignment { union: true, base: Some(name), .. })) | (Some(name), _) => self.giver(name),
        }
    }

    /// The role under which the merge needs a model that it names.
    pub fn giver(&self, name: &str) -> Giver {
        if self.base.as_deref() == Some(name) {
            Giver::Base
        } else {
            self.position(name).map_or(Giver::Base, Giver::Model)
        }
    }

    /// The models whose tokens decide what the merge is; none where rows go by their ids.
    pub fn vocabularies(&self) -> Vec<Giver> {
        if self.alignment.is_none() {
            return Vec::new();
        }
        let base = self.base.iter().map(|_| Giver::Base);
        (0..self.models.len()).map(Giver::Model).chain(base).collect()
    }

    /// Position of a model in the merge.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.models.iter().position(|model| model.model == name)
    }
}

impl std::fmt::Display for Giver {
    /// The role under which a merge needs it.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Model(position) => write!(formatter, "{position}"),
            Self::Base => formatter.write_str("base"),
        }
    }
}

/// A model of a merge with what the merge says of it alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighted {
    /// Name of a model or merge.
    pub model: String,
    /// Weight; 1 by default.
    pub weight: Weight,
    /// Its own parameters, which go before those of the merge.
    pub params: IndexMap<String, serde_json::Value>,
}

/// Whether a merge's weights stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// They stay.
    #[default]
    Weights,
    /// They are dropped once everything that reads them is up to date.
    Recipe,
}

/// An evaluation suite: models × tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct Suite {
    /// Names of models or merges, expanded.
    pub models: Vec<String>,
    /// What evaluates.
    pub backend: Backend,
    /// Arguments of the backend's model, in file order, as JSON scalars.
    pub model_args: IndexMap<String, serde_json::Value>,
    /// Tasks with the suite's options merged in; empty for `loss` and `command`.
    pub tasks: Vec<Task>,
    /// Names of data sets, for `loss`.
    pub data: Vec<String>,
    /// How their rows run, for `loss`.
    pub loss: LossOptions,
    /// Program and arguments, for `command`.
    pub run: Vec<String>,
    /// Files and directories that the program of `command` reads beside the model, relative to the project root.
    pub inputs: Vec<PathBuf>,
    /// Environment that decides the result of the program of `command`.
    pub env: IndexMap<String, String>,
    /// Raised by the author when the program of `command` changed in a way that nothing else shows.
    pub version: Option<String>,
    /// Limit in seconds for one evaluation by `command`.
    pub timeout: Option<f64>,
    /// Seconds without a sign of progress after which an evaluation by the harness is ended.
    pub stalled_after: Option<f64>,
    /// Directories with more task files, relative to the project root.
    pub task_dirs: Vec<PathBuf>,
    /// Whether code that a model wrote may run, and how.
    pub unsafe_code: UnsafeCode,
}

impl Suite {
    /// What it measures of each model: its tasks; for `loss` its data sets, and for `command` itself, by their names.
    pub fn measures(&self, name: &str) -> Vec<Task> {
        let named = |name: &str| Task {
            task: name.to_owned(),
            name: name.to_owned(),
            data: None,
            options: TaskOptions::default(),
        };
        match self.backend {
            Backend::Vllm | Backend::Hf => self.tasks.clone(),
            Backend::Loss => self.data.iter().map(|data| named(data)).collect(),
            Backend::Command => vec![named(name)],
        }
    }
}

/// How the rows of a loss suite run through its models, and what the models are held against.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LossOptions {
    /// Truncation in tokens.
    pub max_length: Option<usize>,
    /// Whether the tokenizer adds its special tokens; true if the file does not say.
    pub add_special_tokens: bool,
    /// Which tokens count.
    pub tokens: TokenMask,
    /// Template file in place of the model's.
    pub chat_template: Option<PathBuf>,
    /// Type of the forward pass; the checkpoint's if absent.
    pub dtype: Option<String>,
    /// From which models the KL divergence is measured.
    pub kl: Kl,
}

/// From which models the KL divergence of a model's predictions is measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Kl {
    /// Of a merge, from the models that it merges; of another model from none.
    #[default]
    Sources,
    /// From these.
    From(Vec<String>),
    /// From none.
    None,
}

/// What evaluates a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// `lm_eval` on vLLM.
    #[default]
    Vllm,
    /// `lm_eval` on `transformers`.
    Hf,
    /// Bits per byte on held-out rows.
    Loss,
    /// Any program that writes `metrics.json`.
    Command,
}

/// Whether code that a model wrote may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnsafeCode {
    /// Never.
    #[default]
    Refuse,
    /// In a sandbox.
    Sandbox,
    /// In the open.
    Allow,
}

/// One task of a suite.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// `lm_eval`'s name of the task.
    pub task: String,
    /// Name in stages and results; the task's own if not given.
    pub name: String,
    /// Local file in place of the task's data set.
    pub data: Option<PathBuf>,
    /// Options, the suite's own where the task gives none.
    pub options: TaskOptions,
}

/// `lm_eval`'s options under `lm_eval`'s names.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TaskOptions {
    /// Examples in the prompt.
    pub num_fewshot: Option<u64>,
    /// First N documents, or a share below 1.
    pub limit: Option<f64>,
    /// Generation arguments.
    pub gen_kwargs: IndexMap<String, serde_json::Value>,
    /// Whether the chat template is applied, or which.
    pub apply_chat_template: Option<serde_json::Value>,
    /// Variables of the chat template.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub chat_template_args: IndexMap<String, serde_json::Value>,
    /// System prompt.
    pub system_instruction: Option<String>,
    /// Whether few-shot examples are turns of a conversation.
    pub fewshot_as_multiturn: Option<bool>,
    /// Batch size, a number or `auto`; not in a key.
    pub batch_size: Option<serde_json::Value>,
    /// Seed of the harness and of its engine; the experiment's if absent.
    pub seed: Option<u64>,
    /// Seconds that a program which a model wrote may take; as the task says if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code_timeout: Option<f64>,
    /// By the name of what speaks against a score: the share of the answers up to which it passes, or `"accept"`; not in
    /// a key, since it changes no score.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub tripwires: IndexMap<String, serde_json::Value>,
}

/// `settings:`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Seed of everything that draws.
    pub seed: u64,
    /// `auto`, `cpu`, `cuda`, `cuda:N`.
    pub device: Option<String>,
    /// Whether merges keep their weights.
    pub keep: Option<Keep>,
    /// What the machine must have.
    pub requires: Requires,
}

/// What the machine must have for the experiment to make sense on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requires {
    /// Bytes of memory on one GPU.
    pub gpu_memory: Option<u64>,
    /// Bytes of main memory.
    pub memory: Option<u64>,
    /// Free bytes where the store lies.
    pub disk: Option<u64>,
}
