//! What can be wrong with a checkpoint.

use std::path::PathBuf;

use mergelab_wire::Fault;
use tch::TchError;

use crate::failure::{Diagnosis, FileError};

/// What can be wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The directory has no weights in a form that is read.
    #[error("{} has neither model.safetensors nor pytorch_model.bin, nor an index of their parts", directory.display())]
    NoWeights {
        /// The model directory.
        directory: PathBuf,
    },
    /// A pickled file that is not read.
    #[error("{}: {reason}", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// What it asks for, or what is wrong with it.
        reason: String,
    },
    /// The header does not describe the file.
    #[error("{}: not a sound safetensors file: {reason}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The index is not valid.
    #[error("{}: {reason}", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A tensor that must be there is not.
    #[error("{}: no tensor {name:?}", place.display())]
    Missing {
        /// Directory or file.
        place: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A type that is not read.
    #[error("{}: tensor {name:?} has type {dtype}, which is not read", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        dtype: String,
    },
    /// The shape is not what the configuration says.
    #[error("{}: {name} has shape {found:?}, config.json asks for {expected:?}", place.display())]
    Shape {
        /// Directory.
        place: PathBuf,
        /// The tensor.
        name: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape that follows from the configuration.
        expected: Vec<usize>,
    },
    /// libtorch failed.
    #[error("tensor {name:?}: {source}")]
    Torch {
        /// The tensor.
        name: String,
        /// What libtorch said.
        source: TchError,
    },
}

impl CheckpointError {
    /// For `map_err`: libtorch failed on this tensor.
    pub(crate) fn torch(name: &str) -> impl FnOnce(TchError) -> Self {
        let name = name.to_owned();
        move |source| Self::Torch { name, source }
    }
}

impl Diagnosis for CheckpointError {
    fn fault(&self) -> Fault {
        match self {
            Self::File(error) => error.fault(),
            Self::Torch { .. } => Fault::Stage,
            _ => Fault::Experiment,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::File(error) => return error.hint(),
            Self::Torch { source, .. } => return source.hint(),
            Self::Pickle { .. } => {
                "only dictionaries from names to tensors are read, since other pickles may run programs: if you trust it, \
                 load it in Python and save such a dictionary (`torch.save`, or `pickle.dump` of protocol 3 or later)"
                    .into()
            }
            Self::NoWeights { .. } => "is this the directory of a model?".into(),
            Self::Header { .. } => "the file is truncated or damaged: fetch or write it again".into(),
            Self::Index { .. } => "fetch the model again, its index and its shards do not belong together".into(),
            Self::Missing { .. } => {
                "the checkpoint is incomplete, or of another architecture than config.json says".into()
            }
            Self::Dtype { .. } => "convert the weights to float32, bfloat16 or float16".into(),
            Self::Shape { .. } => "config.json and the weights do not belong together".into(),
        })
    }
}
