//! Every method that goes element by element, beside the average of the same models.

use std::path::Path;

use mergelab_wire::MergeJob;
use serde_json::json;

use crate::{Result, Runs, models, row, tensor};

/// Memory that each of them may take.
const MEMORY: u64 = 512 << 20;

/// A method on a base and other models.
struct Entry {
    method: &'static str,
    models: &'static [&'static str],
    base: Option<&'static str>,
    params: &'static [(&'static str, f64)],
}

const fn on_base(method: &'static str, params: &'static [(&'static str, f64)]) -> Entry {
    Entry { method, models: &["a", "b"], base: Some("base"), params }
}

const fn on_one(method: &'static str, params: &'static [(&'static str, f64)]) -> Entry {
    Entry { method, models: &["a"], base: Some("base"), params }
}

/// By the models that they read: three, two, one.
const GROUPS: [(&[&str], &[Entry]); 3] = [
    (
        &["base", "a", "b"],
        &[
            on_base("task_arithmetic", &[]),
            on_base("ties", &[("density", 0.5)]),
            on_base("dare_linear", &[("density", 0.5)]),
            on_base("dare_ties", &[("density", 0.5)]),
            on_base("della", &[("density", 0.5), ("epsilon", 0.1)]),
            on_base("della_linear", &[("density", 0.5), ("epsilon", 0.1)]),
            on_base("breadcrumbs", &[("density", 0.5), ("gamma", 0.1)]),
            on_base("breadcrumbs_ties", &[("density", 0.5), ("gamma", 0.1)]),
            on_base("model_stock", &[]),
            on_base("sce", &[("select_topk", 0.5)]),
            on_base("ram", &[]),
            on_base("ramplus_tl", &[]),
            on_base("consensus_ta", &[]),
        ],
    ),
    (
        &["base", "a"],
        &[
            on_one("slerp", &[("t", 0.5)]),
            on_one("nearswap", &[("t", 0.001)]),
            on_one("arcee_fusion", &[]),
            Entry { method: "nuslerp", models: &["base", "a"], base: None, params: &[] },
            Entry { method: "multislerp", models: &["base", "a"], base: None, params: &[] },
            Entry { method: "karcher", models: &["base", "a"], base: None, params: &[] },
        ],
    ),
    (&["a"], &[Entry { method: "passthrough", models: &["a"], base: None, params: &[] }]),
];

/// Measures all of them on models of so many billions of weights.
pub(crate) fn all(home: &Path, billions: f64) -> Result<()> {
    eprintln!("making three models of {billions}B");
    for (number, name) in ["base", "a", "b"].into_iter().enumerate() {
        models::write(&home.join(name), billions, number as u64 + 1)?;
    }
    for (read, entries) in GROUPS {
        let sources = read.iter().map(|name| tensor::source(home, name)).collect();
        let average = MergeJob::new("average", sources);
        let average = Runs::of(|| tensor::merge(home, average.clone(), Some(MEMORY)))?;
        row(&format!("{billions}B bf16, {} read: average", read.len()), &average, &average);
        for entry in entries {
            let job = entry.job(home);
            let runs = Runs::of(|| tensor::merge(home, job.clone(), Some(MEMORY)))?;
            row(&format!("    {}", entry.method), &runs, &average);
        }
    }
    Ok(())
}

impl Entry {
    fn job(&self, home: &Path) -> MergeJob {
        let params = self.params.iter().map(|(name, value)| ((*name).to_owned(), json!(value)));
        MergeJob {
            base: self.base.map(|base| tensor::source(home, base)),
            params: params.collect(),
            ..MergeJob::new(self.method, self.models.iter().map(|name| tensor::source(home, name)).collect())
        }
    }
}
