//! The experiment language.

mod types;

pub use types::*;
