//! Cholesky and its triangular solves by tiles, in any float type, on the upper half of a matrix.
//!
//! libtorch's own run in one thread here, since results may not depend on how many there are. By tiles of a fixed size the
//! factorisation is work for all workers, and a solve is made of full-rate products. `A = UᵀU` with `U` upper triangular; what
//! is left of the diagonal tiles is neither read nor written.

use tch::{TchError, Tensor};

use crate::parallel::Pool;

/// Rows and columns of a tile.
const TILE: i64 = 256;

/// Columns that one worker takes in a row of tiles.
const PIECE: i64 = 4 * TILE;

/// First rows of the tiles of a matrix.
fn starts(n: i64) -> impl DoubleEndedIterator<Item = i64> + Clone {
    (0..(n + TILE - 1) / TILE).map(|tile| tile * TILE)
}

/// `x[rows.., columns..]` with these lengths.
fn part(x: &Tensor, (row, rows): (i64, i64), (column, columns): (i64, i64)) -> Result<Tensor, TchError> {
    x.f_narrow(0, row, rows)?.f_narrow(1, column, columns)
}

/// `x A` for a row `[1, n]` and a symmetric matrix of which the upper half is there.
///
/// # Errors
/// When libtorch fails.
pub(super) fn product(upper: &Tensor, x: &Tensor) -> Result<Tensor, TchError> {
    let n = upper.size2()?.0;
    let y = x.f_zeros_like()?;
    for start in starts(n) {
        let height = TILE.min(n - start);
        super::symmetric::add_product(&y, x, start, &part(upper, (start, height), (start, n - start))?)?;
    }
    Ok(y)
}

/// Puts the factor `U` `[n, n]` of a symmetric matrix in its place. False where the matrix is not positive definite in this
/// type.
///
/// Row of tiles by row, each taking what the rows before it take off in one tall product.
///
/// # Errors
/// When libtorch fails.
pub(super) fn cholesky(matrix: &Tensor, pool: Pool) -> Result<bool, TchError> {
    let n = matrix.size2()?.0;
    for start in starts(n) {
        let rows = (start, TILE.min(n - start));
        let above = part(matrix, (0, start), rows)?.f_tr()?;
        let rest_of = |columns: (i64, i64)| -> Result<Tensor, TchError> {
            let own = part(matrix, rows, columns)?;
            if start == 0 { Ok(own) } else { own.f_sub(&above.f_mm(&part(matrix, (0, start), columns)?)?) }
        };
        // libtorch's own works on lower factors; the tile is symmetric.
        let (lower, info) = rest_of(rows)?.f_linalg_cholesky_ex(false, false)?;
        if info.f_int64_value(&[])? != 0 {
            return Ok(false);
        }
        part(matrix, rows, rows)?.f_copy_(&lower.f_tr()?)?;
        let after = start + rows.1;
        let pieces = (0..(n - after + PIECE - 1) / PIECE).map(|piece| {
            let column = after + piece * PIECE;
            let columns = (column, PIECE.min(n - column));
            let own = part(matrix, rows, columns)?;
            Ok((own, part(matrix, (0, start), columns)?, above.shallow_clone(), lower.shallow_clone()))
        });
        pool.map(pieces.collect::<Result<Vec<_>, TchError>>()?, |(mut own, before, above, lower)| {
            let rest = if start == 0 { own.shallow_clone() } else { own.f_sub(&above.f_mm(&before)?)? };
            own.f_copy_(&Tensor::f_linalg_solve_triangular(&lower, &rest, false, true, false)?)
        })?;
    }
    Ok(true)
}

/// Solves `X UᵀU = B` for a block of rows `[rows, n]`.
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
            rest = rest.f_sub(&part(&x, all, (0, start))?.f_mm(&part(factor, (0, start), columns)?)?)?;
        }
        let solved = Tensor::f_linalg_solve_triangular(&part(factor, columns, columns)?, &rest, true, false, false)?;
        part(&x, all, columns)?.f_copy_(&solved)?;
    }
    for start in starts(n).rev() {
        let columns = (start, TILE.min(n - start));
        let after = (start + columns.1, n - start - columns.1);
        let mut rest = part(&x, all, columns)?;
        if after.1 > 0 {
            rest = rest.f_sub(&part(&x, all, after)?.f_mm(&part(factor, columns, after)?.f_tr()?)?)?;
        }
        let diagonal = part(factor, columns, columns)?.f_tr()?;
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
        for n in [1, 3, 256, 257, 600, 1500] {
            let x = Tensor::randn([2 * n, n], options);
            let matrix = x.tr().matmul(&x) / (2.0 * n as f64);
            // Below the diagonal tiles there may be anything.
            let factor = matrix.triu(-TILE + 1) + Tensor::full([n, n], 7.0, options).tril(-TILE);
            let row = Tensor::randn([1, n], options);
            let gap = product(&factor, &row).unwrap() - row.matmul(&matrix);
            assert!(gap.abs().max().double_value(&[]) < 1e-10, "{n}");
            assert!(cholesky(&factor, Pool::new(2)).unwrap());
            let upper = factor.triu(0);
            assert!((upper.tr().matmul(&upper) - &matrix).abs().max().double_value(&[]) < 1e-12);
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
