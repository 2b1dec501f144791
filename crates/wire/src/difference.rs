//! How two models differ: what is asked, and what comes back.
//!
//! What comes back is a file `diff.json` in the output directory, a [`Difference`]: sums and not ratios of them, so that those of
//! many tensors are added to those of a layer. Format history: 1, the first.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Two models, tensor by tensor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffJob {
    /// The models.
    pub sides: [DiffSide; 2],
}

/// One of the two.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffSide {
    /// What people know it by, for messages.
    pub name: String,
    /// Model directory.
    pub path: PathBuf,
}

/// The file of a [`DiffJob`].
pub const DIFFERENCE: &str = "diff.json";

/// The version of [`Difference`] as a file.
pub const DIFFERENCE_FORMAT: u32 = 1;

/// How two models differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// [`DIFFERENCE_FORMAT`].
    pub format: u32,
    /// Tensors that both have, in the order of the first one's files.
    pub tensors: Vec<TensorDifference>,
    /// Tensors that only one of them has.
    pub only: [Vec<LoneTensor>; 2],
    /// Whether the head is the embedding, and so none of its own.
    pub tied: [bool; 2],
}

/// One tensor that both models have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorDifference {
    /// Its name.
    pub name: String,
    /// Shape in each.
    pub shapes: [Vec<usize>; 2],
    /// Stored type in each, as safetensors has it: `BF16`.
    pub dtypes: [String; 2],
    /// How its elements differ.
    pub compared: Compared,
}

/// A tensor that one model has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoneTensor {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its stored type.
    pub dtype: String,
}

/// How the elements of two tensors differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compared {
    /// As numbers.
    Numbers(Sums),
    /// By their bytes, which are no floating-point numbers.
    Bytes {
        /// Elements that are not the same; of types of less than eight bits, bytes.
        differing: u64,
    },
    /// Not at all: shapes differ, or one is no floating-point number and the other is something else.
    Not,
}

/// Sums in fp64 over the elements that are finite in both tensors; nothing where one is too large for a number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// `Σ a²` and `Σ b²`.
    pub squares: [Option<f64>; 2],
    /// `Σ a b`.
    pub products: Option<f64>,
    /// `Σ (b - a)²`.
    pub difference: Option<f64>,
    /// Elements.
    pub elements: u64,
    /// Elements that are not the same number; two that are none are the same.
    pub differing: u64,
    /// Elements of each that are infinite or no number.
    pub not_finite: [u64; 2],
    /// The largest difference of all; nothing where there is none.
    pub largest: Option<LargestEntry>,
}

/// Where two tensors differ most.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LargestEntry {
    /// Where, from 0 along each side; of several the first.
    pub index: Vec<usize>,
    /// What stands there.
    pub values: [f64; 2],
}
