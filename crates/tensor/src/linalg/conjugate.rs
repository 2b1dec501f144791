//! Conjugate gradient on the plain system `X S = B`, `S = Σ uᵢ G̃ᵢ`, in fp64.
//!
//! Every row is a system of its own with its own step sizes. So a row's iterates do not depend on which rows are solved
//! with it, and after any number of steps none is further from the solution, in the norm of `S`, than with one step size
//! for all rows.

use tch::{Kind, TchError, Tensor};

use super::factor::Factor;
use super::symmetric::Symmetric;
use super::system::ScaledSystem;
use super::{EPS32, SolveError, square};
use crate::parallel::Pool;

/// `S` for products, kept as the scaled matrix `D^-½ S D^-½`.
#[derive(Debug)]
pub struct Operator {
    scaled: Symmetric,
    /// `D^½`, `[width]`; zero for features that were never seen.
    scale: Tensor,
}

/// A block of solutions as far as they were carried.
#[derive(Debug)]
pub struct Iterated {
    /// `X - X₀`, `[rows, width]`.
    pub change: Tensor,
    /// `Σ (B - X S)²` over the block, formed anew.
    pub residual: f64,
    /// Steps of the row that took most.
    pub iterations: usize,
    /// Rows that were given up because `S` along their next direction cannot be told from zero.
    pub given_up: usize,
}

impl Operator {
    /// The operator of a system.
    ///
    /// # Errors
    /// When a Gram cannot be read or is not finite, or libtorch fails.
    pub fn new(system: &ScaledSystem<'_>, pool: Pool) -> Result<Self, SolveError> {
        let root = system.root()?;
        let seen = root.f_gt(0.0)?;
        let scale = root.f_reciprocal()?.f_where_self(&seen, &root.f_zeros_like()?)?;
        Ok(Self { scaled: system.matrix(Kind::Double, pool)?, scale })
    }

    /// Another handle on the same numbers, for another thread.
    pub(crate) fn share(&self) -> Self {
        Self { scaled: self.scaled.share(), scale: self.scale.shallow_clone() }
    }

    /// Bytes of its matrix.
    pub fn bytes(&self) -> u64 {
        self.scaled.bytes()
    }

    /// `x S` for `x: [rows, width]` in fp64.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn multiply(&self, x: &Tensor) -> Result<Tensor, TchError> {
        self.scaled.multiply(&x.f_mul(&self.scale)?)?.f_mul_(&self.scale)
    }

    /// Takes up to `iterations` steps from `X₀`, whose residual `B - X₀ S`, `[rows, width]` in fp64, is given.
    ///
    /// A row ends sooner where fp32 Grams say no more: when its residual has fallen to `eps32` of what it was, or when
    /// `p S pᵀ / p D pᵀ` along its next direction `p` is under the cut of [`Factor`]. Further steps would follow the rounding
    /// of the Grams into their null space, where nothing holds them.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn solve(&self, start: &Tensor, iterations: usize) -> Result<Iterated, TchError> {
        let energy = |x: &Tensor| x.f_square()?.f_sum_dim_intlist([1i64].as_slice(), true, Kind::Double);
        let cut = Factor::cut_for(self.scale.size()[0] as usize);
        let floor = energy(start)?.f_mul_scalar(EPS32 * EPS32)?;
        let mut change = start.f_zeros_like()?;
        let mut residual = start.f_mul_scalar(1.0)?;
        let mut direction = start.f_mul_scalar(1.0)?;
        let mut size = energy(&residual)?;
        let mut running = size.f_gt_tensor(&floor)?;
        let mut given_up = running.f_zeros_like()?;
        let mut taken = 0;
        while taken < iterations {
            let product = self.multiply(&direction)?;
            let curvature = direction.f_mul(&product)?.f_sum_dim_intlist([1i64].as_slice(), true, Kind::Double)?;
            let known = curvature.f_gt_tensor(&energy(&direction.f_mul(&self.scale)?)?.f_mul_scalar(cut)?)?;
            given_up = given_up.f_logical_or(&running.f_logical_and(&known.f_logical_not()?)?)?;
            running = running.f_logical_and(&known)?;
            if running.f_any()?.f_int64_value(&[])? == 0 {
                break;
            }
            let none = size.f_zeros_like()?;
            let step = size.f_div(&curvature)?.f_where_self(&running, &none)?;
            change = change.f_add_(&direction.f_mul(&step)?)?;
            residual = residual.f_sub_(&product.f_mul(&step)?)?;
            let next = energy(&residual)?;
            let turn = next.f_div(&size)?.f_where_self(&running, &none)?;
            direction = direction.f_mul_(&turn)?.f_add_(&residual)?;
            running = running.f_logical_and(&next.f_gt_tensor(&floor)?)?;
            size = next;
            taken += 1;
        }
        let left = start.f_sub(&self.multiply(&change)?)?;
        let given_up = given_up.f_sum(Kind::Int64)?.f_int64_value(&[])? as usize;
        Ok(Iterated { residual: square(&left)?, change, iterations: taken, given_up })
    }
}
