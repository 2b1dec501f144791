//! `average`: `W = Σ wᵢ Wᵢ / Σ wᵢ` for every tensor (model soups, <https://arxiv.org/abs/2203.05482>); with
//! `normalize: false` the sum is not divided. Weights may be negative. What a rule averages or solves always is a mean's.

use mergelab_wire::MergeJob;

use super::elementwise::Elementwise;
use super::error::MergeError;
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::regmean;
use super::rules::AlphaRule;

/// The weighted mean.
#[derive(Debug)]
pub struct Average;

impl Method for Average {
    fn name(&self) -> &'static str {
        "average"
    }

    fn takes_any_weight(&self) -> bool {
        true
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        Params::check(job, &[], &["normalize"])
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        let (mut units, rest) = regmean::by_rule(context, tensors)?;
        let params = Params::of(context);
        if params.flag("normalize", true) {
            units.extend(rest.into_iter().map(Unit::Average));
        } else {
            let sum = |name| Elementwise::sum(context, name).map(Unit::Elementwise);
            units.extend(rest.into_iter().map(sum).collect::<Result<Vec<_>, _>>()?);
        }
        Ok(units)
    }
}
