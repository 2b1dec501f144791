//! RegMean by `mergelab-tensor` and by the script beside this file, on the same models and Gram matrices.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use mergelab_wire::{Alpha, Job, MergeJob, MergeSource, StageFile, VERSION};

use crate::{Result, Run, beside, timed};

/// The script: `make` writes models and Gram matrices, `lstsq` merges them.
pub(crate) fn script(python: &OsStr, what: &str, home: &Path) -> Command {
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/merge/regmean.py")).arg(what).arg(home);
    command
}

/// One merge.
pub(crate) fn mergelab(home: &Path) -> Result<Run> {
    let run = home.join("run");
    let _ = fs::remove_dir_all(&run);
    let at = |name: &str| run.join(name);
    fs::create_dir_all(at("out"))?;
    fs::create_dir(at("partial"))?;
    let source = |name: &str| MergeSource {
        grams: Some(home.join(format!("grams-{name}"))),
        ..MergeSource::new(name, &home.join(name))
    };
    let job = MergeJob { alpha: Some(Alpha::Number(0.1)), ..MergeJob::new("regmean", vec![source("a"), source("b")]) };
    let stage = StageFile {
        wire: VERSION,
        stage: "merges.bench".to_owned(),
        out: at("out"),
        partial: at("partial"),
        events: at("events.jsonl"),
        device: "cpu".to_owned(),
        threads: std::thread::available_parallelism()?.get(),
        memory: None,
        job: Job::Merge(job),
    };
    fs::write(at("stage.json"), serde_json::to_vec(&stage)?)?;
    let mut command = Command::new(beside("mergelab-tensor")?);
    command.arg(at("stage.json"));
    timed(command)
}
