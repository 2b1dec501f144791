//! Gram matrices: captured from a model's activations, stored as upper-triangle tiles, added, read back whole.

pub mod accumulate;
pub mod add;
pub mod capture;
pub mod error;
pub mod index;
pub mod tiles;

pub use error::GramError;
pub use index::GramSet;
