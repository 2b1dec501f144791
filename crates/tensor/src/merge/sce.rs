//! `sce`: select, calculate, erase (Wan et al., <https://arxiv.org/abs/2408.07990>).
//!
//! Of the elements whose variance over the task vectors is not 0, the share `select_topk` with the largest variance is selected
//! in each tensor (all at 1). A model's weight is its share of the squares of what is selected, even where there is next to
//! nothing. Signs are elected by the sum of the vectors, plus where that is 0; models of the other sign are erased, and what is
//! left is averaged by the weights.

use std::sync::Arc;

use mergelab_wire::MergeJob;

use super::elementwise::{BLOCK, Kernel, TILE, Tile, on_task_vectors};
use super::error::MergeError;
use super::magnitude::{Trim, TrimFrom, largest_share, masked};
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::rules::AlphaRule;
use super::vectors::{Vectors, total};
use crate::system::vectorized;

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
    let trim = largest_share(share, |visit| each_variance(vectors, |start, variances, _| visit(0, start, variances)))?;
    Ok(Some(trim))
}

/// Shows the elements' variances and vectors, a tile at a time.
fn each_variance(
    vectors: &Vectors<'_>,
    mut visit: impl FnMut(usize, &[f32], &mut [&mut [f32]]),
) -> Result<(), MergeError> {
    let mut found = [0.0f32; TILE];
    vectors.each(1, |start, tiles| {
        let found = &mut found[..tiles[0].len()];
        let count = tiles.len();
        for (number, found) in found.chunks_mut(BLOCK).enumerate() {
            let range = number * BLOCK..number * BLOCK + found.len();
            variances(count, || tiles.iter().map(|tile| &tile[range.clone()]), found);
        }
        visit(start, found, tiles);
    })
}

/// Of each of some elements over the models, in fp64 and rounded.
fn variances<'a, V: Iterator<Item = &'a [f32]>>(count: usize, vectors: impl Fn() -> V, found: &mut [f32]) {
    let (mut means, mut squares) = ([0.0f64; BLOCK], [0.0f64; BLOCK]);
    let (means, squares) = (&mut means[..found.len()], &mut squares[..found.len()]);
    for vector in vectors() {
        vectorized(|| means.iter_mut().zip(vector).for_each(|(mean, value)| *mean += f64::from(*value)));
    }
    divide(means, count);
    for vector in vectors() {
        vectorized(|| {
            for ((square, mean), value) in squares.iter_mut().zip(&*means).zip(vector) {
                let distance = f64::from(*value) - mean;
                *square += distance * distance;
            }
        });
    }
    divide(squares, count);
    vectorized(|| {
        for (found, square) in found.iter_mut().zip(&*squares) {
            *found = *square as f32;
        }
    });
}

/// By a power of two it is a multiplication, with the same result and many times faster.
fn divide(values: &mut [f64], count: usize) {
    let (is_power, count) = (count.is_power_of_two(), count as f64);
    let inverse = count.recip();
    vectorized(|| {
        if is_power {
            for value in &mut *values {
                *value *= inverse;
            }
        } else {
            for value in &mut *values {
                *value /= count;
            }
        }
    });
}

/// Each model's share of the squares.
fn weights(vectors: &Vectors<'_>, selected: Option<Trim>) -> Result<Vec<f64>, MergeError> {
    let mut sums = vec![0.0; vectors.count()];
    let square = |value: f32, _| f64::from(value) * f64::from(value);
    match selected {
        None => vectors.each(1, |_, tiles| {
            sums.iter_mut().zip(tiles).for_each(|(sum, tile)| *sum += total::<8>(tile, tile, square));
        })?,
        Some(trim) => each_variance(vectors, |start, variances, tiles| {
            for (sum, tile) in sums.iter_mut().zip(tiles) {
                erase(trim.from(start), variances, tile);
                *sum += total::<8>(tile, tile, square);
            }
        })?,
    }
    let means: Vec<f64> = sums.iter().map(|sum| sum / vectors.elements().max(1) as f64).collect();
    let total: f64 = means.iter().sum();
    let even = 1.0 / means.len() as f64;
    Ok(means.iter().map(|mean| if total.abs() < LEAST { even } else { mean / total }).collect())
}

/// Sets to zero what is not selected.
fn erase(trim: TrimFrom, variances: &[f32], values: &mut [f32]) {
    vectorized(|| {
        for (place, (value, variance)) in (0..).zip(values.iter_mut().zip(variances)) {
            *value = masked(*value, trim.mask(*variance, place));
        }
    });
}

#[derive(Debug)]
struct Erased {
    weights: Vec<f64>,
    selected: Option<Trim>,
}

impl Kernel for Erased {
    fn merge(&self, tile: &Tile<'_>, out: &mut [f32]) {
        let mut vectors = vec![0.0f32; tile.models.len() * BLOCK];
        let (mut found, mut signs) = ([0.0f32; BLOCK], [0.0f64; BLOCK]);
        let (mut sums, mut totals) = ([0.0f64; BLOCK], [0.0f64; BLOCK]);
        let mut at = 0;
        for (block, out) in tile.blocks(out) {
            let length = out.len();
            for (vector, model) in vectors.chunks_mut(BLOCK).zip(block.models()) {
                vectorized(|| {
                    for ((value, model), base) in vector.iter_mut().zip(model).zip(block.base()) {
                        *value = model - base;
                    }
                });
            }
            if let Some(trim) = self.selected {
                let found = &mut found[..length];
                variances(tile.models.len(), || vectors.chunks(BLOCK).map(|vector| &vector[..length]), found);
                let trim = trim.from(tile.start + at);
                vectors.chunks_mut(BLOCK).for_each(|vector| erase(trim, found, &mut vector[..length]));
            }
            at += length;
            let [signs, sums, totals] = [&mut signs, &mut sums, &mut totals].map(|all| &mut all[..length]);
            for values in [&mut *signs, sums, totals] {
                values.fill(0.0);
            }
            for vector in vectors.chunks(BLOCK) {
                vectorized(|| signs.iter_mut().zip(vector).for_each(|(sign, value)| *sign += f64::from(*value)));
            }
            for (vector, &weight) in vectors.chunks(BLOCK).zip(&self.weights) {
                vectorized(|| {
                    let places = sums.iter_mut().zip(&mut *totals).zip(&*signs);
                    for (((sum, total), sign), value) in places.zip(vector) {
                        let value = f64::from(*value);
                        let agrees = if *sign >= 0.0 { value > 0.0 } else { value < 0.0 };
                        let counts = weight * f64::from(u8::from(agrees));
                        *sum += value * counts;
                        *total += counts;
                    }
                });
            }
            let selects = self.selected.is_some();
            vectorized(|| {
                let places = sums.iter().zip(&*totals);
                for ((out, base), (sum, total)) in out.iter_mut().zip(block.base()).zip(places) {
                    let moved = (f64::from(*base) + sum / total.max(LEAST)) as f32;
                    // What is not selected agrees with nothing.
                    *out = if selects && *total == 0.0 { *base } else { moved };
                }
            });
        }
    }
}
