//! `ties`: trim, elect, disjoint merge (Yadav et al., <https://arxiv.org/abs/2306.01708>).
//!
//! Of each task vector `τᵢ = Wᵢ - W₀` the `k = ⌊density·n⌋` largest elements of each tensor stay. Per element
//! `Σ wᵢ τᵢ ≥ 0` elects plus, else minus; the elements of that sign are added up, weighted, and divided by their weights
//! (`normalize`, on unless stated). `W = W₀ + λ` times that. With `rescale` a trimmed vector is scaled to its former
//! sum of magnitudes.

use std::sync::Arc;

use mergelab_wire::MergeJob;

use super::elementwise::{Kernel, Tile, on_task_vectors};
use super::error::MergeError;
use super::magnitude::{TaskVector, Trim};
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::rules::AlphaRule;
use super::task_arithmetic::NO_WEIGHT;

/// TIES.
#[derive(Debug)]
pub struct Ties;

impl Method for Ties {
    fn name(&self) -> &'static str {
        "ties"
    }

    fn needs_base(&self) -> bool {
        true
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        Params::check(job, &[("density", 0.0, 1.0), ("lambda", f64::MIN, f64::MAX)], &["normalize", "rescale"])
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        let params = Params::new(context.job, context.sources.names().iter().map(String::as_str));
        let (normalize, rescale) = (params.flag("normalize", true), params.flag("rescale", false));
        let base = context.sources.base.as_ref().expect("a method on task vectors has a base");
        on_task_vectors(context, tensors, |name| {
            let density = params.number("density", name, 1.0);
            let trimmed = |(source, weight)| -> Result<Part, MergeError> {
                let vector = TaskVector { model: source, base, tensor: name };
                let trim = vector.trim(density)?;
                let scale = if rescale { vector.rescaling(trim)? } else { 1.0 };
                Ok(Part { weight, scale, trim })
            };
            let weights = context.sources.weights(name);
            let parts = context.sources.models.iter().zip(weights).map(trimmed).collect::<Result<_, _>>()?;
            Ok(Arc::new(Elect { parts, lambda: params.number("lambda", name, 1.0), normalize }))
        })
    }
}

/// One model's part.
#[derive(Clone, Copy, Debug)]
struct Part {
    weight: f64,
    scale: f64,
    trim: Trim,
}

#[derive(Debug)]
struct Elect {
    parts: Vec<Part>,
    lambda: f64,
    normalize: bool,
}

impl Kernel for Elect {
    fn merge(&self, tile: &Tile<'_>, out: &mut [f32]) {
        let base = tile.base.expect("task vectors start from a base");
        let mut terms = vec![0.0f64; self.parts.len()];
        for (at, (out, base)) in out.iter_mut().zip(base).enumerate() {
            for ((term, part), model) in terms.iter_mut().zip(&self.parts).zip(tile.models) {
                let difference = model[at] - base;
                let kept = part.trim.keeps(difference, tile.start + at);
                *term = if kept { f64::from(difference) * part.scale * part.weight } else { 0.0 };
            }
            let sign = if terms.iter().sum::<f64>() >= 0.0 { 1.0 } else { -1.0 };
            let (mut sum, mut weights) = (0.0, 0.0);
            for (term, part) in terms.iter().zip(&self.parts) {
                if term * sign > 0.0 {
                    sum += term;
                    weights += part.weight;
                }
            }
            let divisor = if self.normalize && weights.abs() >= NO_WEIGHT { weights } else { 1.0 };
            *out = (f64::from(*base) + self.lambda * sum / divisor) as f32;
        }
    }
}
