//! Merging models of one shape into one model directory.
//!
//! A method turns the tensors that are left to it into *units* of work; rules take single tensors out of its hands. Units
//! run in parallel, read what they need by mmap and write into sized shards, so that memory does not grow with depth.
//! Everything that can be wrong with the models is found before the first file is written.

mod agreement;
pub mod average;
pub mod elementwise;
pub mod error;
pub mod figures;
pub mod layers;
pub mod method;
pub mod objective;
pub mod output;
pub mod registry;
pub mod regmean;
pub mod rules;
pub mod solve;
pub mod sources;

use std::path::Path;

use mergelab_wire::MergeJob;
use serde_json::json;
use tch::Device;

pub use error::MergeError;

use crate::checkpoint::{DEFAULT_SHARD_SIZE, Writer};
use crate::failure::Failure;
use crate::merge::method::{Context, Unit};
use crate::merge::rules::Decision;
use crate::merge::sources::Sources;
use crate::parallel::Pool;
use crate::report::Reporter;

/// Runs a merge and writes the model directory.
///
/// # Errors
/// When the models, their Grams or the request do not fit, or the work fails.
pub fn run(job: &MergeJob, out: &Path, device: Device, pool: Pool, reporter: &Reporter) -> Result<(), Failure> {
    let method = registry::find(&job.method)?;
    method.check(job)?;
    let sources = Sources::open(job)?;
    agreement::check(job, reporter)?;
    let decisions = rules::decide(job, &sources)?;
    for rule in rules::unused(job, &sources)? {
        reporter.note(format!("rule {rule:?} matches no tensor"));
    }
    let dtype = sources.output_type(job)?;
    output::check(job, &sources)?;

    // The units first, all of them: a linear layer without a Gram must not be found halfway.
    let context = Context { job, sources: &sources, dtype, device, pool, reporter };
    let mut units: Vec<Unit> = Vec::new();
    let mut own = Vec::new();
    for (name, decision) in decisions {
        match decision {
            Decision::Own { alpha } => own.push((name, alpha)),
            Decision::Average => units.push(Unit::Average(name)),
            Decision::Take(source) => units.push(Unit::Take(name, source)),
            Decision::Base => units.push(Unit::Base(name)),
        }
    }
    units.extend(method.units(&context, own)?);

    let writer = Writer::model(out, sources.planned(dtype), DEFAULT_SHARD_SIZE)?;
    let total = units.len();
    let mut layers = Vec::new();
    reporter.progress(0, total, "steps");
    for (done, unit) in units.into_iter().enumerate() {
        layers.extend(unit.run(&context, &writer)?);
        reporter.progress(done + 1, total, "steps");
    }
    let bytes = writer.finish();
    figures::write(out, &layers)?;
    figures::facts(&layers, reporter);
    output::write(job, &sources, dtype, out)?;
    reporter.fact("tensors", json!(sources.names().len()));
    reporter.fact("weight_bytes", json!(bytes));
    reporter.fact("dtype", dtype.map_or("mixed", crate::dtype::FloatType::name));
    Ok(())
}
