//! How wrong fp32 solutions are, from some rows: one step of refinement with everything it rests on in fp64.

use tch::{Kind, TchError, Tensor};

use super::factor::Factor;
use super::symmetric::Symmetric;
use super::system::ScaledSystem;
use super::{SolveError, square};
use crate::parallel::Pool;

/// What a check found of one set of rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Check {
    /// `‖error‖ / ‖solution‖`: how far the fp32 solutions are from exact ones.
    pub error: f64,
    /// `‖B - X A‖ / ‖B‖` in fp64.
    pub residual: f64,
}

/// Checks rows of corrections: `differences` are `Wⱼ - W̄` of every model but the pivot, `[rows, width]` in fp64, and `sides`
/// the fp32 matrices that fp32 solutions are made with. `groups` says how many rows belong together, in order; each gets its
/// own verdict.
///
/// # Errors
/// When a Gram cannot be read or libtorch fails.
pub fn check(
    system: &ScaledSystem<'_>,
    factor: &Factor,
    sides: &[Symmetric],
    differences: &[Tensor],
    groups: &[usize],
    pool: Pool,
) -> Result<Vec<Check>, SolveError> {
    let root = system.root()?.f_to_kind(Kind::Float)?;
    let solved = factor.solve_single(&right_hand_side(differences, sides, &root)?)?;
    let (rhs, product) = system.both_sides(differences, &solved.f_to_kind(Kind::Double)?, pool)?;
    let residual = rhs.f_sub(&product)?;
    let step = factor.solve_single(&residual.f_to_kind(Kind::Float)?)?;
    let mut start = 0;
    let mut verdict = |&rows: &usize| -> Result<Check, TchError> {
        let norm = |x: &Tensor| -> Result<f64, TchError> { Ok(square(&x.f_narrow(0, start, rows as i64)?)?.sqrt()) };
        // Where all models agree there is nothing to be wrong about.
        let share = |part: f64, whole: f64| if part == 0.0 { 0.0 } else { part / whole };
        let check =
            Check { error: share(norm(&step)?, norm(&solved)?), residual: share(norm(&residual)?, norm(&rhs)?) };
        start += rows as i64;
        Ok(check)
    };
    Ok(groups.iter().map(&mut verdict).collect::<Result<_, _>>()?)
}

/// `Σⱼ (Wⱼ - W̄) H̃ⱼ D^-½` of a block of rows, `[rows, width]`, in the type of the sides and of `root`, `D^-½`; there is at
/// least one side.
///
/// # Errors
/// When libtorch fails.
pub fn right_hand_side(differences: &[Tensor], sides: &[Symmetric], root: &Tensor) -> Result<Tensor, TchError> {
    let kind = root.f_kind()?;
    let mut rhs = Tensor::f_zeros(differences[0].size(), (kind, root.device()))?;
    for (difference, side) in differences.iter().zip(sides) {
        side.multiply_into(&rhs, &difference.f_to_kind(kind)?)?;
    }
    rhs.f_mul_(&root.f_unsqueeze(0)?)
}
