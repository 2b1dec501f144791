//! From rows of a data set to token ids, as `transformers` makes them.

pub mod chat;
mod class;
pub mod error;
pub mod json;
pub mod python;
pub mod rows;
pub mod sequences;
pub mod tokenizer;
pub mod tokens;

pub use error::TextError;
pub use sequences::{Sequence, TextSpec, sequences};
