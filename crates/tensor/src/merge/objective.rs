//! How far weights are from each model on that model's own inputs, from a few quadratic forms.
//!
//! Sources, average and merge all lie in the span of the models' differences from the mean and the correction. So the
//! products with each Gram are taken once per vector of that basis, block by block, and every objective follows from
//! coefficients.

use serde::Serialize;
use tch::{Kind, TchError, Tensor};

use super::figures::finite;

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
pub(super) fn forms(basis: &[Tensor], grams: &[Tensor]) -> Result<Vec<Vec<f64>>, TchError> {
    grams
        .iter()
        .map(|gram| {
            let mut row_by_row = Vec::with_capacity(basis.len() * basis.len());
            for a in basis {
                let product = a.f_mm(gram)?;
                for b in basis {
                    row_by_row.push(product.f_mul(b)?.f_sum(Kind::Double)?.f_double_value(&[])?);
                }
            }
            Ok(row_by_row)
        })
        .collect()
}

/// The objective of every source, the average and the merge.
///
/// Weights are written as coefficients over the basis of [`forms`]: the differences from the mean of all models but the
/// pivot, and the correction. The pivot's difference is `-Σ (wⱼ / w_pivot)` times the others'.
pub(super) fn objective(forms: &[Vec<f64>], scales: &[f64], weights: &[f64], pivot: usize) -> Objective {
    let size = weights.len();
    let mut place = 0;
    let differences: Vec<Vec<f64>> = (0..size)
        .map(|model| {
            let mut coefficients = vec![0.0; size];
            if model == pivot {
                let others = (0..size).filter(|other| *other != pivot);
                others.enumerate().for_each(|(place, other)| coefficients[place] = -weights[other] / weights[pivot]);
            } else {
                coefficients[place] = 1.0;
                place += 1;
            }
            coefficients
        })
        .collect();
    let value = |candidate: &[f64]| {
        let terms = forms.iter().zip(scales).zip(&differences).map(|((form, scale), difference)| {
            let away: Vec<f64> = candidate.iter().zip(difference).map(|(a, b)| a - b).collect();
            let sum: f64 = (0..size * size).map(|at| away[at / size] * away[at % size] * form[at]).sum();
            // A quadratic form is not negative; its rounding may be.
            scale * sum.max(0.0)
        });
        finite(terms.sum())
    };
    let mut merge = vec![0.0; size];
    merge[size - 1] = 1.0;
    Objective {
        sources: differences.iter().map(|source| value(source)).collect(),
        average: value(&vec![0.0; size]),
        merge: value(&merge),
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::super::elementwise::mean;
    use super::*;

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
        let found = objective(&forms(&basis, &grams).unwrap(), &scales, &weights, pivot);
        let expected: Vec<f64> = models.iter().chain([&average, &merge]).map(direct).collect();
        let found: Vec<f64> =
            found.sources.into_iter().chain([found.average, found.merge]).map(Option::unwrap).collect();
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-9 * expected.abs().max(1.0), "{found} {expected}");
        }
    }
}
