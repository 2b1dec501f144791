//! The tensor stages of mergelab: Gram capture, Fisher information and merging, on libtorch.
//!
//! `mergelab` starts the program `mergelab-tensor` once per stage, with the path of a stage file
//! ([`mergelab_wire::StageFile`]). This library is that program's body; it is a library so that tests reach its parts.
//!
//! ```text
//! text        rows -> token ids            checkpoint  safetensors in and out
//! model       config, decoder layers       linalg      RegMean's linear systems
//! gram        capture, tiles, index        merge       methods, rules, output directory
//! fisher      gradients, their squares
//! loss        bits per byte, KL to sources
//! lora        adapters of low rank         diff        two models, tensor by tensor
//! ```
//!
//! **Same bytes whatever the threads.** libtorch splits one product differently among different numbers of threads, and
//! floating-point sums change with the split. So every libtorch call here runs in one thread, and the program is
//! parallel over pieces whose bounds depend on shapes alone ([`parallel`]).

pub mod checkpoint;
pub mod codec;
pub mod device;
pub mod diff;
pub mod draw;
pub mod dtype;
pub mod failure;
pub mod fisher;
pub mod gram;
pub mod linalg;
pub mod lora;
pub mod loss;
pub mod merge;
pub mod model;
pub mod parallel;
pub mod report;
pub mod stage;
mod system;
pub mod text;
