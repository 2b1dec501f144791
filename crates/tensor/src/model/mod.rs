//! The decoder families that run natively: one shared decoder whose differences are options of one struct.

pub mod config;
pub mod decoder;
pub mod logits;
pub mod rope;
mod walk;

pub use config::{ConfigError, DecoderConfig};
pub use decoder::{Decoder, Input, Layer, Span};
pub use logits::logits;
pub use rope::Rope;
pub(crate) use walk::walk;
