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
mod filters;
pub mod fisher;
mod gradient;
pub mod grams;
mod growth;
pub mod iso_c;
pub mod karcher;
mod layered;
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
pub mod slices;
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
use crate::dtype::FloatType;
use crate::failure::Failure;
use crate::merge::blocks::Blocks;
use crate::merge::elementwise::{Elementwise, Work};
use crate::merge::matrix::Matrix;
use crate::merge::method::{Context, Method, Unit};
use crate::merge::rules::Decision;
use crate::merge::slices::Part;
use crate::merge::solve::Group;
use crate::merge::sources::{HEAD, Sources};
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
    let parts = slices::parts(job)?;
    for part in &parts {
        method.check(&part.job)?;
        if method.reads_base(&part.job) && part.job.base.is_none() {
            return Err(MergeError::NoBase(job.method.clone()).into());
        }
    }
    let open = |part: &Part| Sources::of_part(&part.job, method.takes_any_weight(), part.slice.as_ref());
    let sources = parts.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    agreement::check(job, reporter)?;
    let aligned = align::align(job, out, reporter)?;
    let mut opened = Vec::with_capacity(parts.len());
    for (Part { job, .. }, mut sources) in parts.iter().zip(sources) {
        if let Some(aligned) = &aligned {
            aligned.apply(&mut sources)?;
        }
        let decisions = rules::decide(job, &sources)?;
        for rule in rules::unused(job, &sources)? {
            reporter.note(format!("rule {rule:?} matches no tensor"));
        }
        sources.settle(&decisions, method.reads_base(job), reporter)?;
        if aligned.is_none() {
            output::check(job, &sources)?;
        }
        opened.push((job, sources, decisions));
    }
    for filter in filters::unused(opened.iter().map(|(job, sources, _)| (*job, sources))) {
        reporter.note(format!("{filter} matches no tensor"));
    }
    let vocabulary = aligned.map(align::Aligned::into_vocabulary);
    let dtype = output_type(&opened)?;
    let mut planned = Vec::new();
    for (_, sources, _) in &opened {
        planned.extend(sources.planned(dtype)?);
    }
    layered::check_head(job, planned.iter().any(|tensor| tensor.name == HEAD))?;
    let tensors = planned.len();

    // The units first, all of them: a linear layer without a Gram must not be found halfway.
    let Machine { device, pool, host, memory } = machine;
    let context_of = |job, sources| Context { job, sources, dtype, device, pool, host, memory, reporter };
    let mut streamed = Vec::new();
    let mut solved = Vec::new();
    for (job, sources, decisions) in &opened {
        let context = context_of(job, sources);
        let (work, units) = units(method, &context, decisions)?;
        streamed.extend(Work::on(sources, work));
        solved.push((context, units));
    }
    let whole = solved[0].0;
    let limits = stream::Limits::new(&whole, streamed.iter())?;
    for (context, units) in &solved {
        room::check(context, &units.groups)?;
    }

    let shard_size = job.shard_size.map_or(DEFAULT_SHARD_SIZE, |size| size as usize);
    let writer = Writer::model(out, planned, shard_size)?;
    let mut streamed = Work::by_name(streamed);
    let (mut layers, mut choice) = (Vec::new(), None);
    for (context, units) in solved {
        let Solved { mut groups, blocks, matrices } = units;
        matrix::run(&context, &writer, &matrices)?;
        choice = choice.or(alpha::choose(&context, &mut groups)?);
        let total = groups.len();
        for (done, group) in groups.into_iter().enumerate() {
            reporter.progress(done, total, "systems");
            layers.extend(group.run(&context, &writer)?);
        }
        for work in blocks {
            layers.extend(work.run(&context, &writer, &mut streamed, out)?);
        }
    }
    let written = stream::run(&whole, &writer, &streamed, limits)
        .map_err(|error| growth::explained(error, opened.iter().map(|(job, ..)| *job)))?;
    for (path, size, sha256) in written {
        reporter.written(path.strip_prefix(out).unwrap_or(&path), size, &sha256);
    }
    elementwise::report(&whole, streamed.values())?;
    let bytes = writer.finish();
    figures::write(out, &layers)?;
    figures::facts(&layers, reporter);
    if let Some(choice) = &choice {
        choice.report(out, reporter)?;
    }
    output::write(job, tensors, (dtype, vocabulary.as_ref()), out)?;
    reporter.fact("tensors", json!(tensors));
    reporter.fact("weight_bytes", json!(bytes));
    reporter.fact("dtype", dtype.map_or("mixed", crate::dtype::FloatType::name));
    Ok(())
}

/// A part of the result with its models open, and what becomes of each of their tensors.
type Opened<'a> = (&'a MergeJob, Sources, IndexMap<String, Decision>);

/// The type of all parts of the result; `None` if they have several.
fn output_type(parts: &[Opened<'_>]) -> Result<Option<FloatType>, MergeError> {
    let types = parts.iter().map(|(job, sources, _)| sources.output_type(job));
    let types = types.collect::<Result<Vec<_>, _>>()?;
    Ok(types[0].filter(|first| types.iter().all(|other| *other == Some(*first))))
}

/// What is made before the pass over the output.
#[derive(Default)]
struct Solved {
    groups: Vec<Group>,
    blocks: Vec<Blocks>,
    matrices: Vec<Matrix>,
}

/// The work that a part of the result is.
fn units(
    method: &dyn Method,
    context: &Context<'_>,
    decisions: &IndexMap<String, Decision>,
) -> Result<(Vec<Elementwise>, Solved), MergeError> {
    let (mut streamed, mut solved) = (Vec::new(), Solved::default());
    let mut own = Vec::new();
    for (name, decision) in decisions {
        let name = name.clone();
        match decision {
            Decision::Own { alpha } => own.push((name, *alpha)),
            Decision::Average => streamed.push(Elementwise::average(context, name)?),
            Decision::Take(source) => streamed.push(Elementwise::take(context, name, Some(*source))?),
            Decision::Base => streamed.push(Elementwise::take(context, name, None)?),
        }
    }
    for unit in method.units(context, own)? {
        match unit {
            Unit::Average(name) => streamed.push(Elementwise::average(context, name)?),
            Unit::Elementwise(work) => streamed.push(work),
            Unit::Regmean(group) => solved.groups.push(group),
            Unit::Blocks(work) => solved.blocks.push(*work),
            Unit::Matrix(work) => solved.matrices.push(work),
        }
    }
    Ok((streamed, solved))
}
