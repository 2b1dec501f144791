//! The steps down of `solver: auto`, from fp32 Cholesky to eigenvalues.
//!
//! 1. fp32 Cholesky. Some rows are checked against fp64 ([`super::check`]); where they are off by more than
//!    [`GOOD_ENOUGH`] of the correction, every block of rows is refined with fp64 residuals.
//! 2. fp64 Cholesky, where the fp32 one breaks down, its refinement would not converge or does not, or the smallest
//!    eigenvalue comes near the cut. Whether it is under it is tested, not estimated.
//! 3. Eigenvalues, those under `4 √d eps32` cut: fp32 Grams cannot tell them from zero. What is cut stays at the average.

use serde::Serialize;
use tch::{Kind, TchError, Tensor};

use super::symmetric::{Symmetric, bytes};
use super::system::ScaledSystem;
use super::tiled::Triangle;
use super::{EPS32, SolveError, condition, square};
use crate::parallel::Pool;

/// Rows checked may be off by this share of the correction before all are refined.
pub const GOOD_ENOUGH: f64 = 3e-6;
/// A refined fp32 solution is done when a step changed it by less than this share: each step shrinks the error by about the
/// factor that the one before did, so that what is left is far smaller.
const CONVERGED: f64 = 1e-5;
/// Refinement that takes more steps than this does not converge.
const MOST_STEPS: usize = 8;
/// `condition · eps32` above which refinement would take many steps or none would help.
const DOUBLE_ABOVE: f64 = 0.02;
/// Down to this `1 - α` is bound enough on the smallest eigenvalue; under it the factor is asked.
const SURE_ABOVE: f64 = 0.02;

/// How a system was solved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// fp32 Cholesky.
    Cholesky,
    /// fp32 Cholesky with fp64 residuals.
    CholeskyRefined,
    /// fp64 Cholesky.
    CholeskyDouble,
    /// Eigenvalues in fp64, small ones cut.
    Eigenvalues,
    /// A plain solver that was asked for.
    Plain,
    /// Steps of conjugate gradient, by the method `mats`.
    ConjugateGradient,
}

#[derive(Debug)]
enum Kept {
    /// fp32.
    Single(Triangle),
    /// fp64.
    Double(Triangle),
    /// Vectors `[n, kept]` and the inverses `[kept]` of their eigenvalues, fp64.
    Eigen(Tensor, Tensor),
}

/// A factored system, for any number of right-hand sides.
#[derive(Debug)]
pub struct Factor {
    kept: Kept,
    path: Path,
    condition: f64,
    cut: i64,
    steps: Vec<String>,
}

/// A block of solutions.
#[derive(Debug)]
pub struct Solved {
    /// `[rows, width]`; fp32 from [`Path::Cholesky`], else fp64.
    pub solution: Tensor,
    /// `Σ (B - X A)²` over the block, where it was formed.
    pub residual: Option<f64>,
    /// Whether a refinement ended because a step no longer changed anything; true where there is none.
    pub converged: bool,
}

impl Factor {
    /// Factors a scaled system by the steps of this module.
    ///
    /// # Errors
    /// When a Gram cannot be read or is not finite, or libtorch fails.
    pub fn new(system: &ScaledSystem<'_>, pool: Pool) -> Result<Self, SolveError> {
        let cut = Self::cut_for(system.width());
        let matrix = system.matrix(Kind::Float, pool)?;
        let largest = condition::largest(&matrix)?;
        let mut steps = Vec::new();
        if let Some(factor) = Triangle::of(matrix, pool)? {
            // `α C + (1-α) I` with a positive C has no eigenvalue under `1-α`.
            let bound = 1.0 - system.alpha();
            let smallest = if bound > SURE_ABOVE { bound } else { condition::smallest(&factor)? };
            let condition = largest / smallest;
            if condition * EPS32 <= DOUBLE_ABOVE && smallest > 2.0 * cut {
                return Ok(Self { kept: Kept::Single(factor), path: Path::Cholesky, condition, cut: 0, steps });
            }
            steps.push(format!("condition number about {condition:.1e} is too much for fp32"));
        } else {
            steps.push("not positive definite in fp32".to_owned());
        }
        Self::double(system, steps, pool)
    }

    /// Factors a scaled system in fp64, by Cholesky or eigenvalues; `steps` says what led here.
    ///
    /// # Errors
    /// When a Gram cannot be read or is not finite, or libtorch fails.
    pub fn double(system: &ScaledSystem<'_>, mut steps: Vec<String>, pool: Pool) -> Result<Self, SolveError> {
        let cut = Self::cut_for(system.width());
        system.afford("an fp64 factor", 8)?;
        if Self::is_above(system, cut, pool)? {
            let matrix = system.matrix(Kind::Double, pool)?;
            let largest = condition::largest(&matrix)?;
            if let Some(factor) = Triangle::of(matrix, pool)? {
                let condition = largest / condition::smallest(&factor)?.max(cut);
                return Ok(Self { kept: Kept::Double(factor), path: Path::CholeskyDouble, condition, cut: 0, steps });
            }
            steps.push("not positive definite in fp64".to_owned());
        } else {
            steps.push(format!("the smallest eigenvalue is under the cut of {cut:.1e}"));
        }
        // The matrix, its vectors twice, and what the decomposition works with.
        system.afford("an eigenvalue decomposition", 48)?;
        let (values, vectors) = system.upper(Kind::Double, pool)?.f_linalg_eigh("U")?;
        let n = values.size()[0];
        let kept = values.f_gt(cut)?.f_sum(Kind::Int64)?.f_int64_value(&[])?;
        // Values ascend: what is cut comes first.
        let values = values.f_narrow(0, n - kept, kept)?;
        let vectors = vectors.f_narrow(1, n - kept, kept)?.f_contiguous()?;
        let condition = if kept == 0 {
            f64::INFINITY
        } else {
            values.f_double_value(&[kept - 1])? / values.f_double_value(&[0])?
        };
        steps.push(format!("{} of {n} eigenvalues cut", n - kept));
        let inverses = values.f_reciprocal()?;
        Ok(Self { kept: Kept::Eigen(vectors, inverses), path: Path::Eigenvalues, condition, cut: n - kept, steps })
    }

    /// The same factor, from now on with refinement, and why.
    #[must_use]
    pub fn refined(mut self, why: String) -> Self {
        self.path = Path::CholeskyRefined;
        self.steps.push(why);
        self
    }

    /// Whether every eigenvalue is above the cut: then, and then alone, the matrix less the cut has a Cholesky factor. An
    /// estimate will not do, since a single small eigenvalue that is overlooked can outweigh all else in a solution.
    fn is_above(system: &ScaledSystem<'_>, cut: f64, pool: Pool) -> Result<bool, SolveError> {
        // `1 - α` is a bound, less what rounding takes.
        if 1.0 - system.alpha() > 2.0 * cut {
            return Ok(true);
        }
        let shifted = system.matrix(Kind::Double, pool)?;
        shifted.shift(-cut)?;
        Ok(Triangle::of(shifted, pool)?.is_some())
    }

    /// Eigenvalues under this are cut: a matrix of this width with unit diagonal, from fp32 Grams.
    pub(super) fn cut_for(width: usize) -> f64 {
        4.0 * (width as f64).sqrt() * EPS32
    }

    /// Which way it was factored.
    pub fn path(&self) -> Path {
        self.path
    }

    /// Condition number of the scaled matrix (of what is left, where eigenvalues were cut), estimated, or a bound on it.
    pub fn condition(&self) -> f64 {
        self.condition
    }

    /// How many eigenvalues were cut.
    pub fn cut(&self) -> i64 {
        self.cut
    }

    /// Bytes of its numbers.
    pub fn bytes(&self) -> u64 {
        match &self.kept {
            Kept::Single(factor) | Kept::Double(factor) => factor.bytes(),
            Kept::Eigen(vectors, inverses) => bytes(vectors) + bytes(inverses),
        }
    }

    /// Each step down, in words.
    pub fn steps(&self) -> &[String] {
        &self.steps
    }

    /// Another handle on the same factor, for another thread.
    pub(crate) fn share(&self) -> Self {
        let kept = match &self.kept {
            Kept::Single(factor) => Kept::Single(factor.share()),
            Kept::Double(factor) => Kept::Double(factor.share()),
            Kept::Eigen(vectors, inverses) => Kept::Eigen(vectors.shallow_clone(), inverses.shallow_clone()),
        };
        Self { kept, steps: self.steps.clone(), ..*self }
    }

    /// Solves `X A = B` for a block of rows `[rows, width]`. Where solutions are refined or solved in fp64, `matrix` is what
    /// was factored, and it and the rows are fp64.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn solve(&self, matrix: Option<&Symmetric>, rhs: &Tensor) -> Result<Solved, TchError> {
        let Some(matrix) = matrix else {
            return Ok(Solved { solution: self.solve_single(rhs)?, residual: None, converged: true });
        };
        let residual_of = |x: &Tensor| rhs.f_sub(&matrix.multiply(x)?);
        let (solution, residual, converged) = match &self.kept {
            Kept::Single(_) => {
                let single = |b: &Tensor| self.solve_single(&b.f_to_kind(Kind::Float)?)?.f_to_kind(Kind::Double);
                let mut x = single(rhs)?;
                let mut residual = residual_of(&x)?;
                let (mut converged, mut last) = (false, f64::INFINITY);
                for _ in 0..MOST_STEPS {
                    let step = single(&residual)?;
                    let change = (square(&step)? / square(&x)?.max(f64::MIN_POSITIVE)).sqrt();
                    if change > 0.5 * last {
                        break;
                    }
                    x = x.f_add_(&step)?;
                    residual = residual_of(&x)?;
                    (last, converged) = (change, change < CONVERGED);
                    if converged {
                        break;
                    }
                }
                (x, residual, converged)
            }
            Kept::Double(factor) => {
                let x = factor.solve(rhs)?;
                let residual = residual_of(&x)?;
                (x, residual, true)
            }
            Kept::Eigen(vectors, inverses) => {
                let x = rhs.f_mm(vectors)?.f_mul(inverses)?.f_mm(&vectors.f_tr()?)?;
                let residual = residual_of(&x)?;
                (x, residual, true)
            }
        };
        Ok(Solved { residual: Some(square(&residual)?), solution, converged })
    }

    /// Solves in fp32 alone.
    pub(super) fn solve_single(&self, rhs: &Tensor) -> Result<Tensor, TchError> {
        let Kept::Single(factor) = &self.kept else { unreachable!("an fp32 solve has an fp32 factor") };
        factor.solve(rhs)
    }
}
