//! How wrong fp32 solutions are, from some rows: one step of refinement with everything it rests on in fp64.

use tch::{Kind, TchError, Tensor};

use super::factor::Factor;
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
    sides: &[Tensor],
    differences: &[Tensor],
    groups: &[usize],
    pool: Pool,
) -> Result<Vec<Check>, SolveError> {
    let solved = factor.solve_single(&right_hand_side(differences, sides, Kind::Float)?)?;
    // Right-hand side and product with the matrix, strip of rows by strip, so that no fp64 matrix is ever whole.
    let work = system.strips().into_iter().map(|rows| {
        let cut = |x: &Tensor| x.f_narrow(1, rows.start as i64, rows.len() as i64);
        let differences = differences.iter().map(cut).collect::<Result<Vec<_>, _>>()?;
        Ok((differences, cut(&solved)?.f_to_kind(Kind::Double)?, rows.clone()))
    });
    let work = work.collect::<Result<Vec<_>, TchError>>()?;
    let parts = pool.map(work, |(differences, solved, rows)| {
        let product = solved.f_mm(&system.matrix_rows(rows.clone())?)?;
        let mut rhs = product.f_zeros_like()?;
        for (side, difference) in differences.iter().enumerate() {
            rhs = rhs.f_addmm_(difference, &system.side_rows(side, rows.clone())?)?;
        }
        Ok::<_, SolveError>((rhs, product))
    })?;
    let mut parts = parts.into_iter();
    let Some((mut rhs, mut product)) = parts.next() else { return Ok(vec![Check::default(); groups.len()]) };
    for (more_rhs, more_product) in parts {
        rhs = rhs.f_add_(&more_rhs)?;
        product = product.f_add_(&more_product)?;
    }
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

/// `Σⱼ (Wⱼ - W̄) H̃ⱼ` of a block of rows `[rows, width]` each, in the type of the sides; at least one of them.
///
/// # Errors
/// When libtorch fails.
pub fn right_hand_side(differences: &[Tensor], sides: &[Tensor], kind: Kind) -> Result<Tensor, TchError> {
    let mut rhs = differences[0].f_to_kind(kind)?.f_mm(&sides[0])?;
    for (difference, side) in differences.iter().zip(sides).skip(1) {
        rhs = rhs.f_addmm_(&difference.f_to_kind(kind)?, side)?;
    }
    Ok(rhs)
}
