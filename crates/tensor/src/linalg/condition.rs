//! The extreme eigenvalues of a symmetric positive matrix, by power iteration on it and on its factor.

use tch::{Kind, TchError, Tensor};

use super::tiled;

/// Enough for a factor of two at the worst, which is all that a decision rests on; small eigenvalues that matter come in
/// crowds, and then the first steps find them.
const STEPS: usize = 12;

/// The largest eigenvalue of a matrix `[n, n]`, estimated; never above the true one.
pub(super) fn largest(matrix: &Tensor) -> Result<f64, TchError> {
    power(matrix, |x| x.f_mm(matrix))
}

/// The smallest eigenvalue of the matrix `[n, n]` that has this lower Cholesky factor, estimated; never below the true one
/// but for rounding.
pub(super) fn smallest(factor: &Tensor) -> Result<f64, TchError> {
    Ok(1.0 / power(factor, |x| tiled::solve(factor, x))?)
}

/// The largest eigenvalue of a positive operator on `[1, n]`.
fn power(like: &Tensor, apply: impl Fn(&Tensor) -> Result<Tensor, TchError>) -> Result<f64, TchError> {
    let n = like.size()[0];
    // A fixed start without pattern: the fractional parts of multiples of the golden ratio.
    let mut x = Tensor::f_arange(n, (Kind::Double, like.device()))?
        .f_mul_scalar(0.618_033_988_749_894_9)?
        .f_frac()?
        .f_sub_scalar(0.5)?
        .f_to_kind(like.kind())?
        .f_unsqueeze(0)?;
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
