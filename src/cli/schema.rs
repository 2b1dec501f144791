//! `mergelab schema`.

use super::output;
use crate::experiment::schema;

/// Prints the JSON Schema of experiment files.
pub(super) fn run() -> u8 {
    output::print_json(&schema());
    mergelab_wire::exit::DONE
}
