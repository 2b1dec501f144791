//! `della` and `della_linear`: drop by rank of magnitude (Deep et al., <https://arxiv.org/abs/2406.11617>).
//!
//! In each row of a task vector (the whole of a tensor with one dimension) elements stay with a probability that grows with the
//! rank of their magnitude, evenly from `density - epsilon` for the smallest to `density + epsilon` for the largest; both must be
//! in (0, 1) unless density is 0 or 1. Magnitudes that have a binary exponent and five bits behind it in common, and so are within
//! 3 % of each other, share the mean of their ranks: rows need not be sorted, and the mean of all probabilities is the density as
//! before. Drawn and scaled as in [`super::dare`]; `della` elects signs as TIES does and normalizes.

use std::ops::RangeInclusive;

use mergelab_wire::MergeJob;

use super::error::MergeError;
use super::magnitude::masked;
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::rules::AlphaRule;
use super::sparse::{self, Consensus, Dense, Sparse};
use crate::draw::{Draws, threshold};
use crate::system::vectorized;

/// DELLA.
#[derive(Debug)]
pub struct Della {
    /// Its name.
    pub name: &'static str,
    /// Whether signs are elected.
    pub elect: bool,
}

impl Method for Della {
    fn name(&self) -> &'static str {
        self.name
    }

    fn needs_base(&self) -> bool {
        true
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        let lambda = ("lambda", f64::MIN, f64::MAX);
        let numbers = [("density", 0.0, 1.0), ("epsilon", 0.0, 1.0), lambda, ("seed", 0.0, f64::MAX)];
        Params::check(job, &numbers, &["normalize", "rescale"])
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        let consensus = Consensus { elect: self.elect, normalize: self.elect, rescale: true };
        sparse::units(context, tensors, consensus, |params, vectors, name| {
            let row = vectors.shape.last().copied().unwrap_or(1).max(1);
            let sparse = |model| {
                let density = params.for_model(model, "density", name, 1.0);
                let epsilon = params.for_model(model, "epsilon", name, 0.15);
                if density >= 1.0 {
                    return Ok(Box::new(Dense) as Box<dyn Sparse>);
                }
                if density > 0.0 && (density + epsilon >= 1.0 || density - epsilon <= 0.0) {
                    return Err(MergeError::Request {
                        method: context.job.method.clone(),
                        reason: format!("density {density} and epsilon {epsilon} at {name}"),
                        hint: "density - epsilon and density + epsilon must lie between 0 and 1; epsilon is 0.15 unless stated",
                    });
                }
                let draws = Draws::named(params.seed(), name, model);
                Ok(Box::new(Ranked::new(draws, row, density, epsilon)))
            };
            (0..vectors.count()).map(sparse).collect()
        })
    }
}

/// Bits of a magnitude that are not looked at.
const IGNORED: u32 = 18;

/// Magnitudes are told apart by so many bits.
const KINDS: usize = 1 << (31 - IGNORED);

#[derive(Debug)]
struct Ranked {
    draws: Draws,
    /// Elements of a row.
    row: usize,
    /// What the probability is for the smallest, and by how much it grows from rank to rank.
    least: f64,
    step: f64,
}

impl Ranked {
    fn new(draws: Draws, row: usize, density: f64, epsilon: f64) -> Self {
        let (least, step) = match (density, row) {
            (density, _) if density <= 0.0 => (0.0, 0.0),
            (_, 1) => (density, 0.0),
            _ => (density - epsilon, 2.0 * epsilon / (row - 1) as f64),
        };
        Self { draws, row, least, step }
    }

    /// For each kind of magnitude in a row: what is drawn below it stays. `kinds` is zero before, and is told which are not after.
    fn thresholds(&self, row: &[f32], kinds: &mut [u32; KINDS]) -> RangeInclusive<usize> {
        // Zeros are the smallest, and stay what they are.
        let smallest = |low: u32, value: &f32| low.min(value.abs().to_bits().wrapping_sub(1));
        let largest = |high: u32, value: &f32| high.max(value.abs().to_bits());
        let low = vectorized(|| row.iter().fold(u32::MAX, smallest)).wrapping_add(1);
        let high = vectorized(|| row.iter().fold(0, largest));
        for value in row {
            kinds[kind(*value)] += 1;
        }
        let present = (low >> IGNORED) as usize..=(high >> IGNORED) as usize;
        let mut below = if present.contains(&0) { 0 } else { std::mem::take(&mut kinds[0]) };
        for count in &mut kinds[present.clone()] {
            let rank = f64::from(2 * below + count.saturating_sub(1)) / 2.0;
            below += *count;
            *count = threshold(self.least + self.step * rank);
        }
        present
    }
}

/// Counts of kinds, all zero.
fn no_kinds() -> Box<[u32; KINDS]> {
    vec![0; KINDS].into_boxed_slice().try_into().expect("there are as many")
}

/// Which kind of magnitude a value has.
#[inline]
fn kind(value: f32) -> usize {
    (value.abs().to_bits() >> IGNORED) as usize
}

impl Sparse for Ranked {
    fn grain(&self) -> usize {
        self.row
    }

    fn sparsify(&self, start: usize, vector: &mut [f32]) {
        let (mut draws, mut below, mut kinds) = (vec![0; self.row], vec![0; self.row], no_kinds());
        for (number, row) in vector.chunks_mut(self.row).enumerate() {
            self.draws.fill(start + number * self.row, &mut draws);
            let present = self.thresholds(row, &mut kinds);
            for (below, value) in below.iter_mut().zip(&*row) {
                *below = kinds[kind(*value)];
            }
            kinds[present].fill(0);
            vectorized(|| {
                for (value, (draw, below)) in row.iter_mut().zip(draws.iter().zip(&below)) {
                    *value = masked(*value, u32::from(draw < below).wrapping_neg());
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_elements_stay_more_often_than_small_ones_row_by_row() {
        let (row, rows) = (1000, 400);
        let ranked = Ranked::new(Draws::named(0, "a", 0), row, 0.5, 0.2);
        // In every row a permutation of 1..=1000, rows of very different size.
        let value = |at: usize| ((at * 7 % row + 1) as f32) * 10f32.powi((at / row % 5) as i32);
        let mut vector: Vec<f32> = (0..row * rows).map(value).collect();
        ranked.sparsify(0, &mut vector);
        let stays = |low: usize, high: usize| {
            let counted = (0..row * rows).filter(|at| (low..high).contains(&(at * 7 % row)));
            let (kept, all) = counted.fold((0, 0), |(kept, all), at| (kept + i32::from(vector[at] != 0.0), all + 1));
            f64::from(kept) / f64::from(all)
        };
        // Tenths of ranks: probabilities are 0.3 + 0.4 · (rank share), on average 0.32 and 0.68.
        for (found, expected) in [(stays(0, 100), 0.32), (stays(900, 1000), 0.68), (stays(0, 1000), 0.5)] {
            assert!((found - expected).abs() < 5.0 * (0.25 / 40_000f64).sqrt(), "{found} {expected}");
        }
    }

    #[test]
    fn elements_stay_with_the_probability_of_their_rank() {
        let row: Vec<f32> = (0..2000).map(|at| ((at * 7919 % 2003) as f32 - 900.0) * 1e-3).chain([0.0; 500]).collect();
        let (density, epsilon) = (0.4, 0.3);
        let ranked = Ranked::new(Draws::named(0, "a", 0), row.len(), density, epsilon);
        let mut kinds = no_kinds();
        let present = ranked.thresholds(&row, &mut kinds);
        let probability = |value: f32| f64::from(kinds[kind(value)]) / 2f64.powi(32);
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|a, b| row[*a].abs().total_cmp(&row[*b].abs()));
        let nonzero = order.iter().enumerate().filter(|(_, at)| row[**at] != 0.0);
        for (rank, at) in nonzero {
            let expected = density - epsilon + 2.0 * epsilon * rank as f64 / (row.len() - 1) as f64;
            // A kind has 3 % of the magnitudes below it, at most 3 % of the row.
            assert!((probability(row[*at]) - expected).abs() < 0.03 * epsilon, "{} {expected}", probability(row[*at]));
        }
        kinds[present].fill(0);
        assert!(kinds.iter().all(|count| *count == 0));
    }

    #[test]
    fn equal_magnitudes_share_the_mean_of_their_ranks_and_one_element_has_the_density() {
        let probability = |row: &[f32], value: f32| {
            let mut kinds = no_kinds();
            Ranked::new(Draws::named(0, "a", 0), row.len(), 0.5, 0.25).thresholds(row, &mut kinds);
            f64::from(kinds[kind(value)]) / 2f64.powi(32)
        };
        // Ranks 0 to 4 are 0.25, 0.375, 0.5, 0.625, 0.75.
        let row = [1.0, -1.0, 8.0, 4.0, 1.0];
        for (value, expected) in [(1.0, 0.375), (-1.0, 0.375), (4.0, 0.625), (8.0, 0.75)] {
            assert!((probability(&row, value) - expected).abs() < 1e-9, "{value}");
        }
        assert!((probability(&[3.0], 3.0) - 0.5).abs() < 1e-9);
    }
}
