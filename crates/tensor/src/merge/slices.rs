//! Merges of slices: layers of the result that are merged from any layers of the models.
//!
//! Each slice is a merge of its own, of models in which everything else is not there and whose layers go by their numbers in
//! the result; its lists over depth run from its first layer to its last. What lies before all layers, embeddings above all,
//! is a part of the first slice, and what lies behind them, as the final norm and the head, of the last: so it is in mergekit
//! 0.1.5. Filters by name of what a model states for itself see the names in that model.

use std::ops::Range;

use mergelab_wire::{MergeJob, MergeSlice, MergeSource, SliceSource};

use super::error::MergeError;

/// The part of the result that a slice is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its layers in the result.
    pub layers: Range<usize>,
    /// Whether what lies before all layers is a part of it.
    pub is_first: bool,
    /// Whether what lies behind all layers is a part of it.
    pub is_last: bool,
    /// The first layer that each of its models gives.
    pub models: Vec<usize>,
    /// The first layer that its base gives.
    pub base: Option<usize>,
}

/// A part of the result as a merge of its own; the whole where there are no slices.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its merge.
    pub job: MergeJob,
    /// Where it is in the result.
    pub slice: Option<Slice>,
}

/// The merges that a merge consists of, in the order of the result.
///
/// # Errors
/// When a slice has no layers or no models, names others than the merge, or the merge asks for what knows no slices.
pub fn parts(job: &MergeJob) -> Result<Vec<Part>, MergeError> {
    if job.slices.is_empty() {
        return Ok(vec![Part { job: job.clone(), slice: None }]);
    }
    let refuse = |reason: String| MergeError::Request {
        method: job.method.clone(),
        reason,
        hint: "slices are merged by methods that read nothing but models: `average`, `slerp`, `ties`, …",
    };
    let is_estimated =
        |source: &MergeSource| source.grams.is_some() || source.capture.is_some() || source.fisher.is_some();
    if job.models.iter().any(is_estimated) || !job.rules.is_empty() {
        return Err(refuse("slices have no rules, Gram matrices or Fisher information".to_owned()));
    }
    let mut parts: Vec<Part> = Vec::with_capacity(job.slices.len());
    let mut next = 0;
    for (index, slice) in job.slices.iter().enumerate() {
        if slice.layers == 0 || slice.models.is_empty() {
            return Err(refuse(format!("slice {} has no layers or no models", index + 1)));
        }
        let layers = next..next + slice.layers;
        next = layers.end;
        let of = |found: &SliceSource| source(job, found).map_err(&refuse);
        let models = slice.models.iter().map(of).collect::<Result<_, _>>()?;
        let base = slice.base.as_ref().map(of).transpose()?;
        let MergeSlice { models: given, base: given_base, params, .. } = slice;
        let (is_first, is_last) = (index == 0, index + 1 == job.slices.len());
        let (firsts, first_of_base) =
            (given.iter().map(|source| source.first).collect(), given_base.as_ref().map(|base| base.first));
        parts.push(Part {
            job: MergeJob { models, base, params: params.clone(), slices: Vec::new(), ..job.clone() },
            slice: Some(Slice { layers, is_first, is_last, models: firsts, base: first_of_base }),
        });
    }
    Ok(parts)
}

/// The model of the merge that gives layers to a slice.
fn source(job: &MergeJob, found: &SliceSource) -> Result<MergeSource, String> {
    let mut models = job.models.iter().chain(&job.base);
    let model = models.find(|model| model.name == found.name);
    let model = model.ok_or_else(|| format!("{} is in a slice, and is no model of the merge", found.name))?;
    Ok(MergeSource { weight: found.weight.clone(), params: found.params.clone(), ..model.clone() })
}
