//! Methods that keep some of each task vector's elements and add up the rest: TIES, DARE, DELLA, Model Breadcrumbs.
//!
//! `W = W₀ + λ · Σ wᵢ sᵢ τᵢ` over the elements that stay, where `sᵢ` scales a vector to its former sum of magnitudes (`rescale`).
//! With an election (Yadav et al., <https://arxiv.org/abs/2306.01708>) the sign of `Σ wᵢ sᵢ τᵢ`, plus where that is 0, is that
//! of the element, and models of the other sign do not count. With `normalize` the sum is divided by the weights that count.

use std::cell::Cell;
use std::fmt::Debug;
use std::sync::Arc;

use super::elementwise::{BLOCK, Kernel, Tile, add, on_task_vectors, set};
use super::error::MergeError;
use super::method::{Context, Unit};
use super::params::Params;
use super::rules::AlphaRule;
use super::vectors::{Vectors, total};
use crate::system::vectorized;

/// Sums of weights smaller than this divide nothing, as in mergekit.
pub(super) const NO_WEIGHT: f64 = 1e-8;

/// Sums of magnitudes smaller than this are not scaled, as in mergekit.
const NO_SIZE: f64 = 1e-7;

/// Which elements of one task vector stay.
pub trait Sparse: Debug + Send + Sync {
    /// Sets the others to zero, of elements from a position on.
    fn sparsify(&self, start: usize, vector: &mut [f32]);

    /// How many elements must come together.
    fn grain(&self) -> usize {
        1
    }

    /// The sums of magnitudes of all and of those that stay; what is in `vector` after it is of no use.
    fn sizes(&self, start: usize, vector: &mut [f32]) -> [f64; 2] {
        let all = size(vector);
        self.sparsify(start, vector);
        [all, size(vector)]
    }
}

/// Everything stays.
#[derive(Clone, Copy, Debug)]
pub struct Dense;

impl Sparse for Dense {
    fn sparsify(&self, _start: usize, _vector: &mut [f32]) {}
}

/// How what stays is put together, unless an experiment says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Consensus {
    /// Whether signs are elected.
    pub elect: bool,
    /// Default of `normalize`.
    pub normalize: bool,
    /// Default of `rescale`.
    pub rescale: bool,
}

/// The work of such a method. `sparse` says what stays of each model's vector of a tensor.
///
/// # Errors
/// When integers differ or a tensor cannot be read, and what `sparse` says.
pub fn units(
    context: &Context<'_>,
    tensors: Vec<(String, Option<AlphaRule>)>,
    consensus: Consensus,
    sparse: impl Fn(&Params<'_>, &Vectors<'_>, &str) -> Result<Vec<Box<dyn Sparse>>, MergeError> + Sync,
) -> Result<Vec<Unit>, MergeError> {
    let params = Params::of(context);
    let models: Vec<usize> = (0..context.sources.models.len()).collect();
    let normalize = params.flag("normalize", consensus.normalize);
    let rescale = params.flag("rescale", consensus.rescale);
    on_task_vectors(context, tensors, |name| {
        let vectors = Vectors::from_base(context, name, &models)?;
        let lambda = params.number("lambda", name, 1.0);
        let sparse = sparse(&params, &vectors, name)?;
        let scales = if rescale { scales(&vectors, &sparse)? } else { vec![1.0; sparse.len()] };
        let parts: Vec<Part> = context
            .sources
            .weights(name)
            .into_iter()
            .zip(scales.into_iter().zip(sparse))
            .map(|(weight, (scale, sparse))| Part { weight, scale, sparse })
            .collect();
        let total: f64 = parts.iter().map(|part| part.weight).sum();
        let divisor = if normalize && total.abs() >= NO_WEIGHT { total } else { 1.0 };
        Ok(if consensus.elect {
            Arc::new(Elected { parts, lambda, normalize })
        } else {
            Arc::new(Sum { parts, factor: lambda / divisor }) as Arc<dyn Kernel>
        })
    })
}

/// What brings each vector's sum of magnitudes that stay to that of all; 1 where there is nothing to scale.
fn scales(vectors: &Vectors<'_>, sparse: &[Box<dyn Sparse>]) -> Result<Vec<f64>, MergeError> {
    let mut sizes = vec![(0.0, 0.0); sparse.len()];
    let grain = sparse.iter().map(|sparse| sparse.grain()).max().unwrap_or(1);
    vectors.each(grain, |start, tiles| {
        for (((all, kept), sparse), tile) in sizes.iter_mut().zip(sparse).zip(tiles) {
            let sizes = sparse.sizes(start, tile);
            *all += sizes[0];
            *kept += sizes[1];
        }
    })?;
    let scale = |(all, kept)| if all < NO_SIZE || kept < NO_SIZE { 1.0 } else { all / kept };
    Ok(sizes.into_iter().map(scale).collect())
}

/// The sum of magnitudes.
pub(super) fn size(vector: &[f32]) -> f64 {
    total::<16>(vector, vector, |value, _| f64::from(value.abs()))
}

/// One model's part.
#[derive(Debug)]
struct Part {
    weight: f64,
    scale: f64,
    sparse: Box<dyn Sparse>,
}

thread_local! {
    /// What stays of the vectors of a tile: memory that is used over again for the next.
    static STAYING: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Merges a tile of what stays of each model's vector, zero where nothing does.
fn on_staying(parts: &[Part], tile: &Tile<'_>, merge: impl FnOnce(&Tile<'_>)) {
    let base = tile.base.expect("task vectors start from a base");
    let mut staying = STAYING.take();
    staying.clear();
    for (part, model) in parts.iter().zip(tile.models) {
        let before = staying.len();
        vectorized(|| staying.extend(model.iter().zip(base).map(|(model, base)| model - base)));
        part.sparse.sparsify(tile.start, &mut staying[before..]);
    }
    let vectors: Vec<&[f32]> = staying.chunks(base.len().max(1)).collect();
    merge(&Tile { models: &vectors, ..*tile });
    STAYING.set(staying);
}

fn grain(parts: &[Part]) -> usize {
    parts.iter().map(|part| part.sparse.grain()).max().unwrap_or(1)
}

/// Without an election.
#[derive(Debug)]
struct Sum {
    parts: Vec<Part>,
    /// λ over what the sum is divided by.
    factor: f64,
}

impl Kernel for Sum {
    fn grain(&self) -> usize {
        grain(&self.parts)
    }

    fn merge(&self, tile: &Tile<'_>, out: &mut [f32]) {
        on_staying(&self.parts, tile, |tile| self.add_up(tile, out));
    }
}

impl Sum {
    fn add_up(&self, tile: &Tile<'_>, out: &mut [f32]) {
        let mut sums = [0.0f64; BLOCK];
        for (block, out) in tile.blocks(out) {
            let sums = &mut sums[..out.len()];
            vectorized(|| {
                for (sum, base) in sums.iter_mut().zip(block.base()) {
                    *sum = f64::from(*base);
                }
            });
            for (part, vector) in self.parts.iter().zip(block.models()) {
                add(sums, vector, part.weight * part.scale * self.factor);
            }
            vectorized(|| {
                for (out, sum) in out.iter_mut().zip(&*sums) {
                    *out = *sum as f32;
                }
            });
        }
    }
}

/// Whether a term is of the sign that was elected.
#[inline]
fn agrees(term: f64, sum: f64) -> bool {
    term != 0.0 && (term > 0.0) == (sum >= 0.0)
}

/// With an election.
#[derive(Debug)]
struct Elected {
    parts: Vec<Part>,
    lambda: f64,
    normalize: bool,
}

impl Kernel for Elected {
    fn grain(&self) -> usize {
        grain(&self.parts)
    }

    fn merge(&self, tile: &Tile<'_>, out: &mut [f32]) {
        on_staying(&self.parts, tile, |tile| self.elect(tile, out));
    }
}

impl Elected {
    fn elect(&self, tile: &Tile<'_>, out: &mut [f32]) {
        let (mut signs, mut sums, mut weights) = ([0.0f64; BLOCK], [0.0f64; BLOCK], [0.0f64; BLOCK]);
        for (block, out) in tile.blocks(out) {
            let [signs, sums, weights] = [&mut signs, &mut sums, &mut weights].map(|all| &mut all[..out.len()]);
            for (index, (part, vector)) in self.parts.iter().zip(block.models()).enumerate() {
                let add = if index == 0 { set } else { add };
                add(signs, vector, part.scale * part.weight);
            }
            sums.fill(0.0);
            if self.normalize {
                weights.fill(0.0);
            }
            for (part, vector) in self.parts.iter().zip(block.models()) {
                let (factor, weight) = (part.scale * part.weight, part.weight);
                vectorized(|| {
                    for ((sum, sign), value) in sums.iter_mut().zip(&*signs).zip(vector) {
                        let term = f64::from(*value) * factor;
                        *sum += if agrees(term, *sign) { term } else { 0.0 };
                    }
                });
                if self.normalize {
                    vectorized(|| {
                        for ((total, sign), value) in weights.iter_mut().zip(&*signs).zip(vector) {
                            *total += if agrees(f64::from(*value) * factor, *sign) { weight } else { 0.0 };
                        }
                    });
                }
            }
            let lambda = self.lambda;
            if !self.normalize {
                vectorized(|| {
                    for ((out, base), sum) in out.iter_mut().zip(block.base()).zip(&*sums) {
                        *out = (f64::from(*base) + lambda * sum) as f32;
                    }
                });
                continue;
            }
            vectorized(|| {
                let places = sums.iter().zip(&*weights);
                for ((out, base), (sum, total)) in out.iter_mut().zip(block.base()).zip(places) {
                    let divisor = if *total == 0.0 { 1.0 } else { *total };
                    *out = (f64::from(*base) + lambda * sum / divisor) as f32;
                }
            });
        }
    }
}
