//! Gram matrices: captured from a model's activations or imported, stored as upper-triangle tiles, added, read back whole.

pub mod accumulate;
pub mod add;
pub mod capture;
pub(crate) mod chunk;
pub mod error;
pub mod export;
pub(crate) mod flow;
pub(crate) mod hidden;
pub mod import;
pub mod index;
mod names;
pub(crate) mod output;
pub mod pairs;
pub mod tiles;

pub use error::GramError;
pub use index::{Gram, GramSet};
