//! What can be wrong with an adapter.

use std::path::PathBuf;

use mergelab_wire::Fault;

use crate::checkpoint::CheckpointError;
use crate::failure::{Diagnosis, FileError};

/// What can be wrong with an adapter, or with it and the model that it is applied to.
#[derive(Debug, thiserror::Error)]
pub enum LoraError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of tensors is damaged.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The directory has no tensors of an adapter.
    #[error("{} has neither adapter_model.safetensors nor adapter_model.bin", directory.display())]
    NoTensors {
        /// The adapter's directory.
        directory: PathBuf,
    },
    /// The configuration does not say what an adapter's must.
    #[error("{}: {reason}", path.display())]
    Config {
        /// `adapter_config.json`.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An adapter that is no LoRA, or more than one.
    #[error("{}: `{key}` is {value}, which is not applied here", path.display())]
    Unsupported {
        /// `adapter_config.json`.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// A tensor whose name says nothing.
    #[error("{}: tensor {name:?} is none that PEFT writes for LoRA", path.display())]
    Name {
        /// The adapter's file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// One of the two factors of a module is not there.
    #[error("{}: {module} has no {lacks}", path.display())]
    Half {
        /// The adapter's file.
        path: PathBuf,
        /// The module.
        module: String,
        /// The factor that is not there.
        lacks: &'static str,
    },
    /// The adapter changes nothing.
    #[error("{}: there are no tensors of LoRA in it", path.display())]
    Empty {
        /// The adapter's file.
        path: PathBuf,
    },
    /// A rank that is not that of the tensors.
    #[error("{}: the rank of {module} is {stated} by adapter_config.json, and its tensors have {found}", path.display())]
    Rank {
        /// The adapter's file.
        path: PathBuf,
        /// The module.
        module: String,
        /// By the configuration.
        stated: usize,
        /// By the tensor.
        found: usize,
    },
    /// The model has no such tensor.
    #[error("the adapter changes {tensor}, which {base} does not have")]
    Absent {
        /// The tensor.
        tensor: String,
        /// The model.
        base: String,
        /// The model that the adapter names.
        trained_on: Option<String>,
    },
    /// The head is the embedding, and the adapter changes it alone.
    #[error("the adapter changes {tensor}, and in {base} that is the embedding (`tie_word_embeddings`)")]
    Tied {
        /// The tensor.
        tensor: String,
        /// The model.
        base: String,
    },
    /// The tensors have other shapes.
    #[error("{tensor}: {base_shape:?} in {base}, and the adapter's change of it is {change_shape:?}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// The model.
        base: String,
        /// Its shape in the model.
        base_shape: Vec<usize>,
        /// Its shape by the adapter.
        change_shape: Vec<usize>,
        /// The model that the adapter names.
        trained_on: Option<String>,
    },
    /// Weights that are no numbers of floating point.
    #[error("{tensor} of {base} is stored as {dtype}, and an adapter is added to floating-point numbers")]
    Type {
        /// The tensor.
        tensor: String,
        /// The model.
        base: String,
        /// Its type.
        dtype: String,
    },
    /// There is nothing to extract.
    #[error("no linear layer of {name} differs from {base}")]
    Same {
        /// The model.
        name: String,
        /// The model that it is held against.
        base: String,
    },
    /// Tables that would be kept whole, in the order of another tokenizer.
    #[error("the token {token:?} is {} in {name} and {} in {base}: embeddings and head of {name} are not for the tokenizer of {base}", ids.0, ids.1)]
    Tokens {
        /// The model.
        name: String,
        /// The model that it is held against.
        base: String,
        /// A token that both have.
        token: String,
        /// Its ids in the two.
        ids: (u64, u64),
    },
    /// A number of the adapter that is none.
    #[error("{}: {name} is not finite at element {position}: {value}", path.display())]
    NotFinite {
        /// The adapter's file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Where in the tensor laid flat.
        position: usize,
        /// What stands there.
        value: f32,
    },
}

impl Diagnosis for LoraError {
    fn fault(&self) -> Fault {
        match self {
            Self::File(error) => error.fault(),
            Self::Checkpoint(error) => error.fault(),
            _ => Fault::Experiment,
        }
    }

    fn hint(&self) -> Option<String> {
        let of_another = |trained_on: &Option<String>| {
            trained_on.as_ref().map_or_else(
                || "is it an adapter of another model?".to_owned(),
                |name| format!("its adapter_config.json says that it was trained on {name}"),
            )
        };
        Some(match self {
            Self::File(error) => return error.hint(),
            Self::Checkpoint(error) => return error.hint(),
            Self::NoTensors { .. } => {
                "is this the directory of an adapter, as `save_pretrained` of PEFT writes it?".into()
            }
            Self::Unsupported { .. } => {
                "apply it with PEFT (`merge_and_unload`), save that, and name it as a model of its own".into()
            }
            Self::Absent { trained_on, .. } | Self::Shape { trained_on, .. } => of_another(trained_on),
            Self::Tied { .. } => {
                "save the model with a head of its own and `tie_word_embeddings: false`, and apply it to that".into()
            }
            Self::Type { .. } => "apply it to the model that was not quantised".into(),
            Self::Same { .. } => "name the model that it was trained from, or merged over (`--base`)".into(),
            Self::Tokens { .. } => "leave `--modules-to-save` out, for an adapter of the layers alone".into(),
            Self::NotFinite { .. } => "the adapter is damaged: fetch or train it again".into(),
            Self::Config { .. } | Self::Name { .. } | Self::Half { .. } | Self::Empty { .. } | Self::Rank { .. } => {
                "an adapter is what `save_pretrained` of PEFT writes".into()
            }
        })
    }
}
