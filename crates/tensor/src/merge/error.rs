//! What can be wrong with a merge.

use std::path::PathBuf;

use mergelab_wire::Fault;
use tch::TchError;

use crate::checkpoint::CheckpointError;
use crate::dtype::UnknownDtype;
use crate::failure::{Diagnosis, FileError};
use crate::fisher::FisherError;
use crate::gram::GramError;
use crate::linalg::SolveError;
use crate::lora::LoraError;
use crate::model::ConfigError;
use crate::text::TextError;

/// What can be wrong with a merge.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Grams cannot be read.
    #[error(transparent)]
    Gram(#[from] GramError),
    /// Fisher information cannot be read.
    #[error(transparent)]
    Fisher(#[from] FisherError),
    /// An adapter cannot be applied.
    #[error(transparent)]
    Lora(Box<LoraError>),
    /// Activations of a model cannot be taken.
    #[error("model {model}: {source}")]
    Capture {
        /// The model.
        model: String,
        /// Why.
        source: GramError,
    },
    /// The data of a model gives no sequences.
    #[error("model {model}: {source}")]
    Text {
        /// The model.
        model: String,
        /// Why.
        source: Box<TextError>,
    },
    /// A `config.json` that the forward pass cannot be built from.
    #[error(transparent)]
    Decoder(#[from] ConfigError),
    /// An unknown `dtype`.
    #[error(transparent)]
    Dtype(#[from] UnknownDtype),
    /// No method of this name is built.
    #[error("method {0:?} is not built in this version")]
    Method(String),
    /// A method on task vectors without the model that they start from.
    #[error("method {0} needs a base model")]
    NoBase(String),
    /// The method cannot do what is asked.
    #[error("method {method}: {reason}")]
    Request {
        /// The method.
        method: String,
        /// What is wrong.
        reason: String,
        /// The way out.
        hint: &'static str,
    },
    /// A slice of layers that a model has not.
    #[error("a slice takes layers {first} to {end} of {model}, which has {found}")]
    Layers {
        /// The model.
        model: String,
        /// The first of them.
        first: usize,
        /// One past the last.
        end: usize,
        /// How many layers the model has.
        found: usize,
    },
    /// A slice of a model of which nobody knows which layers are meant.
    #[error("{model} has layers in {one} and in {other}: slices are of models with one stack of layers")]
    Stacks {
        /// The model.
        model: String,
        /// What stands before the numbers of some layers.
        one: String,
        /// What stands before those of others.
        other: String,
    },
    /// Models with different tensors.
    #[error("{}", Absent::list(.0))]
    Names(Vec<Absent>),
    /// Models one of which has numbers where another has counts.
    #[error("{name}: {first_type} in {first}, {other_type} in {other}")]
    Types {
        /// The tensor.
        name: String,
        /// First model.
        first: String,
        /// Its type.
        first_type: String,
        /// Other model.
        other: String,
        /// Its type.
        other_type: String,
    },
    /// A model whose stored numbers are not its weights.
    #[error("model {model} is quantised ({method}): its stored numbers are not its weights")]
    Quantized {
        /// The model.
        model: String,
        /// `quant_method` of its configuration.
        method: String,
    },
    /// Models of different shapes.
    #[error("{name}: {first_shape:?} in {first}, {other_shape:?} in {other}")]
    Shapes {
        /// The tensor.
        name: String,
        /// First model.
        first: String,
        /// Its shape.
        first_shape: Vec<usize>,
        /// Other model.
        other: String,
        /// Its shape.
        other_shape: Vec<usize>,
    },
    /// Models of different vocabularies.
    #[error("vocabularies differ: {first} has {first_size} tokens, {other} has {other_size} ({name})")]
    Vocabulary {
        /// The tensor that shows it.
        name: String,
        /// First model.
        first: String,
        /// Its rows.
        first_size: usize,
        /// Other model.
        other: String,
        /// Its rows.
        other_size: usize,
    },
    /// Models whose weights are laid out differently although they have one shape.
    #[error("{key} is {first_value} in {first} and {other_value} in {other}")]
    Layout {
        /// Key of `config.json`.
        key: &'static str,
        /// First model.
        first: String,
        /// Its value.
        first_value: String,
        /// Other model.
        other: String,
        /// Its value.
        other_value: String,
    },
    /// Models of vocabularies of one size in which a token has different ids.
    #[error("vocabularies differ: token {token:?} is {first_id} in {first} and {other_id} in {other}")]
    TokenIds {
        /// The token.
        token: String,
        /// First model.
        first: String,
        /// Its id there.
        first_id: u64,
        /// Other model.
        other: String,
        /// Its id there.
        other_id: u64,
    },
    /// Tokenizers of which none can be made.
    #[error("the tokenizers cannot be united: {reason}")]
    Unite {
        /// Why.
        reason: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// Something that is counted by a model's own tokens, in a merge by the tokens of another.
    #[error("{what} of {model} is by the rows of its own tokenizer, and they stand elsewhere in the merge")]
    OwnRows {
        /// The model.
        model: String,
        /// `the Fisher information`, …
        what: &'static str,
    },
    /// A row of `tokens` that is not there.
    #[error("the row of {token:?}: {reason}")]
    TokenRow {
        /// The token that gets it.
        token: String,
        /// What is wrong.
        reason: String,
    },
    /// A tensor of integers that differs.
    #[error("{name} holds integers and differs between {first} and {other}; it cannot be merged")]
    Integers {
        /// The tensor.
        name: String,
        /// First model.
        first: String,
        /// Other model.
        other: String,
    },
    /// A weight that is no number.
    #[error("{name} of model {model} has weights that are not finite: {value} at {position:?}")]
    NotFinite {
        /// The tensor.
        name: String,
        /// The model.
        model: String,
        /// Where in the tensor, along each side.
        position: Vec<usize>,
        /// What stands there.
        value: f32,
    },
    /// A merged weight that the output type cannot hold.
    #[error("{name}: {value:e} at element {position} is too large for {dtype}")]
    Overflow {
        /// The tensor.
        name: String,
        /// Where in the tensor laid flat.
        position: usize,
        /// What should stand there.
        value: f32,
        /// The output type.
        dtype: &'static str,
    },
    /// An overflow of which the cause is known.
    #[error("{source}")]
    Grown {
        /// What is too large.
        source: Box<Self>,
        /// The factor that makes it so, with its value.
        by: String,
    },
    /// A memory budget that is too small.
    #[error("a memory budget of {budget} bytes is too small for this merge, which needs {needed}")]
    Memory {
        /// The budget.
        budget: u64,
        /// The least that it can do with.
        needed: u64,
    },
    /// A memory budget that is too small for a linear system.
    #[error(
        "a memory budget of {budget} bytes is too small for the system of {module}, of width {width}, which needs {needed} \
         even with one worker"
    )]
    SystemMemory {
        /// First linear layer of the system.
        module: String,
        /// Columns of its weights.
        width: usize,
        /// The budget.
        budget: u64,
        /// The least that the system can do with.
        needed: u64,
    },
    /// A linear layer without a Gram.
    #[error("{name} is a linear layer, and the Gram matrices of {model} ({}) have none for it{}", directory.display(), because(why.as_deref()))]
    NoGram {
        /// The tensor.
        name: String,
        /// The model.
        model: String,
        /// Its Gram artifact.
        directory: PathBuf,
        /// Why, where the artifact says so.
        why: Option<String>,
    },
    /// Grams that do not agree on how a weight is stored.
    #[error("{name}: the weight is [in, out] for the Gram of {transposed}, and [out, in] for that of {plain}")]
    Transposed {
        /// The tensor.
        name: String,
        /// The model whose Gram says `[in, out]`.
        transposed: String,
        /// The model whose Gram says `[out, in]`.
        plain: String,
    },
    /// A Gram of another width than the layer's input.
    #[error("{name}: input width {input}, but the Gram of {model} has width {width}")]
    GramWidth {
        /// The tensor.
        name: String,
        /// The model.
        model: String,
        /// Columns of the weight.
        input: usize,
        /// Width of the Gram.
        width: usize,
    },
    /// A tensor without Fisher information.
    #[error("the Fisher information of {model} ({}) has none for {name}", directory.display())]
    NoFisher {
        /// The tensor.
        name: String,
        /// The model.
        model: String,
        /// Its Fisher artifact.
        directory: PathBuf,
    },
    /// Fisher information of a tensor of another shape.
    #[error("{name}: {expected:?} in the models, {found:?} in the Fisher information of {model}")]
    FisherShape {
        /// The tensor.
        name: String,
        /// The model.
        model: String,
        /// Shape in the models.
        expected: Vec<usize>,
        /// Shape in the artifact.
        found: Vec<usize>,
    },
    /// A rule that cannot be followed.
    #[error("rule {pattern:?}: {reason}")]
    Rule {
        /// Its pattern.
        pattern: String,
        /// What is wrong.
        reason: String,
    },
    /// A configuration that does not fit the weights.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A system could not be solved.
    #[error("{module}: {source}")]
    Solve {
        /// First linear layer of the system.
        module: String,
        /// Why.
        source: SolveError,
    },
    /// libtorch failed.
    #[error("{name}: {source}")]
    Torch {
        /// The tensor.
        name: String,
        /// What libtorch said.
        source: TchError,
    },
}

fn because(why: Option<&str>) -> String {
    why.map(|why| format!(": {why}")).unwrap_or_default()
}

/// A tensor that one model has and another that must have it has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// The tensor.
    pub name: String,
    /// A model that has it.
    pub has: String,
    /// A model that has it not.
    pub lacks: String,
}

impl Absent {
    /// The first few, and how many more there are.
    fn list(all: &[Self]) -> String {
        const SHOWN: usize = 5;
        let shown: Vec<String> = all
            .iter()
            .take(SHOWN)
            .map(|Self { name, has, lacks }| format!("{name} is in model {has} and not in {lacks}"))
            .collect();
        let more = all.len().saturating_sub(SHOWN);
        shown.join("; ") + &if more > 0 { format!("; and {more} more tensors") } else { String::new() }
    }
}

impl MergeError {
    /// For `map_err`: libtorch failed on this tensor.
    pub(crate) fn torch(name: &str) -> impl FnOnce(TchError) -> Self {
        let name = name.to_owned();
        move |source| Self::Torch { name, source }
    }

    /// For `map_err`: activations of this model cannot be taken.
    pub(crate) fn capture<E: Into<GramError>>(model: &str) -> impl FnOnce(E) -> Self {
        let model = model.to_owned();
        move |source| Self::Capture { model, source: source.into() }
    }

    /// For `map_err`: the system of this module could not be solved.
    pub(crate) fn solve<E: Into<SolveError>>(module: &str) -> impl FnOnce(E) -> Self {
        let module = module.to_owned();
        move |source| Self::Solve { module, source: source.into() }
    }
}

impl From<LoraError> for MergeError {
    fn from(error: LoraError) -> Self {
        Self::Lora(Box::new(error))
    }
}

impl Diagnosis for MergeError {
    fn fault(&self) -> Fault {
        match self {
            Self::File(error) => error.fault(),
            Self::Checkpoint(error) => error.fault(),
            Self::Gram(error) => error.fault(),
            Self::Fisher(error) => error.fault(),
            Self::Lora(error) => error.fault(),
            Self::Capture { source, .. } => source.fault(),
            Self::Text { source, .. } => source.fault(),
            Self::Decoder(error) => error.fault(),
            Self::Method(_) | Self::Memory { .. } | Self::SystemMemory { .. } | Self::Torch { .. } => Fault::Stage,
            Self::Solve { source, .. } => source.fault(),
            _ => Fault::Experiment,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::File(error) => return error.hint(),
            Self::Checkpoint(error) => return error.hint(),
            Self::Gram(error) => return error.hint(),
            Self::Fisher(error) => return error.hint(),
            Self::Lora(error) => return error.hint(),
            Self::Capture { source, .. } => return source.hint(),
            Self::Text { source, .. } => return source.hint(),
            Self::Decoder(error) => return error.hint(),
            Self::Dtype(error) => return error.hint(),
            Self::Solve { source, .. } => return source.hint(),
            Self::Torch { source, .. } => return source.hint(),
            Self::Method(_) => format!("built: {}", super::registry::names().join(", ")),
            Self::NoBase(_) => "add `base: NAME`, the model that the others were trained from".to_owned(),
            Self::Request { hint, .. } | Self::Unite { hint, .. } => (*hint).to_owned(),
            Self::OwnRows { .. } => "merge models of one tokenizer, or by a method that needs only weights".to_owned(),
            Self::TokenRow { .. } => {
                "`source` is a model of the merge, `{ kind: zero }`, or `{ kind: model_token, model: NAME, token: … }`"
                    .to_owned()
            }
            Self::Names(absent) => {
                let Absent { name, has, .. } = &absent[0];
                format!(
                    "only models of one architecture can be merged; to take such a tensor from the model that has it, \
                     state `rules: [{{ match: {name:?}, use: {{ model: {has} }} }}]`"
                )
            }
            Self::Layers { .. } => "layers are counted from 0, and the second number is one past the last".to_owned(),
            Self::Stacks { .. } => "merge it whole, by `models` in place of `slices`".to_owned(),
            Self::Shapes { .. } | Self::Layout { .. } | Self::Types { .. } => {
                "only models of one architecture and size can be merged".to_owned()
            }
            Self::Vocabulary { .. } => {
                "state `tokenizer: NAME`, the model whose tokens and rows the merge has, or `tokenizer: union` for all of them, \
                 without `rows: ids`"
                    .to_owned()
            }
            Self::TokenIds { .. } => {
                "state `tokenizer: NAME`, the model whose ids the merge has, or `tokenizer: union`, without `rows: ids`: rows \
                 then belong together by token"
                    .to_owned()
            }
            Self::Integers { .. } => {
                "state `rules: [{ match: NAME, use: { model: NAME } }]` to take one model's".to_owned()
            }
            Self::Quantized { .. } => {
                "load it in `transformers`, dequantise it and save it; then merge that".to_owned()
            }
            Self::Grown { by, .. } => format!("lower {by}"),
            Self::Overflow { dtype, .. } if *dtype != "float16" => "lower the weights, or what they are multiplied by".to_owned(),
            Self::Overflow { .. } => "state `dtype: bfloat16` or `dtype: float32` in the merge".to_owned(),
            Self::Memory { .. } | Self::SystemMemory { .. } => "raise `--memory`, or leave it out".to_owned(),
            Self::NotFinite { .. } => "the weights are damaged; fetch or train the model again".to_owned(),
            Self::NoGram { .. } => {
                "capture it (is it under `exclude`?), or state `rules: [{ match: NAME, use: average }]`".to_owned()
            }
            Self::Transposed { .. } => "capture all of them with `engine: transformers`".to_owned(),
            Self::GramWidth { .. } => "the Gram matrices belong to a model of another size".to_owned(),
            Self::NoFisher { .. } => {
                "the decoder does not use it: state `rules: [{ match: NAME, use: average }]`".to_owned()
            }
            Self::FisherShape { .. } => "the Fisher information is of a model of another size".to_owned(),
            Self::Rule { .. } => "`use:` is average, base, regmean, or { model: NAME }".to_owned(),
            Self::Config { .. } => {
                "mend it there, or name another model, whose configuration fits the weights: `tokenizer: NAME`".to_owned()
            }
        })
    }
}
