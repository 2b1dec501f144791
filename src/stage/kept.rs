//! Results that a tripwire held back: they took a model's time, and their author may come to accept them.
//!
//! They lie in the stage's partial directory, `evaluation/` with the files of a result and `facts.json` beside it, until
//! the stage is done.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::Job;

/// Every result that was held back has it.
const WARNINGS: &str = "warnings.json";

fn folder(job: &Job<'_>) -> PathBuf {
    job.partial.join("evaluation")
}

fn facts_file(job: &Job<'_>) -> PathBuf {
    job.partial.join("facts.json")
}

/// Where the result of an earlier run is kept, if it is.
pub(super) fn place(job: &Job<'_>) -> Option<PathBuf> {
    let folder = folder(job);
    (folder.join(WARNINGS).is_file() && facts_file(job).is_file()).then_some(folder)
}

/// What was known of the run that the kept result is of.
pub(super) fn facts(job: &Job<'_>) -> Option<Map<String, Value>> {
    place(job)?;
    serde_json::from_slice(&std::fs::read(facts_file(job)).ok()?).ok()
}

/// Keeps what a failed item has written, if it has; says where. A result that cannot be kept costs time only.
pub(super) fn keep(job: &Job<'_>, written: &Path, facts: &Map<String, Value>) -> Option<String> {
    if place(job).is_none() {
        if !written.join(WARNINGS).is_file() {
            return None;
        }
        std::fs::create_dir_all(&job.partial).ok()?;
        // The result comes last: only with it is the rest looked at.
        std::fs::write(facts_file(job), serde_json::to_vec(facts).ok()?).ok()?;
        let _ = std::fs::remove_dir_all(folder(job));
        std::fs::rename(written, folder(job)).ok()?;
    }
    let folder = folder(job);
    Some(format!("its answers are in {}; accepting them runs no model again", folder.display()))
}
