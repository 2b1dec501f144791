//! Methods whose result is a sum of the models with factors that follow from their lengths and the angles between them.
//!
//! First the inner products of all pairs are taken, over whole tensors or over their rows or columns; factors follow from
//! these few numbers in fp64; then one pass adds up.

use super::elementwise::{BLOCK, Kernel, Tile};
use super::error::MergeError;
use super::vectors::{Vectors, total};
use crate::system::vectorized;

/// Which elements make one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Along {
    /// All of a tensor.
    Whole,
    /// Those that differ in the last index: rows of a weight `[out, in]`.
    Last,
    /// Those that differ in the first index: columns of a weight `[out, in]`.
    First,
}

/// Which vector an element belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Neighbours in one vector.
    run: usize,
    /// How many vectors there are; after the last run comes the first vector again.
    count: usize,
}

impl Groups {
    /// The vectors of a tensor.
    pub fn new(along: Along, shape: &[usize]) -> Self {
        let elements: usize = shape.iter().product();
        match along {
            Along::Last if shape.len() > 1 => {
                let run = shape.last().copied().unwrap_or(1).max(1);
                Self { run, count: elements / run }
            }
            Along::First if shape.len() > 1 => Self { run: 1, count: elements / shape[0].max(1) },
            Along::Whole | Along::Last | Along::First => Self { run: elements.max(1), count: 1 },
        }
    }

    /// Cuts elements at a position into runs of one vector: its number, and how many there are.
    fn runs(self, start: usize, length: usize) -> impl Iterator<Item = (usize, usize)> {
        let mut at = start;
        std::iter::from_fn(move || {
            let left = (start + length).checked_sub(at).filter(|left| *left > 0)?;
            let taken = left.min(self.run - at % self.run);
            let group = at / self.run % self.count;
            at += taken;
            Some((group, taken))
        })
    }
}

/// Inner products of the vectors of all pairs of models, per group `[n, n]`.
#[derive(Clone, Debug)]
pub struct Products {
    models: usize,
    values: Vec<f64>,
}

impl Products {
    /// Reads the vectors once.
    ///
    /// # Errors
    /// When a tensor cannot be read or is not finite.
    pub fn of(vectors: &Vectors<'_>, groups: Groups) -> Result<Self, MergeError> {
        let models = vectors.count();
        let mut values = vec![0.0; groups.count * models * models];
        vectors.each(1, |start, tiles| {
            let (mut at, length) = (0, tiles[0].len());
            for (group, taken) in groups.runs(start, length) {
                let part = at..at + taken;
                at += taken;
                for a in 0..models {
                    for b in a..models {
                        let product = dot(&tiles[a][part.clone()], &tiles[b][part.clone()]);
                        values[(group * models + a) * models + b] += product;
                    }
                }
            }
        })?;
        let mut products = Self { models, values };
        for group in 0..groups.count {
            for (a, b) in (0..models).flat_map(|a| (0..a).map(move |b| (a, b))) {
                products.values[(group * models + a) * models + b] = products.at(group, b, a);
            }
        }
        Ok(products)
    }

    fn at(&self, group: usize, a: usize, b: usize) -> f64 {
        self.values[(group * self.models + a) * self.models + b]
    }

    /// Those of each group, in order.
    pub fn groups(&self) -> impl Iterator<Item = Pairs<'_>> {
        self.values.chunks(self.models * self.models).map(|values| Pairs::new(self.models, values))
    }
}

/// Inner products of some vectors with each other.
#[derive(Clone, Copy, Debug)]
pub struct Pairs<'a> {
    models: usize,
    values: &'a [f64],
}

impl<'a> Pairs<'a> {
    /// Of their matrix `[n, n]`.
    pub fn new(models: usize, values: &'a [f64]) -> Self {
        Self { models, values }
    }

    /// How many vectors there are.
    pub fn count(&self) -> usize {
        self.models
    }

    /// The product of two.
    pub fn dot(&self, a: usize, b: usize) -> f64 {
        self.values[a * self.models + b]
    }

    /// The length of one.
    pub fn norm(&self, index: usize) -> f64 {
        self.dot(index, index).max(0.0).sqrt()
    }

    /// The length of the sum of all with these factors.
    pub fn norm_of(&self, factors: &[f64]) -> f64 {
        (0..self.models).map(|a| factors[a] * self.with(factors, a)).sum::<f64>().max(0.0).sqrt()
    }

    /// The product of one with the sum of all with these factors.
    pub fn with(&self, factors: &[f64], index: usize) -> f64 {
        (0..self.models).map(|b| factors[b] * self.dot(index, b)).sum()
    }
}

/// Multiplies all factors.
pub fn scale(factors: &mut [f64], by: f64) {
    for factor in factors {
        *factor *= by;
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    total::<8>(a, b, |a, b| f64::from(a) * f64::from(b))
}

/// `f₀ W₀ + Σ fᵢ xᵢ` in fp64, rounded once: `xᵢ` is what a model differs from the base by where there is one, and the model itself
/// where there is none.
#[derive(Debug)]
pub struct Combination {
    groups: Groups,
    /// Per group the base's factor, and each model's.
    factors: Vec<f64>,
}

impl Combination {
    /// With the factors of each group in order: the base's, which counts where there is one, and each model's.
    pub fn new(groups: Groups, factors: impl IntoIterator<Item = (f64, Vec<f64>)>) -> Self {
        let factors = factors.into_iter().flat_map(|(base, models)| std::iter::once(base).chain(models)).collect();
        Self { groups, factors }
    }
}

impl Kernel for Combination {
    fn merge(&self, tile: &Tile<'_>, out: &mut [f32]) {
        let width = tile.models.len() + 1;
        let (zeros, mut sums) = ([0.0f32; BLOCK], [0.0f64; BLOCK]);
        let mut at = 0;
        for (group, taken) in self.groups.runs(tile.start, out.len()) {
            let part = at..at + taken;
            at += taken;
            let factors = &self.factors[group * width..(group + 1) * width];
            for (block, out) in tile.blocks_from(part.start, &mut out[part]) {
                let base = if tile.base.is_some() { block.base() } else { &zeros[..out.len()] };
                let sums = &mut sums[..out.len()];
                let factor = factors[0];
                vectorized(|| {
                    for (sum, base) in sums.iter_mut().zip(base) {
                        *sum = factor * f64::from(*base);
                    }
                });
                for (model, &factor) in block.models().zip(&factors[1..]) {
                    vectorized(|| {
                        for ((sum, model), base) in sums.iter_mut().zip(model).zip(base) {
                            *sum += factor * (f64::from(*model) - f64::from(*base));
                        }
                    });
                }
                vectorized(|| {
                    for (out, sum) in out.iter_mut().zip(&*sums) {
                        *out = *sum as f32;
                    }
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_belong_to_the_whole_a_row_or_a_column() {
        let of = |along, start, length| Groups::new(along, &[3, 4]).runs(start, length).collect::<Vec<_>>();
        assert_eq!(of(Along::Whole, 3, 6), [(0, 6)]);
        assert_eq!(of(Along::Last, 3, 6), [(0, 1), (1, 4), (2, 1)]);
        assert_eq!(of(Along::First, 3, 3), [(3, 1), (0, 1), (1, 1)]);
        // A vector has one row and one column, which is all of it.
        assert_eq!(Groups::new(Along::First, &[5]), Groups::new(Along::Whole, &[5]));
    }

    #[test]
    fn a_combination_adds_differences_from_the_base_group_by_group() {
        let groups = Groups::new(Along::Last, &[2, 2]);
        let kernel = Combination::new(groups, [(1.0, vec![0.5]), (2.0, vec![0.0])]);
        let mut out = [0.0; 4];
        let (base, model) = ([1.0f32, 2.0, 3.0, 4.0], [3.0f32, 2.0, 9.0, 9.0]);
        kernel.merge(&Tile { start: 0, base: Some(&base), models: &[&model], beside: &[] }, &mut out);
        assert_eq!(out.map(f32::to_bits), [2.0f32, 2.0, 6.0, 8.0].map(f32::to_bits));
    }
}
