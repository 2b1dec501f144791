//! Capture, layer by layer: every sequence through one layer, its four Grams out, on to the next.
//!
//! Resident at a time: one layer's weights, its Grams, and the hidden states of all tokens ([`Hidden`]). Sequences are
//! sorted by length, so that attention runs many at once without padding, and cut into chunks by a fixed rule. Chunks run
//! through the layer in parallel, a wave of them at a time; the wave's inputs are added to the Grams strip by strip, in
//! parallel too. Which token comes in which sum is the same whatever the number of threads.

use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use indexmap::IndexMap;
use mergelab_wire::{Engine, GramJob};
use safetensors::Dtype;
use serde_json::json;
use tch::{Device, Kind, Tensor};

use super::accumulate::Accumulator;
use super::add;
use super::error::GramError;
use super::index::{FORMAT, GramEntry, GramIndex};
use crate::checkpoint::{Checkpoint, NewTensor, Writer};
use crate::device;
use crate::dtype::FloatType;
use crate::failure::{Failure, FileError};
use crate::model::{Decoder, DecoderConfig, Input, Span};
use crate::parallel::Pool;
use crate::report::Reporter;
use crate::text::{self, Sequence, TextSpec};

/// A chunk is full when it holds this many tokens.
const CHUNK_TOKENS: usize = 512;

/// Chunks that run through a layer before their inputs are added to the Grams.
const WAVE: usize = 8;

/// Runs a capture and writes the artifact.
///
/// # Errors
/// When the model, the data or the request is wrong, or the work fails.
pub fn run(job: &GramJob, out: &Path, device: Device, pool: Pool, reporter: &Reporter) -> Result<(), Failure> {
    if job.engine == Engine::Transformers {
        return Err(GramError::Engine.into());
    }
    let config = DecoderConfig::read(&job.model)?;
    let checkpoint = Checkpoint::open(&job.model)?;
    let stated = job.dtype.as_deref().map(FloatType::parse).transpose()?;
    let stored = checkpoint.names().find_map(|name| FloatType::of_header(checkpoint.info(name).ok()?.dtype));
    let dtype = stated.or(stored).or(config.dtype).unwrap_or(FloatType::Float32);
    let exclude = globs(&job.exclude)?;
    let decoder = Decoder::new(&checkpoint, &config, dtype, device);
    let spec = TextSpec {
        model: &job.model,
        data: &job.data,
        shown: job.shown.as_deref().unwrap_or(&job.data),
        rows: &job.rows,
        range: job.range,
        strict: job.strict,
        max_length: job.max_length,
        add_special_tokens: job.add_special_tokens,
        tokens: job.tokens,
        skip_first: job.skip_first,
        chat_template: job.chat_template.as_deref(),
    };
    let sequences = text::sequences(&spec, reporter)?;
    if sequences.is_empty() {
        return Ok(add::write_empty(out)?);
    }
    reporter.fact("engine", "native");
    reporter.fact("family", config.family.as_str());
    reporter.fact("forward_dtype", dtype.name());
    Capture { decoder: &decoder, out, exclude: &exclude, device, pool, reporter }.run(sequences)?;
    Ok(())
}

/// Globs on module names; `*` also matches dots.
fn globs(patterns: &[String]) -> Result<GlobSet, GramError> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(GlobBuilder::new(pattern).literal_separator(false).build()?);
    }
    Ok(set.build()?)
}

/// Some sequences laid end to end, and where the tokens that count are.
#[derive(Debug)]
struct Chunk {
    ids: Vec<i64>,
    spans: Vec<Span>,
    /// Row in the data file of each sequence, with its first token in the chunk.
    rows: Vec<(usize, usize)>,
    /// Positions that count; `None` if all do.
    counted: Option<Tensor>,
    /// Positions, among those that count, of first tokens.
    first: Vec<i64>,
    counted_tokens: usize,
}

/// Cuts sequences into chunks: sorted by length (equal ones in file order), full at [`CHUNK_TOKENS`].
fn chunks(mut sequences: Vec<Sequence>, device: Device) -> Result<Vec<Chunk>, GramError> {
    sequences.sort_by_key(|sequence| sequence.ids.len());
    let mut chunks = Vec::new();
    let mut open: Vec<Sequence> = Vec::new();
    let mut tokens = 0;
    for sequence in sequences {
        tokens += sequence.ids.len();
        open.push(sequence);
        if tokens >= CHUNK_TOKENS {
            chunks.push(chunk(&std::mem::take(&mut open), device)?);
            tokens = 0;
        }
    }
    if !open.is_empty() {
        chunks.push(chunk(&open, device)?);
    }
    Ok(chunks)
}

fn chunk(sequences: &[Sequence], device: Device) -> Result<Chunk, GramError> {
    let (mut ids, mut rows, mut counted, mut first) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut spans: Vec<Span> = Vec::new();
    for sequence in sequences {
        let start = ids.len();
        rows.push((sequence.row, start));
        match spans.last_mut().filter(|span| span.length == sequence.ids.len()) {
            Some(span) => span.count += 1,
            None => spans.push(Span { start, count: 1, length: sequence.ids.len() }),
        }
        for (position, (&id, &counts)) in sequence.ids.iter().zip(&sequence.counts).enumerate() {
            if counts {
                if position == 0 {
                    first.push(counted.len() as i64);
                }
                counted.push(ids.len() as i64);
            }
            ids.push(i64::from(id));
        }
    }
    let counted_tokens = counted.len();
    let counted = if counted_tokens == ids.len() {
        None
    } else {
        let positions = Tensor::f_from_slice(&counted).and_then(|positions| positions.f_to_device(device));
        Some(positions.map_err(GramError::torch("token mask"))?)
    };
    Ok(Chunk { ids, spans, rows, counted, first, counted_tokens })
}

/// The hidden states of all tokens, `[tokens, hidden]` per chunk.
///
/// They are reached chunk by chunk through this type alone, so that they can lie elsewhere than in memory.
#[derive(Debug)]
struct Hidden(Vec<Tensor>);

impl Hidden {
    fn get(&self, chunk: usize) -> Tensor {
        self.0[chunk].shallow_clone()
    }

    fn set(&mut self, chunk: usize, states: Tensor) {
        self.0[chunk] = states;
    }
}

/// What is reported of one Gram, in `layers.json`.
#[derive(Debug, serde::Serialize)]
struct InputFigures {
    /// The modules that read the input.
    modules: Vec<String>,
    /// Its width.
    width: usize,
    /// Trace of the mean `Xᵀ X / n`.
    trace: f64,
    /// Share of the trace that first tokens of sequences hold.
    first_token_share: f64,
}

struct Capture<'a> {
    decoder: &'a Decoder<'a>,
    out: &'a Path,
    exclude: &'a GlobSet,
    device: Device,
    pool: Pool,
    reporter: &'a Reporter,
}

impl Capture<'_> {
    fn run(&self, sequences: Vec<Sequence>) -> Result<(), GramError> {
        let config = self.decoder.config();
        check(&sequences, config)?;
        let wanted: Vec<Vec<(Input, Vec<String>)>> = (0..config.layers).map(|layer| self.wanted(layer)).collect();
        let head = self.decoder.head().filter(|head| !self.exclude.is_match(head));
        if head.is_none() && wanted.iter().all(Vec::is_empty) {
            return Err(GramError::NothingLeft);
        }
        let longest = sequences.iter().map(|sequence| sequence.ids.len()).max().unwrap_or(0);
        let rope = self.decoder.rope(longest).map_err(GramError::torch("rotary embedding"))?;
        let chunks = chunks(sequences, self.device)?;
        let total = config.layers + usize::from(head.is_some());
        self.reporter.progress(0, total, "layers");
        let mut hidden = self.embed(&chunks)?;
        let mut modules = IndexMap::new();
        let mut figures = Vec::new();
        // Without a head and past the last layer with a wanted Gram, nothing more needs to run.
        let needed = if head.is_some() {
            config.layers
        } else {
            wanted.iter().rposition(|w| !w.is_empty()).map_or(0, |l| l + 1)
        };

        for (index, wanted) in wanted.iter().enumerate().take(needed) {
            let layer = self.decoder.layer(index)?;
            let place = format!("layer {index}");
            let mut sums = wanted
                .iter()
                .map(|(input, _)| Accumulator::new(input.width(config), self.device))
                .collect::<Result<Vec<_>, _>>()
                .map_err(GramError::torch(format!("{place}: memory for its Gram matrices")))?;
            for wave in waves(&chunks) {
                let piece = |chunk: usize| (hidden.get(chunk), &chunks[chunk].spans[..], layer.share(), rope.share());
                let work: Vec<_> = wave.clone().map(piece).collect();
                let passes = self
                    .pool
                    .map(work, |(x, spans, layer, rope)| layer.forward(&x, spans, &rope))
                    .map_err(GramError::torch(&*place))?;
                let mut inputs: [Vec<Tensor>; 4] = Default::default();
                for (chunk, pass) in wave.clone().zip(passes) {
                    check_finite(&pass.output, &chunks[chunk], &place)?;
                    hidden.set(chunk, pass.output);
                    for (list, x) in inputs.iter_mut().zip(pass.inputs) {
                        list.push(x);
                    }
                }
                for ((input, _), sum) in wanted.iter().zip(&mut sums) {
                    let list = std::mem::take(&mut inputs[*input as usize]);
                    self.add(sum, &list, &chunks[wave.clone()]).map_err(GramError::torch(&*place))?;
                }
            }
            let tensors: Vec<(&str, Vec<String>, Accumulator)> =
                wanted.iter().zip(sums).map(|((input, names), sum)| (input.name(), names.clone(), sum)).collect();
            self.write(&format!("layer-{index:05}.safetensors"), &place, tensors, &mut modules, &mut figures)?;
            self.reporter.progress(index + 1, total, "layers");
        }
        if let Some(head) = head {
            let sum = self.head(&chunks, &hidden)?;
            let tensors = vec![(head, vec![head.to_owned()], sum)];
            self.write("lm_head.safetensors", head, tensors, &mut modules, &mut figures)?;
            self.reporter.progress(total, total, "layers");
        }
        self.finish(modules, &figures)
    }

    /// The inputs of a layer that a Gram is kept of, with the modules that are not excluded.
    fn wanted(&self, layer: usize) -> Vec<(Input, Vec<String>)> {
        Input::ALL
            .into_iter()
            .filter_map(|input| {
                let names = input.modules().iter().map(|module| self.decoder.module(layer, module));
                let names: Vec<String> = names.filter(|name| !self.exclude.is_match(name)).collect();
                (!names.is_empty()).then_some((input, names))
            })
            .collect()
    }

    fn embed(&self, chunks: &[Chunk]) -> Result<Hidden, GramError> {
        let embedding = self.decoder.embedding()?;
        let mut states = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let x = Tensor::f_from_slice(&chunk.ids)
                .and_then(|ids| ids.f_to_device(self.device))
                .and_then(|ids| embedding.f_index_select(0, &ids))
                .map_err(GramError::torch("embedding"))?;
            check_finite(&x, chunk, "the embedding")?;
            states.push(x);
        }
        Ok(Hidden(states))
    }

    /// Adds one wave's inputs, one tensor per chunk, to a Gram.
    fn add(&self, sum: &mut Accumulator, inputs: &[Tensor], chunks: &[Chunk]) -> Result<(), tch::TchError> {
        let (mut counted, mut first, mut at) = (Vec::with_capacity(inputs.len()), Vec::new(), 0);
        for (x, chunk) in inputs.iter().zip(chunks) {
            counted.push(match &chunk.counted {
                Some(positions) => x.f_index_select(0, positions)?,
                None => x.shallow_clone(),
            });
            first.extend(chunk.first.iter().map(|position| position + at));
            at += chunk.counted_tokens as i64;
        }
        let first = Tensor::f_from_slice(&first)?.f_to_device(self.device)?;
        sum.add(&Tensor::f_cat(&counted, 0)?, &first, self.pool)
    }

    /// The Gram of the output projection's input: the final norm of the last hidden states.
    fn head(&self, chunks: &[Chunk], hidden: &Hidden) -> Result<Accumulator, GramError> {
        let norm = self.decoder.final_norm()?;
        let fail = || GramError::torch("lm_head");
        let mut sum = Accumulator::new(self.decoder.config().hidden, self.device).map_err(fail())?;
        for wave in waves(chunks) {
            let work = wave.clone().map(|chunk| (hidden.get(chunk), norm.share())).collect();
            let inputs = self.pool.map(work, |(x, norm)| norm.forward(&x)).map_err(fail())?;
            self.add(&mut sum, &inputs, &chunks[wave]).map_err(fail())?;
        }
        Ok(sum)
    }

    /// Writes one file of Grams and notes them in the index.
    fn write(
        &self,
        file: &str,
        place: &str,
        tensors: Vec<(&str, Vec<String>, Accumulator)>,
        modules: &mut IndexMap<String, GramEntry>,
        figures: &mut Vec<InputFigures>,
    ) -> Result<(), GramError> {
        if tensors.is_empty() {
            return Ok(());
        }
        let planned = tensors.iter().map(|(name, _, sum)| {
            let tiling = sum.tiling();
            let shape = vec![tiling.tiles(), tiling.tile, tiling.tile];
            NewTensor { name: (*name).to_owned(), dtype: Dtype::F32, shape }
        });
        let writer = Writer::single(&self.out.join(file), planned.collect())?;
        for (name, names, sum) in tensors {
            let tiling = sum.tiling();
            let energy = sum.energy().map_err(GramError::torch(place))?;
            for block in 0..tiling.blocks() {
                let tiles = sum.tiles(block).map_err(GramError::torch(place))?;
                writer.write(name, tiling.first(block) * tiling.tile * tiling.tile, &tiles)?;
            }
            for module in &names {
                let entry = GramEntry {
                    file: file.to_owned(),
                    tensor: name.to_owned(),
                    n: Some(sum.tokens() as u64),
                    width: tiling.width,
                    tile: tiling.tile,
                };
                modules.insert(module.clone(), entry);
            }
            figures.push(InputFigures {
                modules: names,
                width: tiling.width,
                trace: energy / sum.tokens() as f64,
                first_token_share: if energy > 0.0 { sum.first_energy() / energy } else { 0.0 },
            });
        }
        writer.finish();
        Ok(())
    }

    fn finish(&self, modules: IndexMap<String, GramEntry>, figures: &[InputFigures]) -> Result<(), GramError> {
        GramIndex { format: FORMAT, modules }.write(self.out)?;
        let path = self.out.join("layers.json");
        let text =
            serde_json::to_string_pretty(&json!({ "format": FORMAT, "inputs": figures })).expect("finite numbers");
        std::fs::write(&path, text + "\n").map_err(FileError::of("write", &path))?;
        let largest = figures.iter().map(|figure| figure.first_token_share).fold(0.0, f64::max);
        self.reporter.fact("gram_matrices", figures.len());
        self.reporter.fact("first_token_share_max", json!(largest));
        self.reporter.fact("device", device::name(self.device));
        Ok(())
    }
}

/// Ranges of chunks that run together.
fn waves(chunks: &[Chunk]) -> impl Iterator<Item = std::ops::Range<usize>> {
    let count = chunks.len();
    (0..count).step_by(WAVE).map(move |start| start..(start + WAVE).min(count))
}

/// Refuses what the model has no embedding or position for.
fn check(sequences: &[Sequence], config: &DecoderConfig) -> Result<(), GramError> {
    for sequence in sequences {
        if let Some(&id) = sequence.ids.iter().find(|&&id| id as usize >= config.vocab) {
            return Err(GramError::TokenId { row: sequence.row, id, vocab: config.vocab });
        }
        if sequence.ids.len() > config.max_positions {
            let (length, positions) = (sequence.ids.len(), config.max_positions);
            return Err(GramError::TooLong { row: sequence.row, length, positions });
        }
    }
    Ok(())
}

/// An error that names the row, if any state is not finite.
fn check_finite(states: &Tensor, chunk: &Chunk, place: &str) -> Result<(), GramError> {
    let fail = || GramError::torch(place);
    // A sum is not finite when a term is not; where it overflows by itself, the row-wise look finds nothing.
    let sum = states.f_sum(Kind::Float).and_then(|sum| sum.f_double_value(&[])).map_err(fail())?;
    if sum.is_finite() {
        return Ok(());
    }
    let finite = states.f_isfinite().and_then(|finite| finite.f_all_dim(1, false)).map_err(fail())?;
    let finite: Vec<bool> = Vec::try_from(finite).map_err(fail())?;
    let Some(token) = finite.iter().position(|finite| !finite) else { return Ok(()) };
    let row = chunk.rows.iter().rev().find(|(_, start)| *start <= token).map_or(0, |(row, _)| *row);
    Err(GramError::NotFinite { place: place.to_owned(), row })
}
