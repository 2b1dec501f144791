//! Checkpoints in the safetensors format: one file `model.safetensors`, or shards with `model.safetensors.index.json`; and
//! those of old libraries, `pytorch_model.bin`, which are read the same way and never written ([`pickled`]).
//!
//! A file is: header length (u64, little endian), a JSON header (name -> type, shape, byte range), the tensors' bytes.
//! Files are mapped, and every read is a bounds-checked copy of one tensor or a part of one.

mod error;
mod file;
pub(crate) mod pickled;
mod reader;
mod weights;
mod writer;

pub use error::CheckpointError;
pub use file::{SafeFile, TensorInfo};
pub use reader::Checkpoint;
pub use weights::Weights;
pub use writer::{DEFAULT_SHARD_SIZE, NewTensor, Shard, Writer};
