//! `ram` and `ramplus_tl`: what one model alone changed is taken whole, what several changed is averaged (Reinforced Agent
//! Merging, <https://arxiv.org/abs/2601.13572>).
//!
//! An element is changed where its task vector is beyond `epsilon`. `ramplus_tl` multiplies what one model alone changed by
//! `1 + r · min(ρ, alpha)`, where ρ is that model's number of shared elements over that of its own, in the tensor.

use std::sync::Arc;

use mergelab_wire::MergeJob;

use super::elementwise::{Kernel, Tile, on_task_vectors};
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
    let mut counts = vec![(0usize, 0usize); vectors.count()];
    let beyond = epsilon as f32;
    vectors.each(1, |_, tiles| {
        for at in 0..tiles[0].len() {
            let changed = tiles.iter().filter(|tile| tile[at].abs() > beyond).count();
            for ((shared, own), _) in counts.iter_mut().zip(&*tiles).filter(|(_, tile)| tile[at].abs() > beyond) {
                *(if changed > 1 { shared } else { own }) += 1;
            }
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
        let base = tile.base.expect("task vectors start from a base");
        vectorized(|| {
            for (at, (out, base)) in out.iter_mut().zip(base).enumerate() {
                let (mut sum, mut scaled, mut changed) = (0.0f64, 0.0f64, 0.0f64);
                for (model, factor) in tile.models.iter().zip(&self.factors) {
                    let vector = model[at] - base;
                    let counts = f64::from(u8::from(vector.abs() > self.epsilon));
                    let vector = f64::from(vector) * counts;
                    sum += vector;
                    scaled += vector * factor;
                    changed += counts;
                }
                let moved = if changed > 1.0 { sum / changed } else { scaled };
                *out = (f64::from(*base) + moved) as f32;
            }
        });
    }
}
