//! `passthrough`: one model as it is, times `scale`.

use std::sync::Arc;

use mergelab_wire::MergeJob;

use super::elementwise::on_tensors;
use super::error::MergeError;
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::rules::AlphaRule;
use super::span::{Along, Combination, Groups};

/// One model.
#[derive(Debug)]
pub struct Passthrough;

impl Method for Passthrough {
    fn name(&self) -> &'static str {
        "passthrough"
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        Params::check(job, &[("scale", f64::MIN, f64::MAX)], &[])?;
        if job.models.len() == 1 {
            return Ok(());
        }
        let (method, reason) = (job.method.clone(), format!("{} models", job.models.len()));
        Err(MergeError::Request { method, reason, hint: "it takes one model" })
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        let params = Params::of(context);
        on_tensors(context, tensors, false, &[0], |name| {
            let groups = Groups::new(Along::Whole, context.sources.shape(name)?);
            Ok(Arc::new(Combination::new(groups, [(0.0, vec![params.for_model(0, "scale", name, 1.0)])])))
        })
    }
}
