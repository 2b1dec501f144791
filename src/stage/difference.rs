//! How two models differ: both go to the tensor program, and what it found comes back.

use std::path::Path;

use mergelab_wire::{DIFFERENCE, DIFFERENCE_FORMAT, DiffJob, DiffSide, Difference, Event, Job as Work};

use super::{Context, Failure, tensor};

/// Compares two models. `scratch` holds what the program needs meanwhile.
///
/// # Errors
/// When the program fails, in words, or a model cannot be read.
pub fn compare(
    context: &Context<'_>,
    sides: [DiffSide; 2],
    scratch: &Path,
    on_event: &mut dyn FnMut(Event),
) -> Result<Difference, Failure> {
    let name = sides.each_ref().map(|side| side.name.as_str()).join(" against ");
    let out = scratch.join("out");
    let failed = |what: &str, path: &Path, error: std::io::Error| {
        Failure::stage(format!("cannot {what} {}: {error}", path.display()))
    };
    std::fs::create_dir(&out).map_err(|error| failed("create", &out, error))?;
    tensor::run_alone(context, &name, (scratch, &out), Work::Diff(DiffJob { sides }), on_event)?;
    let path = out.join(DIFFERENCE);
    let text = std::fs::read(&path).map_err(|error| failed("read", &path, error))?;
    let found: Difference = serde_json::from_slice(&text)
        .map_err(|error| Failure::stage(format!("{}: mergelab-tensor wrote no such file: {error}", path.display())))?;
    if found.format == DIFFERENCE_FORMAT {
        return Ok(found);
    }
    let message =
        format!("mergelab-tensor writes form {} of {DIFFERENCE}, this program reads {DIFFERENCE_FORMAT}", found.format);
    Err(Failure::stage(message).hint("mergelab and mergelab-tensor must be of one build"))
}
