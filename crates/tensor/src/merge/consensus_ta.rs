//! `consensus_ta`: task arithmetic without what only few tasks need (TALL masks, Wang et al.,
//! <https://arxiv.org/abs/2405.07813>).
//!
//! With `τ = Σ wᵢ τᵢ`, an element matters to model i where `|wᵢ τᵢ| ≥ mask_lambda · |τ - wᵢ τᵢ|`. It stays where it matters to
//! `agree` models at least: `W = W₀ + λ τ` there, `W₀` elsewhere.

use std::sync::Arc;

use mergelab_wire::MergeJob;

use super::elementwise::{BLOCK, Kernel, Tile, on_task_vectors};
use super::error::MergeError;
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::rules::AlphaRule;
use crate::system::vectorized;

/// Consensus task arithmetic.
#[derive(Debug)]
pub struct ConsensusTa;

impl Method for ConsensusTa {
    fn name(&self) -> &'static str {
        "consensus_ta"
    }

    fn needs_base(&self) -> bool {
        true
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        let lambda = ("lambda", f64::MIN, f64::MAX);
        Params::check(job, &[lambda, ("mask_lambda", 0.0, f64::MAX), ("agree", 1.0, 1000.0)], &[])?;
        let agree = job.params.get("agree").and_then(serde_json::Value::as_u64).unwrap_or(2);
        if agree <= job.models.len() as u64 {
            return Ok(());
        }
        let (method, reason) = (job.method.clone(), format!("agree is {agree}, of {} models", job.models.len()));
        Err(MergeError::Request { method, reason, hint: "so many models cannot agree, and nothing would be merged" })
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        let params = Params::of(context);
        on_task_vectors(context, tensors, |name| {
            Ok(Arc::new(Agreed {
                weights: context.sources.weights(name),
                lambda: params.number("lambda", name, 1.0),
                mask_lambda: params.number("mask_lambda", name, 0.4),
                agree: params.number("agree", name, 2.0),
            }))
        })
    }
}

#[derive(Debug)]
struct Agreed {
    weights: Vec<f64>,
    lambda: f64,
    mask_lambda: f64,
    agree: f64,
}

impl Kernel for Agreed {
    fn merge(&self, tile: &Tile<'_>, out: &mut [f32]) {
        let (mut sums, mut counts) = ([0.0f64; BLOCK], [0.0f64; BLOCK]);
        for (block, out) in tile.blocks(out) {
            let (sums, counts) = (&mut sums[..out.len()], &mut counts[..out.len()]);
            sums.fill(0.0);
            counts.fill(0.0);
            for (model, &weight) in block.models().zip(&self.weights) {
                vectorized(|| {
                    for ((sum, model), base) in sums.iter_mut().zip(model).zip(block.base()) {
                        *sum += weight * f64::from(model - base);
                    }
                });
            }
            let Self { lambda, mask_lambda, agree, .. } = *self;
            for (model, &weight) in block.models().zip(&self.weights) {
                vectorized(|| {
                    let places = counts.iter_mut().zip(&*sums);
                    for ((count, sum), (model, base)) in places.zip(model.iter().zip(block.base())) {
                        let vector = weight * f64::from(model - base);
                        *count += f64::from(u8::from(vector.abs() >= mask_lambda * (sum - vector).abs()));
                    }
                });
            }
            vectorized(|| {
                let places = sums.iter().zip(&*counts);
                for ((out, base), (sum, count)) in out.iter_mut().zip(block.base()).zip(places) {
                    let moved = if *count >= agree { lambda * sum } else { 0.0 };
                    *out = (f64::from(*base) + moved) as f32;
                }
            });
        }
    }
}
