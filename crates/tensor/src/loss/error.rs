//! What can be wrong with a loss, beside what can be wrong with any forward pass.

use std::path::PathBuf;

use mergelab_wire::{Fault, NATIVE_FAMILIES};

use crate::failure::Diagnosis;

/// What can be wrong with a loss.
#[derive(Debug, thiserror::Error)]
pub enum LossError {
    /// A model without a native forward pass.
    #[error("{who} has model_type {family:?}, and there is no native forward pass for it")]
    Family {
        /// `the model`, `the source math`.
        who: String,
        /// Its `model_type`.
        family: String,
    },
    /// Predictions over vocabularies of different sizes.
    #[error("vocabularies differ: the model has {ours} tokens, {source_name} has {theirs}")]
    Vocabulary {
        /// `the source math`.
        source_name: String,
        /// Rows of the model's embedding.
        ours: usize,
        /// Rows of the source's.
        theirs: usize,
    },
    /// Predictions over tokens that mean other things.
    #[error("tokenizers differ: token {id} is {ours:?} to the model and {theirs:?} to {source_name}")]
    Token {
        /// `the source math`.
        source_name: String,
        /// The first id that differs.
        id: u32,
        /// The model's token.
        ours: String,
        /// The source's.
        theirs: String,
    },
    /// The tokens that count were all added by the tokenizer.
    #[error("{}: the tokens that count stand for no text, so there are no bytes to divide by", data.display())]
    NoText {
        /// The data file.
        data: PathBuf,
    },
}

impl Diagnosis for LossError {
    fn fault(&self) -> Fault {
        Fault::Experiment
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Family { .. } => format!(
                "native families are {}; `backend: hf` evaluates lm_eval's tasks on whatever transformers loads",
                NATIVE_FAMILIES.join(", ")
            ),
            Self::Vocabulary { .. } | Self::Token { .. } => {
                "`kl: false` in the suite leaves the KL divergence out".to_owned()
            }
            Self::NoText { .. } => "look at the data, `max_length` and `tokens`".to_owned(),
        })
    }
}
