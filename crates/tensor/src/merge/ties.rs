//! `ties`: trim, elect, disjoint merge (Yadav et al., <https://arxiv.org/abs/2306.01708>).
//!
//! Of each task vector the `k = ⌊density·n⌋` largest elements of each tensor stay, one at least unless density is 0. Signs are
//! elected and what agrees is averaged ([`super::sparse`]).

use mergelab_wire::MergeJob;

use super::error::MergeError;
use super::magnitude::{Trim, largest, masked};
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::rules::AlphaRule;
use super::sparse::{self, Consensus, Sparse};
use super::vectors::Vectors;
use crate::system::vectorized;

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
        let consensus = Consensus { elect: true, normalize: true, rescale: false };
        sparse::units(context, tensors, consensus, |params, vectors, name| {
            let count = vectors.elements();
            let kept = |model| match params.for_model(model, "density", name, 1.0) {
                density if density > 0.0 => ((density * count as f64) as usize).max(1),
                _ => 0,
            };
            let trims = trims(vectors, &(0..vectors.count()).map(|model| vec![kept(model)]).collect::<Vec<_>>())?;
            Ok(trims.into_iter().map(|trims| Box::new(Largest(trims[0])) as Box<dyn Sparse>).collect())
        })
    }
}

/// Of each vector, for each of its numbers of elements which are the largest.
///
/// # Errors
/// When a tensor cannot be read or is not finite.
pub(super) fn trims(vectors: &Vectors<'_>, kept: &[Vec<usize>]) -> Result<Vec<Vec<Trim>>, MergeError> {
    largest(vectors.elements(), kept, |visit| {
        vectors.each(1, |start, tiles| {
            for (model, tile) in tiles.iter_mut().enumerate() {
                vectorized(|| tile.iter_mut().for_each(|value| *value = value.abs()));
                visit(model, start, tile);
            }
        })
    })
}

#[derive(Debug)]
struct Largest(Trim);

impl Sparse for Largest {
    fn sparsify(&self, start: usize, vector: &mut [f32]) {
        let trim = self.0.from(start);
        vectorized(|| {
            for (place, value) in (0..).zip(vector) {
                *value = masked(*value, trim.mask(value.abs(), place));
            }
        });
    }
}
