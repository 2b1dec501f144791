//! The `mergelab` command.

fn main() {}
