//! Tensors that are merged or taken element by element, in pieces of a fixed size.

use std::ops::Range;

use tch::Tensor;

use super::error::MergeError;
use super::method::Context;
use super::sources::Source;
use crate::checkpoint::Writer;
use crate::dtype::FloatType;

/// Elements of one piece: 8 MB in fp64.
const PIECE: usize = 1 << 20;

fn pieces(elements: usize) -> Vec<Range<usize>> {
    (0..elements).step_by(PIECE).map(|start| start..(start + PIECE).min(elements)).collect()
}

/// The weighted mean `Σ wᵢ Wᵢ / Σ wᵢ` of tensors of one shape, in fp64: rounded once, when it is written.
///
/// # Errors
/// When libtorch fails.
pub fn mean(tensors: &[Tensor], weights: &[f64]) -> Result<Tensor, tch::TchError> {
    let mut sum = tensors[0].f_mul_scalar(weights[0])?;
    for (tensor, weight) in tensors.iter().zip(weights).skip(1) {
        sum = sum.f_add_(&tensor.f_mul_scalar(*weight)?)?;
    }
    sum.f_div_scalar(weights.iter().sum::<f64>())
}

/// Writes the weighted mean of one tensor.
///
/// # Errors
/// When it cannot be read or written, is not finite, or holds integers that differ.
pub fn average(context: &Context<'_>, name: &str, writer: &Writer) -> Result<(), MergeError> {
    let sources = context.sources;
    if FloatType::of_header(sources.dtype(name)?).is_none() {
        return same_integers(context, name, writer);
    }
    let weights: Vec<f64> = sources.models.iter().map(|source| source.weight).collect();
    let elements = sources.shape(name)?.iter().product();
    context.pool.map(pieces(elements), |range| {
        let tensors =
            sources.models.iter().map(|source| source.elements(name, range.clone())).collect::<Result<Vec<_>, _>>()?;
        let mean = mean(&tensors, &weights).map_err(MergeError::torch(name))?;
        Ok::<_, MergeError>(writer.write(name, range.start, &mean)?)
    })?;
    Ok(())
}

/// Writes one model's tensor, in the output type.
///
/// # Errors
/// When it cannot be read or written, or is not finite.
pub fn copy(context: &Context<'_>, name: &str, source: &Source, writer: &Writer) -> Result<(), MergeError> {
    let float = FloatType::of_header(context.sources.dtype(name)?).is_some();
    let elements = context.sources.shape(name)?.iter().product();
    context.pool.map(pieces(elements), |range| {
        let values = if float {
            source.elements(name, range.clone())?
        } else {
            source.checkpoint.load_range(name, range.clone())?
        };
        Ok::<_, MergeError>(writer.write(name, range.start, &values)?)
    })?;
    Ok(())
}

/// Integers have no mean: they are taken over where all models agree.
fn same_integers(context: &Context<'_>, name: &str, writer: &Writer) -> Result<(), MergeError> {
    let (first, others) = context.sources.models.split_first().expect("a merge has models");
    let values = first.checkpoint.load(name)?;
    for other in others {
        if other.checkpoint.load(name)? != values {
            let (first, other) = (first.name.clone(), other.name.clone());
            return Err(MergeError::Integers { name: name.to_owned(), first, other });
        }
    }
    copy(context, name, first, writer)
}
