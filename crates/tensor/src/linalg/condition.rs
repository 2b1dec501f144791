//! The extreme eigenvalues of a symmetric positive matrix, by power iteration on it and on its factor.

use tch::{Device, Kind, TchError, Tensor};

use super::symmetric::Symmetric;
use super::tiled::Triangle;

/// Enough for a factor of two at the worst, which is all that a decision rests on; small eigenvalues that matter come in
/// crowds, and then the first steps find them.
const STEPS: usize = 12;

/// The largest eigenvalue of a matrix, estimated; never above the true one.
pub(super) fn largest(matrix: &Symmetric) -> Result<f64, TchError> {
    power(matrix.like(&start(matrix.width())?)?, |x| matrix.multiply(x))
}

/// The smallest eigenvalue of the matrix that has this Cholesky factor, estimated; never below the true one but for
/// rounding.
pub(super) fn smallest(factor: &Triangle) -> Result<f64, TchError> {
    Ok(1.0 / power(factor.like(&start(factor.width())?)?, |x| factor.solve(x))?)
}

/// A fixed row without pattern, `[1, n]`: the fractional parts of multiples of the golden ratio.
fn start(n: i64) -> Result<Tensor, TchError> {
    Tensor::f_arange(n, (Kind::Double, Device::Cpu))?
        .f_mul_scalar(0.618_033_988_749_894_9)?
        .f_frac()?
        .f_sub_scalar(0.5)?
        .f_unsqueeze(0)
}

/// The largest eigenvalue of a positive operator on `[1, n]`.
fn power(mut x: Tensor, apply: impl Fn(&Tensor) -> Result<Tensor, TchError>) -> Result<f64, TchError> {
    let mut value = 0.0;
    for _ in 0..STEPS {
        let norm = x.f_norm()?.f_double_value(&[])?;
        if norm == 0.0 || !norm.is_finite() {
            return Ok(f64::INFINITY);
        }
        x = x.f_div_scalar(norm)?;
        let next = apply(&x)?;
        value = x.f_mul(&next)?.f_sum(Kind::Double)?.f_double_value(&[])?;
        x = next;
    }
    Ok(if value > 0.0 { value } else { f64::INFINITY })
}
