//! Programs of ours in Python: part of this program, so that they work outside a checkout, and written out to be started.

use std::fs::File;
use std::path::Path;

use serde_json::Value;

use super::{Context, Failure, Job, Program};

/// A program in Python.
pub(super) struct Script {
    /// What it is for, as in "no Python for …".
    pub(super) purpose: &'static str,
    /// Paths, from one folder, and texts of its files; the first is started, and finds the others from there.
    pub(super) files: &'static [(&'static str, &'static str)],
}

impl Script {
    /// The program, ready to be started on a job that is made with the file for its events. Both lie in the scratch
    /// directory of the stage, or of the first of a batch.
    pub(super) fn program<'a>(
        &self,
        context: &Context<'_>,
        job: &Job<'_>,
        locks: Vec<&'a File>,
        value: impl FnOnce(&Path) -> Value,
    ) -> Result<Program<'a>, Failure> {
        let Some(python) = context.python else {
            return Err(Failure::stage(format!("no Python for {}", self.purpose))
                .hint("`make setup` fills .venv; or name one under `[python] path` in mergelab.toml"));
        };
        let at = |name: &str| job.scratch.join(name);
        let (job_file, events) = (at("job.json"), at("events.jsonl"));
        let value = value(&events);
        let written = self
            .files
            .iter()
            .try_for_each(|(name, text)| {
                std::fs::create_dir_all(at(name).parent().unwrap_or(&job.scratch))?;
                std::fs::write(at(name), text)
            })
            .and_then(|()| std::fs::write(&job_file, serde_json::to_vec_pretty(&value)?));
        written.map_err(|error| Failure::stage(format!("cannot write {}: {error}", job.scratch.display())))?;
        let mut environment: Vec<_> = job.visible_gpus().into_iter().collect();
        environment
            .extend([("OMP_WAIT_POLICY".into(), "PASSIVE".into()), ("PYTHONDONTWRITEBYTECODE".into(), "1".into())]);
        Ok(Program {
            program: (&python.executable).into(),
            arguments: vec!["-u".into(), at(self.files[0].0).into(), job_file.into()],
            directory: context.project.root.clone(),
            environment,
            unset: vec!["PYTHONPATH".into(), "PYTHONHOME".into()],
            locks,
            log: job.log.clone(),
            events: Some(events),
            timeout: None,
            stalled_after: None,
        })
    }
}
