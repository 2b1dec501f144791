//! Weights of a model, wherever they lie: in a checkpoint, or in the files of one that is being written.

use std::fmt::Debug;

use tch::Tensor;

use super::{Checkpoint, CheckpointError, Writer};

/// Tensors by name.
pub trait Weights: Debug + Sync {
    /// Whether there is a tensor of this name.
    fn contains(&self, name: &str) -> bool;

    /// A copy of one tensor, whose shape must be this one, in its stored type, on the CPU.
    ///
    /// # Errors
    /// When it is not there, of another shape, or of a type that is not read.
    fn load_shaped(&self, name: &str, expected: &[usize]) -> Result<Tensor, CheckpointError>;
}

impl Weights for Checkpoint {
    fn contains(&self, name: &str) -> bool {
        Self::contains(self, name)
    }

    fn load_shaped(&self, name: &str, expected: &[usize]) -> Result<Tensor, CheckpointError> {
        Self::load_shaped(self, name, expected)
    }
}

/// Of tensors that were written whole; others are not there to be read yet, and a caller must not ask for them.
impl Weights for Writer {
    fn contains(&self, name: &str) -> bool {
        self.planned(name).is_ok()
    }

    fn load_shaped(&self, name: &str, expected: &[usize]) -> Result<Tensor, CheckpointError> {
        Self::load_shaped(self, name, expected)
    }
}
