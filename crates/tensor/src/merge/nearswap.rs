//! `nearswap`: the model's elements where they are near the base's: `W = W₀ + min(1, t / |W₁ - W₀|) (W₁ - W₀)`, differences under
//! 1e-6 counting as that (<https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001>). No element moves by more than t.

use std::sync::Arc;

use mergelab_wire::MergeJob;

use super::elementwise::{Kernel, Tile, on_tensors};
use super::error::MergeError;
use super::method::{Context, Method, Unit};
use super::pair::{other, required};
use super::params::Params;
use super::rules::AlphaRule;
use crate::system::vectorized;

/// The least that differences count as.
const LEAST: f64 = 1e-6;

/// `NearSwap`.
#[derive(Debug)]
pub struct Nearswap;

impl Method for Nearswap {
    fn name(&self) -> &'static str {
        "nearswap"
    }

    fn needs_base(&self) -> bool {
        true
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        Params::check(job, &[("t", 0.0, f64::MAX)], &[])?;
        required(job, "t")?;
        other(job).map(|_| ())
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        let params = Params::of(context);
        on_tensors(context, tensors, true, &[other(context.job)?], |name| {
            Ok(Arc::new(Near { t: params.number("t", name, 0.0) }))
        })
    }
}

#[derive(Debug)]
struct Near {
    t: f64,
}

impl Kernel for Near {
    fn merge(&self, tile: &Tile<'_>, out: &mut [f32]) {
        let base = tile.base.expect("it goes from a base");
        vectorized(|| {
            for ((out, base), model) in out.iter_mut().zip(base).zip(tile.models[0]) {
                let (base, model) = (f64::from(*base), f64::from(*model));
                let share = (self.t / (model - base).abs().max(LEAST)).min(1.0);
                *out = (base + share * (model - base)) as f32;
            }
        });
    }
}
