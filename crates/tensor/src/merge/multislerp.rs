//! `multislerp`: a barycentre of several models on the sphere.
//!
//! The models, or their differences from the base where there is one, are brought to length 1; `m` is the direction of their
//! weighted sum, at which they are taken to the tangent space, added up, and brought back; the result is as long as the
//! models are on average: with `uᵢ = xᵢ/(‖xᵢ‖ + eps)` and `v = Σ wᵢ (uᵢ - (uᵢ·m) m)`, `x = Σ wᵢ ‖xᵢ‖ · (cos ‖v‖ m + sin ‖v‖ v/‖v‖)`.
//! The weights are divided by their sum unless `normalize_weights` is off. Where two models cancel each other, their weighted
//! sum is taken.
//!
//! Source: mergekit, whose method it is (<https://goddard.blog/posts/multislerp-wow-what-a-cool-idea>).

use std::sync::Arc;

use mergelab_wire::MergeJob;

use super::elementwise::on_tensors;
use super::error::MergeError;
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::rules::AlphaRule;
use super::span::{Along, Combination, Groups, Pairs, Products, scale};
use super::vectors::Vectors;

/// Spherical interpolation of several models.
#[derive(Debug)]
pub struct Multislerp;

impl Method for Multislerp {
    fn name(&self) -> &'static str {
        "multislerp"
    }

    fn reads_base(&self, job: &MergeJob) -> bool {
        job.base.is_some()
    }

    fn takes_any_weight(&self) -> bool {
        true
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        Params::check(job, &[("eps", 0.0, f64::MAX)], &["normalize_weights"])
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        let params = Params::of(context);
        let base = context.job.base.is_some();
        let models: Vec<usize> = (0..context.sources.models.len()).collect();
        on_tensors(context, tensors, base, &models, |name| {
            let vectors = if base { Vectors::from_base } else { Vectors::plain }(context, name, &models)?;
            let groups = Groups::new(Along::Whole, vectors.shape);
            let products = Products::of(&vectors, groups)?;
            let mut weights = context.sources.weights(name);
            if params.flag("normalize_weights", true) {
                let total: f64 = weights.iter().sum();
                scale(&mut weights, 1.0 / total);
            }
            let eps = params.number("eps", name, 1e-8);
            let factors = products
                .groups()
                .map(|pairs| Ok((1.0, barycentre(pairs, &weights, eps).ok_or_else(|| cancelled(context, name))?)));
            Ok(Arc::new(Combination::new(groups, factors.collect::<Result<Vec<_>, MergeError>>()?)))
        })
    }
}

fn cancelled(context: &Context<'_>, name: &str) -> MergeError {
    MergeError::Request {
        method: context.job.method.clone(),
        reason: format!("the weighted models cancel each other at {name}"),
        hint: "take other weights",
    }
}

/// The models' factors; none where they cancel each other and are not two.
fn barycentre(pairs: Pairs<'_>, weights: &[f64], eps: f64) -> Option<Vec<f64>> {
    if pairs.count() == 1 {
        return Some(vec![1.0]);
    }
    let norms: Vec<f64> = (0..pairs.count()).map(|index| pairs.norm(index)).collect();
    let mut mean: Vec<f64> = weights.iter().zip(&norms).map(|(weight, norm)| weight / (norm + eps)).collect();
    let length = pairs.norm_of(&mean);
    if length < eps {
        return (pairs.count() == 2).then(|| weights.to_vec());
    }
    scale(&mut mean, 1.0 / length);
    let mut tangent = vec![0.0; mean.len()];
    for (index, weight) in weights.iter().enumerate() {
        let unit = 1.0 / (norms[index] + eps);
        tangent[index] += weight * unit;
        let along = unit * pairs.with(&mean, index);
        tangent.iter_mut().zip(&mean).for_each(|(factor, mean)| *factor -= weight * along * mean);
    }
    let angle = pairs.norm_of(&tangent) + eps;
    let norm: f64 = weights.iter().zip(&norms).map(|(weight, norm)| weight * norm).sum();
    let (mean_factor, tangent_factor) =
        (norm * angle.cos(), norm * if angle > 0.0 { angle.sin() / angle } else { 1.0 });
    Some(mean.iter().zip(&tangent).map(|(mean, tangent)| mean_factor * mean + tangent_factor * tangent).collect())
}
