//! RegMean block by block, from the embedding up, on activations that flow through the merged model.
//!
//! Every model's sequences start from the merged embedding. Per block: each model's own block runs on its states, which stay
//! where they are, and its inputs' Grams are taken; the block's linear layers are solved and what else it has is made; then
//! all states move through the merged block. The merged block is the one that was written, rounded to the output type:
//! later layers are fitted to the model that will exist. The merged final norm gives the Grams of `lm_head`.
//!
//! Resident at a time: one layer of one model, the hidden states of all models, and, in a scratch directory, the Grams of
//! one block.

use std::path::Path;

use globset::GlobSet;
use indexmap::IndexMap;
use mergelab_wire::{GramJob, NATIVE_FAMILIES};
use serde_json::json;

use super::elementwise::Work;
use super::error::MergeError;
use super::figures::LayerFigures;
use super::grams::Grams;
use super::layers::depth;
use super::method::{Context, Unit};
use super::regmean;
use super::room;
use super::rules::AlphaRule;
use super::stream;
use crate::checkpoint::Writer;
use crate::dtype::FloatType;
use crate::failure::FileError;
use crate::gram::GramError;
use crate::gram::accumulate::Accumulator;
use crate::gram::capture::{Means, forward_type, globs};
use crate::gram::flow::{Flow, Source, States};
use crate::gram::output::{Finished, Output};
use crate::model::{ConfigError, Decoder, DecoderConfig, Input, Rope};
use crate::report::Reporter;
use crate::text::{self, TextSpec};

/// The output projection, which is in no block.
const HEAD: &str = "lm_head";

/// How a model of the merge runs by itself.
#[derive(Debug)]
struct Own {
    config: DecoderConfig,
    dtype: FloatType,
}

/// Linear layers that are solved together, for they stand in one block.
#[derive(Debug, Default)]
struct Block {
    /// The inputs whose Grams are taken, with the modules that read them.
    inputs: IndexMap<&'static str, (Input, Vec<String>)>,
    /// Weights to solve, each with its α.
    tensors: Vec<(String, Option<AlphaRule>)>,
}

/// The work of RegMean++ on a whole model.
#[derive(Debug)]
pub struct Blocks {
    /// Of the merged model.
    config: DecoderConfig,
    /// Of each model of the merge.
    own: Vec<Own>,
    /// One per decoder layer.
    layers: Vec<Block>,
    /// The output projection, where it is solved.
    head: Option<(String, Option<AlphaRule>)>,
    /// Bytes that the widest system takes at the least.
    least: u64,
}

impl Blocks {
    /// Sorts the weights that are to be solved into blocks.
    ///
    /// # Errors
    /// When a model is of a family without a native forward pass, or a weight is none whose input a capture sees.
    pub fn plan(context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Self, MergeError> {
        let job = context.job;
        let refuse = |reason: String, hint| MergeError::Request { method: job.method.clone(), reason, hint };
        let captures = captures(context);
        let config = config(context, &job.tokenizer, "the config of the merge")?;
        let mut own = Vec::new();
        let mut excluded: Vec<GlobSet> = Vec::new();
        for ((source, model), capture) in context.sources.models.iter().zip(&job.models).zip(&captures) {
            let theirs = self::config(context, &model.path, &format!("model {}", source.name))?;
            if theirs.layers != config.layers {
                let (name, count) = (&source.name, theirs.layers);
                let reason = format!("model {name} has {count} layers, and the config of the merge {}", config.layers);
                return Err(refuse(reason, "only models of one architecture and size can be merged"));
            }
            let dtype = forward_type(capture, &source.checkpoint, &theirs)?;
            own.push(Own { config: theirs, dtype });
            excluded.push(globs(&capture.exclude).map_err(MergeError::capture(&source.name))?);
        }
        let first = &context.sources.models[0].checkpoint;
        let decoder = Decoder::new(first, &config, FloatType::Float32, context.device);
        let mut places = IndexMap::new();
        for layer in 0..config.layers {
            for input in Input::ALL {
                for module in input.modules() {
                    places.insert(decoder.module(layer, module), (layer, input));
                }
            }
        }
        let solved: Vec<String> = tensors.iter().map(|(name, _)| name.clone()).collect();
        let mut layers: Vec<Block> = (0..config.layers).map(|_| Block::default()).collect();
        let mut head = None;
        for (name, rule) in tensors {
            let module = name.strip_suffix(".weight").unwrap_or(&name).to_owned();
            if let Some(at) = excluded.iter().position(|globs| globs.is_match(&module)) {
                let model = &context.sources.models[at].name;
                let reason = format!("{name} is a linear layer, and the capture of {model} excludes it");
                return Err(refuse(
                    reason,
                    "take it out of `exclude`, or state `rules: [{ match: NAME, use: average }]`",
                ));
            }
            let alpha = regmean::alpha_of(job, rule, &name, config.layers)?;
            let rule = Some(AlphaRule { alpha, required: true });
            if module == HEAD {
                head = Some((name, rule));
            } else if let Some((layer, input)) = places.get(&module) {
                let block: &mut Block = &mut layers[*layer];
                block.inputs.entry(input.name()).or_insert_with(|| (*input, Vec::new())).1.push(module);
                block.tensors.push((name, rule));
            } else {
                let reason = format!("{name} is no linear layer of a native decoder, and has no Gram matrix");
                return Err(refuse(reason, "state `rules: [{ match: NAME, use: average }]`"));
            }
        }
        let least = room::least(context, &solved)?;
        Ok(Self { config, own, layers, head, least })
    }

    /// Solves and writes every block, and makes on the way what of `streamed` the merged model needs to run.
    ///
    /// # Errors
    /// When a model cannot run on its data, an activation is not finite, or something cannot be read, solved or written.
    pub fn run(
        &self,
        context: &Context<'_>,
        writer: &Writer,
        streamed: &mut IndexMap<String, Work<'_>>,
        out: &Path,
    ) -> Result<Vec<LayerFigures>, MergeError> {
        let last = self.layers.iter().rposition(|block| !block.tensors.is_empty());
        let needed = if self.head.is_some() { self.layers.len() } else { last.map_or(0, |last| last + 1) };
        let total = needed + usize::from(self.head.is_some());
        let mut figures = Vec::new();
        if total == 0 {
            return Ok(figures);
        }
        // Embedding and final norm; a head that is not solved can wait for the pass.
        make(context, writer, streamed, |name| depth(name).is_none() && !name.starts_with(HEAD))?;
        let said: Vec<Reporter> = self.own.iter().map(|_| Reporter::silent()).collect();
        let mut candidates = Vec::with_capacity(self.own.len());
        for (index, reporter) in said.iter().enumerate() {
            candidates.push(self.candidate(context, writer, index, reporter, out)?);
        }
        let heard: Vec<usize> = said.iter().map(|reporter| reporter.notes().len()).collect();
        pass_on(context, &said, &vec![0; said.len()]);
        for (index, block) in self.layers.iter().enumerate().take(needed) {
            context.reporter.progress(index, total, "blocks");
            if !block.tensors.is_empty() {
                let sums = |candidate: &Candidate<'_>| candidate.own_block(index, block);
                figures.extend(solve(context, writer, &candidates, &block.tensors, out, &sums)?);
            }
            make(context, writer, streamed, |name| depth(name) == Some(index))?;
            if index + 1 < total {
                candidates.iter().try_for_each(|candidate| candidate.advance(index))?;
            }
        }
        if let Some(head) = &self.head {
            context.reporter.progress(needed, total, "blocks");
            let sums = |candidate: &Candidate<'_>| candidate.head();
            figures.extend(solve(context, writer, &candidates, std::slice::from_ref(head), out, &sums)?);
        }
        drop(candidates);
        pass_on(context, &said, &heard);
        let facts = context.sources.models.iter().zip(&said).map(|(source, said)| {
            let mut facts = said.facts();
            facts.insert("model".to_owned(), json!(source.name));
            facts
        });
        context.reporter.fact("captures", json!(facts.collect::<Vec<_>>()));
        Ok(figures)
    }

    /// A model with its sequences, embedded by the merged embedding.
    fn candidate<'a>(
        &'a self,
        context: &Context<'a>,
        writer: &'a Writer,
        index: usize,
        reporter: &'a Reporter,
        spill: &'a Path,
    ) -> Result<Candidate<'a>, MergeError> {
        let (source, own) = (&context.sources.models[index], &self.own[index]);
        let spec = TextSpec::of(captures(context)[index]);
        let sequences = text::sequences(&spec, reporter)
            .map_err(|error| MergeError::Text { model: source.name.clone(), source: error.into() })?;
        reporter.fact("forward_dtype", own.dtype.name());
        let fail = || MergeError::capture(&source.name);
        let decoder = Decoder::new(&source.checkpoint, &own.config, own.dtype, context.device);
        let merged = Decoder::new(writer, &self.config, own.dtype, context.device);
        // What the widest system takes at the least is left to it, and half of the memory in any case.
        let memory = context.memory.map(|budget| budget.saturating_sub(self.least).min(budget / 2));
        let means = Means { device: context.device, pool: context.pool, memory, reporter };
        let source_of_flow =
            Source { decoder: &merged, data: spec.shown, means, spill, sharers: self.own.len() as u64 };
        let flow = Flow::new(&source_of_flow, sequences).map_err(fail())?;
        let rope = |decoder: &Decoder<'_>| decoder.rope(flow.longest()).map_err(GramError::torch("rotary embedding"));
        let (rope, merged_rope) = (rope(&decoder).map_err(fail())?, rope(&merged).map_err(fail())?);
        Ok(Candidate { name: &source.name, decoder, rope, merged, merged_rope, flow })
    }
}

/// A model of the merge, on its way through the merged blocks.
struct Candidate<'a> {
    name: &'a str,
    decoder: Decoder<'a>,
    rope: Rope,
    /// The merged model, in the type of this one's forward pass.
    merged: Decoder<'a>,
    merged_rope: Rope,
    flow: Flow<'a>,
}

impl Candidate<'_> {
    /// The Grams of its own block on its states, which stay.
    fn own_block(&self, index: usize, block: &Block) -> Result<Vec<Finished>, GramError> {
        let layer = self.decoder.layer(index)?;
        let inputs: Vec<Input> = block.inputs.values().map(|(input, _)| *input).collect();
        let sums = self.flow.through(&layer, &inputs, &self.rope, States::Stay, &format!("layer {index}"))?;
        let finish =
            |((input, modules), sum): (&(Input, Vec<String>), Accumulator)| Finished::of(*input, modules.clone(), sum);
        Ok(block.inputs.values().zip(sums).map(finish).collect())
    }

    /// Its states through the merged block.
    fn advance(&self, index: usize) -> Result<(), MergeError> {
        let place = format!("merged layer {index}");
        let layer = self.merged.layer(index).map_err(MergeError::capture(self.name))?;
        let moved = self.flow.through(&layer, &[], &self.merged_rope, States::Move, &place);
        moved.map(drop).map_err(MergeError::capture(self.name))
    }

    /// The Gram of what the output projection sees behind the merged norm.
    fn head(&self) -> Result<Vec<Finished>, GramError> {
        let sum = self.flow.head(&self.merged.final_norm()?)?;
        Ok(vec![Finished { name: HEAD.to_owned(), modules: vec![HEAD.to_owned()], sum }])
    }
}

/// Solves the linear layers of one block on the Grams that `sums` takes of each model.
fn solve(
    context: &Context<'_>,
    writer: &Writer,
    candidates: &[Candidate<'_>],
    tensors: &[(String, Option<AlphaRule>)],
    out: &Path,
    sums: &dyn Fn(&Candidate<'_>) -> Result<Vec<Finished>, GramError>,
) -> Result<Vec<LayerFigures>, MergeError> {
    let scratch = tempfile::tempdir_in(out).map_err(FileError::of("make room in", out))?;
    let mut used = Vec::with_capacity(candidates.len());
    for (index, candidate) in candidates.iter().enumerate() {
        let home = scratch.path().join(index.to_string());
        std::fs::create_dir(&home).map_err(FileError::of("create", &home))?;
        let mut output = Output::new(&home);
        let taken = sums(candidate).and_then(|sums| output.write("block.safetensors", sums, context.pool));
        taken.map_err(MergeError::capture(candidate.name))?;
        used.push(output.open()?);
    }
    let grams = Grams { used, held_out: Vec::new() };
    let resident: u64 = candidates.iter().map(|candidate| candidate.flow.resident()).sum();
    let memory = context.memory.map(|budget| budget.saturating_sub(resident));
    let context = &Context { memory, ..*context };
    let mut figures = Vec::new();
    for unit in regmean::groups(context, grams, tensors.to_vec())? {
        let Unit::Regmean(group) = unit else { unreachable!("RegMean makes groups alone") };
        figures.extend(group.run(context, writer)?);
    }
    scratch.close().map_err(FileError::of("empty", out))?;
    Ok(figures)
}

/// Makes and writes the tensors that this holds for, and takes them out of what is left for the pass.
fn make(
    context: &Context<'_>,
    writer: &Writer,
    streamed: &mut IndexMap<String, Work<'_>>,
    wanted: impl Fn(&str) -> bool,
) -> Result<(), MergeError> {
    let names: Vec<String> = streamed.keys().filter(|name| wanted(name)).cloned().collect();
    let work: Vec<Work<'_>> = names.iter().filter_map(|name| streamed.shift_remove(name)).collect();
    stream::ahead(context, writer, &work)
}

/// What each model is run on.
fn captures<'a>(context: &Context<'a>) -> Vec<&'a GramJob> {
    let capture = |model: &'a mergelab_wire::MergeSource| model.capture.as_ref();
    context.job.models.iter().filter_map(capture).collect()
}

/// Notes of each model's text and states after the first few, under its name.
fn pass_on(context: &Context<'_>, said: &[Reporter], heard: &[usize]) {
    for ((source, said), heard) in context.sources.models.iter().zip(said).zip(heard) {
        for note in said.notes().into_iter().skip(*heard) {
            context.reporter.note(format!("{}: {note}", source.name));
        }
    }
}

/// The configuration of a model that must have a native forward pass.
fn config(context: &Context<'_>, directory: &Path, whose: &str) -> Result<DecoderConfig, MergeError> {
    DecoderConfig::read(directory).map_err(|error| match error {
        ConfigError::Family { family, .. } => MergeError::Request {
            method: context.job.method.clone(),
            reason: format!(
                "{whose} is of model_type {family:?}, and only {} have a native forward pass, which this method runs",
                NATIVE_FAMILIES.join(", ")
            ),
            hint: "`method: regmean` takes Gram matrices of any family, by `engine: transformers`",
        },
        other => other.into(),
    })
}
