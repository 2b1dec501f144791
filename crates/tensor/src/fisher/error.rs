//! What can go wrong with Fisher information.

use std::path::PathBuf;

use mergelab_wire::{Fault, NATIVE_FAMILIES};
use tch::TchError;

use crate::checkpoint::CheckpointError;
use crate::failure::{Diagnosis, FileError};
use crate::gram::GramError;

/// What can go wrong with Fisher information.
#[derive(Debug, thiserror::Error)]
pub enum FisherError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A tensor cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Sequences cannot run through the model.
    #[error(transparent)]
    Run(#[from] GramError),
    /// libtorch failed.
    #[error("{stage}: {source}")]
    Torch {
        /// What was being computed.
        stage: String,
        /// What libtorch said.
        source: TchError,
    },
    /// A family whose gradients nothing here computes.
    #[error(
        "{} is of model_type {family:?}, and only {} have a native forward pass, whose gradients Fisher information is made of",
        path.display(), NATIVE_FAMILIES.join(", ")
    )]
    Family {
        /// The model's `config.json`.
        path: PathBuf,
        /// Its `model_type`.
        family: String,
    },
    /// A type that gradients do not fit into.
    #[error("gradients do not fit into the range of float16")]
    Half,
    /// No row has a token that counts and that something precedes.
    #[error("{}: no row has a token that counts and that another one precedes", data.display())]
    NothingPredicted {
        /// The data file.
        data: PathBuf,
    },
    /// A gradient is no number.
    #[error("{place}: the gradients of row {row} of {} are not finite", data.display())]
    NotFinite {
        /// `layer 3`, `the output`.
        place: String,
        /// The data file.
        data: PathBuf,
        /// Row in the data file, counted from 1.
        row: usize,
    },
    /// A sum of squares is no number.
    #[error("the Fisher information of {tensor} is not finite")]
    Overflow {
        /// The parameter.
        tensor: String,
    },
    /// `fisher.json` is not valid.
    #[error("{}: {reason}", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl FisherError {
    /// For `map_err`: libtorch failed while this was computed.
    pub(crate) fn torch(stage: impl Into<String>) -> impl FnOnce(TchError) -> Self {
        let stage = stage.into();
        move |source| Self::Torch { stage, source }
    }
}

impl Diagnosis for FisherError {
    fn fault(&self) -> Fault {
        match self {
            Self::File(error) => error.fault(),
            Self::Checkpoint(error) => error.fault(),
            Self::Run(error) => error.fault(),
            Self::Torch { .. } | Self::Index { .. } => Fault::Stage,
            _ => Fault::Experiment,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Checkpoint(error) => error.hint(),
            Self::Run(error) => error.hint(),
            Self::Torch { source, .. } => source.hint(),
            Self::Family { .. } => Some(
                "`method: regmean` merges models of any family, on Gram matrices by `engine: transformers`".to_owned(),
            ),
            Self::Half => Some("state `dtype: float32` or `dtype: bfloat16` in the Fisher entry".to_owned()),
            Self::NothingPredicted { .. } => {
                Some("look at the data, `max_length`, `skip_first` and `tokens`".to_owned())
            }
            Self::NotFinite { .. } | Self::Overflow { .. } => {
                Some("`dtype: float32` is exact where bfloat16 is not; otherwise the weights are damaged".to_owned())
            }
            Self::Index { .. } => Some("run the Fisher stage again (`--force`)".to_owned()),
        }
    }
}
