//! `ties`: trim, elect, disjoint merge (Yadav et al., <https://arxiv.org/abs/2306.01708>).
//!
//! Of each task vector the `k = ⌊density·n⌋` largest elements of each tensor stay, one at least unless density is 0. Signs are
//! elected and what agrees is averaged ([`super::sparse`]).

use mergelab_wire::MergeJob;

use super::error::MergeError;
use super::magnitude::{Trim, largest};
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::rules::AlphaRule;
use super::sparse::{self, Consensus, Sparse};
use super::vectors::Vectors;

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
        sparse::units(context, tensors, consensus, |params, vector, name, model| {
            let density = params.for_model(model, "density", name, 1.0);
            let count = vector.elements();
            let kept = if density > 0.0 { ((density * count as f64) as usize).max(1) } else { 0 };
            let trims = trims(vector, &[kept])?;
            Ok(Box::new(Largest(trims[0])))
        })
    }
}

/// For each number of elements which ones of a single vector are the largest.
///
/// # Errors
/// When a tensor cannot be read or is not finite.
pub(super) fn trims(vector: &Vectors<'_>, kept: &[usize]) -> Result<Vec<Trim>, MergeError> {
    largest(vector.elements(), kept, |visit| {
        vector.each(1, |start, tiles| {
            tiles[0].iter_mut().for_each(|value| *value = value.abs());
            visit(start, tiles[0]);
        })
    })
}

#[derive(Debug)]
struct Largest(Trim);

impl Sparse for Largest {
    fn sparsify(&self, start: usize, vector: &mut [f32]) {
        for (position, value) in (start..).zip(vector) {
            if !self.0.keeps(value.abs(), position) {
                *value = 0.0;
            }
        }
    }
}
