//! Capture, layer by layer: every sequence through one layer, its four Grams out, on to the next.
//!
//! Resident at a time: the weights of one layer and, while it computes, of the next; one layer's Grams; a wave of chunks with
//! their inputs; and the hidden states of all tokens ([`Hidden`]), which go to a file where they are more than memory is
//! to hold. Sequences are sorted by length, so that attention runs many at once without padding, and cut into chunks by a
//! fixed rule. Chunks run through the layer in parallel, a wave of them at a time, and are then added to the Grams strip
//! by strip, in parallel too. Which token comes in which sum, and after which, is the same whatever the number of threads.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use mergelab_wire::{Engine, GramJob};
use tch::{Device, Kind, TchError, Tensor};

use super::accumulate::{Accumulator, Addend};
use super::add;
use super::chunk::Chunk;
use super::error::GramError;
use super::hidden::{Hidden, Room};
use super::output::{Finished, Output};
use crate::checkpoint::Checkpoint;
use crate::device;
use crate::dtype::FloatType;
use crate::failure::Failure;
use crate::model::{Decoder, DecoderConfig, Input, Layer, Rope};
use crate::parallel::{self, Pool};
use crate::report::Reporter;
use crate::text::{self, Sequence, TextSpec};

/// Chunks in a wave on the CPU, unless more workers need more: their inputs are held at once.
const WAVE: usize = 8;

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
    let stated = job.dtype.as_deref().map(FloatType::parse).transpose()?;
    let stored = checkpoint.names().find_map(|name| FloatType::of_header(checkpoint.info(name).ok()?.dtype));
    let dtype = stated.or(stored).or(config.dtype).unwrap_or(FloatType::Float32);
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
    Capture {
        decoder: &decoder,
        data: spec.shown,
        kind: dtype.kind(),
        exclude: &exclude,
        means,
        crowded: AtomicBool::new(false),
    }
    .run(sequences, out)?;
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

/// An input of a layer that a Gram is kept of, with the modules that are not excluded.
type Wanted = (Input, Vec<String>);

struct Capture<'a> {
    decoder: &'a Decoder<'a>,
    /// The data file, for messages.
    data: &'a Path,
    /// Type of the forward pass.
    kind: Kind,
    exclude: &'a GlobSet,
    means: Means<'a>,
    /// Whether a chunk did not fit into the device's memory as a whole.
    crowded: AtomicBool,
}

impl Capture<'_> {
    fn run(&self, sequences: Vec<Sequence>, out: &Path) -> Result<(), GramError> {
        let (config, reporter) = (self.decoder.config(), self.means.reporter);
        self.check(&sequences)?;
        let wanted: Vec<Vec<Wanted>> = (0..config.layers).map(|layer| self.wanted(layer)).collect();
        let head = self.decoder.head().filter(|head| !self.exclude.is_match(head));
        if head.is_none() && wanted.iter().all(Vec::is_empty) {
            return Err(GramError::NothingLeft);
        }
        // Without a head and past the last layer with a wanted Gram, nothing more needs to run.
        let last = wanted.iter().rposition(|wanted| !wanted.is_empty());
        let needed = if head.is_some() { config.layers } else { last.map_or(0, |last| last + 1) };
        let longest = sequences.iter().map(|sequence| sequence.ids.len()).max().unwrap_or(0);
        let rope = self.decoder.rope(longest).map_err(GramError::torch("rotary embedding"))?;
        let chunks = Chunk::cut(sequences, self.means.device);
        let total = needed + usize::from(head.is_some());
        reporter.progress(0, total, "layers");
        let hidden = self.embed(&chunks, out)?;
        let mut output = Output::new(out);

        thread::scope(|scope| -> Result<(), GramError> {
            let load = |index: usize| {
                scope.spawn(move || {
                    parallel::one_thread_here();
                    self.decoder.layer(index)
                })
            };
            let mut next = (needed > 0).then(|| load(0));
            for (index, wanted) in wanted.into_iter().enumerate().take(needed) {
                let loading = next.take().expect("the next layer is always on its way");
                let layer = loading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                next = (index + 1 < needed).then(|| load(index + 1));
                let place = format!("layer {index}");
                let grams = self.layer(&layer, wanted, &chunks, &hidden, &rope, &place)?;
                drop(layer);
                output.write(&format!("layer-{index:05}.safetensors"), grams, self.means.pool)?;
                reporter.progress(index + 1, total, "layers");
            }
            Ok(())
        })?;
        if let Some(head) = head {
            let sum = self.head(&chunks, &hidden)?;
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

    /// The states before the first layer.
    fn embed(&self, chunks: &[Chunk], out: &Path) -> Result<Hidden, GramError> {
        let (config, device) = (self.decoder.config(), self.means.device);
        let tokens = chunks.iter().map(|chunk| chunk.tokens);
        let bytes = (tokens.clone().sum::<usize>() * config.hidden * self.kind.elt_size_in_bytes()) as u64;
        let working = self.working_set(chunks);
        // On a GPU the states stay there where they and the work fit; else the machine's memory holds them.
        let on_gpu = device != Device::Cpu && fits(bytes + working, device);
        let room = if on_gpu {
            Room { home: device, limit: u64::MAX, spill: out }
        } else {
            let limit = match self.means.memory {
                Some(budget) if device == Device::Cpu => budget.saturating_sub(working),
                Some(budget) => budget,
                None => device::available_memory().unwrap_or(u64::MAX) / 2,
            };
            Room { home: Device::Cpu, limit, spill: out }
        };
        if device != Device::Cpu && !on_gpu {
            self.means.reporter.note("the hidden states do not fit on the GPU beside the work: main memory holds them");
        }
        let hidden = Hidden::new(tokens, config.hidden, (self.kind, device), room)?;
        if hidden.spilled() > 0 {
            self.means.reporter.note(format!(
                "{} MB of {} MB of hidden states go to a file: memory is to hold no more",
                hidden.spilled() / 1_000_000,
                bytes / 1_000_000
            ));
        }
        self.means.reporter.fact("hidden_states", bytes);
        self.means.reporter.fact("hidden_states_in_file", hidden.spilled());
        let embedding = self.decoder.embedding()?;
        for (index, chunk) in chunks.iter().enumerate() {
            let states = chunk
                .ids(device)
                .and_then(|ids| embedding.f_index_select(0, &ids))
                .map_err(GramError::torch("embedding"))?;
            self.check_finite(&states, chunk, "the embedding")?;
            hidden.set(index, &states)?;
        }
        Ok(hidden)
    }

    /// Bytes that the work on one layer takes, roughly: the weights of two layers, the Grams of one, the inputs of a wave
    /// of chunks, and what one chunk leaves on the way.
    fn working_set(&self, chunks: &[Chunk]) -> u64 {
        let config = self.decoder.config();
        let widths = Input::ALL.map(|input| input.width(config));
        let inputs: usize = widths.iter().sum();
        let weights = config.hidden * (2 * config.heads * config.head_dim + 2 * config.kv_heads * config.head_dim)
            + 3 * config.hidden * config.mlp;
        let grams: usize = widths.iter().map(|width| width * (width + 512) / 2).sum();
        let tallest = chunks.iter().map(|chunk| chunk.tokens).max().unwrap_or(0);
        let passing = tallest * (inputs + 3 * config.mlp) * self.means.pool.workers();
        let element = self.kind.elt_size_in_bytes();
        (element * (2 * weights + self.wave() * tallest * inputs + passing) + 4 * grams) as u64
    }

    /// How many chunks run before they are added to the Grams.
    fn wave(&self) -> usize {
        if self.means.device == Device::Cpu { WAVE.max(2 * self.means.pool.workers()) } else { 1 }
    }

    /// All chunks through one layer; their states move on, their inputs are summed up.
    fn layer(
        &self,
        layer: &Layer,
        wanted: Vec<Wanted>,
        chunks: &[Chunk],
        hidden: &Hidden,
        rope: &Rope,
        place: &str,
    ) -> Result<Vec<Finished>, GramError> {
        let inputs: Vec<Input> = wanted.iter().map(|(input, _)| *input).collect();
        let mut sums = self.sums(inputs.iter().map(|input| input.width(self.decoder.config())), place)?;
        for wave in waves(chunks.len(), self.wave()) {
            let work = wave.map(|chunk| (chunk, layer.share(), rope.share())).collect();
            let addends = self.means.pool.map(work, |(index, layer, rope)| {
                let states = hidden.get(index)?;
                let pass = Pass { layer: &layer, rope: &rope, inputs: &inputs, place };
                let (states, addends) = self.pass(&pass, &states, &chunks[index])?;
                hidden.set(index, &states)?;
                Ok::<_, GramError>(addends)
            })?;
            for addend in addends {
                addend.into_iter().zip(&mut sums).for_each(|(addends, (_, list))| list.extend(addends));
            }
            self.add(&mut sums, place)?;
        }
        let finish = |((input, modules), (sum, _)): (Wanted, (Accumulator, _))| Finished {
            name: input.name().to_owned(),
            modules,
            sum,
        };
        Ok(wanted.into_iter().zip(sums).map(finish).collect())
    }

    /// One chunk through one layer: its new states, and what it adds to each wanted Gram.
    fn pass(&self, pass: &Pass<'_>, states: &Tensor, chunk: &Chunk) -> Result<(Tensor, Vec<Vec<Addend>>), GramError> {
        let crowded = |chunk: &Chunk| {
            if !self.crowded.swap(true, Ordering::Relaxed) {
                let (place, tokens) = (pass.place, chunk.tokens);
                self.means
                    .reporter
                    .note(format!("{place}: no room for a chunk of {tokens} tokens, going on in halves"));
            }
        };
        let parts = in_parts(chunk, states, &crowded, &|chunk, states| {
            let after = pass.layer.forward(states, &chunk.spans, pass.rope)?;
            let addend =
                |input: &Input| Addend::new(&after.inputs[*input as usize], chunk.counted.as_deref(), &chunk.first);
            Ok((pass.inputs.iter().map(addend).collect::<Result<Vec<_>, _>>()?, after.output))
        })
        .map_err(GramError::torch(pass.place))?;
        let mut addends: Vec<Vec<Addend>> = pass.inputs.iter().map(|_| Vec::new()).collect();
        let mut outputs = Vec::with_capacity(parts.len());
        for (part, output) in parts {
            addends.iter_mut().zip(part).for_each(|(addends, addend)| addends.push(addend));
            outputs.push(output);
        }
        let output = match <[Tensor; 1]>::try_from(outputs) {
            Ok([output]) => output,
            Err(outputs) => Tensor::f_cat(&outputs, 0).map_err(GramError::torch(pass.place))?,
        };
        self.check_finite(&output, chunk, pass.place)?;
        Ok((output, addends))
    }

    /// The Gram of the output projection's input: the final norm of the last hidden states.
    fn head(&self, chunks: &[Chunk], hidden: &Hidden) -> Result<Accumulator, GramError> {
        const PLACE: &str = "lm_head";
        let norm = self.decoder.final_norm()?;
        let mut sums = self.sums([self.decoder.config().hidden].into_iter(), PLACE)?;
        for wave in waves(chunks.len(), self.wave()) {
            let work = wave.map(|chunk| (chunk, norm.share())).collect();
            let addends = self.means.pool.map(work, |(index, norm)| {
                let (states, chunk) = (hidden.get(index)?, &chunks[index]);
                let input = norm.forward(&states);
                let addend = input.and_then(|x| Addend::new(&x, chunk.counted.as_deref(), &chunk.first));
                addend.map_err(GramError::torch(PLACE))
            })?;
            sums[0].1.extend(addends);
            self.add(&mut sums, PLACE)?;
        }
        Ok(sums.remove(0).0)
    }

    /// Refuses what the model has no embedding or position for.
    fn check(&self, sequences: &[Sequence]) -> Result<(), GramError> {
        let (config, data) = (self.decoder.config(), || self.data.to_path_buf());
        for Sequence { row, ids, .. } in sequences {
            if let Some(&id) = ids.iter().find(|&&id| id as usize >= config.vocab) {
                return Err(GramError::TokenId { data: data(), row: *row, id, vocab: config.vocab });
            }
            if ids.len() > config.max_positions {
                let (length, positions) = (ids.len(), config.max_positions);
                return Err(GramError::TooLong { data: data(), row: *row, length, positions });
            }
        }
        Ok(())
    }

    /// An error that names the row, if any state is not finite.
    fn check_finite(&self, states: &Tensor, chunk: &Chunk, place: &str) -> Result<(), GramError> {
        let fail = || GramError::torch(place);
        // A sum is not finite when a term is not; where it overflows by itself, the row-wise look finds nothing.
        let sum = states.f_sum(Kind::Float).and_then(|sum| sum.f_double_value(&[])).map_err(fail())?;
        if sum.is_finite() {
            return Ok(());
        }
        let finite = states.f_isfinite().and_then(|finite| finite.f_all_dim(1, false)).map_err(fail())?;
        let finite: Vec<bool> = Vec::try_from(finite).map_err(fail())?;
        match finite.iter().position(|finite| !finite) {
            Some(token) => {
                let (place, data) = (place.to_owned(), self.data.to_path_buf());
                Err(GramError::NotFinite { place, data, row: chunk.row_of(token) })
            }
            None => Ok(()),
        }
    }

    /// Zero matrices of these widths, each with room for what is to be added.
    fn sums(
        &self,
        widths: impl Iterator<Item = usize>,
        place: &str,
    ) -> Result<Vec<(Accumulator, Vec<Addend>)>, GramError> {
        widths
            .map(|width| Ok((Accumulator::new(width, self.kind, self.means.device)?, Vec::new())))
            .collect::<Result<_, TchError>>()
            .map_err(GramError::torch(format!("{place}: memory for its Gram matrices")))
    }

    /// Adds what is waiting, and lets go of it.
    fn add(&self, sums: &mut [(Accumulator, Vec<Addend>)], place: &str) -> Result<(), GramError> {
        Accumulator::add(sums, self.means.pool).map_err(GramError::torch(place))?;
        for (_, addends) in sums {
            addends.clear();
        }
        Ok(())
    }
}

/// What is the same for every chunk that runs through a layer.
struct Pass<'a> {
    layer: &'a Layer,
    rope: &'a Rope,
    inputs: &'a [Input],
    place: &'a str,
}

/// Ranges of chunks that run together.
fn waves(chunks: usize, wave: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..chunks).step_by(wave).map(move |start| start..(start + wave).min(chunks))
}

/// Runs a chunk with its states `[tokens, hidden]`; where the device has no room for it, its halves one after the other, and
/// so on down to single sequences. What comes of the parts is in their order.
fn in_parts<T>(
    chunk: &Chunk,
    states: &Tensor,
    crowded: &dyn Fn(&Chunk),
    run: &dyn Fn(&Chunk, &Tensor) -> Result<T, TchError>,
) -> Result<Vec<T>, TchError> {
    let error = match run(chunk, states) {
        Ok(result) => return Ok(vec![result]),
        Err(error) => error,
    };
    let halves = if out_of_memory(&error) { chunk.halves() } else { None };
    let Some(halves) = halves else { return Err(error) };
    crowded(chunk);
    let (mut results, mut start) = (Vec::new(), 0);
    for half in halves {
        let tokens = half.tokens as i64;
        results.extend(in_parts(&half, &states.f_narrow(0, start, tokens)?, crowded, run)?);
        start += tokens;
    }
    Ok(results)
}

/// Whether libtorch failed for want of memory.
fn out_of_memory(error: &TchError) -> bool {
    let text = error.to_string();
    text.contains("out of memory") || text.contains("not enough memory")
}

/// Whether a GPU has so many bytes free. They are asked for and given back, for nothing else knows what libtorch can get.
fn fits(bytes: u64, device: Device) -> bool {
    i64::try_from(bytes).is_ok_and(|bytes| Tensor::f_empty([bytes], (Kind::Uint8, device)).is_ok())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn chunk(lengths: &[usize]) -> Chunk {
        let sequence = |(row, &length)| Sequence { row, ids: vec![0; length], counts: vec![true; length] };
        let [chunk] = Chunk::cut(lengths.iter().enumerate().map(sequence).collect(), Device::Cpu).try_into().unwrap();
        chunk
    }

    /// A device with room for so many tokens.
    fn device(room: usize) -> impl Fn(&Chunk, &Tensor) -> Result<Tensor, TchError> {
        move |chunk, states| {
            assert_eq!(chunk.tokens as i64, states.size()[0]);
            if chunk.tokens > room { Err(TchError::Torch("CUDA out of memory".to_owned())) } else { states.f_neg() }
        }
    }

    #[test]
    fn a_chunk_without_room_runs_in_halves_and_says_so() {
        let chunk = chunk(&[2, 2, 3, 4, 4]);
        let states = Tensor::arange(15, (Kind::Float, Device::Cpu)).view([15, 1]);
        let said = RefCell::new(Vec::new());
        let crowded = |chunk: &Chunk| said.borrow_mut().push(chunk.tokens);
        let parts = in_parts(&chunk, &states, &crowded, &device(5)).unwrap();
        assert_eq!(parts.iter().map(|part| part.size()[0]).collect::<Vec<_>>(), [4, 3, 4, 4]);
        assert_eq!(Tensor::cat(&parts, 0), -&states);
        assert_eq!(*said.borrow(), [15, 11, 8]);
    }

    #[test]
    fn a_sequence_without_room_by_itself_is_an_error_and_so_is_any_other_failure() {
        let states = Tensor::zeros([6, 1], (Kind::Float, Device::Cpu));
        let error = in_parts(&chunk(&[2, 4]), &states, &|_| {}, &device(3)).unwrap_err();
        assert!(out_of_memory(&error), "{error}");
        let broken = |_: &Chunk, _: &Tensor| Err::<(), _>(TchError::Torch("device-side assert".to_owned()));
        let crowded = |_: &Chunk| panic!("this is no want of memory");
        in_parts(&chunk(&[2, 4]), &states, &crowded, &broken).unwrap_err();
    }
}
