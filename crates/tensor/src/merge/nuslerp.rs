//! `nuslerp`: between two models on the circle, with weights in place of t, and with a base between their task vectors.
//!
//! `t = w₂ / (w₁ + w₂)`, a half where the weights add up to nothing. `W = sin((1-t)θ)/sin θ · x₁ + sin(tθ)/sin θ · x₂`, where
//! xᵢ is a model, or its difference from the base, which is added again. The angle is that of whole tensors
//! (`nuslerp_flatten`, on unless stated), or else of each row, or with `nuslerp_row_wise` of each column. Vectors on one line
//! are interpolated on it.
//!
//! Source: mergekit, whose method it is.

use std::sync::Arc;

use mergelab_wire::MergeJob;

use super::elementwise::on_tensors;
use super::error::MergeError;
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::rules::AlphaRule;
use super::span::{Along, Combination, Groups, Pairs, Products};
use super::vectors::Vectors;

/// Lengths count as this at least.
const SHORTEST: f64 = 1e-7;

/// Sines up to this are those of one line.
const LINE: f64 = 1e-8;

/// Weights that add up to less do not say which way to go.
const NO_WEIGHT: f64 = 1e-6;

/// Spherical interpolation of two models.
#[derive(Debug)]
pub struct Nuslerp;

impl Method for Nuslerp {
    fn name(&self) -> &'static str {
        "nuslerp"
    }

    fn reads_base(&self, job: &MergeJob) -> bool {
        job.base.is_some()
    }

    fn takes_any_weight(&self) -> bool {
        true
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        Params::check(job, &[], &["nuslerp_flatten", "nuslerp_row_wise"])?;
        if job.models.len() == 2 {
            return Ok(());
        }
        let (method, reason) = (job.method.clone(), format!("{} models", job.models.len()));
        Err(MergeError::Request { method, reason, hint: "it goes between two models" })
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        let params = Params::of(context);
        let along = match (params.flag("nuslerp_flatten", true), params.flag("nuslerp_row_wise", false)) {
            (true, _) => Along::Whole,
            (false, true) => Along::First,
            (false, false) => Along::Last,
        };
        let base = context.job.base.is_some();
        on_tensors(context, tensors, base, &[0, 1], |name| {
            let vectors = if base { Vectors::from_base } else { Vectors::plain }(context, name, &[0, 1])?;
            let groups = Groups::new(along, vectors.shape);
            let products = Products::of(&vectors, groups)?;
            let weights = context.sources.weights(name);
            let total = weights[0] + weights[1];
            let t = if total.abs() < NO_WEIGHT { 0.5 } else { weights[1] / total };
            let factors = products.groups().map(|pairs| (1.0, between(pairs, t)));
            Ok(Arc::new(Combination::new(groups, factors)))
        })
    }
}

/// The factors of the two.
fn between(pairs: Pairs<'_>, t: f64) -> Vec<f64> {
    let length = |index| pairs.norm(index).max(SHORTEST);
    let cosine = (pairs.dot(0, 1) / length(0) / length(1)).clamp(-1.0, 1.0);
    if 1.0 - cosine * cosine <= LINE * LINE {
        return vec![1.0 - t, t];
    }
    let angle = cosine.acos();
    vec![((1.0 - t) * angle).sin() / angle.sin(), (t * angle).sin() / angle.sin()]
}
