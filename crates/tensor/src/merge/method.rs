//! What a merge method is.

use mergelab_wire::MergeJob;
use tch::Device;

use super::elementwise;
use super::error::MergeError;
use super::figures::LayerFigures;
use super::rules::AlphaRule;
use super::solve::Group;
use super::sources::Sources;
use crate::checkpoint::Writer;
use crate::dtype::FloatType;
use crate::parallel::Pool;
use crate::report::Reporter;

/// What a unit of work has around it.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The request.
    pub job: &'a MergeJob,
    /// The models.
    pub sources: &'a Sources,
    /// Output type; each tensor's own if `None`.
    pub dtype: Option<FloatType>,
    /// Where the algebra runs.
    pub device: Device,
    /// Workers.
    pub pool: Pool,
    /// Notes and facts.
    pub reporter: &'a Reporter,
}

/// A merge method: its name, and the work it makes of the tensors that are left to it.
///
/// Adding one takes a file with an implementation and a line in [`super::registry`].
pub trait Method: Sync {
    /// Name in an experiment.
    fn name(&self) -> &'static str;

    /// Refuses what the method cannot do, before any model is opened.
    ///
    /// # Errors
    /// When a parameter is missing, unknown or out of range.
    fn check(&self, job: &MergeJob) -> Result<(), MergeError>;

    /// The work for these tensors.
    ///
    /// # Errors
    /// When something that a tensor needs is not there.
    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError>;
}

/// One unit of work.
#[derive(Debug)]
pub enum Unit {
    /// The weighted mean of one tensor.
    Average(String),
    /// One tensor of the model with this index.
    Take(String, usize),
    /// One tensor of the base model.
    Base(String),
    /// RegMean on the linear layers that share their inputs.
    Regmean(Group),
}

impl Unit {
    /// Computes and writes its tensors; the figures of the layers it solved.
    ///
    /// # Errors
    /// When a tensor cannot be read, computed or written.
    pub fn run(&self, context: &Context<'_>, writer: &Writer) -> Result<Vec<LayerFigures>, MergeError> {
        match self {
            Self::Average(name) => elementwise::average(context, name, writer)?,
            Self::Take(name, index) => elementwise::copy(context, name, &context.sources.models[*index], writer)?,
            Self::Base(name) => {
                let base = context.sources.base.as_ref().ok_or_else(|| MergeError::Rule {
                    pattern: name.clone(),
                    reason: "the merge has no `base:`".to_owned(),
                })?;
                elementwise::copy(context, name, base, writer)?;
            }
            Self::Regmean(group) => return group.run(context, writer),
        }
        Ok(Vec::new())
    }
}
