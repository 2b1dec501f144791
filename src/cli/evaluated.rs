//! An evaluation that is up to date, and what it keeps of its answers.

use std::path::Path;

use super::CliError;
use super::session::Session;
use super::status::up_to_date;
use crate::exec::Outlook;
use crate::experiment::Backend;
use crate::plan::{Facts, Spec, StageId};
use crate::report::{self, Metric};
use crate::samples::{self, Choice, ChoiceError, Samples, SamplesError};

/// The way out where a file of the store cannot be read.
fn damaged(message: String, stage: &str) -> CliError {
    let hint =
        format!("`mergelab verify` finds all that is damaged; `mergelab run FILE --force {stage}` makes this anew");
    CliError::Damaged { message, hint }
}

/// An evaluation with its answers.
pub(super) struct Evaluated<'a> {
    /// The stage.
    pub(super) stage: &'a str,
    /// Its key.
    pub(super) key: String,
    /// The model.
    pub(super) model: &'a str,
    /// Its figures.
    pub(super) metrics: Vec<Metric>,
    location: &'a Path,
}

impl<'a> Evaluated<'a> {
    /// Of a stage that has to be an evaluation, up to date, with samples.
    pub(super) fn of(
        session: &'a Session,
        outlooks: &'a [Outlook],
        facts: &'a Facts,
        id: StageId,
    ) -> Result<Self, CliError> {
        let stage = session.graph.stage(id);
        let Some((model, _)) = stage.spec.evaluated() else {
            return Err(CliError::Usage(format!("{} is no evaluation: it has no answers", stage.name)));
        };
        let (manifest, artifact) = up_to_date(session, outlooks, facts, id)?;
        match manifest.outputs.iter().find(|file| file.path == samples::FILE) {
            Some(file) if file.dropped => {
                let message = format!("the answers of {} were dropped", stage.name);
                let hint = format!("`mergelab run FILE --force {}` makes them again", stage.name);
                return Err(CliError::Damaged { message, hint });
            }
            Some(_) => {}
            None => {
                let why = match &stage.spec {
                    Spec::Eval { suite, .. } if suite.backend == Backend::Command => {
                        format!(": {} wrote no {{out}}/{}", suite.run[0], samples::FILE)
                    }
                    _ => String::new(),
                };
                return Err(CliError::Failed(format!("{} keeps no answers{why}", stage.name)));
            }
        }
        let metrics = report::files::metrics(&artifact.location.join("metrics.json"))
            .map_err(|error| damaged(error.to_string(), &stage.name))?;
        let key = manifest.key.to_string();
        Ok(Self { stage: &stage.name, key, model, metrics, location: &artifact.location })
    }

    /// Its answers, as a stream.
    pub(super) fn samples(&self) -> Result<Samples, CliError> {
        Samples::open(self.location).map_err(|error| self.refuse(error))
    }

    /// The metric that answers are judged by.
    pub(super) fn choose(&self, metric: Option<&str>, filter: Option<&str>) -> Result<Choice, CliError> {
        Choice::of(&self.metrics, metric, filter, self.samples()?).map_err(|error| match error {
            ChoiceError::Samples(error) => self.refuse(error),
            other => CliError::Usage(format!("{}: {other}", self.stage)),
        })
    }

    /// An error of its samples.
    pub(super) fn refuse(&self, error: SamplesError) -> CliError {
        refuse(self.stage, error)
    }
}

/// An error of an evaluation's samples.
pub(super) fn refuse(stage: &str, error: SamplesError) -> CliError {
    match error {
        SamplesError::Read { message } => CliError::Failed(message),
        SamplesError::Damaged { message } => damaged(message, stage),
    }
}
