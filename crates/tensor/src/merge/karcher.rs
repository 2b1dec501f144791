//! `karcher`: the Karcher (Riemannian) mean of the models on the sphere (<https://arxiv.org/abs/2603.04972>).
//!
//! The models are brought to length 1; from the direction of their mean, steps go by the mean of the logarithms
//! `θᵢ/sin θᵢ · (uᵢ - cos θᵢ m)` until it is shorter than `tol`, `max_iter` steps at most. The result is as long as the models
//! are on average. Weights count for nothing: the mean is even. A tensor that is zero in a model, to `tol`, is left out of the
//! direction.

use std::sync::Arc;

use mergelab_wire::MergeJob;

use super::elementwise::on_tensors;
use super::error::MergeError;
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::rules::AlphaRule;
use super::span::{Along, Combination, Groups, Pairs, Products, scale};
use super::vectors::Vectors;

/// The Karcher mean.
#[derive(Debug)]
pub struct Karcher;

impl Method for Karcher {
    fn name(&self) -> &'static str {
        "karcher"
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        Params::check(job, &[("max_iter", 1.0, 100_000.0), ("tol", 0.0, f64::MAX)], &[])
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        let params = Params::of(context);
        let models: Vec<usize> = (0..context.sources.models.len()).collect();
        on_tensors(context, tensors, false, &models, |name| {
            let vectors = Vectors::plain(context, name, &models)?;
            let groups = Groups::new(Along::Whole, vectors.shape);
            let products = Products::of(&vectors, groups)?;
            let (steps, tol) = (params.whole("max_iter", name, 10), params.number("tol", name, 1e-5));
            let factors = products.groups().map(|pairs| (1.0, mean(pairs, steps, tol)));
            Ok(Arc::new(Combination::new(groups, factors)))
        })
    }
}

/// The models' factors.
fn mean(pairs: Pairs<'_>, steps: usize, tol: f64) -> Vec<f64> {
    let models = pairs.count();
    if models == 1 {
        return vec![1.0];
    }
    let norms: Vec<f64> = (0..models).map(|index| pairs.norm(index)).collect();
    let valid: Vec<usize> = (0..models).filter(|index| norms[*index] > tol).collect();
    let Some(first) = valid.first().copied() else { return vec![0.0; models] };
    let share = 1.0 / valid.len() as f64;
    let mut mean = vec![0.0; models];
    for index in &valid {
        mean[*index] = share / norms[*index];
    }
    let length = pairs.norm_of(&mean);
    if length < tol {
        mean.fill(0.0);
        mean[first] = 1.0 / norms[first];
    } else {
        scale(&mut mean, 1.0 / length);
    }
    for _ in 0..steps {
        let mut tangent = vec![0.0; models];
        for index in &valid {
            let cosine = (pairs.with(&mean, *index) / norms[*index]).clamp(-1.0, 1.0);
            let angle = cosine.acos();
            if angle < tol {
                continue;
            }
            let longer = share * angle / angle.sin();
            tangent[*index] += longer / norms[*index];
            tangent.iter_mut().zip(&mean).for_each(|(factor, mean)| *factor -= longer * cosine * mean);
        }
        let step = pairs.norm_of(&tangent);
        if step < tol {
            break;
        }
        for (mean, tangent) in mean.iter_mut().zip(&tangent) {
            *mean = step.cos() * *mean + step.sin() * tangent / step;
        }
        let length = pairs.norm_of(&mean);
        if length > tol {
            scale(&mut mean, 1.0 / length);
        }
    }
    scale(&mut mean, norms.iter().sum::<f64>() / models as f64);
    mean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_two_is_half_way_on_the_circle_and_as_long_as_they_are_on_average() {
        // x₁ = (3, 0), x₂ = (0, 1): the direction is (1, 1)/√2, the length 2.
        let products = [9.0, 0.0, 0.0, 1.0];
        let pairs = Pairs::new(2, &products);
        let factors = mean(pairs, 10, 1e-5);
        let expected = [2f64.sqrt() / 3.0, 2f64.sqrt()];
        assert!(factors.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-12), "{factors:?}");
    }

    #[test]
    fn a_mean_of_three_is_where_the_logarithms_add_up_to_nothing() {
        // On one circle at 0°, 10° and 80°: the mean lies at 30°.
        let angles = [0.0f64, 10.0, 80.0].map(f64::to_radians);
        let products: Vec<f64> = angles.iter().flat_map(|a| angles.map(|b| (a - b).cos())).collect();
        let factors = mean(Pairs::new(3, &products), 50, 1e-9);
        let at = |of: fn(f64) -> f64| factors.iter().zip(angles).map(|(factor, angle)| factor * of(angle)).sum::<f64>();
        assert!((at(f64::sin).atan2(at(f64::cos)).to_degrees() - 30.0).abs() < 1e-6);
    }
}
