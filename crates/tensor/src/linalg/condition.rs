//! The extreme eigenvalues of a symmetric positive matrix, by power iteration on it and on its factor.

use tch::{Kind, TchError, Tensor};

/// Enough for a factor of two at the worst, which is all that a decision rests on; small eigenvalues that matter come in
/// crowds, and then the first steps find them.
const STEPS: usize = 12;

/// Largest and smallest eigenvalue, estimated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Extremes {
    /// Largest; never above the true one.
    pub(super) largest: f64,
    /// Smallest; never below the true one but for rounding.
    pub(super) smallest: f64,
}

impl Extremes {
    /// The condition number.
    pub(super) fn condition(self) -> f64 {
        self.largest / self.smallest
    }

    /// Estimates them for a matrix `[n, n]` and its lower Cholesky factor (of any float type).
    pub(super) fn estimate(matrix: &Tensor, factor: &Tensor) -> Result<Self, TchError> {
        let largest = power(matrix, |x| matrix.f_mm(x))?;
        let smallest = power(factor, |x| x.f_cholesky_solve(factor, false))?;
        Ok(Self { largest, smallest: 1.0 / smallest })
    }
}

/// The largest eigenvalue of a positive operator on `[n, 1]`.
fn power(like: &Tensor, apply: impl Fn(&Tensor) -> Result<Tensor, TchError>) -> Result<f64, TchError> {
    let n = like.size()[0];
    // A fixed start without pattern: the fractional parts of multiples of the golden ratio.
    let mut x = Tensor::f_arange(n, (Kind::Double, like.device()))?
        .f_mul_scalar(0.618_033_988_749_894_9)?
        .f_frac()?
        .f_sub_scalar(0.5)?
        .f_to_kind(like.kind())?
        .f_unsqueeze(1)?;
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
