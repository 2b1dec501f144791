//! `della` and `della_linear`: drop by rank of magnitude (Deep et al., <https://arxiv.org/abs/2406.11617>).
//!
//! In each row of a task vector (the whole of a tensor with one dimension) elements stay with a probability that grows with the
//! rank of their magnitude, evenly from `density - epsilon` for the smallest to `density + epsilon` for the largest; both must be
//! in (0, 1) unless density is 0 or 1. Drawn and scaled as in [`super::dare`]; `della` elects signs as TIES does and
//! normalizes.

use mergelab_wire::MergeJob;

use super::error::MergeError;
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::rules::AlphaRule;
use super::sparse::{self, Consensus, Dense, Sparse};
use crate::draw::Draws;

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
        sparse::units(context, tensors, consensus, |params, vector, name, model| {
            let density = params.for_model(model, "density", name, 1.0);
            let epsilon = params.for_model(model, "epsilon", name, 0.15);
            let row = vector.shape.last().copied().unwrap_or(1).max(1);
            if density >= 1.0 {
                return Ok(Box::new(Dense));
            }
            if density > 0.0 && (density + epsilon >= 1.0 || density - epsilon <= 0.0) {
                return Err(MergeError::Request {
                    method: context.job.method.clone(),
                    reason: format!("density {density} and epsilon {epsilon} at {name}"),
                    hint: "density - epsilon and density + epsilon must lie between 0 and 1; epsilon is 0.15 unless stated",
                });
            }
            let draws = Draws::named(params.seed(), name, model);
            Ok(Box::new(Ranked { draws, row, density, epsilon }))
        })
    }
}

#[derive(Debug)]
struct Ranked {
    draws: Draws,
    /// Elements of a row.
    row: usize,
    density: f64,
    epsilon: f64,
}

impl Sparse for Ranked {
    fn grain(&self) -> usize {
        self.row
    }

    fn sparsify(&self, start: usize, vector: &mut [f32]) {
        if self.density <= 0.0 {
            vector.fill(0.0);
            return;
        }
        // Magnitude and place in one number, so that equal magnitudes have an order.
        let mut order: Vec<u64> = Vec::with_capacity(self.row);
        for (number, row) in vector.chunks_mut(self.row).enumerate() {
            let magnitudes = row.iter().zip(0u64..);
            order.clear();
            order.extend(magnitudes.map(|(value, at)| u64::from(value.abs().to_bits()) << 32 | at));
            order.sort_unstable();
            let last = (row.len() - 1) as f64;
            for (rank, entry) in order.iter().enumerate() {
                let at = (entry & u64::from(u32::MAX)) as usize;
                let share = if last > 0.0 { rank as f64 / last } else { 0.5 };
                let probability = self.density - self.epsilon + 2.0 * self.epsilon * share;
                if self.draws.at(start + number * self.row + at) >= probability {
                    row[at] = 0.0;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_elements_stay_more_often_than_small_ones_row_by_row() {
        let (row, rows) = (1000, 400);
        let ranked = Ranked { draws: Draws::named(0, "a", 0), row, density: 0.5, epsilon: 0.2 };
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
}
