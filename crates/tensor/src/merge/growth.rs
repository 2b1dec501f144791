//! Which number of a merge makes what it gives too large for its type.

use mergelab_wire::MergeJob;

use super::error::MergeError;
use super::params::stated;

/// Parameters by which what is merged grows.
const FACTORS: [&str; 5] = ["lambda", "scale", "learning_rate", "alpha", "r"];

/// From how much on a factor is taken for the cause: trained weights are about 1 or less, and fp16 holds 65504.
const LARGE: f64 = 1e3;

/// An overflow, with the largest factor that the merge states where there is a large one; other errors as they are.
pub(super) fn explained<'a>(error: MergeError, jobs: impl Iterator<Item = &'a MergeJob>) -> MergeError {
    if !matches!(error, MergeError::Overflow { .. }) {
        return error;
    }
    let mut found: Option<(f64, String)> = None;
    let mut look = |what: &dyn Fn() -> String, numbers: &[f64]| {
        for number in numbers.iter().map(|number| number.abs()).filter(|number| *number >= LARGE) {
            if found.as_ref().is_none_or(|(largest, _)| number > *largest) {
                found = Some((number, what()));
            }
        }
    };
    for job in jobs {
        let is_factor = |(name, _): &(&String, _)| FACTORS.contains(&name.as_str());
        for (name, value) in job.params.iter().filter(is_factor) {
            look(&|| format!("`{name}`"), &stated(value).unwrap_or_default());
        }
        for model in &job.models {
            look(&|| format!("the weight of {}", model.name), &model.weight.stated());
            for (name, value) in model.params.iter().filter(is_factor) {
                look(&|| format!("`{name}` of {}", model.name), &stated(value).unwrap_or_default());
            }
        }
    }
    match found {
        Some((number, what)) => {
            MergeError::Grown { source: Box::new(error), by: format!("{what}, which is {number:e}") }
        }
        None => error,
    }
}
