//! Merges by `mergelab-tensor` alone.

use std::fs;
use std::path::Path;
use std::process::Command;

use mergelab_wire::{Job, MergeJob, MergeSource, StageFile, VERSION};

use crate::{Result, Run, beside, timed};

/// A model of a merge.
pub(crate) fn source(home: &Path, name: &str) -> MergeSource {
    MergeSource::new(name, &home.join(name))
}

/// One merge, in a directory of its own, within a memory budget in bytes where there is one.
pub(crate) fn merge(home: &Path, job: MergeJob, memory: Option<u64>) -> Result<Run> {
    let run = home.join("run");
    let _ = fs::remove_dir_all(&run);
    let at = |name: &str| run.join(name);
    fs::create_dir_all(at("out"))?;
    fs::create_dir(at("partial"))?;
    let stage = StageFile {
        wire: VERSION,
        stage: "merges.bench".to_owned(),
        out: at("out"),
        partial: at("partial"),
        events: at("events.jsonl"),
        device: "cpu".to_owned(),
        threads: std::thread::available_parallelism()?.get(),
        memory,
        job: Job::Merge(job),
    };
    fs::write(at("stage.json"), serde_json::to_vec(&stage)?)?;
    let mut command = Command::new(beside("mergelab-tensor")?);
    command.arg(at("stage.json"));
    timed(command)
}
