//! RegMean by `mergelab-tensor` and by the script beside this file, on the same models and Gram matrices.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use mergelab_wire::{Alpha, MergeJob, MergeSource};

use crate::{Result, Run, tensor};

/// The script: `make` writes models and Gram matrices, `lstsq` merges them.
pub(crate) fn script(python: &OsStr, what: &str, home: &Path) -> Command {
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/merge/regmean.py")).arg(what).arg(home);
    command
}

/// One merge.
pub(crate) fn mergelab(home: &Path) -> Result<Run> {
    let models = ["a", "b"].map(|name| {
        let grams = Some(home.join(format!("grams-{name}")));
        MergeSource { grams, ..tensor::source(home, name) }
    });
    let job = MergeJob { alpha: Some(Alpha::Number(0.1)), ..MergeJob::new("regmean", models.into()) };
    tensor::merge(home, job, None)
}
