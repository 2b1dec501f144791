//! `task_arithmetic`: `W = W₀ + λ Σ wᵢ (Wᵢ - W₀)` (Ilharco et al., <https://arxiv.org/abs/2212.04089>); with `normalize`
//! the sum is divided by `Σ wᵢ`.

use std::sync::Arc;

use mergelab_wire::MergeJob;

use super::elementwise::{Kernel, Tile, on_task_vectors};
use super::error::MergeError;
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::rules::AlphaRule;

/// Sums of weights smaller than this divide nothing, as in mergekit.
pub(super) const NO_WEIGHT: f64 = 1e-8;

/// Task arithmetic.
#[derive(Debug)]
pub struct TaskArithmetic;

impl Method for TaskArithmetic {
    fn name(&self) -> &'static str {
        "task_arithmetic"
    }

    fn needs_base(&self) -> bool {
        true
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        Params::check(job, &[("lambda", f64::MIN, f64::MAX)], &["normalize"])
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        let params = Params::new(context.job, context.sources.names().iter().map(String::as_str));
        let normalize = params.flag("normalize", false);
        on_task_vectors(context, tensors, |name| {
            let weights = context.sources.weights(name);
            let total: f64 = weights.iter().sum();
            let divisor = if normalize && total.abs() >= NO_WEIGHT { total } else { 1.0 };
            let factor = params.number("lambda", name, 1.0) / divisor;
            Ok(Arc::new(Sum { factors: weights.iter().map(|weight| weight * factor).collect() }))
        })
    }
}

/// The base plus a weighted sum of task vectors.
#[derive(Debug)]
struct Sum {
    factors: Vec<f64>,
}

impl Kernel for Sum {
    fn merge(&self, tile: &Tile<'_>, out: &mut [f32]) {
        let base = tile.base.expect("task vectors start from a base");
        for (at, (out, base)) in out.iter_mut().zip(base).enumerate() {
            let base = f64::from(*base);
            let parts = tile.models.iter().zip(&self.factors).map(|(model, w)| (f64::from(model[at]) - base) * w);
            *out = (base + parts.sum::<f64>()) as f32;
        }
    }
}
