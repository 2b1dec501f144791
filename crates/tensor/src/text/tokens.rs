//! Sequences of token ids in a file, for an engine that is another program: which text, which tokens and which of them count
//! is decided here alone, so that engines cannot differ in it.
//!
//! `sequences.jsonl`: one line a sequence, in the order of the rows,
//!
//! ```text
//! {"row": 3, "ids": [1, 17, 4, 9], "counted": [[1, 4]]}
//! ```
//!
//! `row` counts from 1; `counted` are the positions that count in a Gram, as ascending ranges `[start, end)`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use mergelab_wire::GramJob;
use serde::Serialize;

use super::sequences::{Sequence, TextSpec, sequences};
use crate::failure::{Failure, FileError};
use crate::report::Reporter;

/// Name of the file.
pub const FILE: &str = "sequences.jsonl";

#[derive(Serialize)]
struct Line<'a> {
    row: usize,
    ids: &'a [u32],
    counted: Vec<[usize; 2]>,
}

/// Writes the sequences that a capture runs on.
///
/// # Errors
/// As [`sequences()`], and when the file cannot be written.
pub fn run(job: &GramJob, out: &Path, reporter: &Reporter) -> Result<(), Failure> {
    let sequences = sequences(&TextSpec::of(job), reporter)?;
    let path = out.join(FILE);
    write(&path, &sequences).map_err(FileError::of("write", &path))?;
    Ok(())
}

fn write(path: &Path, sequences: &[Sequence]) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for Sequence { row, ids, counts, .. } in sequences {
        serde_json::to_writer(&mut file, &Line { row: *row, ids, counted: ranges(counts) })?;
        file.write_all(b"\n")?;
    }
    file.flush()
}

/// The ranges of positions that are true.
fn ranges(counts: &[bool]) -> Vec<[usize; 2]> {
    let mut start = 0;
    let mut ranges = Vec::new();
    for run in counts.chunk_by(|a, b| a == b) {
        if run[0] {
            ranges.push([start, start + run.len()]);
        }
        start += run.len();
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_the_positions_that_count_and_no_others() {
        let [yes, no] = [true, false];
        assert_eq!(ranges(&[no, yes, yes, no, yes]), [[1, 3], [4, 5]]);
        assert_eq!(ranges(&[yes, yes]), [[0, 2]]);
        assert_eq!(ranges(&[no]), [[0; 2]; 0]);
    }

    #[test]
    fn a_sequence_is_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let sequence = |row, ids: &[u32]| {
            let (counts, bytes) = (vec![true; ids.len()], vec![1; ids.len()]);
            Sequence { row, ids: ids.to_vec(), counts, bytes }
        };
        write(&path, &[sequence(1, &[7, 8]), sequence(4, &[9])]).unwrap();
        let expected = "{\"row\":1,\"ids\":[7,8],\"counted\":[[0,2]]}\n{\"row\":4,\"ids\":[9],\"counted\":[[0,1]]}\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }
}
