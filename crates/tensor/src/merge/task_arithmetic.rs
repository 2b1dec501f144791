//! `task_arithmetic`: `W = W₀ + λ Σ wᵢ (Wᵢ - W₀)` (Ilharco et al., <https://arxiv.org/abs/2212.04089>); with `normalize`
//! the sum is divided by `Σ wᵢ`.

use mergelab_wire::MergeJob;

use super::elementwise::on_task_vectors;
use super::error::MergeError;
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::rules::AlphaRule;
use super::span::{Along, Combination, Groups};
use super::sparse::NO_WEIGHT;
use std::sync::Arc;

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
        let params = Params::of(context);
        let normalize = params.flag("normalize", false);
        on_task_vectors(context, tensors, |name| {
            let weights = context.sources.weights(name);
            let total: f64 = weights.iter().sum();
            let divisor = if normalize && total.abs() >= NO_WEIGHT { total } else { 1.0 };
            let factor = params.number("lambda", name, 1.0) / divisor;
            let factors = weights.iter().map(|weight| weight * factor).collect();
            let groups = Groups::new(Along::Whole, context.sources.shape(name)?);
            Ok(Arc::new(Combination::new(groups, [(1.0, factors)])))
        })
    }
}
