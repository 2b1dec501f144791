//! Checkpoints that `torch.save` wrote (`pytorch_model.bin`), read without running anything.
//!
//! A pickle is a program for a small stack machine that may call any function of Python. This reads the programs that
//! state dictionaries are, and no others: [`machine`] knows the instructions that build strings, numbers, tuples and
//! dictionaries, and only the names in [`machine::Global`]; whatever else a file names is an error that says what it was.
//!
//! Since torch 1.6 the file is a zip ([`archive`]): `NAME/data.pkl`, and one entry `NAME/data/KEY` per storage, stored
//! without compression. So a tensor is a range of bytes of the mapped file, as in a safetensors file.

mod archive;
mod machine;

use std::path::Path;

use indexmap::IndexMap;
use safetensors::Dtype;

use super::CheckpointError;
use super::file::{SafeFile, TensorInfo};
use crate::failure::FileError;
use crate::system::MappedFile;
use archive::Archive;
use machine::Described;

/// Maps a file that `torch.save` wrote and finds its tensors.
///
/// # Errors
/// When it cannot be read, is no such file, or asks for more than a state dictionary needs.
pub(super) fn open(path: &Path) -> Result<SafeFile, CheckpointError> {
    let map = MappedFile::open(path).map_err(FileError::of("read", path))?;
    let tensors = tensors(&map).map_err(|reason| CheckpointError::Pickle { path: path.to_path_buf(), reason })?;
    Ok(SafeFile::of_parts(path, map, tensors))
}

fn tensors(file: &[u8]) -> Result<IndexMap<String, TensorInfo>, String> {
    let archive = Archive::open(file)?;
    let program = archive.bytes("data.pkl").ok_or("it has no data.pkl")?;
    if archive.bytes("byteorder").is_some_and(|order| &file[order] != b"little") {
        return Err("its numbers are big-endian".to_owned());
    }
    let described = machine::run(&file[program])?;
    described.into_iter().map(|(name, tensor)| Ok((name.clone(), place(&archive, &name, tensor)?))).collect()
}

/// Where a tensor lies in the file; every element of it must lie in its storage.
fn place(archive: &Archive, name: &str, tensor: Described) -> Result<TensorInfo, String> {
    let entry = format!("data/{}", tensor.storage);
    let storage = archive.bytes(&entry).ok_or_else(|| format!("{name:?} lies in {entry}, which is not there"))?;
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

/// The stored type of a storage class.
fn storage_type(class: &str) -> Option<Dtype> {
    Some(match class {
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::BOOL,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive_of(storage_bytes: usize) -> (Vec<u8>, Archive) {
        let file = archive::tests::zip(&[("m/data/0", &vec![0; storage_bytes])]);
        let archive = Archive::open(&file).unwrap();
        (file, archive)
    }

    fn described(offset: usize, shape: &[usize], strides: &[usize]) -> Described {
        let (shape, strides) = (shape.to_vec(), strides.to_vec());
        Described { storage: "0".to_owned(), dtype: Dtype::F32, offset, shape, strides }
    }

    #[test]
    fn a_tensor_may_not_reach_past_its_storage() {
        let (_file, archive) = archive_of(48);
        let placed =
            |offset, shape: &[usize], strides: &[usize]| place(&archive, "w", described(offset, shape, strides));
        assert_eq!(placed(0, &[3, 4], &[4, 1]).unwrap().strides, None);
        assert_eq!(placed(0, &[4, 3], &[1, 4]).unwrap().strides, Some(vec![1, 4]));
        // A view that repeats one row.
        assert_eq!(placed(8, &[9, 4], &[0, 1]).unwrap().strides, Some(vec![0, 1]));
        assert_eq!(placed(0, &[0, 4], &[4, 1]).unwrap().elements(), 0);
        for (offset, shape, strides) in [
            (1, [3, 4], [4, 1]),
            (0, [3, 5], [4, 1]),
            (0, [3, 4], [5, 1]),
            (13, [0, 4], [4, 1]),
            (usize::MAX, [1, 1], [1, 1]),
            (0, [usize::MAX, 2], [1, 1]),
            (0, [2, 2], [usize::MAX, 1]),
        ] {
            assert!(placed(offset, &shape, &strides).is_err(), "{offset} {shape:?} {strides:?}");
        }
        let other = Described { storage: "1".to_owned(), ..described(0, &[1], &[1]) };
        assert!(place(&archive, "w", other).unwrap_err().contains("data/1, which is not there"));
    }
}
