//! How two models differ, tensor by tensor: sums over their elements, in fp64 from the stored numbers as they are.
//!
//! Tensors are matched by name, wherever they lie in the files. Both are read by mmap in pieces whose bounds depend on shapes
//! alone, so that memory does not grow with the model and the sums are the same on any number of cores. Unlike a merge this
//! refuses nothing that can be read: shapes and types that differ, numbers that are none and tensors of one side are what
//! somebody wants to know.

mod sides;
mod sums;

use std::ops::Range;
use std::path::Path;

use mergelab_wire::{
    Compared, DIFFERENCE, DIFFERENCE_FORMAT, DiffJob, Difference, LargestEntry, LoneTensor, TensorDifference,
};
use safetensors::Dtype;

use self::sides::Sides;
use self::sums::Piece;
use crate::checkpoint::{Checkpoint, CheckpointError, SafeFile, TensorInfo};
use crate::codec::{decode_exact, is_float};
use crate::failure::{Failure, FileError};
use crate::merge::elementwise::{TILE, tiles};
use crate::parallel::Pool;
use crate::report::Reporter;

/// Elements of a piece, the work of one core at a time.
const PIECE: usize = 256 * TILE;

/// Compares two models and writes `diff.json`.
///
/// # Errors
/// When one cannot be read.
pub fn run(job: &DiffJob, out: &Path, pool: Pool, reporter: &Reporter) -> Result<(), Failure> {
    let sides = Sides::open(job, reporter)?;
    let [first, second] = &sides.checkpoints;
    let common: Vec<&str> = first.names().filter(|name| second.contains(name)).collect();
    let mut tensors = Vec::with_capacity(common.len());
    reporter.progress(0, common.len(), "tensors");
    for name in &common {
        tensors.push(tensor([first, second], name, pool)?);
        reporter.progress(tensors.len(), common.len(), "tensors");
    }
    let only = [lone(first, second)?, lone(second, first)?];
    reporter.fact("tensors", tensors.len());
    let difference = Difference { format: DIFFERENCE_FORMAT, tensors, only, tied: sides.tied };
    let path = out.join(DIFFERENCE);
    let text = serde_json::to_vec(&difference).expect("names and finite numbers have a JSON form");
    Ok(std::fs::write(&path, text).map_err(FileError::of("write", &path))?)
}

/// The tensors that only the first model has.
fn lone(has: &Checkpoint, lacks: &Checkpoint) -> Result<Vec<LoneTensor>, CheckpointError> {
    let names = has.names().filter(|name| !lacks.contains(name));
    let lone = names.map(|name| {
        let info = has.info(name)?;
        Ok(LoneTensor { name: name.to_owned(), shape: info.shape.clone(), dtype: info.dtype.to_string() })
    });
    lone.collect()
}

/// One tensor in its two files.
#[derive(Clone, Copy)]
struct Pair<'a> {
    name: &'a str,
    files: [&'a SafeFile; 2],
    infos: [&'a TensorInfo; 2],
}

fn tensor(sides: [&Checkpoint; 2], name: &str, pool: Pool) -> Result<TensorDifference, CheckpointError> {
    let [first, second] = sides;
    let pair =
        Pair { name, files: [first.file(name)?, second.file(name)?], infos: [first.info(name)?, second.info(name)?] };
    let [a, b] = pair.infos;
    let compared = if a.shape != b.shape {
        Compared::Not
    } else if is_float(a.dtype) && is_float(b.dtype) {
        pair.numbers(pool)?
    } else if a.dtype == b.dtype {
        pair.bytes(pool)?
    } else {
        Compared::Not
    };
    Ok(TensorDifference {
        name: name.to_owned(),
        shapes: pair.infos.map(|info| info.shape.clone()),
        dtypes: pair.infos.map(|info| info.dtype.to_string()),
        compared,
    })
}

/// The bounds of a tensor's pieces.
fn pieces(elements: usize) -> Vec<Range<usize>> {
    (0..elements).step_by(PIECE).map(|start| start..(start + PIECE).min(elements)).collect()
}

impl Pair<'_> {
    fn numbers(self, pool: Pool) -> Result<Compared, CheckpointError> {
        let found = pool.map(pieces(self.infos[0].elements()), |piece| self.piece(piece))?;
        let mut all = Piece::default();
        for piece in &found {
            all.add(piece);
        }
        let index = |at: usize| index_of(at, &self.infos[0].shape);
        let largest = all.largest.map(|(at, values)| LargestEntry { index: index(at), values });
        Ok(Compared::Numbers(all.sums(self.infos[0].elements() as u64, largest)))
    }

    fn piece(self, piece: Range<usize>) -> Result<Piece, CheckpointError> {
        let mut found = Piece::default();
        let mut values = [vec![0.0f64; TILE], vec![0.0f64; TILE]];
        for range in tiles(piece.clone()) {
            for ((file, info), values) in self.files.iter().zip(self.infos).zip(&mut values) {
                values.resize(range.len(), 0.0);
                decode_exact(info.dtype, &file.bytes(self.name, range.clone())?, values);
            }
            let [a, b] = &mut values;
            found.tile(a, b, range.start);
        }
        self.let_go(&piece);
        Ok(found)
    }

    /// Counts elements whose bytes differ.
    fn bytes(self, pool: Pool) -> Result<Compared, CheckpointError> {
        let size = size_of(self.infos[0].dtype);
        let count = |piece: Range<usize>| {
            let [a, b] = self.files.map(|file| file.bytes(self.name, piece.clone()));
            let (a, b) = (a?, b?);
            let differing = a.chunks(size).zip(b.chunks(size)).filter(|(a, b)| a != b).count();
            self.let_go(&piece);
            Ok::<_, CheckpointError>(differing as u64)
        };
        Ok(Compared::Bytes { differing: pool.map(pieces(self.infos[0].elements()), count)?.iter().sum() })
    }

    fn let_go(self, piece: &Range<usize>) {
        for file in self.files {
            file.let_go_of(self.name, piece.clone());
        }
    }
}

/// Bytes of an element; 1 for types of which several share one.
fn size_of(dtype: Dtype) -> usize {
    (dtype.bitsize() / 8).max(1)
}

/// Where an element of a tensor laid flat stands in it.
fn index_of(at: usize, shape: &[usize]) -> Vec<usize> {
    let mut rest = at;
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|side| {
            let place = rest % side;
            rest /= side;
            place
        })
        .collect();
    index.reverse();
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_row_major_and_a_single_number_has_none() {
        assert_eq!(index_of(17, &[2, 3, 4]), [1, 1, 1]);
        assert_eq!(index_of(23, &[2, 3, 4]), [1, 2, 3]);
        assert_eq!(index_of(5, &[9]), [5]);
        assert_eq!(index_of(0, &[]), [0; 0]);
    }

    #[test]
    fn pieces_cover_a_tensor_once_and_one_without_elements_has_none() {
        assert!(pieces(0).is_empty());
        assert_eq!(pieces(PIECE + 1), [0..PIECE, PIECE..PIECE + 1]);
    }
}
