//! `average`: `W = Σ wᵢ Wᵢ / Σ wᵢ` for every tensor (model soups, <https://arxiv.org/abs/2203.05482>).

use mergelab_wire::MergeJob;

use super::error::MergeError;
use super::method::{Context, Method, Unit};
use super::regmean;
use super::rules::AlphaRule;
use super::solve::Grams;

/// The weighted mean.
#[derive(Debug)]
pub struct Average;

impl Method for Average {
    fn name(&self) -> &'static str {
        "average"
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        regmean::refuse_params(job)
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        // A rule may ask for RegMean on some tensors of an average, where the models have Grams.
        let (solved, rest): (Vec<_>, Vec<_>) =
            tensors.into_iter().partition(|(_, rule)| rule.is_some_and(|rule| rule.required));
        let mut units: Vec<Unit> = rest.into_iter().map(|(name, _)| Unit::Average(name)).collect();
        if !solved.is_empty() {
            units.extend(regmean::groups(context, Grams::open(context.job)?, solved)?);
        }
        Ok(units)
    }
}
