//! Methods that look at a linear layer's task vectors as matrices: singular values, products of rows.
//!
//! Matrices are worked whole and in fp64, as many side by side as the memory budget has room for. Tensors that are no linear
//! layer's weight, embeddings among them, take the mean of the task vectors.

use std::fmt::Debug;
use std::sync::Arc;

use tch::{Kind, TchError, Tensor};

use super::elementwise::on_task_vectors;
use super::error::MergeError;
use super::layers::{is_linear, is_transposed_layer, is_vocabulary};
use super::method::{Context, Unit};
use super::params::Params;
use super::regmean;
use super::rules::AlphaRule;
use super::sources::Source;
use super::span::{Along, Combination, Groups};
use super::stream::PROGRAM;
use crate::checkpoint::Writer;
use crate::codec::is_float;

/// Matrices of a layer's size that are held at the most beside one for each model.
const BESIDE: usize = 6;

/// One method on the task vectors of one linear layer.
pub trait MatrixKernel: Debug + Send + Sync {
    /// What is added to the base, of weighted task vectors `[out, in]` in fp64.
    ///
    /// # Errors
    /// When libtorch fails.
    fn merge(&self, vectors: &[Tensor]) -> Result<Tensor, TchError>;
}

/// One linear layer.
#[derive(Debug)]
pub struct Matrix {
    tensor: String,
    kernel: Arc<dyn MatrixKernel>,
    lambda: f64,
    /// Whether it is stored as `[in, out]`.
    is_transposed: bool,
}

/// The work of such a method: `kernel` on linear layers, the mean of task vectors on the rest, both times `lambda`.
///
/// # Errors
/// When integers differ.
pub fn units(
    context: &Context<'_>,
    tensors: Vec<(String, Option<AlphaRule>)>,
    kernel: impl Fn(&Params<'_>, &str) -> Arc<dyn MatrixKernel>,
) -> Result<Vec<Unit>, MergeError> {
    let params = Params::of(context);
    let family = context.sources.family.as_deref();
    let (mut units, left) = regmean::by_rule(context, tensors)?;
    let mut rest = Vec::new();
    for tensor in left {
        let shape = context.sources.shape(&tensor)?;
        let is_head = is_vocabulary(&tensor);
        if is_float(context.sources.dtype(&tensor)?) && is_linear(&[], family, &tensor, shape) && !is_head {
            let lambda = params.number("lambda", &tensor, 1.0);
            let is_transposed = is_transposed_layer(family, &tensor);
            units.push(Unit::Matrix(Matrix { kernel: kernel(&params, &tensor), lambda, is_transposed, tensor }));
        } else {
            rest.push((tensor, None));
        }
    }
    units.extend(on_task_vectors(context, rest, |name| {
        let weights = context.sources.weights(name);
        let factor = params.number("lambda", name, 1.0) / weights.len() as f64;
        let factors = weights.iter().map(|weight| weight * factor).collect();
        let groups = Groups::new(Along::Whole, context.sources.shape(name)?);
        Ok(Arc::new(Combination::new(groups, [(1.0, factors)])))
    })?);
    Ok(units)
}

impl Matrix {
    /// Bytes that it takes.
    fn needs(&self, context: &Context<'_>) -> Result<u64, MergeError> {
        let elements: usize = context.sources.shape(&self.tensor)?.iter().product();
        Ok(((context.sources.models.len() + BESIDE) * elements * size_of::<f64>()) as u64)
    }

    fn run(&self, context: &Context<'_>, writer: &Writer) -> Result<(), MergeError> {
        let name = &*self.tensor;
        let shape: Vec<i64> = context.sources.shape(name)?.iter().map(|side| *side as i64).collect();
        let all = 0..shape.iter().product::<i64>() as usize;
        let base = context.sources.base.as_ref().expect("a method on task vectors has a base");
        let torch = MergeError::torch(name);
        let turn = |matrix: Tensor| if self.is_transposed { matrix.f_tr() } else { Ok(matrix) };
        let load = |source: &Source| {
            let flat = source.elements(name, all.clone(), Kind::Double)?;
            flat.f_view(shape.as_slice())
                .and_then(|whole| turn(whole)?.f_to_device(context.device))
                .map_err(MergeError::torch(name))
        };
        let start = load(base)?;
        let mut vectors = Vec::with_capacity(context.sources.models.len());
        for (model, weight) in context.sources.models.iter().zip(context.sources.weights(name)) {
            let vector = load(model)?.f_sub(&start).and_then(|vector| vector.f_mul_scalar(weight));
            vectors.push(vector.map_err(MergeError::torch(name))?);
        }
        let merged = self.kernel.merge(&vectors).and_then(|moved| start.f_add(&moved.f_mul_scalar(self.lambda)?));
        let merged = merged.and_then(|merged| turn(merged)?.f_to_device(tch::Device::Cpu)).map_err(torch)?;
        Ok(writer.write(name, 0, &merged)?)
    }
}

/// Works all of them.
///
/// # Errors
/// When a tensor cannot be read or written, libtorch fails, or the budget has no room for a matrix.
pub fn run(context: &Context<'_>, writer: &Writer, matrices: &[Matrix]) -> Result<(), MergeError> {
    let mut largest = 0;
    for matrix in matrices {
        largest = largest.max(matrix.needs(context)?);
    }
    let room = context.memory.map_or(u64::MAX, |budget| budget.saturating_sub(PROGRAM));
    if largest > room {
        return Err(MergeError::Memory { budget: room + PROGRAM, needed: largest + PROGRAM });
    }
    let side_by_side = room.checked_div(largest).map_or(1, |fit| fit.min(context.pool.workers() as u64)) as usize;
    let total = matrices.len();
    for (number, some) in matrices.chunks(side_by_side.max(1)).enumerate() {
        context.reporter.progress(number * side_by_side, total, "matrices");
        context.pool.map(some.iter().collect(), |matrix: &Matrix| matrix.run(context, writer))?;
    }
    Ok(())
}

/// `U`, `σ` and `V` of a matrix, the singular values from the largest down.
///
/// # Errors
/// When libtorch fails.
pub fn singular(matrix: &Tensor) -> Result<(Tensor, Tensor, Tensor), TchError> {
    matrix.f_svd(true, true)
}
