//! Capture, layer by layer: every sequence through one layer, its four Grams out, on to the next.
//!
//! Resident at a time: the weights of one layer and, while it computes, of the next; one layer's Grams; a wave of chunks with
//! their inputs; and the hidden states of all tokens, which go to a file where they are more than memory is to hold. How
//! sequences run through a layer is in [`super::flow`].

use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use mergelab_wire::{Engine, GramJob};
use tch::Device;

use super::add;
use super::error::GramError;
use super::flow::{Flow, Source, States};
use super::output::{Finished, Output};
use crate::checkpoint::Checkpoint;
use crate::dtype::{FloatType, UnknownDtype};
use crate::failure::Failure;
use crate::model::{Decoder, DecoderConfig, Input, walk};
use crate::parallel::Pool;
use crate::report::Reporter;
use crate::text::{self, Sequence, TextSpec};

/// What a capture may use.
#[derive(Clone, Copy, Debug)]
pub struct Means<'a> {
    /// Where to compute.
    pub device: Device,
    /// On how many threads.
    pub pool: Pool,
    /// Memory budget in bytes; half of what the machine has free goes to hidden states where there is none.
    pub memory: Option<u64>,
    /// Where to say what happens.
    pub reporter: &'a Reporter,
}

/// Runs a capture and writes the artifact into the empty directory `out`.
///
/// # Errors
/// When the model, the data or the request is wrong, or the work fails.
pub fn run(job: &GramJob, out: &Path, means: Means<'_>) -> Result<(), Failure> {
    if job.engine == Engine::Transformers {
        return Err(GramError::Engine.into());
    }
    let reporter = means.reporter;
    let config = DecoderConfig::read(&job.model)?;
    let checkpoint = Checkpoint::open(&job.model)?;
    let dtype = forward_type(job, &checkpoint, &config)?;
    let exclude = globs(&job.exclude)?;
    let decoder = Decoder::new(&checkpoint, &config, dtype, means.device);
    let spec = TextSpec::of(job);
    let sequences = text::sequences(&spec, reporter)?;
    if sequences.is_empty() {
        return Ok(add::write_empty(out)?);
    }
    reporter.fact("engine", "native");
    reporter.fact("family", config.family.as_str());
    reporter.fact("forward_dtype", dtype.name());
    Capture { decoder: &decoder, data: spec.shown, exclude: &exclude, means }.run(sequences, out)?;
    Ok(())
}

/// The type of a capture's forward pass: the one that is stated, or the checkpoint's.
///
/// # Errors
/// When the stated one is not known.
pub(crate) fn forward_type(
    job: &GramJob,
    checkpoint: &Checkpoint,
    config: &DecoderConfig,
) -> Result<FloatType, UnknownDtype> {
    let stated = job.dtype.as_deref().map(FloatType::parse).transpose()?;
    let stored = checkpoint.names().find_map(|name| FloatType::of_header(checkpoint.info(name).ok()?.dtype));
    Ok(stated.or(stored).or(config.dtype).unwrap_or(FloatType::Float32))
}

/// Globs on module names; `*` also matches dots.
///
/// # Errors
/// When one is no glob.
pub(crate) fn globs(patterns: &[String]) -> Result<GlobSet, GramError> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(GlobBuilder::new(pattern).literal_separator(false).build()?);
    }
    Ok(set.build()?)
}

/// An input of a layer that a Gram is kept of, with the modules that are not excluded.
type Wanted = (Input, Vec<String>);

struct Capture<'a> {
    decoder: &'a Decoder<'a>,
    /// The data file, for messages.
    data: &'a Path,
    exclude: &'a GlobSet,
    means: Means<'a>,
}

impl Capture<'_> {
    fn run(&self, sequences: Vec<Sequence>, out: &Path) -> Result<(), GramError> {
        let (config, reporter) = (self.decoder.config(), self.means.reporter);
        let wanted: Vec<Vec<Wanted>> = (0..config.layers).map(|layer| self.wanted(layer)).collect();
        let head = self.decoder.head().filter(|head| !self.exclude.is_match(head));
        if head.is_none() && wanted.iter().all(Vec::is_empty) {
            return Err(GramError::NothingLeft);
        }
        // Without a head and past the last layer with a wanted Gram, nothing more needs to run.
        let last = wanted.iter().rposition(|wanted| !wanted.is_empty());
        let needed = if head.is_some() { config.layers } else { last.map_or(0, |last| last + 1) };
        let total = needed + usize::from(head.is_some());
        reporter.progress(0, total, "layers");
        let source = Source { decoder: self.decoder, data: self.data, means: self.means, spill: out, sharers: 1 };
        let flow = Flow::new(&source, sequences)?;
        let rope = self.decoder.rope(flow.longest()).map_err(GramError::torch("rotary embedding"))?;
        let mut output = Output::new(out);

        let mut wanted = wanted.into_iter();
        walk(self.decoder, needed, |index, layer| {
            let wanted = wanted.next().expect("each layer has its inputs");
            let inputs: Vec<Input> = wanted.iter().map(|(input, _)| *input).collect();
            let sums = flow.through(&layer, &inputs, &rope, States::Move, &format!("layer {index}"))?;
            drop(layer);
            let finish = |((input, modules), sum): (Wanted, _)| Finished::of(input, modules, sum);
            let grams = wanted.into_iter().zip(sums).map(finish).collect();
            output.write(&format!("layer-{index:05}.safetensors"), grams, self.means.pool)?;
            reporter.progress(index + 1, total, "layers");
            Ok::<_, GramError>(())
        })?;
        if let Some(head) = head {
            let sum = flow.head(&self.decoder.final_norm()?)?;
            let gram = Finished { name: head.to_owned(), modules: vec![head.to_owned()], sum };
            output.write("lm_head.safetensors", vec![gram], self.means.pool)?;
            reporter.progress(total, total, "layers");
        }
        output.finish(reporter)
    }

    /// The inputs of a layer that a Gram is kept of.
    fn wanted(&self, layer: usize) -> Vec<Wanted> {
        let named = |input: Input| {
            let names = input.modules().iter().map(|module| self.decoder.module(layer, module));
            (input, names.filter(|name| !self.exclude.is_match(name)).collect::<Vec<_>>())
        };
        Input::ALL.into_iter().map(named).filter(|(_, names)| !names.is_empty()).collect()
    }
}
