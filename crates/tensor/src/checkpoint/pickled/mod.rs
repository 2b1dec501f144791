//! Files of tensors that were pickled (`pytorch_model.bin`, published Gram matrices), read without running anything.
//!
//! A pickle is a program for a small stack machine that may call any function of Python. This reads the programs that
//! dictionaries of tensors are, and no others: [`machine`] knows the instructions that build texts, numbers, tuples, lists and
//! dictionaries, and only the names in [`value::Global`]; whatever else a file names is an error that says what it was.
//!
//! Three forms, told apart by their first bytes. In each a tensor is a range of bytes of the mapped file, as in a
//! safetensors file:
//!
//! - `torch.save` since 1.6: a zip ([`archive`]) of `NAME/data.pkl` and one entry `NAME/data/KEY` per storage, stored without
//!   compression.
//! - `torch.save` before 1.6: a stream ([`legacy`]) of pickles with the storages after them.
//! - `pickle.dump` of a dictionary: one pickle, in which each storage is such a stream as a literal of bytes.

mod archive;
mod legacy;
mod machine;
mod opcode;
mod value;

use std::cell::Cell;
use std::ops::Range;
use std::path::Path;

use indexmap::IndexMap;

use super::CheckpointError;
use super::file::{SafeFile, TensorInfo};
use crate::failure::FileError;
use crate::system::MappedFile;
use archive::Archive;
use machine::{Reach, STEPS};
use value::{Described, Place};

/// Maps a file and finds its tensors.
///
/// # Errors
/// When it cannot be read, is of none of the three forms, or asks for more than a dictionary of tensors needs.
pub(crate) fn open(path: &Path) -> Result<SafeFile, CheckpointError> {
    let fail = |reason: String| CheckpointError::Pickle { path: path.to_path_buf(), reason };
    // An empty file cannot be mapped.
    if std::fs::metadata(path).map_err(FileError::of("read", path))?.len() == 0 {
        return Err(fail("it is empty".to_owned()));
    }
    let map = MappedFile::open(path).map_err(FileError::of("read", path))?;
    let tensors = tensors(&map).map_err(fail)?;
    Ok(SafeFile::of_parts(path, map, tensors))
}

fn tensors(file: &[u8]) -> Result<IndexMap<String, TensorInfo>, String> {
    let steps = Cell::new(STEPS);
    if Archive::is_one(file) {
        let archive = Archive::open(file)?;
        let program = archive.bytes("data.pkl").ok_or("it has no data.pkl")?;
        if archive.bytes("byteorder").is_some_and(|order| &file[order] != b"little") {
            return Err("its numbers are big-endian".to_owned());
        }
        let ran = machine::run(&file[program], 0, Reach::Keys, &steps)?;
        return place_all(ran.tensors()?, |key| {
            let entry = format!("data/{key}");
            archive.bytes(&entry).ok_or(entry)
        });
    }
    if !file.starts_with(&[0x80]) {
        return Err("it is neither a zip nor a pickle".to_owned());
    }
    let first = machine::run(file, 0, Reach::Bytes, &steps)?;
    if legacy::is_magic(&first) {
        let legacy::Stream { object, storages } = legacy::read(file, &steps)?;
        return place_all(object.tensors()?, |key| storages.get(key).cloned().ok_or(format!("storage {key}")));
    }
    if first.end != file.len() {
        return Err(format!("its program ends at byte {} of {}", first.end, file.len()));
    }
    place_all(first.tensors()?, |key| Err(format!("storage {key}")))
}

/// Where tensors lie in the file, with storages under a key found by `find`, which names what is not there.
fn place_all(
    tensors: Vec<(&str, Described<'_>)>,
    find: impl Fn(&str) -> Result<Range<usize>, String>,
) -> Result<IndexMap<String, TensorInfo>, String> {
    let placed = |(name, tensor): (&str, Described<'_>)| {
        let storage = match &tensor.storage {
            Place::Key(key) => find(key).map_err(|what| format!("{name:?} lies in {what}, which is not there"))?,
            Place::Bytes(bytes) => bytes.clone(),
        };
        Ok((name.to_owned(), place(&storage, name, tensor)?))
    };
    tensors.into_iter().map(placed).collect()
}

/// Where a tensor lies in the file; every element of it must lie in its storage.
fn place(storage: &Range<usize>, name: &str, tensor: Described<'_>) -> Result<TensorInfo, String> {
    let size = tensor.dtype.bitsize() / 8;
    let outside = || format!("{name:?} reaches past its storage");
    if tensor.shape.len() != tensor.strides.len() {
        return Err(format!("{name:?} has {} sides and {} strides", tensor.shape.len(), tensor.strides.len()));
    }
    let elements =
        tensor.shape.iter().try_fold(1usize, |product, side| product.checked_mul(*side)).ok_or_else(outside)?;
    // The last element's distance from the first; a tensor without elements has none.
    let sides = tensor.shape.iter().zip(&tensor.strides);
    let last = sides
        .clone()
        .try_fold(0usize, |sum, (side, stride)| sum.checked_add(side.checked_sub(1)?.checked_mul(*stride)?));
    let length = if elements == 0 { 0 } else { last.and_then(|last| last.checked_add(1)).ok_or_else(outside)? };
    let in_bytes = |count: usize| count.checked_mul(size).ok_or_else(outside);
    let start = storage.start.checked_add(in_bytes(tensor.offset)?).ok_or_else(outside)?;
    let end = start.checked_add(in_bytes(length)?).ok_or_else(outside)?;
    if end > storage.end {
        return Err(outside());
    }
    let row_major = is_row_major(&tensor.shape, &tensor.strides);
    let strides = (!row_major && elements > 0).then_some(tensor.strides);
    Ok(TensorInfo { dtype: tensor.dtype, shape: tensor.shape, bytes: start..end, strides })
}

fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1usize;
    shape.iter().zip(strides).rev().all(|(side, stride)| {
        let fits = *side == 1 || *stride == expected;
        expected = expected.saturating_mul(*side);
        fits
    })
}

#[cfg(test)]
mod tests;
