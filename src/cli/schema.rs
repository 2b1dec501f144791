//! `mergelab schema`.

use super::{CliError, output};
use crate::experiment::schema;

/// Prints the JSON Schema of experiment files.
pub(super) fn run() -> Result<u8, CliError> {
    output::print_json(&schema());
    Ok(mergelab_wire::exit::DONE)
}
