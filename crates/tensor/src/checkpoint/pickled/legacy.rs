//! The stream that `torch.save` wrote before version 1.6, and that tensors in a plain pickle still consist of.
//!
//! Five pickles one after the other, then bytes: a magic number, the protocol (1001), the machine's byte order, the object,
//! the keys of its storages; and per key the number of elements (8 bytes, little endian) and the elements.

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Range;

use safetensors::Dtype;

use super::machine::{Ran, Reach, run};
use super::value::Place;

/// The magic number's bytes, and the protocol.
const MAGIC: &[u8] = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
const PROTOCOL: i64 = 1001;

/// A stream whose pickles were run.
pub(super) struct Stream<'a> {
    /// The object.
    pub(super) object: Ran<'a>,
    /// Where the elements of each storage lie, in bytes from the start of the stream.
    pub(super) storages: HashMap<&'a str, Range<usize>>,
}

/// Whether a pickle that was run is the first one of a stream.
pub(super) fn is_magic(ran: &Ran<'_>) -> bool {
    ran.long().is_some_and(|bytes| bytes == MAGIC)
}

/// Runs the pickles of a stream.
pub(super) fn read<'a>(stream: &'a [u8], steps: &Cell<usize>) -> Result<Stream<'a>, String> {
    let next = |at: usize| run(stream, at, Reach::Keys, steps);
    let magic = next(0)?;
    if !is_magic(&magic) {
        return Err("it is no stream of torch.save".to_owned());
    }
    let protocol = next(magic.end)?;
    if protocol.number() != Some(PROTOCOL) {
        return Err("it is of a protocol of torch.save that is not known".to_owned());
    }
    let machine = next(protocol.end)?;
    if machine.flag("little_endian") == Some(false) {
        return Err("its numbers are big-endian".to_owned());
    }
    let object = next(machine.end)?;
    let keys = next(object.end)?;
    let mut at = keys.end;
    let mut storages = HashMap::new();
    for key in keys.texts().ok_or("its list of storages is none")? {
        let (dtype, elements) =
            *object.storages.get(key).ok_or_else(|| format!("storage {key:?} in it is nobody's"))?;
        let range = storage(stream, at, dtype, elements)?;
        at = range.end;
        if storages.insert(key, range).is_some() {
            return Err(format!("storage {key:?} is in it twice"));
        }
    }
    Ok(Stream { object, storages })
}

/// The elements whose number stands at `at`; it must be the one that was announced.
fn storage(stream: &[u8], at: usize, dtype: Dtype, elements: usize) -> Result<Range<usize>, String> {
    const TRUNCATED: &str = "it is truncated";
    let start = at.checked_add(8).filter(|start| *start <= stream.len()).ok_or(TRUNCATED)?;
    let count = stream[at..start].iter().rev().fold(0u64, |count, byte| count << 8 | u64::from(*byte));
    if count != elements as u64 {
        return Err(format!("a storage in it is said to have {elements} elements, and {count}"));
    }
    let bytes = elements.checked_mul(dtype.bitsize() / 8);
    let end = bytes.and_then(|bytes| start.checked_add(bytes)).filter(|end| *end <= stream.len());
    Ok(start..end.ok_or(TRUNCATED)?)
}

/// The one storage that a stream is: its type, and its elements in bytes from the start of the stream.
pub(super) fn lone_storage(stream: &[u8], steps: &Cell<usize>) -> Result<(Dtype, Range<usize>), String> {
    let read = read(stream, steps)?;
    let Some((Place::Key(key), dtype)) = read.object.storage() else {
        return Err("bytes in it hold something else than a storage".to_owned());
    };
    let range = read.storages.get(key).cloned();
    Ok((dtype, range.ok_or("bytes in it name a storage and do not hold it")?))
}
