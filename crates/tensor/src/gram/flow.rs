//! Sequences on their way through a model: their chunks, their hidden states, and the sums of what a layer sees of them.
//!
//! Sequences are sorted by length, so that attention runs many at once without padding, and cut into chunks by a fixed
//! rule. Chunks run through a layer in parallel, a wave of them at a time, and are then added to the Grams strip by strip,
//! in parallel too. Which token comes in which sum, and after which, is the same whatever the number of threads.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Device, Kind, TchError, Tensor};

use super::accumulate::{Accumulator, Addend};
use super::capture::Means;
use super::chunk::Chunk;
use super::error::GramError;
use super::hidden::{Hidden, Room};
use crate::device;
use crate::model::decoder::FinalNorm;
use crate::model::{Decoder, DecoderConfig, Input, Layer, Rope};
use crate::text::Sequence;

/// Chunks in a wave on the CPU, unless more workers need more: their inputs are held at once.
const WAVE: usize = 8;

/// What flows, and with what means.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'d, 'a> {
    /// Embeds the sequences and says how wide everything is.
    pub(crate) decoder: &'d Decoder<'a>,
    /// The data file, for messages.
    pub(crate) data: &'a Path,
    /// What the work may use.
    pub(crate) means: Means<'a>,
    /// Directory for hidden states that are more than memory is to hold.
    pub(crate) spill: &'a Path,
    /// How many flows have the memory for hidden states between them.
    pub(crate) sharers: u64,
}

/// Sequences in chunks, with their hidden states before the layer that comes next.
#[derive(Debug)]
pub(crate) struct Flow<'a> {
    config: &'a DecoderConfig,
    data: &'a Path,
    /// Type of the forward pass.
    kind: Kind,
    means: Means<'a>,
    chunks: Vec<Chunk>,
    hidden: Hidden,
    longest: usize,
    /// Whether a chunk did not fit into the device's memory as a whole.
    crowded: AtomicBool,
}

/// Whether hidden states move on to what comes out of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum States {
    /// They do.
    Move,
    /// They stay what they were before the layer.
    Stay,
}

impl<'a> Flow<'a> {
    /// Cuts sequences into chunks and embeds them.
    ///
    /// # Errors
    /// When the model has no embedding or position for a token, an embedding is not finite, or there is no room.
    pub(crate) fn new(source: &Source<'_, 'a>, sequences: Vec<Sequence>) -> Result<Self, GramError> {
        let Source { decoder, data, means, .. } = *source;
        let config = decoder.config();
        check(&sequences, config, data)?;
        let longest = sequences.iter().map(|sequence| sequence.ids.len()).max().unwrap_or(0);
        let chunks = Chunk::cut(sequences, means.device);
        let kind = decoder.kind();
        let hidden = room(source, &chunks)?;
        let flow = Self { config, data, kind, means, chunks, hidden, longest, crowded: AtomicBool::new(false) };
        let embedding = decoder.embedding()?;
        for (index, chunk) in flow.chunks.iter().enumerate() {
            let states = chunk
                .ids(means.device)
                .and_then(|ids| embedding.f_index_select(0, &ids))
                .map_err(GramError::torch("embedding"))?;
            flow.check_finite(&states, chunk, "the embedding")?;
            flow.hidden.set(index, &states)?;
        }
        Ok(flow)
    }

    /// The chunks, in their order. Flows of the same sequences on the same device have the same.
    pub(crate) fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// The hidden states of a chunk `[tokens, hidden]`, on the device that computes.
    ///
    /// # Errors
    /// When they cannot be read back from the file, or the device has no room.
    pub(crate) fn states(&self, chunk: usize) -> Result<Tensor, GramError> {
        self.hidden.get(chunk)
    }

    /// Bytes of hidden states in main memory.
    pub(crate) fn resident(&self) -> u64 {
        self.hidden.resident()
    }

    /// Tokens of the longest sequence.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }

    /// All chunks through one layer: the sums of what these inputs see, in their order. `place` is for messages.
    ///
    /// # Errors
    /// When an activation is not finite, libtorch fails, or there is no room.
    pub(crate) fn through(
        &self,
        layer: &Layer,
        inputs: &[Input],
        rope: &Rope,
        states: States,
        place: &str,
    ) -> Result<Vec<Accumulator>, GramError> {
        let mut sums = self.sums(inputs.iter().map(|input| input.width(self.config)), place)?;
        for wave in waves(self.chunks.len(), wave(self.means)) {
            let work = wave.map(|chunk| (chunk, layer.share(), rope.share())).collect();
            let addends = self.means.pool.map(work, |(index, layer, rope)| {
                let before = self.hidden.get(index)?;
                let pass = Pass { layer: &layer, rope: &rope, inputs, place };
                let (after, addends) = self.pass(&pass, &before, &self.chunks[index])?;
                if states == States::Move {
                    self.hidden.set(index, &after)?;
                }
                Ok::<_, GramError>(addends)
            })?;
            for addend in addends {
                addend.into_iter().zip(&mut sums).for_each(|(addends, (_, list))| list.extend(addends));
            }
            self.add(&mut sums, place)?;
        }
        Ok(sums.into_iter().map(|(sum, _)| sum).collect())
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

    /// The sum of what the output projection sees: the final norm of the last hidden states.
    ///
    /// # Errors
    /// As [`Self::through`].
    pub(crate) fn head(&self, norm: &FinalNorm) -> Result<Accumulator, GramError> {
        const PLACE: &str = "lm_head";
        let mut sums = self.sums([self.config.hidden].into_iter(), PLACE)?;
        for wave in waves(self.chunks.len(), wave(self.means)) {
            let work = wave.map(|chunk| (chunk, norm.share())).collect();
            let addends = self.means.pool.map(work, |(index, norm)| {
                let (states, chunk) = (self.hidden.get(index)?, &self.chunks[index]);
                let input = norm.forward(&states);
                let addend = input.and_then(|x| Addend::new(&x, chunk.counted.as_deref(), &chunk.first));
                addend.map_err(GramError::torch(PLACE))
            })?;
            sums[0].1.extend(addends);
            self.add(&mut sums, PLACE)?;
        }
        Ok(sums.remove(0).0)
    }

    /// An error that names the row, if any state is not finite.
    fn check_finite(&self, states: &Tensor, chunk: &Chunk, place: &str) -> Result<(), GramError> {
        match first_not_finite(states).map_err(GramError::torch(place))? {
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

/// The first token whose states `[tokens, hidden]` are not all finite.
///
/// # Errors
/// When libtorch fails.
pub(crate) fn first_not_finite(states: &Tensor) -> Result<Option<usize>, TchError> {
    // A sum is not finite when a term is not; where it overflows by itself, the row-wise look finds nothing.
    if states.f_sum(Kind::Float)?.f_double_value(&[])?.is_finite() {
        return Ok(None);
    }
    let finite: Vec<bool> = Vec::try_from(states.f_isfinite()?.f_all_dim(1, false)?)?;
    Ok(finite.iter().position(|finite| !finite))
}

/// Refuses what the model has no embedding or position for.
///
/// # Errors
/// When a token id is outside the vocabulary, or a sequence too long.
pub(crate) fn check(sequences: &[Sequence], config: &DecoderConfig, data: &Path) -> Result<(), GramError> {
    let data = || data.to_path_buf();
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

/// Room for the hidden states of all chunks, in memory as far as they may lie there.
fn room(source: &Source<'_, '_>, chunks: &[Chunk]) -> Result<Hidden, GramError> {
    let Source { decoder, means, spill, sharers, .. } = *source;
    let (config, kind) = (decoder.config(), decoder.kind());
    let tokens = chunks.iter().map(|chunk| chunk.tokens);
    let working = working_set(config, kind, means, chunks);
    keep(tokens, (config.hidden, kind), working, means, (spill, sharers))
}

/// Room for hidden states `[tokens, width]` of so many tokens each, beside work that takes `working` bytes: in memory as far
/// as they may lie there, of which so many sharers have an equal part.
///
/// # Errors
/// When a file is needed and cannot be made.
pub(crate) fn keep(
    tokens: impl Iterator<Item = usize> + Clone,
    (width, kind): (usize, Kind),
    working: u64,
    means: Means<'_>,
    (spill, sharers): (&Path, u64),
) -> Result<Hidden, GramError> {
    let device = means.device;
    let bytes = (tokens.clone().sum::<usize>() * width * kind.elt_size_in_bytes()) as u64;
    // On a GPU the states stay there where they and the work fit; else the machine's memory holds them.
    let on_gpu = device != Device::Cpu && fits(bytes + working, device);
    let room = if on_gpu {
        Room { home: device, limit: u64::MAX, spill }
    } else {
        let limit = match means.memory {
            Some(budget) if device == Device::Cpu => budget.saturating_sub(working),
            Some(budget) => budget,
            None => device::available_memory().unwrap_or(u64::MAX) / 2,
        };
        Room { home: Device::Cpu, limit: limit / sharers, spill }
    };
    if device != Device::Cpu && !on_gpu {
        means.reporter.note("the hidden states do not fit on the GPU beside the work: main memory holds them");
    }
    let hidden = Hidden::new(tokens, width, (kind, device), room)?;
    if hidden.spilled() > 0 {
        means.reporter.note(format!(
            "{} MB of {} MB of hidden states go to a file: memory is to hold no more",
            hidden.spilled() / 1_000_000,
            bytes / 1_000_000
        ));
    }
    means.reporter.fact("hidden_states", bytes);
    means.reporter.fact("hidden_states_in_file", hidden.spilled());
    Ok(hidden)
}

/// Bytes that the work on one layer takes, roughly: the weights of two layers, the Grams of one, the inputs of a wave of
/// chunks, and what one chunk leaves on the way.
fn working_set(config: &DecoderConfig, kind: Kind, means: Means<'_>, chunks: &[Chunk]) -> u64 {
    let widths = Input::ALL.map(|input| input.width(config));
    let inputs: usize = widths.iter().sum();
    let weights = config.hidden * (2 * config.heads * config.head_dim + 2 * config.kv_heads * config.head_dim)
        + 3 * config.hidden * config.mlp;
    let grams: usize = widths.iter().map(|width| width * (width + 512) / 2).sum();
    let tallest = chunks.iter().map(|chunk| chunk.tokens).max().unwrap_or(0);
    let passing = tallest * (inputs + 3 * config.mlp) * means.pool.workers();
    let element = kind.elt_size_in_bytes();
    (element * (2 * weights + wave(means) * tallest * inputs + passing) + 4 * grams) as u64
}

/// How many chunks run before they are added to the Grams.
fn wave(means: Means<'_>) -> usize {
    if means.device == Device::Cpu { WAVE.max(2 * means.pool.workers()) } else { 1 }
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
        let sequence = |(row, &length)| {
            let (ids, counts, bytes) = (vec![0; length], vec![true; length], vec![0; length]);
            Sequence { row, ids, counts, bytes }
        };
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
