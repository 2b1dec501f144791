//! `dare_linear` and `dare_ties`: drop and rescale (Yu et al., <https://arxiv.org/abs/2311.03099>).
//!
//! Each element of a task vector stays with probability `density`, drawn by `seed`, the tensor's name and the model's place, so
//! that a result does not depend on order or threads. What stays is scaled to the former sum of magnitudes of the tensor
//! (`rescale`, on unless stated), as mergekit does; the paper divides by the density, which is the same on average. Then
//! the vectors are added up, or with TIES' election of signs ([`super::sparse`]).

use mergelab_wire::MergeJob;

use super::elementwise::BLOCK;
use super::error::MergeError;
use super::magnitude::masked;
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::rules::AlphaRule;
use super::sparse::{self, Consensus, Dense, Sparse};
use crate::draw::{Draws, threshold};
use crate::system::vectorized;

/// DARE.
#[derive(Debug)]
pub struct Dare {
    /// Its name.
    pub name: &'static str,
    /// Whether signs are elected.
    pub elect: bool,
}

impl Method for Dare {
    fn name(&self) -> &'static str {
        self.name
    }

    fn needs_base(&self) -> bool {
        true
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        let numbers = [("density", 0.0, 1.0), ("lambda", f64::MIN, f64::MAX), ("seed", 0.0, f64::MAX)];
        Params::check(job, &numbers, &["normalize", "rescale"])
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        let consensus = Consensus { elect: self.elect, normalize: false, rescale: true };
        sparse::units(context, tensors, consensus, |params, vectors, name| {
            let sparse = |model| match params.for_model(model, "density", name, 1.0) {
                density if density >= 1.0 => Box::new(Dense) as Box<dyn Sparse>,
                density => Box::new(Dropped::new(Draws::named(params.seed(), name, model), density)),
            };
            Ok((0..vectors.count()).map(sparse).collect())
        })
    }
}

#[derive(Debug)]
struct Dropped {
    draws: Draws,
    /// What is drawn below it stays.
    threshold: u32,
}

impl Dropped {
    fn new(draws: Draws, density: f64) -> Self {
        Self { draws, threshold: threshold(density) }
    }
}

impl Sparse for Dropped {
    fn sparsify(&self, start: usize, vector: &mut [f32]) {
        let (threshold, mut draws) = (self.threshold, [0; BLOCK]);
        for (number, part) in vector.chunks_mut(BLOCK).enumerate() {
            let draws = &mut draws[..part.len()];
            self.draws.fill(start + number * BLOCK, draws);
            vectorized(|| {
                for (value, draw) in part.iter_mut().zip(draws) {
                    *value = masked(*value, u32::from(*draw < threshold).wrapping_neg());
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_elements_stay_as_the_density_says_and_the_same_in_any_pieces() {
        let count = 200_000;
        let dropped = Dropped::new(Draws::named(7, "a.weight", 1), 0.3);
        let mut whole = vec![1.0; count];
        dropped.sparsify(0, &mut whole);
        let share = f64::from(whole.iter().sum::<f32>()) / count as f64;
        // Five standard errors.
        assert!((share - 0.3).abs() < 5.0 * (0.3 * 0.7 / count as f64).sqrt(), "{share}");
        let mut pieces = vec![1.0; count];
        let (first, second) = pieces.split_at_mut(1234);
        dropped.sparsify(1234, second);
        dropped.sparsify(0, first);
        assert_eq!(whole, pieces);
    }
}
