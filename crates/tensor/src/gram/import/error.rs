//! What can be wrong with Gram matrices that were made elsewhere.

use std::path::PathBuf;

use mergelab_wire::Fault;

use crate::failure::Diagnosis;

/// What can be wrong with Gram matrices that were made elsewhere.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// There are none.
    #[error("{}: there are no matrices in it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A matrix that is no Gram matrix.
    #[error("{}: {module}: {reason}", path.display())]
    Matrix {
        /// The file.
        path: PathBuf,
        /// The module that it is of.
        module: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Matrices that take more room than the file that holds them.
    #[error("{}: its matrices overlap in the file: they have {bytes} bytes in all, and the file has {size}", path.display())]
    Overlap {
        /// The file.
        path: PathBuf,
        /// Bytes of the matrices.
        bytes: u128,
        /// Bytes of the file.
        size: usize,
    },
    /// An index that does not fit the files beside it.
    #[error("{}: {reason}", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Diagnosis for ImportError {
    fn fault(&self) -> Fault {
        Fault::Experiment
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Empty { .. } | Self::Matrix { .. } => {
                "a Gram matrix is the mean of x xᵀ over the inputs x of a linear module: [in, in], by the module's name"
                    .to_owned()
            }
            Self::Overlap { .. } => "save a copy of each tensor (`.clone()`)".to_owned(),
            Self::Index { .. } => {
                "a directory of Grams is an artifact of a gram stage, or what `mergelab grams export` wrote".to_owned()
            }
        })
    }
}
