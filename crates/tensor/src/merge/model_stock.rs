//! `model_stock`: as far from the base towards the average as the angles between the models say (Jang et al.,
//! <https://arxiv.org/abs/2403.19522>).
//!
//! `W = W₀ + t (W̄ - W₀)` with `t = k cos θ / (1 + (k-1) cos θ)`, where k models have task vectors with the mean cosine cos θ
//! over all pairs, taken tensor by tensor, or with `filter_wise` row by row (of a tensor with one dimension, over all of it).
//! Where the denominator is nothing, the base stays. Weights do not count.

use std::sync::Arc;

use mergelab_wire::MergeJob;

use super::elementwise::on_task_vectors;
use super::error::MergeError;
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::rules::AlphaRule;
use super::span::{Along, Combination, Groups, Pairs, Products};
use super::vectors::Vectors;

/// Products of lengths, and denominators, count as this at least.
const LEAST: f64 = 1e-6;

/// Model Stock.
#[derive(Debug)]
pub struct ModelStock;

impl Method for ModelStock {
    fn name(&self) -> &'static str {
        "model_stock"
    }

    fn needs_base(&self) -> bool {
        true
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        Params::check(job, &[], &["filter_wise"])?;
        if job.models.len() >= 2 {
            return Ok(());
        }
        let (method, reason) = (job.method.clone(), "one model has no angle to another".to_owned());
        Err(MergeError::Request { method, reason, hint: "it takes two models or more" })
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        let along = if Params::of(context).flag("filter_wise", false) { Along::Last } else { Along::Whole };
        let models: Vec<usize> = (0..context.sources.models.len()).collect();
        on_task_vectors(context, tensors, |name| {
            let vectors = Vectors::from_base(context, name, &models)?;
            let groups = Groups::new(along, vectors.shape);
            let products = Products::of(&vectors, groups)?;
            let count = models.len() as f64;
            let factors = products.groups().map(|pairs| (1.0, vec![share(pairs) / count; models.len()]));
            Ok(Arc::new(Combination::new(groups, factors)))
        })
    }
}

/// How far it goes towards the average.
fn share(pairs: Pairs<'_>) -> f64 {
    let count = pairs.count();
    let cosine =
        |(a, b): (usize, usize)| (pairs.dot(a, b) / (pairs.norm(a) * pairs.norm(b)).max(LEAST)).clamp(-1.0, 1.0);
    let all: Vec<f64> = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b))).map(cosine).collect();
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    let denominator = 1.0 + (count - 1) as f64 * mean;
    if denominator.abs() < LEAST { 0.0 } else { count as f64 * mean / denominator }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_at_right_angles_stay_at_the_base_and_equal_ones_are_the_average() {
        let at = |cosine: f64| share(Pairs::new(2, &[1.0, cosine, cosine, 1.0]));
        assert!(at(0.0).abs() < 1e-12 && (at(1.0) - 1.0).abs() < 1e-12);
        // 2 · 0.5 / 1.5
        assert!((at(0.5) - 2.0 / 3.0).abs() < 1e-12);
        assert!(at(-1.0).abs() < 1e-12, "nothing is to be said of opposite ones");
    }
}
