//! `sce`: select, calculate, erase (Wan et al., <https://arxiv.org/abs/2408.07990>).
//!
//! Of the elements whose variance over the task vectors is not 0, the share `select_topk` with the largest variance is selected
//! in each tensor (all at 1). A model's weight is its share of the squares of what is selected, even where there is next to
//! nothing. Signs are elected by the sum of the vectors, plus where that is 0; models of the other sign are erased, and what is
//! left is averaged by the weights.

use std::sync::Arc;

use mergelab_wire::MergeJob;

use super::elementwise::{Kernel, Tile, on_task_vectors};
use super::error::MergeError;
use super::magnitude::{Trim, largest};
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::rules::AlphaRule;
use super::vectors::Vectors;

/// Weights that add up to less are even, and divide as this.
const LEAST: f64 = 1e-6;

/// SCE.
#[derive(Debug)]
pub struct Sce;

impl Method for Sce {
    fn name(&self) -> &'static str {
        "sce"
    }

    fn needs_base(&self) -> bool {
        true
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        Params::check(job, &[("select_topk", 0.0, 1.0)], &[])
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        let params = Params::of(context);
        let models: Vec<usize> = (0..context.sources.models.len()).collect();
        on_task_vectors(context, tensors, |name| {
            let vectors = Vectors::from_base(context, name, &models)?;
            let selected = select(&vectors, params.number("select_topk", name, 1.0))?;
            Ok(Arc::new(Erased { weights: weights(&vectors, selected)?, selected }))
        })
    }
}

/// The elements of the largest variance; none where all are.
fn select(vectors: &Vectors<'_>, share: f64) -> Result<Option<Trim>, MergeError> {
    if share >= 1.0 {
        return Ok(None);
    }
    let mut nonzero = 0;
    vectors.each(1, |_, tiles| {
        nonzero += (0..tiles[0].len()).filter(|at| variance(tiles, *at) != 0.0).count();
    })?;
    let kept = (nonzero as f64 * share) as usize;
    let trims = largest(vectors.elements(), &[kept], |visit| {
        let mut variances = Vec::new();
        vectors.each(1, |start, tiles| {
            variances.clear();
            variances.extend((0..tiles[0].len()).map(|at| variance(tiles, at)));
            visit(start, &variances);
        })
    })?;
    Ok(Some(trims[0]))
}

/// Of one element over the models, in fp64 and rounded.
fn variance(tiles: &[impl AsRef<[f32]>], at: usize) -> f32 {
    let count = tiles.len() as f64;
    let mean = tiles.iter().map(|tile| f64::from(tile.as_ref()[at])).sum::<f64>() / count;
    (tiles.iter().map(|tile| (f64::from(tile.as_ref()[at]) - mean).powi(2)).sum::<f64>() / count) as f32
}

/// Each model's share of the squares.
fn weights(vectors: &Vectors<'_>, selected: Option<Trim>) -> Result<Vec<f64>, MergeError> {
    let mut squares = vec![0.0; vectors.count()];
    vectors.each(1, |start, tiles| {
        let stays: Vec<bool> = (0..tiles[0].len())
            .map(|at| selected.is_none_or(|trim| trim.keeps(variance(tiles, at), start + at)))
            .collect();
        for (sum, tile) in squares.iter_mut().zip(&*tiles) {
            let kept = tile.iter().zip(&stays).filter(|(_, stays)| **stays);
            *sum += kept.map(|(value, _)| f64::from(*value).powi(2)).sum::<f64>();
        }
    })?;
    let means: Vec<f64> = squares.iter().map(|sum| sum / vectors.elements().max(1) as f64).collect();
    let total: f64 = means.iter().sum();
    let even = 1.0 / means.len() as f64;
    Ok(means.iter().map(|mean| if total.abs() < LEAST { even } else { mean / total }).collect())
}

#[derive(Debug)]
struct Erased {
    weights: Vec<f64>,
    selected: Option<Trim>,
}

impl Kernel for Erased {
    fn merge(&self, tile: &Tile<'_>, out: &mut [f32]) {
        let base = tile.base.expect("task vectors start from a base");
        let mut vectors: Vec<[f32; 1]> = vec![[0.0]; self.weights.len()];
        for (at, (out, base)) in out.iter_mut().zip(base).enumerate() {
            *out = *base;
            vectors.iter_mut().zip(tile.models).for_each(|(vector, model)| vector[0] = model[at] - base);
            if self.selected.is_some_and(|trim| !trim.keeps(variance(&vectors, 0), tile.start + at)) {
                continue;
            }
            let sign = if vectors.iter().map(|vector| f64::from(vector[0])).sum::<f64>() >= 0.0 { 1.0 } else { -1.0 };
            let (mut sum, mut total) = (0.0, 0.0);
            for (vector, weight) in vectors.iter().zip(&self.weights) {
                let value = f64::from(vector[0]);
                if value * sign > 0.0 {
                    sum += value * weight;
                    total += weight;
                }
            }
            *out = (f64::from(*base) + sum / total.max(LEAST)) as f32;
        }
    }
}
