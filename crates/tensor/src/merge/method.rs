//! What a merge method is.

use mergelab_wire::MergeJob;
use tch::Device;

use super::blocks::Blocks;
use super::elementwise::Elementwise;
use super::error::MergeError;
use super::matrix::Matrix;
use super::rules::AlphaRule;
use super::solve::Group;
use super::sources::Sources;
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
    /// Workers for the algebra.
    pub pool: Pool,
    /// Workers for what runs on the CPU whatever the device.
    pub host: Pool,
    /// Memory budget in bytes, where one was given.
    pub memory: Option<u64>,
    /// Notes and facts.
    pub reporter: &'a Reporter,
}

/// A merge method: its name, and the work it makes of the tensors that are left to it.
///
/// Adding one takes a file with an implementation and a line in [`super::registry`].
pub trait Method: Sync {
    /// Name in an experiment.
    fn name(&self) -> &'static str;

    /// Whether it works on task vectors: it reads the base model's tensors.
    fn needs_base(&self) -> bool {
        false
    }

    /// Whether it reads the base model's tensors as this merge asks for it.
    fn reads_base(&self, _job: &MergeJob) -> bool {
        self.needs_base()
    }

    /// Whether a model's weight may be below zero.
    fn takes_any_weight(&self) -> bool {
        self.needs_base()
    }

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
    /// A method's own way with the elements of one tensor.
    Elementwise(Elementwise),
    /// The linear system of layers that share their inputs.
    Regmean(Group),
    /// A method's own way with the task vectors of a linear layer, as matrices.
    Matrix(Matrix),
    /// RegMean block by block, on activations that flow through the merged model.
    Blocks(Box<Blocks>),
}
