//! RegMean's linear systems: scaled to unit diagonal, factored once, solved for blocks of weight rows.
//!
//! Everything is in row form: weights, corrections and right-hand sides are `[rows, width]`, one row per output of the
//! linear layer, as checkpoints store them; matrices are symmetric, so `A X = B` is `Xᵀ A = Bᵀ`.

mod check;
mod condition;
mod conjugate;
mod factor;
mod measure;
mod plain;
mod symmetric;
mod system;
mod tiled;

pub use check::{Check, check, right_hand_side};
pub use conjugate::{Iterated, Operator};
pub use factor::{Factor, GOOD_ENOUGH, Path, Solved};
pub use measure::Measure;
pub use plain::PlainSolver;
pub use symmetric::Symmetric;
pub(crate) use symmetric::kept;
pub use system::{ScaledSystem, Term};
pub(crate) use tiled::TILE;

use mergelab_wire::Fault;
use tch::{Kind, TchError, Tensor};

use crate::failure::Diagnosis;
use crate::gram::GramError;

/// Spacing of fp32 numbers at 1.
pub(crate) const EPS32: f64 = f32::EPSILON as f64;

/// A system that could not be solved.
#[derive(Debug, thiserror::Error)]
pub enum SolveError {
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] TchError),
    /// A Gram cannot be read.
    #[error(transparent)]
    Gram(#[from] GramError),
    /// A plain solver, asked for by name, cannot do it.
    #[error("solver {solver} failed on the plain system: {reason}")]
    Plain {
        /// Its name.
        solver: &'static str,
        /// What went wrong.
        reason: String,
    },
    /// A step that takes more memory than the budget leaves.
    #[error("{what} of width {width} takes {needed} bytes, and the memory budget leaves {left}")]
    Memory {
        /// The step.
        what: &'static str,
        /// Columns of the weights.
        width: usize,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes that there are.
        left: u64,
    },
    /// A Gram matrix holds infinities or NaNs.
    #[error("its Gram matrices are not finite")]
    NotFinite,
}

impl Diagnosis for SolveError {
    fn fault(&self) -> Fault {
        match self {
            Self::Gram(error) => error.fault(),
            _ => Fault::Stage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Torch(error) => error.hint(),
            Self::Gram(error) => error.hint(),
            Self::Plain { .. } => Some("`solver: auto` (the default) solves such systems".to_owned()),
            Self::Memory { .. } => Some("raise `--memory`, or leave it out".to_owned()),
            Self::NotFinite => Some("capture the Gram matrices again".to_owned()),
        }
    }
}

/// `Σ x²` of a matrix: of a row in its own type, of all rows in fp64. (Asked for fp64 alone, libtorch first makes all of it wide.)
pub(crate) fn square(x: &Tensor) -> Result<f64, TchError> {
    x.f_norm_scalaropt_dim(2.0, [-1i64].as_slice(), false)?
        .f_to_kind(Kind::Double)?
        .f_square()?
        .f_sum(Kind::Double)?
        .f_double_value(&[])
}

/// `Σ a b` of two matrices, in the same way.
pub(crate) fn inner(a: &Tensor, b: &Tensor) -> Result<f64, TchError> {
    let products = a.f_mul(b)?;
    let rows = products.f_sum_dim_intlist([-1i64].as_slice(), false, products.f_kind()?)?;
    rows.f_sum(Kind::Double)?.f_double_value(&[])
}
