//! What can go wrong with Gram matrices.

use std::path::PathBuf;

use mergelab_wire::Fault;
use tch::TchError;

use super::import::error::ImportError;
use crate::checkpoint::CheckpointError;
use crate::failure::{Diagnosis, FileError};

/// What can go wrong with Gram matrices.
#[derive(Debug, thiserror::Error)]
pub enum GramError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A tensor cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// libtorch failed.
    #[error("{stage}: {source}")]
    Torch {
        /// What was being computed.
        stage: String,
        /// What libtorch said.
        source: TchError,
    },
    /// An activation is no number.
    #[error("{place}: the activations of row {row} of {} are not finite", data.display())]
    NotFinite {
        /// `layer 3`, `the embedding`.
        place: String,
        /// The data file.
        data: PathBuf,
        /// Row in the data file, counted from 1.
        row: usize,
    },
    /// A token id that the embedding has no row for.
    #[error("{}: row {row} has token id {id}, and the model has {vocab} embeddings", data.display())]
    TokenId {
        /// The data file.
        data: PathBuf,
        /// Row in the data file, counted from 1.
        row: usize,
        /// The id.
        id: u32,
        /// Rows of the embedding.
        vocab: usize,
    },
    /// A sequence longer than the model's positions.
    #[error("{}: row {row} has {length} tokens, and the model was made for {positions} positions", data.display())]
    TooLong {
        /// The data file.
        data: PathBuf,
        /// Row in the data file, counted from 1.
        row: usize,
        /// Its tokens.
        length: usize,
        /// `max_position_embeddings`.
        positions: usize,
    },
    /// An `exclude` pattern that is no glob.
    #[error("exclude: {0}")]
    Pattern(#[from] globset::Error),
    /// Every module is excluded.
    #[error("`exclude` leaves no module to keep a Gram matrix of")]
    NothingLeft,
    /// The other engine was asked for.
    #[error("this program runs the native engine; the engine `transformers` is a program of its own")]
    Engine,
    /// The parts of a sum are not of one model, captured in one way.
    #[error("{part}: {module}: {reason}")]
    Parts {
        /// The part that differs from those before it.
        part: String,
        /// The module of which it does.
        module: String,
        /// How.
        reason: String,
    },
    /// No part of a sum holds any tokens.
    #[error("none of the {parts} parts has a row that gives a token that counts")]
    NoTokens {
        /// How many parts there are.
        parts: usize,
    },
    /// What was to be imported is not what it should be.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// Grams of modules that the model has not.
    #[error("{}: {reason}", directory.display())]
    Names {
        /// The artifact.
        directory: PathBuf,
        /// Which.
        reason: String,
    },
    /// `index.json` is not valid.
    #[error("{}: {reason}", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl GramError {
    /// For `map_err`: libtorch failed while this was computed.
    pub(crate) fn torch(stage: impl Into<String>) -> impl FnOnce(TchError) -> Self {
        let stage = stage.into();
        move |source| Self::Torch { stage, source }
    }
}

impl Diagnosis for GramError {
    fn fault(&self) -> Fault {
        match self {
            Self::File(error) => error.fault(),
            Self::Checkpoint(error) => error.fault(),
            Self::Import(error) => error.fault(),
            Self::Torch { .. } | Self::Engine | Self::Index { .. } | Self::Parts { .. } => Fault::Stage,
            _ => Fault::Experiment,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Checkpoint(error) => error.hint(),
            Self::Import(error) => error.hint(),
            Self::Names { .. } => Some(
                "names may differ from the model's by `module.`, `_orig_mod.`, `base_model.` and `model.` in front and \
                 `.weight` behind; for others, rename the keys of the pickle"
                    .to_owned(),
            ),
            Self::Torch { source, .. } => source.hint(),
            Self::NotFinite { .. } => Some(
                "`dtype: float32` or bfloat16 has more range than float16; otherwise the weights are damaged"
                    .to_owned(),
            ),
            Self::TokenId { .. } => Some("the tokenizer and the weights do not belong together".to_owned()),
            Self::TooLong { .. } => Some("set `max_length`, which cuts longer rows".to_owned()),
            Self::Pattern(_) | Self::NothingLeft => {
                Some("exclude: globs on module names, such as \"*.down_proj\"".to_owned())
            }
            Self::Engine => Some("run the gram stage with `mergelab run`, which starts the right one".to_owned()),
            Self::Index { .. } => Some("run the gram stage again (`--force`)".to_owned()),
            Self::Parts { part, .. } => Some(format!("run that part again (`--force {part}`)")),
            Self::NoTokens { .. } => {
                Some("look at the notes of its shards, at the data, `max_length`, `skip_first` and `tokens`".to_owned())
            }
        }
    }
}
