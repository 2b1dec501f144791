//! The tests that tables ask for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use super::{Choice, Comparison, FILE, PairError, Samples, SamplesError, Scored, Test, pair};
use crate::artifact::Output;
use crate::plan::Artifact;
use crate::report::{self, Finding, Paired, PairedTest, Side, Untested};

/// Samples that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct TestError {
    /// The model.
    pub model: String,
    /// The task.
    pub task: String,
    /// What went wrong.
    pub source: SamplesError,
}

/// Makes the comparisons, each as `mergelab samples --against` does, from the evaluations that `result` gives by model
/// and task. Samples are read once for each metric that is compared.
///
/// # Errors
/// When samples that are there cannot be read. Where there are none, or they do not say what a test needs, that is what
/// came of the comparison.
pub fn test<'a, 'w>(
    wanted: &'w [report::Comparison],
    result: impl Fn(&str, &str) -> Option<&'a Artifact>,
) -> Result<Vec<Paired>, TestError> {
    let mut read: HashMap<(&'w str, &'w str, String), Result<Scored, Untested>> = HashMap::new();
    let mut paired = Vec::new();
    for comparison in wanted {
        let choice = Choice {
            metric: comparison.metric.clone(),
            filter: comparison.filter.clone(),
            higher_is_better: comparison.higher_is_better,
            n_shot: None,
        };
        let task = comparison.task.as_str();
        let place = |model: &'w str| (model, task, choice.to_string());
        for Side { model, .. } in [&comparison.model, &comparison.baseline] {
            if let Entry::Vacant(free) = read.entry(place(model)) {
                let artifact = result(model, task);
                let kept = artifact.map(|artifact| (&*artifact.outputs, &*artifact.location));
                let scored = scored(kept, &choice).map_err(|source| TestError {
                    model: model.clone(),
                    task: task.to_owned(),
                    source,
                })?;
                free.insert(scored);
            }
        }
        let found = |side: &'w Side| read[&place(&side.model)].as_ref().map_err(|untested| *untested);
        let tested = found(&comparison.model)
            .and_then(|model| found(&comparison.baseline).map(|baseline| (model, baseline)))
            .and_then(|(model, baseline)| held_against(model, baseline, &choice));
        paired.push(comparison.with(tested));
    }
    Ok(paired)
}

/// The scores by a metric of the answers that an artifact keeps, by its files and its directory.
///
/// # Errors
/// When they are there and cannot be read.
pub fn scored(artifact: Option<(&[Output], &Path)>, choice: &Choice) -> Result<Result<Scored, Untested>, SamplesError> {
    let keeps = |(outputs, _): &(&[Output], &Path)| outputs.iter().any(|file| file.path == FILE && !file.dropped);
    let Some((_, location)) = artifact.filter(keeps) else { return Ok(Err(Untested::NoAnswers)) };
    match Scored::of(Samples::open(location)?, choice, 0) {
        Ok(scored) => Ok(Ok(scored)),
        Err(PairError::Samples { source, .. }) => Err(source),
        Err(_) => Ok(Err(Untested::OtherDocuments)),
    }
}

/// What a test finds of a model beside a baseline on the documents of both; its difference is the model's figure less the
/// baseline's.
///
/// # Errors
/// When they have no documents or no scores in common.
pub fn held_against(model: &Scored, baseline: &Scored, choice: &Choice) -> Result<Finding, Untested> {
    let pairs = pair(model, baseline, choice).map_err(|error| match error {
        PairError::Unscored { .. } => Untested::NoScores,
        _ => Untested::OtherDocuments,
    })?;
    let Comparison { difference, test, .. } = Comparison::of(&pairs.pairs, choice).ok_or(Untested::NoScores)?;
    let p = test.p();
    let test = match test {
        Test::McNemar { .. } => PairedTest::McNemar,
        Test::Bootstrap(_) => PairedTest::Bootstrap,
    };
    Ok(Finding { n: difference.n as u64, difference: difference.value, stderr: difference.stderr, test, p })
}
