//! `arcee_fusion`: the model's elements where they are important, the base's elsewhere (mergekit, <https://arcee.ai>).
//!
//! An element's importance is `|W₁ - W₀| · KL`, with KL the divergence of the softmax of its row in the model from that in the
//! base. Those at or above `median + 1.5 (q₃ - q₁)` of a tensor's importances are taken. mergekit draws quartiles of tensors
//! with more than a million elements from a sample; here they are exact.
//!
//! The divergence of rows that are nearly equal is a small number, of which rounding is a part; it is taken in fp32 by the same
//! libtorch calls as there, so that the same elements pass.

use std::sync::Arc;

use mergelab_wire::MergeJob;
use tch::{Kind, TchError, Tensor};

use super::elementwise::{BLOCK, Kernel, TILE, Tile, on_tensors};
use super::error::MergeError;
use super::magnitude::kth_largest;
use super::method::{Context, Method, Unit};
use super::pair::other;
use super::params::Params;
use super::rules::AlphaRule;
use super::vectors::Vectors;
use crate::system::vectorized;

/// Added to probabilities.
const LEAST: f64 = 1e-8;

/// Arcee Fusion.
#[derive(Debug)]
pub struct ArceeFusion;

impl Method for ArceeFusion {
    fn name(&self) -> &'static str {
        "arcee_fusion"
    }

    fn needs_base(&self) -> bool {
        true
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        Params::check(job, &[], &[])?;
        other(job).map(|_| ())
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        let model = other(context.job)?;
        on_tensors(context, tensors, true, &[model], |name| {
            let vectors = Vectors::with_base(context, name, model)?;
            let row = vectors.shape.last().copied().unwrap_or(1).max(1);
            let divergences = divergences(&vectors, name, row)?;
            let mut fusion = Fusion { row, divergences, threshold: 0.0 };
            fusion.threshold = fusion.quartiles(&vectors)?;
            Ok(Arc::new(fusion))
        })
    }
}

/// Of each row.
fn divergences(vectors: &Vectors<'_>, name: &str, row: usize) -> Result<Vec<f32>, MergeError> {
    /// Elements whose rows go through libtorch together: a call costs as much as the work on some thousand.
    const TOGETHER: usize = 1 << 16;
    let mut found = Ok(Vec::new());
    vectors.each(row * (TOGETHER / row).max(1), |_, tiles| {
        if let Ok(all) = &mut found {
            match divergence(tiles, row) {
                Ok(rows) => all.extend(rows),
                Err(error) => found = Err(error),
            }
        }
    })?;
    found.map_err(MergeError::torch(name))
}

/// `Σ p ln(p/q)` of some rows of the base and the model.
fn divergence(tiles: &[&mut [f32]], row: usize) -> Result<Vec<f32>, TchError> {
    let probabilities = |tile: &[f32]| {
        let rows = Tensor::f_from_slice(tile)?.f_view([-1, row as i64])?;
        rows.f_softmax(-1, Kind::Float)?.f_add_scalar(LEAST)
    };
    let (base, model) = (probabilities(tiles[0])?, probabilities(tiles[1])?);
    let parts = model.f_mul(&model.f_div(&base)?.f_log()?)?;
    Vec::try_from(parts.f_sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)?)
}

#[derive(Debug)]
struct Fusion {
    row: usize,
    divergences: Vec<f32>,
    threshold: f32,
}

impl Fusion {
    /// The importances of some elements from a position on.
    fn importances(&self, start: usize, base: &[f32], model: &[f32], importances: &mut [f32]) {
        let mut at = 0;
        while at < importances.len() {
            let position = start + at;
            let part = at..importances.len().min(at + self.row - position % self.row);
            at = part.end;
            let divergence = self.divergences[position / self.row];
            let pairs = base[part.clone()].iter().zip(&model[part.clone()]);
            vectorized(|| {
                for (importance, (base, model)) in importances[part].iter_mut().zip(pairs) {
                    *importance = (model - base).abs() * divergence;
                }
            });
        }
    }

    /// The threshold of a tensor.
    fn quartiles(&self, vectors: &Vectors<'_>) -> Result<f32, MergeError> {
        let count = vectors.elements();
        if count == 0 {
            return Ok(0.0);
        }
        // The place from below, in fp32 as there, is one from above here.
        let place = |share: f32| count - ((share * (count - 1) as f32) as usize).min(count - 1);
        let found = kth_largest(&[place(0.25), place(0.5), place(0.75)], |visit| {
            let mut importances = [0.0; TILE];
            vectors.each(1, |start, tiles| {
                let importances = &mut importances[..tiles[0].len()];
                self.importances(start, tiles[0], tiles[1], importances);
                visit(0, start, importances);
            })
        })?;
        Ok(found[1] + 1.5 * (found[2] - found[0]))
    }
}

impl Kernel for Fusion {
    fn merge(&self, tile: &Tile<'_>, out: &mut [f32]) {
        let mut importances = [0.0; BLOCK];
        let (threshold, mut position) = (self.threshold, tile.start);
        for (block, out) in tile.blocks(out) {
            let importances = &mut importances[..out.len()];
            for model in block.models() {
                self.importances(position, block.base(), model, importances);
                vectorized(|| {
                    let pairs = block.base().iter().zip(model);
                    for ((out, importance), (base, model)) in out.iter_mut().zip(&*importances).zip(pairs) {
                        *out = if *importance >= threshold { base + (model - base) } else { *base };
                    }
                });
            }
            position += out.len();
        }
    }
}
