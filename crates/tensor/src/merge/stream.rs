//! One pass over the output, in the order of its bytes: read, merge, round, write and hash while the data is in cache.
//!
//! Files are cut into chunks by their tensors' shapes alone. Workers take chunks in order; each has a buffer from a fixed
//! supply, whose size is what the pass takes of memory. A finished chunk is written at its place and queued for its file's
//! hash, which is taken in the order of bytes by whichever worker finds the next one ready; then the buffer is free
//! again. Since a chunk is handed out only with a buffer, the first one that a hash waits for is always on its way.
//!
//! What is already there (layers that a linear system gave) is read back and hashed. Dirty pages are sent to the disk
//! while the work goes on, not at its end.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use indexmap::IndexMap;
use safetensors::Dtype;
use sha2::{Digest as _, Sha256};

use super::elementwise::{Elementwise, How, Kernel, TILE, Tile, Work, aligned};
use super::error::MergeError;
use super::method::Context;
use super::sources::Source;
use crate::checkpoint::{CheckpointError, NewTensor, Shard, Writer};
use crate::codec::{encode, overflow};
use crate::dtype::FloatType;
use crate::system::vectorized;

/// Bytes of a chunk, and of a buffer.
const CHUNK: usize = 1 << 20;

/// Buffers for each worker where no budget says otherwise: so many chunks may wait for one that is late.
const BUFFERS: usize = 8;

/// What the process takes without any buffer: the program and libtorch.
pub(super) const PROGRAM: u64 = 192 << 20;

/// Chunks that the system is asked to read ahead.
const AHEAD: usize = 16;

/// Bytes after which a file's dirty pages are sent to the disk.
const FLUSH: u64 = 128 << 20;

/// How much may be in flight.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    buffers: usize,
}

impl Limits {
    /// As many buffers as the memory budget has room for, up to a few for each worker.
    ///
    /// # Errors
    /// When it has room for less than each worker needs.
    pub fn new<'a>(
        context: &Context<'_>,
        streamed: impl Iterator<Item = &'a Work<'a>> + Clone,
    ) -> Result<Self, MergeError> {
        let workers = context.host.workers();
        let most = workers * BUFFERS;
        let Some(budget) = context.memory else { return Ok(Self { buffers: most }) };
        let tile = |work: &Work<'_>| (work.inputs().len() + 1) * TILE.max(work.elementwise.grain());
        let scratch = (workers * streamed.clone().map(tile).max().unwrap_or(0) * size_of::<f32>()) as u64;
        // A chunk is longer where one grain is.
        let longest = streamed.map(|work| work.elementwise.grain()).max().unwrap_or(1) * size_of::<f32>();
        let (fixed, chunk) = (PROGRAM + scratch, CHUNK.max(longest) as u64);
        let room = (budget.saturating_sub(fixed) / chunk) as usize;
        if room <= workers {
            return Err(MergeError::Memory { budget, needed: fixed + (workers as u64 + 1) * chunk });
        }
        Ok(Self { buffers: room.min(most) })
    }
}

/// Elements of one tensor that are made, written and hashed together.
#[derive(Clone, Debug)]
struct Chunk<'a> {
    shard: usize,
    /// Its place among the chunks of its file.
    place: usize,
    tensor: &'a str,
    dtype: Dtype,
    elements: Range<usize>,
}

impl Chunk<'_> {
    fn bytes(&self) -> usize {
        self.elements.len() * self.dtype.bitsize() / 8
    }
}

/// Chunks in the order in which they are handed out. Several files are written side by side where there are workers for
/// it, since one hash is the work of one.
fn chunks<'a>(
    writer: &'a Writer,
    work: &IndexMap<String, Work<'_>>,
    side_by_side: usize,
) -> Result<Vec<Chunk<'a>>, CheckpointError> {
    let mut files = Vec::new();
    for (shard, file) in writer.shards().iter().enumerate() {
        let mut chunks = Vec::new();
        for tensor in file.tensors() {
            let spec = writer.planned(tensor)?;
            for elements in pieces(spec, work.get(tensor).map_or(1, |work| work.elementwise.grain())) {
                chunks.push(Chunk { shard, place: chunks.len(), tensor, dtype: spec.dtype, elements });
            }
        }
        files.push(chunks);
    }
    let mut ordered = Vec::new();
    for group in files.chunks(side_by_side.max(1)) {
        let longest = group.iter().map(Vec::len).max().unwrap_or(0);
        ordered.extend((0..longest).flat_map(|place| group.iter().filter_map(move |file| file.get(place).cloned())));
    }
    Ok(ordered)
}

/// The elements of each chunk of a tensor: as many grains as have room, or one.
fn pieces(tensor: &NewTensor, grain: usize) -> impl Iterator<Item = Range<usize>> {
    let (count, room) = (tensor.elements(), CHUNK * 8 / tensor.dtype.bitsize());
    let step = grain * (room / grain).max(1);
    (0..count).step_by(step).map(move |start| start..(start + step).min(count))
}

/// Makes and writes some tensors before the pass, which then finds them as it finds those that a linear system gave.
///
/// # Errors
/// As [`run`].
pub fn ahead(context: &Context<'_>, writer: &Writer, work: &[Work<'_>]) -> Result<(), MergeError> {
    let mut chunks = Vec::new();
    for work in work {
        let Elementwise { tensor, .. } = &work.elementwise;
        let spec = writer.planned(tensor)?;
        let chunk = |elements| Chunk { shard: 0, place: 0, tensor, dtype: spec.dtype, elements };
        chunks.extend(pieces(spec, work.elementwise.grain()).map(|elements| (work, chunk(elements))));
    }
    context.host.map(chunks, |(work, chunk)| {
        let mut buffer = vec![0; chunk.bytes()];
        make(writer, Some(work), &chunk, &mut Scratch::default(), &mut buffer)
    })?;
    Ok(())
}

/// A fixed supply of buffers.
struct Supply {
    state: Mutex<(Vec<Vec<u8>>, bool)>,
    changed: Condvar,
}

impl Supply {
    fn new(count: usize) -> Self {
        let buffers = (0..count).map(|_| Vec::new()).collect();
        Self { state: Mutex::new((buffers, false)), changed: Condvar::new() }
    }

    /// A buffer, once there is one; none when the work is given up.
    fn take(&self) -> Option<Vec<u8>> {
        let state = held(&self.state);
        let waiting = |state: &mut (Vec<Vec<u8>>, bool)| state.0.is_empty() && !state.1;
        let mut state = self.changed.wait_while(state, waiting).unwrap_or_else(PoisonError::into_inner);
        if state.1 { None } else { state.0.pop() }
    }

    fn give(&self, buffer: Vec<u8>) {
        held(&self.state).0.push(buffer);
        self.changed.notify_one();
    }

    fn give_up(&self) {
        held(&self.state).1 = true;
        self.changed.notify_all();
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The hash of one file, taken in the order of its chunks whatever the order in which they come.
struct Hash(Mutex<Queue>);

struct Queue {
    /// The next chunk to be hashed.
    next: usize,
    waiting: BTreeMap<usize, Vec<u8>>,
    /// Away while a worker hashes.
    hasher: Option<Sha256>,
}

impl Hash {
    fn new(head: &[u8]) -> Self {
        let hasher = Some(Sha256::new().chain_update(head));
        Self(Mutex::new(Queue { next: 0, waiting: BTreeMap::new(), hasher }))
    }

    /// Takes a chunk, and hashes what is ready unless somebody does.
    fn add(&self, place: usize, buffer: Vec<u8>, supply: &Supply) {
        let mut queue = held(&self.0);
        queue.waiting.insert(place, buffer);
        let Some(mut hasher) = queue.hasher.take() else { return };
        loop {
            let next = queue.next;
            let Some(buffer) = queue.waiting.remove(&next) else { break };
            queue.next += 1;
            drop(queue);
            hasher.update(&buffer);
            supply.give(buffer);
            queue = held(&self.0);
        }
        queue.hasher = Some(hasher);
    }

    fn finish(self) -> String {
        let queue = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        assert!(queue.waiting.is_empty(), "every chunk was hashed");
        let hasher = queue.hasher.expect("nobody hashes any more");
        hasher.finalize().iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"))
    }
}

/// The number of a chunk and what went wrong with it.
type Failed = Box<(usize, MergeError)>;

/// Does the elementwise work and hashes all files: path, size and SHA-256 of each, on the disk by then.
///
/// # Errors
/// When a tensor cannot be read, is not finite, does not fit its type, or cannot be written. Of several errors that of the
/// first chunk.
pub fn run(
    context: &Context<'_>,
    writer: &Writer,
    work: &IndexMap<String, Work<'_>>,
    limits: Limits,
) -> Result<Vec<(PathBuf, u64, String)>, MergeError> {
    let workers = context.host.workers();
    let chunks = chunks(writer, work, workers.div_ceil(2))?;
    let total = chunks.iter().map(|chunk| chunk.bytes() as u64).sum::<u64>() >> 20;
    let supply = Supply::new(limits.buffers);
    let hashes: Vec<Hash> = writer.shards().iter().map(|shard| Hash::new(shard.head())).collect();
    let dirty: Vec<AtomicU64> = hashes.iter().map(|_| AtomicU64::new(0)).collect();
    let (next, written) = (AtomicUsize::new(0), AtomicU64::new(0));
    let (flush, flushes) = channel();
    let worker = |flush: Sender<usize>| -> Result<(), Failed> {
        let mut scratch = Scratch::default();
        while let Some(mut buffer) = supply.take() {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(chunk) = chunks.get(number) else {
                supply.give(buffer);
                break;
            };
            if let Some(later) = chunks.get(number + AHEAD) {
                read_ahead(work.get(later.tensor), later);
            }
            buffer.resize(chunk.bytes(), 0);
            let made = make(writer, work.get(chunk.tensor), chunk, &mut scratch, &mut buffer);
            made.map_err(|error| {
                supply.give_up();
                Box::new((number, error))
            })?;
            hashes[chunk.shard].add(chunk.place, buffer, &supply);
            let bytes = chunk.bytes() as u64;
            let before = dirty[chunk.shard].fetch_add(bytes, Ordering::Relaxed);
            if before / FLUSH != (before + bytes) / FLUSH {
                // The flusher lives as long as a worker does.
                let _ = flush.send(chunk.shard);
            }
            let done = written.fetch_add(bytes, Ordering::Relaxed);
            if done >> 26 != (done + bytes) >> 26 {
                context.reporter.progress(((done + bytes) >> 20) as usize, total as usize, "MiB");
            }
        }
        Ok(())
    };
    let results = thread::scope(|scope| {
        let flusher = scope.spawn(move || flush_all(writer.shards(), &flushes));
        let others: Vec<_> = (1..workers)
            .map(|_| {
                scope.spawn({
                    let flush = flush.clone();
                    let worker = &worker;
                    move || worker(flush)
                })
            })
            .collect();
        let mut results = vec![worker(flush)];
        results.extend(
            others.into_iter().map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))),
        );
        let flushed = flusher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        results.push(flushed.map_err(|error| Box::new((usize::MAX, error.into()))));
        results
    });
    let first = results.into_iter().filter_map(Result::err).min_by_key(|failed| failed.0);
    if let Some(failed) = first {
        return Err(failed.1);
    }
    let digests = hashes.into_iter().map(Hash::finish);
    Ok(writer
        .shards()
        .iter()
        .zip(digests)
        .map(|(shard, sha256)| (shard.path().to_owned(), shard.size(), sha256))
        .collect())
}

/// Sends files to the disk as they are named, and all of them when no worker is left to name one.
fn flush_all(shards: &[Shard], named: &Receiver<usize>) -> Result<(), CheckpointError> {
    while let Ok(first) = named.recv() {
        // What was named meanwhile is one flush.
        let mut files: Vec<usize> = [first].into_iter().chain(named.try_iter()).collect();
        files.sort_unstable();
        files.dedup();
        for file in files {
            shards[file].sync()?;
        }
    }
    shards.iter().try_for_each(Shard::sync)
}

fn read_ahead(work: Option<&Work<'_>>, chunk: &Chunk<'_>) {
    for source in work.iter().flat_map(|work| work.inputs()) {
        if let Ok(file) = source.checkpoint.file(chunk.tensor) {
            file.will_need(chunk.tensor, chunk.elements.clone());
        }
    }
}

/// Fills a buffer with a chunk's bytes, and sees to it that they are in the file.
fn make(
    writer: &Writer,
    work: Option<&Work<'_>>,
    chunk: &Chunk<'_>,
    scratch: &mut Scratch,
    buffer: &mut [u8],
) -> Result<(), MergeError> {
    let Some(work) = work else {
        return Ok(writer.read_back(chunk.tensor, chunk.elements.start, buffer)?);
    };
    let inputs = work.inputs();
    match (&work.elementwise.how, FloatType::of_header(chunk.dtype)) {
        (How::Merge(kernel), Some(dtype)) => {
            let size = chunk.dtype.bitsize() / 8;
            for tile in aligned(chunk.elements.clone(), kernel.grain()) {
                let start = tile.start - chunk.elements.start;
                let bytes = &mut buffer[start * size..(start + tile.len()) * size];
                scratch.merge((&work.elementwise, &**kernel), &inputs, tile, dtype, bytes)?;
            }
        }
        _ => {
            let source = inputs.first().expect("bytes are somebody's");
            let file = source.checkpoint.file(chunk.tensor)?;
            buffer.copy_from_slice(&file.bytes(chunk.tensor, chunk.elements.clone())?);
        }
    }
    Ok(writer.write_bytes(chunk.tensor, chunk.elements.start, buffer)?)
}

/// A worker's tiles.
#[derive(Default)]
struct Scratch {
    inputs: Vec<Vec<f32>>,
    out: Vec<f32>,
}

impl Scratch {
    /// One tile of a tensor, from its sources to its bytes.
    fn merge(
        &mut self,
        (work, kernel): (&Elementwise, &dyn Kernel),
        sources: &[&Source],
        range: Range<usize>,
        dtype: FloatType,
        bytes: &mut [u8],
    ) -> Result<(), MergeError> {
        let size = TILE.max(kernel.grain());
        self.inputs.resize_with(sources.len().max(self.inputs.len()), Vec::new);
        self.inputs.iter_mut().chain([&mut self.out]).for_each(|values| values.resize(size.max(values.len()), 0.0));
        for (source, values) in sources.iter().zip(&mut self.inputs) {
            source.decode(&work.tensor, range.clone(), &mut values[..range.len()])?;
        }
        let tiles: Vec<&[f32]> = self.inputs[..sources.len()].iter().map(|values| &values[..range.len()]).collect();
        let (base, rest) = if work.base { (tiles.first().copied(), &tiles[1..]) } else { (None, tiles.as_slice()) };
        let (models, beside) = rest.split_at(work.models.len());
        let out = &mut self.out[..range.len()];
        kernel.merge(&Tile { start: range.start, base, models, beside }, out);
        let limit = overflow(dtype);
        // Without an early end, so that it is a vector loop; a NaN is not less than anything.
        if !vectorized(|| out.iter().fold(true, |fits, value| fits & (value.abs() < limit))) {
            let at = out.iter().position(|value| value.is_nan() || value.abs() >= limit).expect("one was found");
            let (name, position, value) = (work.tensor.clone(), range.start + at, out[at]);
            return Err(MergeError::Overflow { name, position, value, dtype: dtype.name() });
        }
        encode(dtype, out, bytes);
        Ok(())
    }
}
