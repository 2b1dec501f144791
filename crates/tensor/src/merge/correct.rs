//! How rows get their corrections: by a factored system, a plain call, or iteration.
//!
//! A merge solves blocks of rows with it, and the choice of α some rows of every tensor.

use tch::{Kind, Tensor};

use super::mats::Conjugate;
use super::objective::Known;
use crate::linalg::{Factor, PlainSolver, ScaledSystem, SolveError, Symmetric, right_hand_side, square};
use crate::parallel::Pool;

/// How a block gets from the models' rows to merged ones; handles only, so that each worker has its own.
pub(super) enum Method {
    Scaled(Scaled),
    Plain(PlainSolver),
    Conjugate(Conjugate),
    /// One model, or none that differs: the average is the answer.
    Average,
}

/// A factored system with its right-hand side.
pub(super) struct Scaled {
    pub(super) factor: Factor,
    /// What was factored, in fp64, where solutions need it.
    pub(super) matrix: Option<Symmetric>,
    /// The right-hand side's matrices, in the type of the solves.
    pub(super) sides: Vec<Symmetric>,
    /// `D^-½`, fp64.
    pub(super) root: Tensor,
    /// Diagonals of the unscaled right-hand side's matrices, fp64.
    pub(super) diagonals: Vec<Tensor>,
}

/// What comes of some rows.
#[derive(Debug)]
pub(super) struct Corrected {
    /// `W - W̄`, `[rows, width]`.
    pub(super) correction: Tensor,
    /// What the scaled system tells of the objective, where it was that which was solved and somebody asks.
    pub(super) known: Option<Known>,
    /// `Σ (B - X A)²` and `Σ B²` where they were formed; of an iteration, its residual and that of its start.
    pub(super) residual: (f64, f64),
    /// Of an iteration: steps of the row that took most, and how many rows ended early for want of information.
    pub(super) iterated: (usize, usize),
}

impl Method {
    /// The type that differences are solved in.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Scaled(scaled) if scaled.matrix.is_none() => Kind::Float,
            Self::Scaled(_) | Self::Conjugate(_) => Kind::Double,
            Self::Plain(_) | Self::Average => Kind::Float,
        }
    }

    /// Bytes of its matrices.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Scaled(scaled) => {
                let matrices = scaled.sides.iter().chain(&scaled.matrix);
                scaled.factor.bytes() + matrices.map(Symmetric::bytes).sum::<u64>()
            }
            Self::Plain(solver) => solver.bytes(),
            Self::Conjugate(conjugate) => conjugate.bytes(),
            Self::Average => 0,
        }
    }

    /// Whether `x0` of an iteration is the base model.
    pub(super) fn reads_base(&self) -> bool {
        matches!(self, Self::Conjugate(conjugate) if conjugate.reads_base())
    }

    /// The corrections of some rows of every model `[rows, width]` and their mean, whose type they have; `None` if a
    /// refinement did not converge. The rows are let go as soon as they are done with; `asks` is whether to tell what is
    /// known of the objective.
    pub(super) fn correct(
        &self,
        rows: Vec<Tensor>,
        mean: &Tensor,
        differences: &[Tensor],
        base: Option<&Tensor>,
        asks: bool,
    ) -> Result<Option<Corrected>, SolveError> {
        let wide = mean.f_kind()?;
        let (mut known, mut residual, mut iterated) = (None, (0.0, 0.0), (0, 0));
        let correction = match self {
            Self::Average => mean.f_zeros_like()?,
            Self::Plain(solver) => solver.solve(&rows)?.f_to_kind(wide)?.f_sub(mean)?,
            Self::Conjugate(conjugate) => {
                let (correction, solved) = conjugate.solve(mean, differences, base)?;
                (residual, iterated) = ((solved.residual, solved.start), (solved.iterations, solved.given_up));
                correction
            }
            Self::Scaled(scaled) => {
                drop(rows);
                let rhs = right_hand_side(differences, &scaled.sides, &scaled.root.f_to_kind(self.kind())?)?;
                let solved = scaled.factor.solve(scaled.matrix.as_ref(), &rhs)?;
                if !solved.converged {
                    return Ok(None);
                }
                if let Some(left) = solved.residual {
                    residual = (left, square(&rhs)?);
                }
                if asks {
                    let system = (&rhs, &solved.solution);
                    known = Some(Known::of(differences, system, &scaled.root, &scaled.diagonals)?);
                }
                drop(rhs);
                solved.solution.f_to_kind(wide)?.f_mul_(&scaled.root.f_to_kind(wide)?)?
            }
        };
        Ok(Some(Corrected { correction, known, residual, iterated }))
    }

    /// The same with an fp64 factor, where a refinement did not converge.
    pub(super) fn step_down(&mut self, system: &ScaledSystem<'_>, pool: Pool) -> Result<Vec<String>, SolveError> {
        let Self::Scaled(scaled) = self else { unreachable!("only refinement can fail to converge") };
        // Both factors, and the fp64 matrices that are there, of every model and the system.
        system.afford("an fp64 factor beside the fp32 one", 12 + 4 * (scaled.sides.len() as u64 + 1))?;
        scaled.factor = Factor::double(system, Vec::new(), pool)?;
        Ok(scaled.factor.steps().to_vec())
    }

    /// Another handle, for another thread.
    pub(super) fn share(&self) -> Self {
        match self {
            Self::Scaled(scaled) => Self::Scaled(Scaled {
                factor: scaled.factor.share(),
                matrix: scaled.matrix.as_ref().map(Symmetric::share),
                sides: scaled.sides.iter().map(Symmetric::share).collect(),
                root: scaled.root.shallow_clone(),
                diagonals: scaled.diagonals.iter().map(Tensor::shallow_clone).collect(),
            }),
            Self::Plain(solver) => Self::Plain(solver.share()),
            Self::Conjugate(conjugate) => Self::Conjugate(conjugate.share()),
            Self::Average => Self::Average,
        }
    }
}
