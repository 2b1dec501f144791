//! Merging models of one shape into one model directory.
//!
//! A method turns the tensors that are left to it into *units* of work; rules take single tensors out of its hands. First
//! the linear systems are solved; then one pass over the output ([`stream`]) does everything elementwise and hashes the
//! files. Both read by mmap and write into preallocated shards, so that memory does not grow with depth. What can be wrong
//! with the models is found before the first file is written, but for weights that are not finite.

pub mod adapted;
mod agreement;
mod align;
pub mod alpha;
pub mod arcee_fusion;
pub mod average;
pub mod blocks;
pub mod breadcrumbs;
pub mod consensus_ta;
mod correct;
pub mod dare;
pub mod della;
pub mod elementwise;
pub mod error;
pub mod extracted;
pub mod figures;
pub mod fisher;
mod gradient;
pub mod grams;
pub mod iso_c;
pub mod karcher;
pub mod layers;
pub mod magnitude;
pub mod matrix;
pub mod mats;
pub mod method;
pub mod model_stock;
pub mod multislerp;
pub mod nearswap;
pub mod nuslerp;
pub mod objective;
pub mod output;
mod pair;
pub mod params;
pub mod passthrough;
pub mod ram;
pub mod registry;
pub mod regmean;
pub mod regmean_plus_plus;
mod room;
pub mod rules;
pub mod sce;
pub mod slerp;
pub mod solve;
pub mod sources;
pub mod span;
pub mod sparse;
pub mod stream;
mod sums;
pub mod task_arithmetic;
pub mod ties;
pub mod tsv;
pub mod vectors;
mod vocabulary;
pub mod wudi;

use std::path::Path;

use indexmap::IndexMap;
use mergelab_wire::MergeJob;
use serde_json::json;
use tch::Device;

pub use error::MergeError;

use crate::checkpoint::{DEFAULT_SHARD_SIZE, Writer};
use crate::failure::Failure;
use crate::merge::elementwise::Elementwise;
use crate::merge::method::{Context, Unit};
use crate::merge::rules::Decision;
use crate::merge::sources::Sources;
use crate::parallel::Pool;
use crate::report::Reporter;

/// What a merge may use of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Where the algebra runs.
    pub device: Device,
    /// Workers for the algebra.
    pub pool: Pool,
    /// Workers for what runs on the CPU whatever the device.
    pub host: Pool,
    /// Memory budget in bytes, where one was given.
    pub memory: Option<u64>,
}

/// Runs a merge and writes the model directory.
///
/// # Errors
/// When the models, their Grams or the request do not fit, or the work fails.
pub fn run(job: &MergeJob, out: &Path, machine: Machine, reporter: &Reporter) -> Result<(), Failure> {
    let method = registry::find(&job.method)?;
    method.check(job)?;
    if method.reads_base(job) && job.base.is_none() {
        return Err(MergeError::NoBase(job.method.clone()).into());
    }
    let mut sources = Sources::open(job, method.needs_base())?;
    agreement::check(job, reporter)?;
    let aligned = match &job.alignment {
        Some(how) => align::align(job, how, &mut sources, (out, reporter))?,
        None => None,
    };
    let decisions = rules::decide(job, &sources)?;
    for rule in rules::unused(job, &sources)? {
        reporter.note(format!("rule {rule:?} matches no tensor"));
    }
    sources.settle(&decisions, method.reads_base(job), reporter)?;
    let dtype = sources.output_type(job)?;
    if aligned.is_none() {
        output::check(job, &sources)?;
    }

    // The units first, all of them: a linear layer without a Gram must not be found halfway.
    let Machine { device, pool, host, memory } = machine;
    let context = Context { job, sources: &sources, dtype, device, pool, host, memory, reporter };
    let mut streamed: Vec<Elementwise> = Vec::new();
    let mut own = Vec::new();
    for (name, decision) in decisions {
        match decision {
            Decision::Own { alpha } => own.push((name, alpha)),
            Decision::Average => streamed.push(Elementwise::average(&context, name)?),
            Decision::Take(source) => streamed.push(Elementwise::take(&context, name, Some(source))?),
            Decision::Base => streamed.push(Elementwise::take(&context, name, None)?),
        }
    }
    let (mut groups, mut blocks, mut matrices) = (Vec::new(), Vec::new(), Vec::new());
    for unit in method.units(&context, own)? {
        match unit {
            Unit::Average(name) => streamed.push(Elementwise::average(&context, name)?),
            Unit::Elementwise(work) => streamed.push(work),
            Unit::Regmean(group) => groups.push(group),
            Unit::Blocks(work) => blocks.push(work),
            Unit::Matrix(work) => matrices.push(work),
        }
    }
    let limits = stream::Limits::new(&context, &streamed)?;
    room::check(&context, &groups)?;

    let shard_size = job.shard_size.map_or(DEFAULT_SHARD_SIZE, |size| size as usize);
    let writer = Writer::model(out, sources.planned(dtype)?, shard_size)?;
    matrix::run(&context, &writer, &matrices)?;
    let choice = alpha::choose(&context, &mut groups)?;
    let total = groups.len();
    let mut layers = Vec::new();
    for (done, group) in groups.into_iter().enumerate() {
        reporter.progress(done, total, "systems");
        layers.extend(group.run(&context, &writer)?);
    }
    let mut streamed: IndexMap<String, Elementwise> =
        streamed.into_iter().map(|work| (work.tensor.clone(), work)).collect();
    for work in blocks {
        layers.extend(work.run(&context, &writer, &mut streamed, out)?);
    }
    for (path, size, sha256) in stream::run(&context, &writer, &streamed, limits)? {
        reporter.written(path.strip_prefix(out).unwrap_or(&path), size, &sha256);
    }
    elementwise::report(&context, streamed.values())?;
    let bytes = writer.finish();
    figures::write(out, &layers)?;
    figures::facts(&layers, reporter);
    if let Some(choice) = &choice {
        choice.report(out, reporter)?;
    }
    output::write(job, &sources, (dtype, aligned.as_ref()), out)?;
    reporter.fact("tensors", json!(sources.names().len()));
    reporter.fact("weight_bytes", json!(bytes));
    reporter.fact("dtype", dtype.map_or("mixed", crate::dtype::FloatType::name));
    Ok(())
}
