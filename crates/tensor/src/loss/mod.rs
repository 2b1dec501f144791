//! How well a model predicts held-out rows: bits per byte, and the KL divergence of its predictions from those of other
//! models (the sources of a merge), with the forward pass of a capture.
//!
//! The hidden states of all sequences go layer by layer through the whole model ([`crate::gram::flow`]). Then the final norm
//! and the output projection run on blocks of tokens ([`head`]): the logits of all tokens are never there together. For
//! the KL divergence the hidden states of two models are there at a time, the model's and one source's. What the sums come
//! to is in [`figures`].

mod error;
mod figures;
mod head;

use std::cell::Cell;
use std::path::Path;

use mergelab_wire::{GramJob, LossJob, LossSource};
use tch::Device;

pub use error::LossError;

use self::figures::{Figures, Row};
use self::head::Head;
use crate::checkpoint::Checkpoint;
use crate::dtype::FloatType;
use crate::failure::Failure;
use crate::gram::GramError;
use crate::gram::capture::{Means, forward_type};
use crate::gram::chunk::Chunk;
use crate::gram::flow::{Flow, Source, States};
use crate::model::{ConfigError, Decoder, DecoderConfig, walk};
use crate::report::Reporter;
use crate::text::tokenizer::{Tokenizer, TokenizerConfig};
use crate::text::{self, Sequence, TextSpec};

/// Runs the job and writes `metrics.json` and `samples.jsonl.gz` into the empty directory `out`.
///
/// # Errors
/// When a model, the data or the request is wrong, or the work fails.
pub fn run(job: &LossJob, out: &Path, means: Means<'_>) -> Result<(), Failure> {
    let (capture, reporter) = (&job.capture, means.reporter);
    let model = Model::open("the model", &capture.model, capture)?;
    let mut sources = Vec::with_capacity(job.sources.len());
    for LossSource { name, path } in &job.sources {
        let source = Model::open(&format!("the source {name}"), path, capture)?;
        model.must_share_vocabulary_with(&source)?;
        sources.push(source);
    }
    // Nothing predicts the first token of a sequence: it counts no more than one that is skipped.
    let spec = TextSpec { range: None, skip_first: capture.skip_first.max(1), ..TextSpec::of(capture) };
    let sequences = text::sequences(&spec, reporter)?;
    reporter.fact("family", model.config.family.as_str());
    reporter.fact("forward_dtype", model.dtype.name());

    let total = std::iter::once(&model).chain(&sources).map(|model| model.config.layers + 1).sum();
    let passes = Passes {
        data: spec.shown,
        spill: out,
        means: Means { memory: left_beside_heads(means, &model, &sources), ..means },
        flows: if sources.is_empty() { 1 } else { 2 },
        progress: Progress { done: Cell::new(0), total, reporter },
    };
    let decoder = model.decoder(means.device);
    let flow = passes.through_layers(&decoder, sequences.clone())?;
    let head = Head::load(&decoder)?;
    let losses = passes
        .through_head(flow.chunks(), &|| head.share(), |head, chunk, index| head.nll(chunk, &flow.states(index)?))?;
    let mut rows = Row::of_chunks(flow.chunks(), &losses);
    for source in &sources {
        let decoder = source.decoder(means.device);
        let theirs = passes.through_layers(&decoder, sequences.clone())?;
        let other = Head::load(&decoder)?;
        let share = || (other.share(), head.share());
        let divergences = passes.through_head(flow.chunks(), &share, |(other, head), chunk, index| {
            other.kl(&theirs.states(index)?, head, &flow.states(index)?, chunk)
        })?;
        Row::add_kl(&mut rows, flow.chunks(), &divergences);
    }
    let names = job.sources.iter().map(|source| source.name.as_str()).collect();
    let figures = Figures::new(rows, names);
    reporter.fact("bytes_counted", figures.bytes());
    let metrics = figures.metrics().ok_or_else(|| LossError::NoText { data: spec.shown.to_path_buf() })?;
    figures.write(&metrics, out)?;
    Ok(())
}

/// A model whose files were looked at.
struct Model<'j> {
    /// `the source math`.
    who: String,
    path: &'j Path,
    config: DecoderConfig,
    checkpoint: Checkpoint,
    dtype: FloatType,
}

impl<'j> Model<'j> {
    fn open(who: &str, path: &'j Path, capture: &GramJob) -> Result<Self, Failure> {
        let config = DecoderConfig::read(path).map_err(|error| match error {
            ConfigError::Family { family, .. } => Failure::from(LossError::Family { who: who.to_owned(), family }),
            other => other.into(),
        })?;
        let checkpoint = Checkpoint::open(path)?;
        let dtype = forward_type(capture, &checkpoint, &config)?;
        Ok(Self { who: who.to_owned(), path, config, checkpoint, dtype })
    }

    fn decoder(&self, device: Device) -> Decoder<'_> {
        Decoder::new(&self.checkpoint, &self.config, self.dtype, device)
    }

    /// Bytes of its output projection in fp32.
    fn head_bytes(&self) -> u64 {
        (self.config.vocab * self.config.hidden * size_of::<f32>()) as u64
    }

    /// The predictions of two models can be held against each other when they are of the same tokens.
    fn must_share_vocabulary_with(&self, source: &Self) -> Result<(), Failure> {
        let (ours, theirs) = (self.config.vocab, source.config.vocab);
        if ours != theirs {
            return Err(LossError::Vocabulary { source_name: source.who.clone(), ours, theirs }.into());
        }
        // Of a source that came without its tokenizer nothing more can be known.
        if !source.path.join("tokenizer.json").exists() {
            return Ok(());
        }
        let read = |path: &Path| Tokenizer::read(path, &TokenizerConfig::read(path)?, false, None);
        let (own, other) = (read(self.path)?, read(source.path)?);
        for id in 0..ours as u32 {
            if let (Some(ours), Some(theirs)) = (own.token(id), other.token(id))
                && ours != theirs
            {
                return Err(LossError::Token { source_name: source.who.clone(), id, ours, theirs }.into());
            }
        }
        Ok(())
    }
}

/// Of the memory budget, what the output projections leave that are there at a time.
fn left_beside_heads(means: Means<'_>, model: &Model<'_>, sources: &[Model<'_>]) -> Option<u64> {
    let other = sources.iter().map(Model::head_bytes).max().unwrap_or(0);
    means.memory.map(|budget| budget.saturating_sub(model.head_bytes() + other))
}

/// How far the work is, over the passes of all models.
struct Progress<'a> {
    done: Cell<usize>,
    total: usize,
    reporter: &'a Reporter,
}

impl Progress<'_> {
    fn step(&self) {
        self.done.set(self.done.get() + 1);
        self.reporter.progress(self.done.get(), self.total, "layers");
    }
}

/// What the passes of all models have in common.
struct Passes<'a> {
    data: &'a Path,
    spill: &'a Path,
    means: Means<'a>,
    /// How many models' hidden states are there at a time.
    flows: u64,
    progress: Progress<'a>,
}

impl<'a> Passes<'a> {
    /// Hidden states of all sequences after the last layer.
    fn through_layers<'m>(&self, decoder: &Decoder<'m>, sequences: Vec<Sequence>) -> Result<Flow<'m>, GramError>
    where
        'a: 'm,
    {
        let Self { data, spill, means, flows, .. } = *self;
        let flow = Flow::new(&Source { decoder, data, means, spill, sharers: flows }, sequences)?;
        let rope = decoder.rope(flow.longest()).map_err(GramError::torch("rotary embedding"))?;
        walk(decoder, decoder.config().layers, |index, layer| {
            flow.through(&layer, &[], &rope, States::Move, &format!("layer {index}"))?;
            self.progress.step();
            Ok::<_, GramError>(())
        })?;
        Ok(flow)
    }

    /// One number for each token that counts, of every chunk in its order. A worker gets its own share of what it reads.
    fn through_head<S: Send>(
        &self,
        chunks: &[Chunk],
        share: &dyn Fn() -> S,
        work: impl Fn(&S, &Chunk, usize) -> Result<Vec<f64>, GramError> + Sync,
    ) -> Result<Vec<Vec<f64>>, GramError> {
        let shares = (0..chunks.len()).map(|index| (index, share())).collect();
        let values = self.means.pool.map(shares, |(index, share)| {
            let chunk = &chunks[index];
            let values = work(&share, chunk, index)?;
            match values.iter().position(|value| !value.is_finite()) {
                Some(at) => Err(GramError::NotFinite {
                    place: "lm_head".to_owned(),
                    data: self.data.to_path_buf(),
                    row: chunk.row_of(head::counted(chunk)[at] as usize),
                }),
                None => Ok(values),
            }
        })?;
        self.progress.step();
        Ok(values)
    }
}
