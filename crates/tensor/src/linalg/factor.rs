//! The steps down of `solver: auto`, from fp32 Cholesky to eigenvalues.
//!
//! 1. fp32 Cholesky. Where the condition number says that fp32 leaves more than 1e-5 of the correction, refined with fp64
//!    residuals.
//! 2. fp64 Cholesky, where the fp32 one breaks down, its refinement would not converge or does not, or the smallest
//!    eigenvalue comes near the cut.
//! 3. Eigenvalues, those under `4 √d eps32` cut: fp32 Grams cannot tell them from zero. What is cut stays at the average.

use serde::Serialize;
use tch::{Kind, TchError, Tensor};

use super::condition::Extremes;
use super::{EPS32, SolveError};

/// A refined fp32 solution is done when a step changed it by less than this share: each step shrinks the error by about the
/// factor that the one before did, so that what is left is far smaller.
const CONVERGED: f64 = 1e-5;
/// Refinement that takes more steps than this does not converge.
const MOST_STEPS: usize = 8;
/// Above this, fp32 rounding in the right-hand side and the solves may leave more than 1e-5 of the correction.
const REFINE_ABOVE: f64 = 40.0;
/// `condition · eps32` above which refinement would take many steps or none would help.
const DOUBLE_ABOVE: f64 = 0.02;

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
}

#[derive(Debug)]
enum Kept {
    /// Lower factor, fp32.
    Single(Tensor),
    /// Lower factor, fp64.
    Double(Tensor),
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
    /// `[rows, width]`, fp64.
    pub solution: Tensor,
    /// `Σ (B - X A)²` over the block.
    pub residual: f64,
    /// Whether a refinement ended because a step no longer changed anything; true where there is none.
    pub converged: bool,
}

fn square(x: &Tensor) -> Result<f64, TchError> {
    x.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])
}

fn cholesky(matrix: &Tensor) -> Result<Option<Tensor>, TchError> {
    let (factor, info) = matrix.f_linalg_cholesky_ex(false, false)?;
    Ok((info.f_int64_value(&[])? == 0).then_some(factor))
}

impl Factor {
    /// Factors a scaled matrix `[width, width]`, fp64, unit diagonal, by the steps of this module.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn new(matrix: &Tensor) -> Result<Self, SolveError> {
        let cut = Self::cut_for(matrix.size()[0]);
        let single = matrix.f_to_kind(Kind::Float)?;
        let mut steps = Vec::new();
        if let Some(factor) = cholesky(&single)? {
            let extremes = Extremes::estimate(&single, &factor)?;
            let condition = extremes.condition();
            if condition * EPS32 <= DOUBLE_ABOVE && extremes.smallest > 2.0 * cut {
                let path = if condition > REFINE_ABOVE { Path::CholeskyRefined } else { Path::Cholesky };
                return Ok(Self { kept: Kept::Single(factor), path, condition, cut: 0, steps });
            }
            steps.push(format!("condition number about {condition:.1e} is too much for fp32"));
        } else {
            steps.push("not positive definite in fp32".to_owned());
        }
        drop(single);
        Self::double(matrix, steps)
    }

    /// Factors in fp64, by Cholesky or eigenvalues; `steps` says what led here.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn double(matrix: &Tensor, mut steps: Vec<String>) -> Result<Self, SolveError> {
        let cut = Self::cut_for(matrix.size()[0]);
        if let Some(factor) = cholesky(matrix)? {
            let extremes = Extremes::estimate(matrix, &factor)?;
            if extremes.smallest > cut {
                let (kept, condition) = (Kept::Double(factor), extremes.condition());
                return Ok(Self { kept, path: Path::CholeskyDouble, condition, cut: 0, steps });
            }
            steps.push(format!("smallest eigenvalue about {:.1e}, under the cut of {cut:.1e}", extremes.smallest));
        } else {
            steps.push("not positive definite in fp64".to_owned());
        }
        let (values, vectors) = matrix.f_linalg_eigh("L")?;
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

    /// Eigenvalues under this are cut: a matrix of this width with unit diagonal, from fp32 Grams.
    fn cut_for(width: i64) -> f64 {
        4.0 * (width as f64).sqrt() * EPS32
    }

    /// Which way it was factored.
    pub fn path(&self) -> Path {
        self.path
    }

    /// Condition number of the scaled matrix (of what is left, where eigenvalues were cut), estimated.
    pub fn condition(&self) -> f64 {
        self.condition
    }

    /// How many eigenvalues were cut.
    pub fn cut(&self) -> i64 {
        self.cut
    }

    /// Each step down, in words.
    pub fn steps(&self) -> &[String] {
        &self.steps
    }

    /// Another handle on the same factor, for another thread.
    pub(crate) fn share(&self) -> Self {
        let kept = match &self.kept {
            Kept::Single(factor) => Kept::Single(factor.shallow_clone()),
            Kept::Double(factor) => Kept::Double(factor.shallow_clone()),
            Kept::Eigen(vectors, inverses) => Kept::Eigen(vectors.shallow_clone(), inverses.shallow_clone()),
        };
        Self { kept, steps: self.steps.clone(), ..*self }
    }

    /// Solves `X A = B` for a block of rows `[rows, width]`; `matrix` is what was factored.
    ///
    /// Both in fp64, but for [`Path::Cholesky`], where fp32 does: residuals are formed in the type of `matrix`.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn solve(&self, matrix: &Tensor, rhs: &Tensor) -> Result<Solved, TchError> {
        let residual_of = |x: &Tensor| rhs.f_sub(&x.f_to_kind(matrix.f_kind()?)?.f_mm(matrix)?);
        let single = |factor: &Tensor, b: &Tensor| -> Result<Tensor, TchError> {
            let column = b.f_to_kind(Kind::Float)?.f_tr()?.f_contiguous()?;
            column.f_cholesky_solve(factor, false)?.f_tr()?.f_to_kind(Kind::Double)?.f_contiguous()
        };
        let (solution, residual, converged) = match &self.kept {
            Kept::Single(factor) => {
                let mut x = single(factor, rhs)?;
                let mut residual = residual_of(&x)?;
                let mut converged = self.path == Path::Cholesky;
                let mut last = f64::INFINITY;
                for _ in 0..MOST_STEPS {
                    if converged {
                        break;
                    }
                    let step = single(factor, &residual)?;
                    let change = (square(&step)? / square(&x)?.max(f64::MIN_POSITIVE)).sqrt();
                    if change > 0.5 * last {
                        break;
                    }
                    x = x.f_add(&step)?;
                    residual = residual_of(&x)?;
                    (last, converged) = (change, change < CONVERGED);
                }
                (x, residual, converged)
            }
            Kept::Double(factor) => {
                let x = rhs.f_tr()?.f_contiguous()?.f_cholesky_solve(factor, false)?.f_tr()?.f_contiguous()?;
                let residual = residual_of(&x)?;
                (x, residual, true)
            }
            Kept::Eigen(vectors, inverses) => {
                let x = rhs.f_mm(vectors)?.f_mul(inverses)?.f_mm(&vectors.f_tr()?)?;
                let residual = residual_of(&x)?;
                (x, residual, true)
            }
        };
        Ok(Solved { residual: square(&residual)?, solution, converged })
    }
}
