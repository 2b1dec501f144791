//! Methods between a base and one model: which model that is.

use mergelab_wire::MergeJob;

use super::error::MergeError;

/// The index of the one model that is not the base; the base may be named among the models.
///
/// # Errors
/// When there is none, or several.
pub(super) fn other(job: &MergeJob) -> Result<usize, MergeError> {
    let is_base = |index: &usize| job.base.as_ref().is_some_and(|base| base.path == job.models[*index].path);
    let others: Vec<usize> = (0..job.models.len()).filter(|index| !is_base(index)).collect();
    match others.as_slice() {
        [model] => Ok(*model),
        _ => Err(MergeError::Request {
            method: job.method.clone(),
            reason: format!("{} models beside the base", others.len()),
            hint: "it goes between the base and one model",
        }),
    }
}

/// Refuses a merge without a parameter that has no default.
///
/// # Errors
/// When it is not there.
pub(super) fn required(job: &MergeJob, name: &str) -> Result<(), MergeError> {
    if job.params.contains_key(name) {
        return Ok(());
    }
    Err(MergeError::Request {
        method: job.method.clone(),
        reason: format!("it needs the parameter {name:?}"),
        hint: "the parameters of each method and their ranges are in docs/experiment-file.md",
    })
}
