//! LoRA adapters (Hu et al., <https://arxiv.org/abs/2106.09685>) as PEFT writes them: a directory with
//! `adapter_config.json`, and `adapter_model.safetensors` with two factors for each linear layer that it changes,
//! `W + scale · B·A` with `A` `[rank, in]` and `B` `[out, rank]`.
//!
//! What is more than that (DoRA, LoHa, changes of the model before training) is refused by name: an adapter is applied as
//! PEFT would, or not at all.

mod adapter;
mod config;
mod error;
mod low_rank;
mod names;
mod truncate;
mod written;

pub use adapter::Adapter;
pub use error::LoraError;
pub(crate) use truncate::{Truncated, truncate};
pub(crate) use written::{Written, names_of_factors};
