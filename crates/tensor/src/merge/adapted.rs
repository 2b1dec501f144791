//! A model with an adapter applied, as a model directory: what is one model to every other stage.
//!
//! It is a merge of one model: the same pass over the output, from the file to the file, in which each tile gets the change of
//! its elements in fp32 and is rounded once, to the model's own type.

use std::path::Path;

use indexmap::IndexMap;
use mergelab_wire::{ApplyLoraJob, MergeJob, MergeSource};

use super::elementwise::{Elementwise, Work};
use super::method::Context;
use super::sources::Sources;
use super::{Machine, output, stream};
use crate::checkpoint::{DEFAULT_SHARD_SIZE, Writer};
use crate::failure::Failure;
use crate::lora::Adapter;
use crate::report::Reporter;

/// Applies an adapter and writes the model directory.
///
/// # Errors
/// When the model and the adapter do not fit, or cannot be read, or the work fails.
pub fn run(job: &ApplyLoraJob, out: &Path, machine: Machine, reporter: &Reporter) -> Result<(), Failure> {
    let ApplyLoraJob { name, base, adapter } = job;
    let job = of_one(name, base);
    let mut sources = Sources::open(&job, false)?;
    let adapter = Adapter::open(adapter)?;
    let source = &mut sources.models[0];
    adapter.check(&source.name, &source.checkpoint)?;
    note_another(&adapter, name, reporter);
    let (changed, replaced) = adapter.counts();
    let Machine { device, pool, host, memory } = machine;
    // The factors stay in memory while everything else passes through.
    let memory = memory.map(|memory| memory.saturating_sub(adapter.bytes()));
    source.adapter = Some(adapter);
    let dtype = sources.output_type(&job)?;
    let context = Context { job: &job, sources: &sources, dtype, device, pool, host, memory, reporter };
    let work = sources.names().iter().map(|name| Elementwise::take(&context, name.clone(), Some(0)));
    let work = work.collect::<Result<Vec<_>, _>>()?;
    let work = Work::by_name(Work::on(&sources, work));
    let limits = stream::Limits::new(&context, work.values())?;
    let writer = Writer::model(out, sources.planned(dtype)?, DEFAULT_SHARD_SIZE)?;
    for (path, size, sha256) in stream::run(&context, &writer, &work, limits)? {
        reporter.written(path.strip_prefix(out).unwrap_or(&path), size, &sha256);
    }
    let bytes = writer.finish();
    output::copy(base, (dtype, IndexMap::new()), out)?;
    reporter.fact("tensors", sources.names().len());
    reporter.fact("tensors_changed", changed);
    reporter.fact("tensors_replaced", replaced);
    reporter.fact("weight_bytes", bytes);
    reporter.fact("dtype", dtype.map_or("mixed", crate::dtype::FloatType::name));
    Ok(())
}

/// A merge of one model.
pub(super) fn of_one(name: &str, path: &Path) -> MergeJob {
    MergeJob::new("lora", vec![MergeSource::new(name, path)])
}

/// Says so where an adapter names another model than the one that it is applied to. Somebody's path or a repository is the
/// same by its last part: weights are copied and downloaded, and shapes are held against each other anyway.
fn note_another(adapter: &Adapter, base: &str, reporter: &Reporter) {
    let last = |name: &str| name.trim_end_matches('/').rsplit(['/', '\\']).next().unwrap_or(name).to_ascii_lowercase();
    if let Some(trained_on) = adapter.trained_on().filter(|name| last(name) != last(base)) {
        reporter.note(format!("the adapter says that it was trained on {trained_on}, and is applied to {base}"));
    }
}
