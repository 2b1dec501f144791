//! Cholesky and its triangular solves by tiles, in any float type.
//!
//! libtorch's own run in one thread here, since results may not depend on how many there are. By tiles of a fixed size the
//! factorisation is work for all workers, and a solve is made of full-rate products.

use tch::{TchError, Tensor};

use crate::parallel::Pool;

/// Rows and columns of a tile.
const TILE: i64 = 256;

/// First rows of the tiles of a matrix.
fn starts(n: i64) -> impl DoubleEndedIterator<Item = i64> + Clone {
    (0..(n + TILE - 1) / TILE).map(|tile| tile * TILE)
}

/// `x[rows.., columns..]` with these lengths.
fn part(x: &Tensor, (row, rows): (i64, i64), (column, columns): (i64, i64)) -> Result<Tensor, TchError> {
    x.f_narrow(0, row, rows)?.f_narrow(1, column, columns)
}

/// Puts the lower Cholesky factor `[n, n]` of a symmetric matrix in its place; what lies above the diagonal tiles stays as it
/// was. False where the matrix is not positive definite in this type.
///
/// Column of tiles by column, each taking what the columns before it take off in one tall product.
///
/// # Errors
/// When libtorch fails.
pub(super) fn cholesky(matrix: &Tensor, pool: Pool) -> Result<bool, TchError> {
    let n = matrix.size2()?.0;
    for start in starts(n) {
        let height = TILE.min(n - start);
        let columns = (start, height);
        let before = part(matrix, columns, (0, start))?.f_tr()?;
        let tile = part(matrix, columns, columns)?;
        if start > 0 {
            tile.f_sub(&part(matrix, columns, (0, start))?.f_mm(&before)?)
                .and_then(|x| tile.shallow_clone().f_copy_(&x))?;
        }
        let (factor, info) = tile.f_linalg_cholesky_ex(false, false)?;
        if info.f_int64_value(&[])? != 0 {
            return Ok(false);
        }
        tile.shallow_clone().f_copy_(&factor)?;
        let below = starts(n).filter(|row| *row > start).map(|row| {
            let rows = (row, TILE.min(n - row));
            Ok((part(matrix, rows, columns)?, part(matrix, rows, (0, start))?, before.shallow_clone(), factor.f_tr()?))
        });
        pool.map(below.collect::<Result<Vec<_>, TchError>>()?, |(mut tile, left, before, factor)| {
            let rest = if start > 0 { tile.f_sub(&left.f_mm(&before)?)? } else { tile.shallow_clone() };
            tile.f_copy_(&Tensor::f_linalg_solve_triangular(&factor, &rest, true, false, false)?)
        })?;
    }
    Ok(true)
}

/// Solves `X L Lᵀ = B` for a block of rows `[rows, n]`.
///
/// # Errors
/// When libtorch fails.
pub(super) fn solve(factor: &Tensor, rhs: &Tensor) -> Result<Tensor, TchError> {
    let (rows, n) = rhs.size2()?;
    let all = (0, rows);
    let x = Tensor::f_empty([rows, n], (rhs.f_kind()?, rhs.device()))?;
    for start in starts(n) {
        let columns = (start, TILE.min(n - start));
        let mut rest = part(rhs, all, columns)?;
        if start > 0 {
            rest = rest.f_sub(&part(&x, all, (0, start))?.f_mm(&part(factor, columns, (0, start))?.f_tr()?)?)?;
        }
        let diagonal = part(factor, columns, columns)?.f_tr()?;
        let solved = Tensor::f_linalg_solve_triangular(&diagonal, &rest, true, false, false)?;
        part(&x, all, columns)?.f_copy_(&solved)?;
    }
    for start in starts(n).rev() {
        let columns = (start, TILE.min(n - start));
        let after = (start + columns.1, n - start - columns.1);
        let mut rest = part(&x, all, columns)?;
        if after.1 > 0 {
            rest = rest.f_sub(&part(&x, all, after)?.f_mm(&part(factor, after, columns)?)?)?;
        }
        let diagonal = part(factor, columns, columns)?;
        let solved = Tensor::f_linalg_solve_triangular(&diagonal, &rest, false, false, false)?;
        part(&x, all, columns)?.f_copy_(&solved)?;
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn a_solve_by_tiles_leaves_no_residual_whatever_the_remainder() {
        tch::manual_seed(5);
        let options = (Kind::Double, Device::Cpu);
        for n in [1, 3, 256, 257, 600] {
            let x = Tensor::randn([2 * n, n], options);
            let matrix = x.tr().matmul(&x) / (2.0 * n as f64);
            let factor = matrix.copy();
            assert!(cholesky(&factor, Pool::new(2)).unwrap());
            let lower = factor.tril(0);
            assert!((lower.matmul(&lower.tr()) - &matrix).abs().max().double_value(&[]) < 1e-12);
            let rhs = Tensor::randn([5, n], options);
            let gap = solve(&factor, &rhs).unwrap().matmul(&matrix) - &rhs;
            assert!(gap.abs().max().double_value(&[]) < 1e-9, "{n}");
        }
    }

    #[test]
    fn a_matrix_that_is_not_positive_definite_is_found_in_any_tile() {
        for place in [0, 255, 300, 599] {
            let mut diagonal = vec![1.0; 600];
            diagonal[place] = -1e-3;
            assert!(!cholesky(&Tensor::from_slice(&diagonal).diag(0), Pool::new(2)).unwrap());
        }
    }
}
