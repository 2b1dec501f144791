//! `fisher`: the mean of the models, each of its elements weighted by its Fisher information (Matena and Raffel,
//! <https://arxiv.org/abs/2111.09832>).
//!
//! `W = Σ uᵢ max(Fᵢ, floor) Wᵢ / Σ uᵢ max(Fᵢ, floor)`, element by element, with `uᵢ = wᵢ`, or `wᵢ / ‖Fᵢ‖` with `normalize`
//! (the norm is that of all parameters together). An element of which no model has more than the floor takes the weighted
//! mean; such elements are counted. `floor` and `normalize` are those of the authors' program; there the floor is 1e-6 and both
//! are on unless stated.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mergelab_wire::MergeJob;

use super::elementwise::{Elementwise, How, Kernel, Tile};
use super::error::MergeError;
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::regmean;
use super::rules::AlphaRule;
use super::sources::Source;
use crate::codec::is_float;
use crate::fisher::FisherSet;
use crate::system::vectorized;

/// The mean weighted by Fisher information.
#[derive(Debug)]
pub struct Fisher;

impl Method for Fisher {
    fn name(&self) -> &'static str {
        "fisher"
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        Params::check(job, &[("floor", 0.0, f64::MAX)], &["normalize"])?;
        match job.models.iter().find(|model| model.fisher.is_none()) {
            None => Ok(()),
            Some(model) => Err(MergeError::Request {
                method: job.method.clone(),
                reason: format!("model {} has no Fisher information", model.name),
                hint: "`fishers:` names one entry per model, in order",
            }),
        }
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        let params = Params::of(context);
        let (mut units, rest) = regmean::by_rule(context, tensors)?;
        let (mut scales, mut fishers) = (Vec::new(), Vec::new());
        for (source, model) in context.sources.models.iter().zip(&context.job.models) {
            let set = FisherSet::open(model.fisher.as_deref().expect("checked before models are opened"))?;
            let scale = if params.flag("normalize", false) { set.index.norm } else { 1.0 };
            if scale == 0.0 {
                return Err(MergeError::Request {
                    method: context.job.method.clone(),
                    reason: format!("the Fisher information of model {} is zero everywhere", source.name),
                    hint: "`normalize: false` merges it; look at its data first",
                });
            }
            scales.push(scale);
            let (name, weight) = (source.name.clone(), source.weight.clone());
            let checkpoint = set.tensors;
            fishers.push(Arc::new(Source {
                name,
                weight,
                checkpoint,
                adapter: None,
                widened: HashMap::new(),
                moved: None,
            }));
        }
        for tensor in rest {
            if !is_float(context.sources.dtype(&tensor)?) {
                units.push(Unit::Average(tensor));
                continue;
            }
            fishers.iter().try_for_each(|fisher| covers(context, fisher, &tensor))?;
            let floor = params.number("floor", &tensor, 0.0);
            let weights = context.sources.weights(&tensor).into_iter().zip(&scales);
            let parts: Vec<Part> = weights.map(|(weight, scale)| Part { weight, factor: weight / scale }).collect();
            let models = (0..parts.len()).collect();
            let how = How::Merge(Arc::new(Weighted { parts, floor, averaged: AtomicU64::new(0) }));
            units.push(Unit::Elementwise(Elementwise { tensor, base: false, models, beside: fishers.clone(), how }));
        }
        Ok(units)
    }
}

/// Refuses Fisher information that has none for a tensor, or for one of another shape.
fn covers(context: &Context<'_>, fisher: &Source, tensor: &str) -> Result<(), MergeError> {
    let (model, checkpoint) = (fisher.name.clone(), &fisher.checkpoint);
    if !checkpoint.contains(tensor) {
        let directory = checkpoint.directory().to_path_buf();
        return Err(MergeError::NoFisher { name: tensor.to_owned(), model, directory });
    }
    let (expected, found) = (context.sources.shape(tensor)?, &checkpoint.info(tensor)?.shape);
    if expected == found {
        return Ok(());
    }
    let (expected, found) = (expected.to_vec(), found.clone());
    Err(MergeError::FisherShape { name: tensor.to_owned(), model, expected, found })
}

/// One model's part.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// In the mean.
    weight: f64,
    /// What its Fisher information is multiplied by.
    factor: f64,
}

/// The kernel of one tensor.
#[derive(Debug)]
struct Weighted {
    parts: Vec<Part>,
    floor: f64,
    /// Elements that took the weighted mean.
    averaged: AtomicU64,
}

impl Kernel for Weighted {
    fn merge(&self, tile: &Tile<'_>, out: &mut [f32]) {
        let averaged = vectorized(|| self.weigh(tile, out));
        self.averaged.fetch_add(averaged, Ordering::Relaxed);
    }

    fn averaged(&self) -> Option<u64> {
        Some(self.averaged.load(Ordering::Relaxed))
    }
}

/// Sums of one element over the models.
#[derive(Clone, Copy, Default)]
struct Sums {
    weighted: f64,
    information: f64,
    mean: f64,
    /// Whether a model that counts has more than the floor.
    known: bool,
}

impl Weighted {
    /// How many elements took the weighted mean.
    #[inline(always)]
    fn weigh(&self, tile: &Tile<'_>, out: &mut [f32]) -> u64 {
        /// Elements at a time, so that their sums stay in the nearest cache.
        const BLOCK: usize = 256;
        let mut averaged = 0;
        let mut block = [Sums::default(); BLOCK];
        // As in the weighted mean, to the bit.
        let share = self.parts.iter().map(|part| part.weight).sum::<f64>().recip();
        for (number, out) in out.chunks_mut(BLOCK).enumerate() {
            let sums = &mut block[..out.len()];
            sums.fill(Sums::default());
            let range = number * BLOCK..number * BLOCK + out.len();
            for ((part, model), fisher) in self.parts.iter().zip(tile.models).zip(tile.beside) {
                for ((sums, value), fisher) in sums.iter_mut().zip(&model[range.clone()]).zip(&fisher[range.clone()]) {
                    let (value, fisher) = (f64::from(*value), f64::from(*fisher));
                    let information = fisher.max(self.floor) * part.factor;
                    sums.weighted += information * value;
                    sums.information += information;
                    sums.mean += value * part.weight;
                    sums.known |= fisher > self.floor && part.weight > 0.0;
                }
            }
            for (out, sums) in out.iter_mut().zip(sums) {
                let value = if sums.known { sums.weighted / sums.information } else { sums.mean * share };
                *out = value as f32;
                averaged += u64::from(!sums.known);
            }
        }
        averaged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(weights: &[(f64, f64)], floor: f64) -> Weighted {
        let parts = weights.iter().map(|(weight, factor)| Part { weight: *weight, factor: *factor }).collect();
        Weighted { parts, floor, averaged: AtomicU64::new(0) }
    }

    fn merged(kernel: &Weighted, models: [&[f32]; 2], fishers: [&[f32]; 2]) -> Vec<f32> {
        let mut out = vec![0.0; models[0].len()];
        kernel.merge(&Tile { start: 0, base: None, models: &models, beside: &fishers }, &mut out);
        out
    }

    #[test]
    fn an_element_that_no_model_knows_takes_the_weighted_mean_and_is_counted() {
        let kernel = kernel(&[(1.0, 1.0), (3.0, 3.0)], 0.0);
        let found = merged(&kernel, [&[4.0, 4.0, 4.0], &[8.0, 8.0, 8.0]], [&[0.0, 2.0, 0.0], &[0.0, 2.0, 1e-30]]);
        // (4 + 3 · 8) / 4 by weights, the same by equal information, and the second alone.
        assert_eq!(found, [7.0, 7.0, 8.0]);
        assert_eq!(kernel.averaged(), Some(1));
    }

    #[test]
    fn a_floor_lifts_what_is_under_it_and_averages_where_nothing_is_above() {
        let kernel = kernel(&[(1.0, 1.0), (1.0, 1.0)], 0.5);
        let found = merged(&kernel, [&[0.0, 0.0, 0.0], &[8.0, 8.0, 8.0]], [&[0.1, 0.1, 0.5], &[0.2, 1.5, 0.5]]);
        assert_eq!(found, [4.0, 6.0, 4.0]);
        assert_eq!(kernel.averaged(), Some(2));
    }

    #[test]
    fn a_model_without_weight_makes_no_element_known() {
        let kernel = kernel(&[(1.0, 1.0), (0.0, 0.0)], 0.0);
        let found = merged(&kernel, [&[1.0, 2.0], &[5.0, 5.0]], [&[0.0, 1.0], &[1.0, 1.0]]);
        assert_eq!(found, [1.0, 2.0]);
        assert_eq!(kernel.averaged(), Some(1));
    }
}
