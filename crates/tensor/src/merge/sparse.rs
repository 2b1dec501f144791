//! Methods that keep some of each task vector's elements and add up the rest: TIES, DARE, DELLA, Model Breadcrumbs.
//!
//! `W = W₀ + λ · Σ wᵢ sᵢ τᵢ` over the elements that stay, where `sᵢ` scales a vector to its former sum of magnitudes (`rescale`).
//! With an election (Yadav et al., <https://arxiv.org/abs/2306.01708>) the sign of `Σ wᵢ sᵢ τᵢ`, plus where that is 0, is that
//! of the element, and models of the other sign do not count. With `normalize` the sum is divided by the weights that count.

use std::fmt::Debug;
use std::sync::Arc;

use super::elementwise::{Kernel, Tile, on_task_vectors};
use super::error::MergeError;
use super::method::{Context, Unit};
use super::params::Params;
use super::rules::AlphaRule;
use super::vectors::Vectors;

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

/// The work of such a method. `sparse` says what stays of a tensor's vector of one model, by its index.
///
/// # Errors
/// When integers differ or a tensor cannot be read, and what `sparse` says.
pub fn units(
    context: &Context<'_>,
    tensors: Vec<(String, Option<AlphaRule>)>,
    consensus: Consensus,
    sparse: impl Fn(&Params<'_>, &Vectors<'_>, &str, usize) -> Result<Box<dyn Sparse>, MergeError> + Sync,
) -> Result<Vec<Unit>, MergeError> {
    let params = Params::of(context);
    let models: Vec<usize> = (0..context.sources.models.len()).collect();
    let normalize = params.flag("normalize", consensus.normalize);
    let rescale = params.flag("rescale", consensus.rescale);
    on_task_vectors(context, tensors, |name| {
        let vectors = Vectors::from_base(context, name, &models)?;
        let lambda = params.number("lambda", name, 1.0);
        let mut parts = Vec::with_capacity(models.len());
        for (index, weight) in context.sources.weights(name).into_iter().enumerate() {
            let vector = vectors.only(index);
            let sparse = sparse(&params, &vector, name, index)?;
            let scale = if rescale { rescaling(&vector, &*sparse)? } else { 1.0 };
            parts.push(Part { weight, scale, sparse });
        }
        let total: f64 = parts.iter().map(|part| part.weight).sum();
        let divisor = if normalize && total.abs() >= NO_WEIGHT { total } else { 1.0 };
        Ok(if consensus.elect {
            Arc::new(Elected { parts, lambda, normalize })
        } else {
            Arc::new(Sum { parts, factor: lambda / divisor }) as Arc<dyn Kernel>
        })
    })
}

/// What brings the sum of magnitudes that stay to that of all; 1 where there is nothing to scale.
fn rescaling(vector: &Vectors<'_>, sparse: &dyn Sparse) -> Result<f64, MergeError> {
    let size = |vector: &[f32]| vector.iter().map(|value| f64::from(value.abs())).sum::<f64>();
    let (mut all, mut kept) = (0.0, 0.0);
    vector.each(sparse.grain(), |start, tiles| {
        all += size(tiles[0]);
        sparse.sparsify(start, tiles[0]);
        kept += size(tiles[0]);
    })?;
    Ok(if all < NO_SIZE || kept < NO_SIZE { 1.0 } else { all / kept })
}

/// One model's part.
#[derive(Debug)]
struct Part {
    weight: f64,
    scale: f64,
    sparse: Box<dyn Sparse>,
}

impl Part {
    /// The elements that stay of a tile, zero where they do not.
    fn vector<'a>(&self, tile: &Tile<'_>, model: &[f32], buffer: &'a mut Vec<f32>) -> &'a [f32] {
        let base = tile.base.expect("task vectors start from a base");
        buffer.clear();
        buffer.extend(model.iter().zip(base).map(|(model, base)| model - base));
        self.sparse.sparsify(tile.start, buffer);
        buffer
    }
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
        let base = tile.base.expect("task vectors start from a base");
        let mut sums: Vec<f64> = base.iter().map(|base| f64::from(*base)).collect();
        let mut buffer = Vec::new();
        for (part, model) in self.parts.iter().zip(tile.models) {
            let factor = part.weight * part.scale * self.factor;
            let vector = part.vector(tile, model, &mut buffer);
            sums.iter_mut().zip(vector).for_each(|(sum, value)| *sum += f64::from(*value) * factor);
        }
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum as f32);
    }
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
        let base = tile.base.expect("task vectors start from a base");
        let mut buffer = Vec::new();
        let terms: Vec<Vec<f64>> = self
            .parts
            .iter()
            .zip(tile.models)
            .map(|(part, model)| {
                let factor = part.scale * part.weight;
                part.vector(tile, model, &mut buffer).iter().map(|value| f64::from(*value) * factor).collect()
            })
            .collect();
        for (at, (out, base)) in out.iter_mut().zip(base).enumerate() {
            let sign = if terms.iter().map(|terms| terms[at]).sum::<f64>() >= 0.0 { 1.0 } else { -1.0 };
            let (mut sum, mut weights) = (0.0, 0.0);
            for (terms, part) in terms.iter().zip(&self.parts) {
                if terms[at] * sign > 0.0 {
                    sum += terms[at];
                    weights += part.weight;
                }
            }
            let divisor = if self.normalize && weights != 0.0 { weights } else { 1.0 };
            *out = (f64::from(*base) + self.lambda * sum / divisor) as f32;
        }
    }
}
