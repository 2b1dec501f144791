//! Gram capture in shards: which rows each of them has, and the sum of what was captured of them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::Path;
use std::sync::Arc;

use mergelab_wire::{AddGramsJob, Event, GramPart, Job as Work, RowRange};
use serde_json::json;

use super::{Context, Failure, Job, Product, tensor};
use crate::digest::Digest;
use crate::experiment::Capture;
use crate::plan::{Shard, split};

/// The rows of a data set's artifact in so many shards, each with the digest of its lines.
///
/// # Errors
/// When the file of rows cannot be read.
pub fn shards_of(artifact: &Path, shards: usize) -> io::Result<Arc<[Shard]>> {
    let mut file = File::open(artifact.join("rows.jsonl"))?;
    let ends = line_ends(&file)?;
    file.rewind()?;
    let end = |rows: u64| rows.checked_sub(1).map_or(0, |last| ends[last as usize]);
    let shard = |range: RowRange| {
        let bytes = end(range.first + range.count) - end(range.first);
        let (sha256, _) = Digest::of_reader((&file).take(bytes), bytes, &|| true)?;
        Ok(Shard { range, bytes, sha256 })
    };
    split(ends.len() as u64, shards).into_iter().map(shard).collect()
}

/// Where each line of a file ends, in bytes from its start.
fn line_ends(file: &File) -> io::Result<Vec<u64>> {
    let mut lines = BufReader::with_capacity(1 << 18, file);
    let (mut ends, mut end) = (Vec::new(), 0);
    loop {
        match lines.skip_until(b'\n')? {
            0 => return Ok(ends),
            bytes => end += bytes as u64,
        }
        ends.push(end);
    }
}

/// The rows that a stage captures, where they are not all.
pub(super) fn rows_of(job: &Job<'_>, capture: &Capture, shard: Option<usize>) -> Option<RowRange> {
    shard.map(|index| job.input("data").shards[&capture.shards][index].range)
}

/// The result of a shard that has no rows: no program is needed for it.
pub(super) fn of_no_rows(job: &Job<'_>, on_event: &mut dyn FnMut(Event)) -> Result<Product, Failure> {
    write_empty(job)?;
    on_event(Event::Note { message: "the rows of the data fill the other shards: this one has none".to_owned() });
    Ok(Product::default())
}

/// Writes Grams of no tokens, as the tensor program does for a shard none of whose rows gives any.
pub(super) fn write_empty(job: &Job<'_>) -> Result<(), Failure> {
    let path = job.out.join("index.json");
    let index = json!({ "format": 1, "modules": {} });
    std::fs::write(&path, format!("{index:#}\n"))
        .map_err(|error| Failure::stage(format!("cannot write {}: {error}", path.display())))
}

/// Adds the Grams of all shards.
pub(super) fn add(context: &Context<'_>, job: &Job<'_>, on_event: &mut dyn FnMut(Event)) -> Result<Product, Failure> {
    let part = |need: &crate::plan::Need| GramPart {
        name: context.graph.stage(need.stage).name.clone(),
        path: job.input(&need.role).location.clone(),
    };
    let work = Work::AddGrams(AddGramsJob { parts: job.stage.needs.iter().map(part).collect() });
    tensor::run(context, job, work, on_event)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(rows: &str, count: usize) -> Vec<Shard> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("rows.jsonl"), rows).unwrap();
        shards_of(dir.path(), count).unwrap().to_vec()
    }

    #[test]
    fn a_shard_is_known_by_its_own_lines() {
        let before = shards("{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n", 2);
        assert_eq!(before[0].range, RowRange { first: 0, count: 2 });
        assert_eq!((before[0].bytes, before[1].bytes), (16, 8));
        assert_eq!(before[0].sha256, Digest::of(b"{\"a\":1}\n{\"a\":2}\n"));
        let after = shards("{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n{\"a\":4}\n", 2);
        assert_eq!(before[0], after[0]);
        assert_ne!(before[1].sha256, after[1].sha256);
    }

    #[test]
    fn more_shards_than_rows_leave_the_last_ones_empty() {
        let counts: Vec<u64> = shards("{}\n", 3).iter().map(|shard| shard.range.count).collect();
        assert_eq!(counts, [1, 0, 0]);
    }
}
