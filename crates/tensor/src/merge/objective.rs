//! How far weights are from each model on that model's own inputs, from a few quadratic forms.
//!
//! Sources, average and merge all lie in the span of the models' differences from the mean and the correction. So the
//! products with each Gram are taken once per vector of that basis, block by block, and every objective follows from
//! coefficients.

use serde::Serialize;
use tch::{Kind, TchError, Tensor};

use super::figures::finite;
use crate::linalg::{Measure, SolveError, inner, square};

/// `Σᵢ uᵢ tr (W - Wᵢ) Gᵢ (W - Wᵢ)ᵀ`: how far weights are from each model on that model's own inputs. Lower is better; RegMean
/// at α = 1 minimises it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Objective {
    /// With the weights of each source.
    pub sources: Vec<Option<f64>>,
    /// With the average.
    pub average: Option<f64>,
    /// With the merge.
    pub merge: Option<f64>,
}

/// Per Gram: `tr a G bᵀ` for all pairs of the basis, row by row.
pub(super) fn forms(basis: &[Tensor], grams: &[Measure<'_>]) -> Result<Vec<Vec<f64>>, SolveError> {
    grams.iter().map(|gram| gram.forms(basis)).collect()
}

/// What a solved system tells of the objective without another product with a Gram: sums over rows.
///
/// With `B = Σ uᵢ (Wᵢ - W̄) G̃ᵢ` and `C S = B`, both `tr C (Σ uᵢ Gᵢ) Cᵀ` and `tr C (Σ uᵢ Gᵢ (Wᵢ - W̄)ᵀ)` follow from `tr C Bᵀ`
/// and diagonals, since `G̃ᵢ = α Gᵢ + (1-α) diag Gᵢ`. It takes `α` well above 0.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// `tr C Bᵀ`.
    correction: f64,
    /// `tr C D Cᵀ`.
    norm: f64,
    /// `Σⱼ tr C (diag Hⱼ) (Wⱼ - W̄)ᵀ`, with the unscaled matrices `Hⱼ` of the right-hand side.
    diagonal: f64,
    /// `tr (W₁ - W̄) Bᵀ` for the first model but the pivot.
    side: f64,
    /// `tr (W₁ - W̄) (diag H₁) (W₁ - W̄)ᵀ`.
    side_diagonal: f64,
}

impl Known {
    /// The smallest α that it is good for: rounding is multiplied by `1 / α`.
    pub(super) const SMALLEST_ALPHA: f64 = 0.01;

    /// Of a block of rows: differences `[rows, width]`, scaled right-hand side and solution, `D^-½`, and the diagonals of the
    /// `Hⱼ`, `[width]` in fp64.
    pub(super) fn of(
        differences: &[Tensor],
        (rhs, solution): (&Tensor, &Tensor),
        root: &Tensor,
        diagonals: &[Tensor],
    ) -> Result<Self, TchError> {
        // Sums over rows first: what is left to weigh is one number a column.
        let columns = |a: &Tensor, b: &Tensor| {
            let products = a.f_mul(b)?;
            products.f_sum_dim_intlist([0i64].as_slice(), false, products.f_kind()?)?.f_to_kind(Kind::Double)
        };
        let total = |x: &Tensor| x.f_sum(Kind::Double)?.f_double_value(&[]);
        let mut known = Self { correction: inner(rhs, solution)?, norm: square(solution)?, ..Self::default() };
        for (difference, diagonal) in differences.iter().zip(diagonals) {
            known.diagonal += total(&columns(solution, difference)?.f_mul(root)?.f_mul(diagonal)?)?;
        }
        let seen = root.f_gt(0.0)?;
        let back = root.f_reciprocal()?.f_where_self(&seen, &root.f_zeros_like()?)?;
        known.side = total(&columns(&differences[0], rhs)?.f_mul(&back)?)?;
        known.side_diagonal = total(&columns(&differences[0], &differences[0])?.f_mul(&diagonals[0])?)?;
        Ok(known)
    }

    /// Adds another block's.
    pub(super) fn add(&mut self, other: &Self) {
        self.correction += other.correction;
        self.norm += other.norm;
        self.diagonal += other.diagonal;
        self.side += other.side;
        self.side_diagonal += other.side_diagonal;
    }

    /// The objective of the merge, less that of the average.
    fn gain(&self, alpha: f64) -> f64 {
        (-self.correction - (1.0 - alpha) * (self.norm - 2.0 * self.diagonal)) / alpha
    }

    /// Of two models: `tr δ G δᵀ` with the pivot's Gram, from that with the other's (`form`, which counts `scale` times where
    /// the pivot's is taken out `taken` times).
    pub(super) fn pivot_form(&self, alpha: f64, form: f64, scale: f64, taken: f64) -> f64 {
        (scale * form - (self.side - (1.0 - alpha) * self.side_diagonal) / alpha) / taken
    }
}

/// Where the merge stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Merged {
    /// The correction is the last of the basis.
    InBasis,
    /// The basis has differences alone; the system tells the rest.
    Known(Known, f64),
}

/// The objective of every source, the average and the merge.
///
/// Weights are written as coefficients over the basis of [`forms`]: the differences from the mean of all models but the
/// pivot, and the correction where it is in it. The pivot's difference is `-Σ (wⱼ / w_pivot)` times the others'.
pub(super) fn objective(
    forms: &[Vec<f64>],
    scales: &[f64],
    weights: &[f64],
    pivot: usize,
    merged: Merged,
) -> Objective {
    let size = match merged {
        Merged::InBasis => weights.len(),
        Merged::Known(..) => weights.len() - 1,
    };
    let mut place = 0;
    let differences: Vec<Vec<f64>> = (0..weights.len())
        .map(|model| {
            let mut coefficients = vec![0.0; size];
            if model == pivot {
                let others = (0..weights.len()).filter(|other| *other != pivot);
                others.enumerate().for_each(|(place, other)| coefficients[place] = -weights[other] / weights[pivot]);
            } else {
                coefficients[place] = 1.0;
                place += 1;
            }
            coefficients
        })
        .collect();
    let value = |candidate: &[f64]| -> f64 {
        let terms = forms.iter().zip(scales).zip(&differences).map(|((form, scale), difference)| {
            let away: Vec<f64> = candidate.iter().zip(difference).map(|(a, b)| a - b).collect();
            let sum: f64 = (0..size * size).map(|at| away[at / size] * away[at % size] * form[at]).sum();
            // A quadratic form is not negative; its rounding may be.
            scale * sum.max(0.0)
        });
        terms.sum()
    };
    let average = value(&vec![0.0; size]);
    let merge = match merged {
        Merged::InBasis => {
            let mut merge = vec![0.0; size];
            merge[size - 1] = 1.0;
            value(&merge)
        }
        Merged::Known(known, alpha) => (average + known.gain(alpha)).max(0.0),
    };
    Objective {
        sources: differences.iter().map(|source| finite(value(source))).collect(),
        average: finite(average),
        merge: finite(merge),
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::super::elementwise::mean;
    use super::*;
    use crate::linalg::Symmetric;

    #[test]
    fn the_objective_of_coefficients_is_the_objective_of_weights() {
        tch::manual_seed(3);
        let options = (Kind::Double, Device::Cpu);
        let weights = [1.0, 2.0, 0.5];
        let models: Vec<Tensor> = (0..3).map(|_| Tensor::randn([4, 5], options)).collect();
        let grams: Vec<Tensor> = (0..3)
            .map(|_| {
                let x = Tensor::randn([9, 5], options);
                x.tr().matmul(&x)
            })
            .collect();
        let scales = [0.3, 0.7, 1.1];
        let average = mean(&models, &weights).unwrap();
        let correction = Tensor::randn([4, 5], options);
        let merge = &average + &correction;
        let direct = |w: &Tensor| -> f64 {
            let away = |i: usize| w - &models[i];
            (0..3).map(|i| scales[i] * (away(i).matmul(&grams[i]) * away(i)).sum(Kind::Double).double_value(&[])).sum()
        };
        let pivot = 1;
        let basis = [&models[0] - &average, &models[2] - &average, correction];
        let grams: Vec<Measure<'_>> = grams.iter().map(|gram| Measure::Held(Symmetric::of(gram).unwrap())).collect();
        let found = objective(&forms(&basis, &grams).unwrap(), &scales, &weights, pivot, Merged::InBasis);
        let expected: Vec<f64> = models.iter().chain([&average, &merge]).map(direct).collect();
        let found: Vec<f64> =
            found.sources.into_iter().chain([found.average, found.merge]).map(Option::unwrap).collect();
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-9 * expected.abs().max(1.0), "{found} {expected}");
        }
    }
}
