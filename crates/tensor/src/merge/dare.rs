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

impl Dropped {
    /// Sets what does not stay to zero, block by block, with a look at each before and after.
    fn sparsify_seen(&self, start: usize, vector: &mut [f32], mut see: impl FnMut(&[f32], bool)) {
        let (threshold, mut draws) = (self.threshold, [0; BLOCK]);
        for (number, part) in vector.chunks_mut(BLOCK).enumerate() {
            let draws = &mut draws[..part.len()];
            self.draws.fill(start + number * BLOCK, draws);
            see(part, false);
            vectorized(|| {
                for (value, draw) in part.iter_mut().zip(draws) {
                    *value = masked(*value, u32::from(*draw < threshold).wrapping_neg());
                }
            });
            see(part, true);
        }
    }
}

impl Sparse for Dropped {
    fn sparsify(&self, start: usize, vector: &mut [f32]) {
        self.sparsify_seen(start, vector, |_, _| ());
    }

    fn sizes(&self, start: usize, vector: &mut [f32]) -> [f64; 2] {
        let mut sizes = [0.0; 2];
        self.sparsify_seen(start, vector, |part, after| sizes[usize::from(after)] += sparse::size(part));
        sizes
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

    #[test]
    fn sizes_are_those_of_what_there_is_and_of_what_stays() {
        for count in [3, 8, 500, 1000, 4096] {
            let dropped = Dropped::new(Draws::named(7, "a.weight", 1), 0.3);
            let mut vector: Vec<f32> = (0..count).map(|at| (at as f32 - 100.0) * 0.01).collect();
            let sizes = dropped.sizes(4000, &mut vector.clone());
            let size = |vector: &[f32]| vector.iter().map(|value| f64::from(value.abs())).sum::<f64>();
            assert!((sizes[0] - size(&vector)).abs() < 1e-9, "{sizes:?}");
            dropped.sparsify(4000, &mut vector);
            assert!((sizes[1] - size(&vector)).abs() < 1e-9, "{sizes:?}");
        }
    }
}
