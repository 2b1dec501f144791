//! `ram` and `ramplus_tl`: what one model alone changed is taken whole, what several changed is averaged (Reinforced Agent
//! Merging, <https://arxiv.org/abs/2601.13572>).
//!
//! An element is changed where its task vector is beyond `epsilon`. `ramplus_tl` multiplies what one model alone changed by
//! `1 + r · min(ρ, alpha)`, where ρ is that model's number of shared elements over that of its own, in the tensor.

use std::sync::Arc;

use mergelab_wire::MergeJob;

use super::elementwise::{BLOCK, Kernel, TILE, Tile, on_task_vectors};
use super::error::MergeError;
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::rules::AlphaRule;
use super::vectors::Vectors;
use crate::system::vectorized;

/// Reinforced Agent Merging.
#[derive(Debug)]
pub struct Ram {
    /// Its name.
    pub name: &'static str,
    /// Whether what one model alone changed is made larger.
    pub plus: bool,
}

impl Method for Ram {
    fn name(&self) -> &'static str {
        self.name
    }

    fn needs_base(&self) -> bool {
        true
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        let numbers = [("epsilon", 0.0, f64::MAX), ("r", 0.0, f64::MAX), ("alpha", 0.0, f64::MAX)];
        Params::check(job, &numbers[..if self.plus { 3 } else { 1 }], &[])
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        let params = Params::of(context);
        let models: Vec<usize> = (0..context.sources.models.len()).collect();
        on_task_vectors(context, tensors, |name| {
            let epsilon = params.number("epsilon", name, 1e-5);
            let factors = if self.plus {
                let (r, most) = (params.number("r", name, 0.1), params.number("alpha", name, 0.2));
                let vectors = Vectors::from_base(context, name, &models)?;
                overlaps(&vectors, epsilon)?.into_iter().map(|overlap| 1.0 + r * overlap.clamp(0.0, most)).collect()
            } else {
                vec![1.0; models.len()]
            };
            Ok(Arc::new(Apart { epsilon: epsilon as f32, factors }))
        })
    }
}

/// Each model's number of elements that others changed too, over that of its own.
fn overlaps(vectors: &Vectors<'_>, epsilon: f64) -> Result<Vec<f64>, MergeError> {
    let mut counts = vec![(0u64, 0u64); vectors.count()];
    let beyond = epsilon as f32;
    let mut changed = [0u32; TILE];
    vectors.each(1, |_, tiles| {
        let changed = &mut changed[..tiles[0].len()];
        changed.fill(0);
        let is_changed = move |value: &f32| u32::from(value.abs() > beyond);
        for tile in &*tiles {
            vectorized(|| {
                for (count, value) in changed.iter_mut().zip(&**tile) {
                    *count += is_changed(value);
                }
            });
        }
        for ((shared, own), tile) in counts.iter_mut().zip(&*tiles) {
            let all: u32 = vectorized(|| tile.iter().map(is_changed).sum());
            let is_alone = move |(count, value): (&u32, &f32)| is_changed(value) & u32::from(*count == 1);
            let alone: u32 = vectorized(|| changed.iter().zip(&**tile).map(is_alone).sum());
            *shared += u64::from(all - alone);
            *own += u64::from(alone);
        }
    })?;
    Ok(counts.into_iter().map(|(shared, own)| shared as f64 / (own as f64).max(epsilon)).collect())
}

#[derive(Debug)]
struct Apart {
    epsilon: f32,
    /// Of what a model alone changed.
    factors: Vec<f64>,
}

impl Kernel for Apart {
    fn merge(&self, tile: &Tile<'_>, out: &mut [f32]) {
        let (mut sums, mut scaled, mut changed) = ([0.0f64; BLOCK], [0.0f64; BLOCK], [0.0f64; BLOCK]);
        for (block, out) in tile.blocks(out) {
            let [sums, scaled, changed] = [&mut sums, &mut scaled, &mut changed].map(|all| &mut all[..out.len()]);
            for values in [&mut *sums, scaled, changed] {
                values.fill(0.0);
            }
            let epsilon = self.epsilon;
            for (model, &factor) in block.models().zip(&self.factors) {
                let counts = move |vector: f32| f64::from(u8::from(vector.abs() > epsilon));
                vectorized(|| {
                    let places = sums.iter_mut().zip(&mut *scaled);
                    for ((sum, scaled), (model, base)) in places.zip(model.iter().zip(block.base())) {
                        let vector = f64::from(model - base) * counts(model - base);
                        *sum += vector;
                        *scaled += vector * factor;
                    }
                });
                vectorized(|| {
                    for (changed, (model, base)) in changed.iter_mut().zip(model.iter().zip(block.base())) {
                        *changed += counts(model - base);
                    }
                });
            }
            vectorized(|| {
                let places = sums.iter().zip(&*scaled).zip(&*changed);
                for ((out, base), ((sum, scaled), changed)) in out.iter_mut().zip(block.base()).zip(places) {
                    let moved = if *changed > 1.0 { sum / changed } else { *scaled };
                    *out = (f64::from(*base) + moved) as f32;
                }
            });
        }
    }
}
