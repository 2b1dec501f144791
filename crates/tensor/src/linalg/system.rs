//! The scaled system of one shared input.
//!
//! With `G̃ᵢ = α Gᵢ + (1-α) diag Gᵢ`, `S = Σ uᵢ G̃ᵢ` and `D = diag S`, the corrections `C = W - W̄` solve
//! `(D^-½ S D^-½) (D^½ Cᵀ) = D^-½ Σ uᵢ G̃ᵢ (Wᵢ - W̄)ᵀ`. The scaled matrix has unit diagonal and, for α < 1, a condition number
//! of at most `1 + αd/(1-α)`. A feature that no token ever had has a zero row; it gets a unit diagonal and a zero right-hand
//! side, and its correction is zero exactly.

use tch::{Kind, TchError, Tensor};

use super::{SolveError, copied};

/// One model's part in the sum.
#[derive(Debug)]
pub struct Term {
    /// Gram matrix, `[width, width]`, fp32.
    pub gram: Tensor,
    /// What it is multiplied by in `Σ uᵢ G̃ᵢ`: the model's weight, over the trace where Grams are normalised.
    pub scale: f64,
    /// The model's weight in `W̄`.
    pub weight: f64,
}

/// The scaled system.
#[derive(Debug)]
pub struct ScaledSystem {
    /// `D^-½ S D^-½`, `[width, width]`, fp64, unit diagonal.
    pub matrix: Tensor,
    /// `D^-½`, `[width]`, fp64; zero for features that were never seen.
    pub root: Tensor,
    /// How many features were never seen.
    pub unseen: i64,
    alpha: f64,
}

/// `α M + (1-α) diag M`, for a matrix whose diagonal is given, in place.
fn shrink(matrix: &mut Tensor, alpha: f64) -> Result<(), TchError> {
    let diagonal = copied(&matrix.f_diagonal(0, 0, 1)?)?;
    let _ = matrix.f_mul_scalar_(alpha)?;
    matrix.f_diagonal(0, 0, 1)?.f_copy_(&diagonal)
}

impl ScaledSystem {
    /// Builds the system in fp64 from the fp32 Grams.
    ///
    /// # Errors
    /// When libtorch fails or a Gram is not finite.
    pub fn new(terms: &[Term], alpha: f64) -> Result<Self, SolveError> {
        let mut sum: Option<Tensor> = None;
        for term in terms {
            let part = term.gram.f_to_kind(Kind::Double)?.f_mul_scalar_(term.scale)?;
            sum = Some(match sum {
                None => part,
                Some(mut sum) => sum.f_add_(&part)?,
            });
        }
        let mut matrix = sum.ok_or(SolveError::NotFinite)?;
        if !matrix.f_sum(Kind::Double)?.f_double_value(&[])?.is_finite() {
            return Err(SolveError::NotFinite);
        }
        shrink(&mut matrix, alpha)?;
        let diagonal = copied(&matrix.f_diagonal(0, 0, 1)?)?;
        let seen = diagonal.f_gt(0.0)?;
        let zero = diagonal.f_zeros_like()?;
        let root = diagonal.f_rsqrt()?.f_where_self(&seen, &zero)?;
        let _ = matrix.f_mul_(&root.f_unsqueeze(0)?)?.f_mul_(&root.f_unsqueeze(1)?)?;
        matrix.f_diagonal(0, 0, 1)?.f_copy_(&diagonal.f_ones_like()?)?;
        let unseen = seen.f_logical_not()?.f_sum(Kind::Int64)?.f_int64_value(&[])?;
        Ok(Self { matrix, root, unseen, alpha })
    }

    /// The matrices `H̃ⱼ` of the right-hand side, `[width, width]` in fp64, one per model but the pivot:
    /// `Σᵢ uᵢ G̃ᵢ (Wᵢ - W̄)ᵀ D^-½` is `Σⱼ (Wⱼ - W̄) H̃ⱼ` in row form.
    ///
    /// As `Σ wᵢ (Wᵢ - W̄) = 0`, the pivot's difference follows from the others' and its Gram is taken out of each; two
    /// models take one product.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn right_hand_sides(&self, terms: &[Term], pivot: usize) -> Result<Vec<Tensor>, TchError> {
        let last = &terms[pivot];
        let others = terms.iter().enumerate().filter(|(index, _)| *index != pivot);
        others
            .map(|(_, term)| {
                let taken = last.gram.f_to_kind(Kind::Double)?.f_mul_scalar_(term.weight / last.weight * last.scale)?;
                let mut matrix = term.gram.f_to_kind(Kind::Double)?.f_mul_scalar_(term.scale)?.f_sub_(&taken)?;
                drop(taken);
                shrink(&mut matrix, self.alpha)?;
                matrix.f_mul_(&self.root.f_unsqueeze(0)?)
            })
            .collect()
    }
}
