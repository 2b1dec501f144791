//! The stage file: what one child is asked to do.

use std::fmt::{self, Debug, Display};
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::difference::DiffJob;
use crate::merge::MergeSlice;

/// One unit of work for `mergelab-tensor`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageFile {
    /// [`crate::VERSION`] of the program that wrote the file.
    pub wire: u32,
    /// The stage's name, for messages: `merges.regmean-0.1`.
    pub stage: String,
    /// Empty directory that receives the result; what is left in it when the child exits with 0 is the artifact.
    pub out: PathBuf,
    /// Directory for what a killed child may resume from; it may already hold something.
    pub partial: PathBuf,
    /// File to which events are appended.
    pub events: PathBuf,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Threads to compute with; results do not depend on it.
    pub threads: usize,
    /// Memory budget in bytes, where one was given.
    pub memory: Option<u64>,
    /// The work itself.
    pub job: Job,
}

/// What kind of work.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::large_enum_variant, reason = "a program has one of them")]
pub enum Job {
    /// Capture Gram matrices.
    Gram(GramJob),
    /// Add Gram matrices of parts of a data set.
    AddGrams(AddGramsJob),
    /// Make published Gram matrices into an artifact.
    ImportGrams(ImportGramsJob),
    /// Write the matrices of an artifact whole.
    ExportGrams(ExportGramsJob),
    /// Write the sequences of token ids that a capture runs on, for an engine that is another program. Of the job only what
    /// makes text into tokens is read.
    Tokens(GramJob),
    /// Estimate the diagonal of a model's Fisher information.
    Fisher(FisherJob),
    /// Merge models.
    Merge(MergeJob),
    /// Apply a LoRA adapter to a model.
    ApplyLora(ApplyLoraJob),
    /// Make a LoRA adapter of the difference between two models.
    ExtractLora(ExtractLoraJob),
    /// How well a model predicts held-out rows.
    Loss(LossJob),
    /// How two models differ.
    Diff(DiffJob),
}

/// Capture of the Gram matrices of one model's activations on one data set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GramJob {
    /// Model directory: config, safetensors, tokenizer, template.
    pub model: PathBuf,
    /// JSON Lines file, one object per row.
    pub data: PathBuf,
    /// The file that people know the rows from, for messages; `data` if absent.
    #[serde(default)]
    pub shown: Option<PathBuf>,
    /// How a row becomes text.
    pub rows: Rows,
    /// The rows of one shard, where not all are captured.
    #[serde(default)]
    pub range: Option<RowRange>,
    /// Refuse a row that lacks a column, is empty or gives no tokens, in place of counting it.
    pub strict: bool,
    /// Truncation, in tokens.
    pub max_length: Option<usize>,
    /// Whether the tokenizer adds its special tokens (to a rendered template as well).
    pub add_special_tokens: bool,
    /// Which tokens count.
    pub tokens: TokenMask,
    /// How many tokens at the start of each sequence do not count.
    pub skip_first: usize,
    /// Chat template file in place of the model's own.
    pub chat_template: Option<PathBuf>,
    /// Globs on module names for which no Gram is kept.
    pub exclude: Vec<String>,
    /// Forward pass in this type (`float32`, `bfloat16`, `float16`); the checkpoint's own if absent.
    pub dtype: Option<String>,
    /// Which engine runs the forward pass.
    pub engine: Engine,
}

/// How well a model predicts rows, and how far its predictions are from those of other models.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossJob {
    /// The model, and what it runs on. `range`, `exclude` and `engine` are not read; the first token of a sequence never
    /// counts, since nothing predicts it.
    pub capture: GramJob,
    /// Models that its predictions are held against.
    #[serde(default)]
    pub sources: Vec<LossSource>,
}

/// A model that another's predictions are held against.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossSource {
    /// Name in the experiment; the metric is `kl/NAME`.
    pub name: String,
    /// Model directory.
    pub path: PathBuf,
}

/// Estimation of the diagonal Fisher information of one model's parameters on one data set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FisherJob {
    /// What to run the model on, and how. Of it `range`, `exclude` and `engine` are not read.
    pub run: GramJob,
    /// Whose next tokens the likelihood is of.
    pub labels: Labels,
}

/// Whose next tokens a likelihood is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Labels {
    /// Those that stand in the data.
    #[default]
    Data,
    /// Drawn from what the model predicts at each place, with this seed.
    Model {
        /// Seed of the draw.
        seed: u64,
    },
}

/// Some rows of a file, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowRange {
    /// How many rows come before them.
    pub first: u64,
    /// How many they are.
    pub count: u64,
}

/// Adds the Grams of one model on the parts of a data set to those on the whole: `Σ nᵢ Gᵢ / Σ nᵢ`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddGramsJob {
    /// The parts; one that holds no tokens has an empty index.
    pub parts: Vec<GramPart>,
}

/// Grams on one part of a data set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GramPart {
    /// The stage that made them, for messages.
    pub name: String,
    /// Its artifact directory (holds `index.json`).
    pub path: PathBuf,
}

/// Gram matrices that were made elsewhere, as an artifact.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportGramsJob {
    /// Where they are.
    pub from: GramFiles,
}

/// Files that hold Gram matrices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GramFiles {
    /// A pickle of `{module name: tensor [in, in]}`.
    Pickle(PathBuf),
    /// A directory with an `index.json`: an artifact, or what [`Job::ExportGrams`] wrote.
    Directory(PathBuf),
}

/// The matrices of an artifact, whole: one fp32 tensor `[in, in]` per module, by the module's name.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportGramsJob {
    /// The artifact's directory (holds `index.json`).
    pub grams: PathBuf,
}

/// How a row becomes text; the strings are Jinja templates over the row's columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rows {
    /// Through the model's chat template.
    Messages(Vec<Message>),
    /// As it is.
    Text(String),
}

/// One chat message; both strings are Jinja templates over the row's columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// `system`, `user`, `assistant` or what the chat template knows.
    pub role: String,
    /// Content template.
    pub content: String,
}

/// Which tokens of a sequence count in a Gram matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenMask {
    /// Every token.
    #[default]
    All,
    /// Only what the assistant says.
    Assistant,
}

/// `model_type`s with a native forward pass.
pub const NATIVE_FAMILIES: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

/// Which engine runs a forward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// Native where the model family is known, `transformers` otherwise.
    #[default]
    Auto,
    /// Our own forward pass on libtorch.
    Native,
    /// Hooks on the Python library.
    Transformers,
}

impl Engine {
    /// The engine for a model of this family (`model_type` in its `config.json`): never [`Self::Auto`]. Without a family it
    /// is native, whose reader of `config.json` says what is wrong with it.
    #[must_use]
    pub fn resolve(self, family: Option<&str>) -> Self {
        match (self, family) {
            (Self::Auto, Some(family)) if !NATIVE_FAMILIES.contains(&family) => Self::Transformers,
            (Self::Auto, _) => Self::Native,
            (stated, _) => stated,
        }
    }
}

/// A model directory of a model with a LoRA adapter applied: `W + scale · B·A`, in the model's own types.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyLoraJob {
    /// What people know the model by, for messages.
    pub name: String,
    /// Model directory; config, tokenizer and chat template come from it too.
    pub base: PathBuf,
    /// Directory of the adapter, as PEFT writes it: `adapter_config.json`, `adapter_model.safetensors`.
    pub adapter: PathBuf,
}

/// A LoRA adapter, as PEFT writes it, that makes of one model nearly another.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtractLoraJob {
    /// What people know the model by, for messages.
    pub name: String,
    /// Model directory.
    pub model: PathBuf,
    /// What people know the base by, for messages and as `base_model_name_or_path`.
    pub base_name: String,
    /// Directory of the model that the adapter is for.
    pub base: PathBuf,
    /// How much of the difference is kept.
    pub size: LoraSize,
    /// Keep whole what else differs: embeddings, head, norms, biases.
    pub whole: bool,
}

/// How much of a layer's difference an adapter keeps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoraSize {
    /// So many singular values, or all where there are fewer.
    Rank(usize),
    /// As few as have this share of the sum of all squared ones, in (0, 1].
    Energy(f64),
}

/// A merge of models of one shape into one model directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MergeJob {
    /// Name in the method registry: `average`, `regmean`, …
    pub method: String,
    /// The models, in the order of the experiment file.
    pub models: Vec<MergeSource>,
    /// The base model, for methods on task vectors and for rules.
    pub base: Option<MergeSource>,
    /// What its layers are merged from, one slice after the other, where they are not those of all models in their order. What
    /// lies before all layers is of the first slice, what lies behind them of the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<MergeSlice>,
    /// Off-diagonal scaling α of RegMean.
    pub alpha: Option<Alpha>,
    /// Other parameters of the method, under mergekit's names.
    pub params: IndexMap<String, serde_json::Value>,
    /// Ordered; the first rule whose glob matches a tensor's name decides.
    pub rules: Vec<Rule>,
    /// How Grams of different models are brought to one scale.
    pub normalize: Normalize,
    /// How the RegMean system is solved.
    pub solver: Solver,
    /// Output type; that of the first model if absent.
    pub dtype: Option<String>,
    /// Bytes of tensors in a file of the output; 5 GB if absent.
    pub shard_size: Option<u64>,
    /// Directory of the model that gives tokenizer and chat template; config and generation config come from it too.
    pub tokenizer: PathBuf,
    /// How rows of embeddings and heads belong together by their tokens; by their numbers if absent.
    #[serde(default)]
    pub alignment: Option<Alignment>,
    /// Text of the model card, written as `README.md`.
    pub card: String,
    /// What the orchestrator knows of where the merge comes from; stands in `merge.json` as it is.
    #[serde(default)]
    pub origin: serde_json::Value,
}

/// Rows of embeddings and heads that belong together by their tokens, whatever their numbers are in each model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alignment {
    /// The tokens of all models, in place of those that the tokenizer has by itself.
    pub union: bool,
    /// The model whose row others get before a mean of several; the base of the merge if absent.
    pub base: Option<String>,
    /// The number of rows is a multiple of this.
    pub pad_to_multiple_of: Option<usize>,
    /// Where rows of single tokens come from; a token that the tokenizer lacks is added to it.
    pub tokens: IndexMap<String, TokenRow>,
}

/// Where the row of one token comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRow {
    /// For models that lack the token; as for any other token if absent.
    pub source: Option<RowSource>,
    /// Also for models that have it.
    pub force: bool,
}

/// A row of a model, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowSource {
    /// Zeros.
    Zero,
    /// The same token's in a model of the merge.
    Model(String),
    /// Another token's in a model of the merge.
    Token {
        /// The model.
        model: String,
        /// The token.
        token: String,
    },
    /// The row of a number in a model of the merge.
    Id {
        /// The model.
        model: String,
        /// The row, from 0.
        id: usize,
    },
}

/// One model of a merge.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MergeSource {
    /// Name in the experiment, for messages and reports.
    pub name: String,
    /// Model directory.
    pub path: PathBuf,
    /// Weight in `Σ wᵢ G̃ᵢ` and `W̄`; 1 by default.
    pub weight: Weight,
    /// Artifact directory of its Grams (holds `index.json`).
    pub grams: Option<PathBuf>,
    /// Artifact directory of Grams on held-out data, to report the objective on.
    pub held_out: Option<PathBuf>,
    /// Artifact directory of its Fisher information (holds `fisher.json`).
    #[serde(default)]
    pub fisher: Option<PathBuf>,
    /// For a method that captures by itself: what to run this model on. Of the job `model`, `range` and `engine` are not read.
    #[serde(default)]
    pub capture: Option<GramJob>,
    /// Parameters of the method for this model, which go before those of the merge.
    #[serde(default)]
    pub params: IndexMap<String, serde_json::Value>,
}

/// A model's weight in a merge; on the wire a number, a list of them, or either by tensor name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Weight {
    /// One for all tensors.
    Number(f64),
    /// Interpolated over depth.
    Gradient(Vec<f64>),
    /// The first whose filter is part of a tensor's name.
    ByName(Vec<NamedWeight>),
}

/// A weight of the tensors whose names have something in them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedWeight {
    /// What is part of the name; all fit without it, and with `*`.
    pub filter: Option<String>,
    /// One weight, or several over depth.
    pub value: Vec<f64>,
}

impl Weight {
    /// All that is stated.
    #[must_use]
    pub fn stated(&self) -> Vec<f64> {
        match self {
            Self::Number(number) => vec![*number],
            Self::Gradient(list) => list.clone(),
            Self::ByName(named) => named.iter().flat_map(|named| &named.value).copied().collect(),
        }
    }

    /// What is stated for a tensor, over depth; 1 where no filter fits.
    #[must_use]
    pub fn of(&self, tensor: &str) -> &[f64] {
        match self {
            Self::Number(number) => std::slice::from_ref(number),
            Self::Gradient(list) => list,
            Self::ByName(named) => {
                let fits = |named: &&NamedWeight| crate::fits(named.filter.as_deref(), tensor);
                named.iter().find(fits).map_or(&[1.0], |named| &named.value)
            }
        }
    }
}

impl Display for Weight {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => Display::fmt(number, formatter),
            Self::Gradient(list) => Debug::fmt(list, formatter),
            Self::ByName(named) => {
                let show =
                    |named: &NamedWeight| format!("{}: {:?}", named.filter.as_deref().unwrap_or("*"), named.value);
                write!(formatter, "{{{}}}", named.iter().map(show).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// A list of one value is that number.
impl From<Vec<f64>> for Weight {
    fn from(list: Vec<f64>) -> Self {
        match list.as_slice() {
            [number] => Self::Number(*number),
            _ => Self::Gradient(list),
        }
    }
}

impl From<f64> for Weight {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

/// Off-diagonal scaling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Alpha {
    /// One α in [0, 1].
    Number(f64),
    /// α per layer, interpolated over depth.
    Gradient(Vec<f64>),
    /// The α that is best on held-out Grams, one for all layers.
    Auto,
    /// The α that is best on held-out Grams, layer by layer.
    AutoLayer,
}

/// What a rule does with the tensors it matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleUse {
    /// The weighted mean.
    Average,
    /// The base model's tensor.
    Base,
    /// RegMean; an error for a tensor without a Gram.
    Regmean,
    /// The tensor of this model of the merge.
    Model(String),
}

/// One entry of `rules:`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Glob on tensor names.
    #[serde(rename = "match")]
    pub pattern: String,
    /// What to do; the method's own way if absent.
    #[serde(rename = "use")]
    pub action: Option<RuleUse>,
    /// Own α.
    pub alpha: Option<f64>,
}

/// How Grams of different models are brought to one scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalize {
    /// As captured (means over tokens).
    #[default]
    None,
    /// Each divided by its trace.
    Trace,
}

/// How the RegMean system is solved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Solver {
    /// The scaled correction: Cholesky, refinement, eigenvalues.
    #[default]
    Auto,
    /// Plain system by Cholesky.
    Cholesky,
    /// Plain system by least squares.
    Lstsq,
    /// Plain system by an explicit inverse.
    Inverse,
    /// Plain system by the pseudo-inverse.
    Pinv,
}

/// A stage file of another version.
#[derive(Debug, thiserror::Error)]
#[error("{}: stage file of wire version {found}, this program speaks {}", path.display(), crate::VERSION)]
pub struct VersionMismatch {
    /// The stage file.
    pub path: PathBuf,
    /// Its version.
    pub found: u64,
}

impl StageFile {
    /// Reads a stage file.
    ///
    /// # Errors
    /// When it cannot be read, is of another version ([`VersionMismatch`]) or is not a stage file.
    pub fn read(path: &Path) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let text = std::fs::read_to_string(path).map_err(|source| format!("{}: {source}", path.display()))?;
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|source| format!("{}: {source}", path.display()))?;
        let found = value.get("wire").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if found != u64::from(crate::VERSION) {
            return Err(VersionMismatch { path: path.to_path_buf(), found }.into());
        }
        Ok(serde_json::from_value(value).map_err(|source| format!("{}: {source}", path.display()))?)
    }
}
