//! Cholesky and its triangular solves by tiles, in any float type, on the upper half of a matrix.
//!
//! libtorch's own run in one thread here, since results may not depend on how many there are. By tiles of a fixed size the
//! factorisation is work for all workers, and a solve is made of full-rate products. `A = UᵀU` with `U` upper triangular, kept
//! as [`Symmetric`] keeps `A`: rows of tiles, each from its diagonal tile to the right.

use tch::{TchError, Tensor};

use super::symmetric::{Symmetric, bytes};
use crate::parallel::Pool;

/// Rows and columns of a tile.
pub(crate) const TILE: usize = 256;

/// Columns that one worker takes in a row of tiles.
const PIECE: i64 = 4 * TILE as i64;

/// The factor of a positive definite matrix, for any number of solves.
#[derive(Debug)]
pub(super) struct Triangle {
    upper: Symmetric,
    /// The inverses of its diagonal tiles, their signs turned, `[256, 256]`.
    ///
    /// They stand in place of substitution within a tile, which libtorch does in columns: it copies what it is given, there and
    /// back, which takes longer than the substitution.
    inverses: Vec<Tensor>,
}

impl Triangle {
    /// Factors a symmetric matrix in its place. None where it is not positive definite in its type.
    ///
    /// Row of tiles by row, each taken off all that are below it.
    ///
    /// # Errors
    /// When libtorch fails.
    pub(super) fn of(upper: Symmetric, pool: Pool) -> Result<Option<Self>, TchError> {
        let rows = upper.rows(TILE)?;
        let mut inverses = Vec::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            let (height, span) = row.size2()?;
            let mut diagonal = row.f_narrow(1, 0, height)?;
            // libtorch's own works on lower factors; the tile is symmetric.
            let (lower, info) = diagonal.f_linalg_cholesky_ex(false, false)?;
            if info.f_int64_value(&[])? != 0 {
                return Ok(None);
            }
            diagonal.f_copy_(&lower.f_tr()?)?;
            let one = Tensor::f_eye(height, (row.f_kind()?, row.device()))?;
            let inverse = Tensor::f_linalg_solve_triangular(&lower, &one, false, true, false)?.f_contiguous()?;
            let piece = |column: i64| {
                let columns = row.f_narrow(1, column, PIECE.min(span - column))?;
                Ok::<_, TchError>((columns, inverse.shallow_clone()))
            };
            let pieces = (height..span).step_by(PIECE as usize).map(piece).collect::<Result<_, _>>()?;
            pool.map(pieces, |(mut own, inverse): (Tensor, Tensor)| own.f_copy_(&inverse.f_mm(&own)?))?;
            let below = (0..).zip(&rows[index + 1..]).map(|(tile, below)| {
                let column = height + tile * TILE as i64;
                let beside = row.f_narrow(1, column, span - column)?;
                Ok::<_, TchError>((below.shallow_clone(), beside))
            });
            pool.map(below.collect::<Result<_, _>>()?, |(mut below, beside): (Tensor, Tensor)| {
                let above = beside.f_narrow(1, 0, below.size2()?.0)?.f_tr()?.f_neg()?;
                below.f_addmm_(&above, &beside).map(drop)
            })?;
            inverses.push(inverse.f_tr()?.f_neg()?.f_contiguous()?);
        }
        Ok(Some(Self { upper, inverses }))
    }

    /// Solves `X UᵀU = B` for a block of rows `[rows, width]`.
    ///
    /// Substitution forwards leaves the negative of what it solves for, so that every product is one that adds in place.
    ///
    /// # Errors
    /// When libtorch fails.
    pub(super) fn solve(&self, rhs: &Tensor) -> Result<Tensor, TchError> {
        let mut x = rhs.f_empty_like()?;
        x.f_copy_(rhs)?;
        let rows = self.upper.rows(TILE)?;
        // A row of tiles with what it is solved with, the part of the solution that is its own, and the one behind it.
        let mut parts = Vec::with_capacity(rows.len());
        let mut start = 0;
        for (row, inverse) in rows.into_iter().zip(&self.inverses) {
            let (height, span) = row.size2()?;
            let behind = span - height;
            let after = x.f_narrow(1, start + height, behind)?;
            parts.push((row.f_narrow(1, height, behind)?, inverse, x.f_narrow(1, start, height)?, after));
            start += height;
        }
        for (row, inverse, own, after) in &mut parts {
            own.f_copy_(&own.f_mm(inverse)?)?;
            if after.numel() > 0 {
                let _ = after.f_addmm_(own, row)?;
            }
        }
        for (row, inverse, own, after) in parts.iter_mut().rev() {
            if after.numel() > 0 {
                let _ = own.f_addmm_(after, &row.f_tr()?)?;
            }
            own.f_copy_(&own.f_mm(&inverse.f_tr()?)?)?;
        }
        Ok(x)
    }

    /// Another handle on the same factor, for another thread.
    pub(super) fn share(&self) -> Self {
        let inverses = self.inverses.iter().map(Tensor::shallow_clone).collect();
        Self { upper: self.upper.share(), inverses }
    }

    /// Bytes of its numbers.
    pub(super) fn bytes(&self) -> u64 {
        self.upper.bytes() + self.inverses.iter().map(bytes).sum::<u64>()
    }

    /// Rows and columns.
    pub(super) fn width(&self) -> i64 {
        self.upper.width()
    }

    /// A tensor of its type, where it lies.
    pub(super) fn like(&self, x: &Tensor) -> Result<Tensor, TchError> {
        self.upper.like(x)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn a_solve_by_tiles_leaves_no_residual_whatever_the_remainder() {
        tch::manual_seed(5);
        let options = (Kind::Double, Device::Cpu);
        for n in [1, 3, 256, 257, 600, 1500] {
            let x = Tensor::randn([2 * n, n], options);
            let matrix = x.tr().matmul(&x) / (2.0 * n as f64);
            let factor = Triangle::of(Symmetric::of(&matrix).unwrap(), Pool::new(2)).unwrap().unwrap();
            let rhs = Tensor::randn([5, n], options);
            let gap = factor.solve(&rhs).unwrap().matmul(&matrix) - &rhs;
            assert!(gap.abs().max().double_value(&[]) < 1e-9, "{n}");
        }
    }

    #[test]
    fn a_matrix_that_is_not_positive_definite_is_found_in_any_tile() {
        for place in [0, 255, 300, 599] {
            let mut diagonal = vec![1.0; 600];
            diagonal[place] = -1e-3;
            let matrix = Symmetric::of(&Tensor::from_slice(&diagonal).diag(0)).unwrap();
            assert!(Triangle::of(matrix, Pool::new(2)).unwrap().is_none());
        }
    }
}
