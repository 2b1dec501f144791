//! The nodes of the picture of the graph: stages that differ in nothing worth a node of their own stand together, the
//! more of them the larger the experiment.

use std::collections::HashMap;

use indexmap::IndexSet;

use super::Inputs;
use crate::plan::{Spec, Stage, StageId};

/// Nodes that can be looked at side by side.
const MOST: usize = 48;

/// How much stands together.
#[derive(Clone, Copy)]
enum Detail {
    /// A model's evaluations of one suite, and the shards of a capture.
    Models,
    /// Also what was swept.
    Entries,
    /// All evaluations of a suite.
    Suites,
}

/// The node of each stage of the experiment, by name.
pub(super) fn groups(inputs: &Inputs<'_>) -> HashMap<StageId, String> {
    let of = |detail| -> HashMap<StageId, String> {
        let stages = inputs.graph.iter().filter(|(_, stage)| stage.experiment == inputs.experiment);
        stages.map(|(id, stage)| (id, group_of(inputs, stage, detail))).collect()
    };
    let few = |groups: &HashMap<StageId, String>| groups.values().collect::<IndexSet<_>>().len() <= MOST;
    let details = [Detail::Models, Detail::Entries].into_iter().map(of);
    details.into_iter().find(few).unwrap_or_else(|| of(Detail::Suites))
}

fn group_of(inputs: &Inputs<'_>, stage: &Stage, detail: Detail) -> String {
    let suite = || format!("{}.{}", stage.entry.0, stage.entry.1);
    match (&stage.spec, detail) {
        (Spec::Eval { .. } | Spec::Loss(_), Detail::Suites) => suite(),
        (Spec::Eval { .. } | Spec::Loss(_), _) => {
            let model = stage.need("model").map(|id| named(inputs, inputs.graph.stage(id), detail));
            let model = model.as_deref().and_then(|model| model.split_once('.'));
            format!("{}/{}", suite(), model.map_or("", |(_, name)| name))
        }
        _ => named(inputs, stage, detail),
    }
}

/// The name of a stage without its shard; with less detail, of the entry that it is an expansion of.
fn named(inputs: &Inputs<'_>, stage: &Stage, detail: Detail) -> String {
    let whole = match &stage.spec {
        Spec::Gram { shard: Some(_), .. } => stage.name.rsplit_once("/shard-").map_or(&*stage.name, |(whole, _)| whole),
        _ => &stage.name,
    };
    match (detail, inputs.loaded.expansion(whole)) {
        (Detail::Models, _) | (_, None) => whole.to_owned(),
        (_, Some(expansion)) => format!("{}.{}", stage.entry.0, expansion.entry),
    }
}
