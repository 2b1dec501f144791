//! From experiments to a graph of stages, and from what is known to keys and reasons. No I/O: graph and facts in, keys
//! and words out, so that every rule of what reruns and what does not is tested with plain values.

mod diff;
mod facts;
mod graph;
mod key;
mod shards;
mod stage;
#[cfg(test)]
mod tests;
mod tools;

pub use diff::{changes, differences, distance};
pub use facts::{Artifact, Facts, HUB, Sighting, Source};
pub use graph::{Graph, GraphError};
pub use key::{KeyStruct, Open, key_struct, model_arguments};
pub use shards::{Shard, split};
pub use stage::{CONVERSION, Holds, Kind, Loss, Need, Repository, Spec, Stage, StageId, repository, sources};
pub use tools::{WAY_OUT, tools, untried};
