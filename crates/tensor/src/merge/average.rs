//! `average`: `W = Σ wᵢ Wᵢ / Σ wᵢ` for every tensor (model soups, <https://arxiv.org/abs/2203.05482>); with
//! `normalize: false` the sum is not divided. What a rule averages or solves always is a mean's.

use mergelab_wire::MergeJob;

use super::elementwise::Elementwise;
use super::error::MergeError;
use super::method::{Context, Method, Unit};
use super::params::Params;
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
        Params::check(job, &[], &["normalize"])
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        // A rule may ask for RegMean on some tensors of an average, where the models have Grams.
        let (solved, rest): (Vec<_>, Vec<_>) =
            tensors.into_iter().partition(|(_, rule)| rule.is_some_and(|rule| rule.required));
        let params = Params::new(context.job, context.sources.names().iter().map(String::as_str));
        let mut units = if params.flag("normalize", true) {
            rest.into_iter().map(|(name, _)| Unit::Average(name)).collect()
        } else {
            let sum = |(name, _)| Elementwise::sum(context, name).map(Unit::Elementwise);
            rest.into_iter().map(sum).collect::<Result<Vec<_>, _>>()?
        };
        if !solved.is_empty() {
            units.extend(regmean::groups(context, Grams::open(context.job)?, solved)?);
        }
        Ok(units)
    }
}
