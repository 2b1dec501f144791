//! Rows of a data set: read, picked, and written as JSON Lines, one object a row with its columns in order.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use mergelab_wire::Event;
use serde_json::{Map, Value};

use super::rows::{Row, Rows};
use super::{Context, Failure, Job, Product};
use crate::digest::Digest;
use crate::experiment::{Data, DataSource, Pick};

/// Rows in the order of a data set.
pub(super) trait Ordered {
    /// How many there are.
    fn count(&mut self) -> Result<u64, Failure>;

    /// The rows, from the first.
    fn rows(&mut self) -> Result<Box<dyn Iterator<Item = Row> + '_>, Failure>;
}

/// Those of one file.
struct OfFile(PathBuf);

impl Ordered for OfFile {
    fn count(&mut self) -> Result<u64, Failure> {
        Rows::count(&self.0)
    }

    fn rows(&mut self) -> Result<Box<dyn Iterator<Item = Row> + '_>, Failure> {
        Ok(Box::new(Rows::open(&self.0)?))
    }
}

/// Reads the file, or the files of a data set on the hub, and keeps the rows that are asked for.
pub(super) fn run(
    context: &Context<'_>,
    data: &Data,
    job: &Job<'_>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    let path = match &data.source {
        DataSource::Path(path) => context.project.resolve(path),
        DataSource::From(output) => {
            let inside = output.path.as_deref().unwrap_or(Path::new(""));
            single_file(job.input("command").location.join(inside))?
        }
        #[cfg(feature = "fetch")]
        DataSource::Hub { .. } => return super::dataset::run(context, data, job, on_event),
        #[cfg(not(feature = "fetch"))]
        DataSource::Hub { repo, .. } => return Err(Failure::stage(format!("{repo}: the hub cannot be reached"))),
    };
    let place = path.display().to_string();
    keep(data.rows, &mut OfFile(path), &place, &job.out.join("rows.jsonl"), on_event)
}

/// Writes the rows that are asked for; `place` is where they come from, in messages.
pub(super) fn keep(
    pick: Pick,
    source: &mut dyn Ordered,
    place: &str,
    out: &Path,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    let cannot_write = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull => Failure::stage(format!("no space left on the disk that holds {}", out.display())),
        _ => Failure::stage(format!("cannot write {}: {error}", out.display())),
    };
    let mut writer = BufWriter::new(File::create(out).map_err(cannot_write)?);
    let mut kept = 0_u64;
    let (seen, wanted) = match pick {
        Pick::All | Pick::First(_) => {
            let wanted = if let Pick::First(count) = pick { count } else { u64::MAX };
            // Not one row further: the next one may be in a file that has to be fetched first.
            for row in source.rows()?.take(usize::try_from(wanted).unwrap_or(usize::MAX)) {
                write_row(&mut writer, &row?).map_err(cannot_write)?;
                kept += 1;
            }
            (kept, wanted)
        }
        Pick::Sample { sample, seed } => {
            let seen = source.count()?;
            let picked = draw(seen, sample, seed);
            let mut picked = picked.iter().peekable();
            for (index, row) in (0_u64..).zip(source.rows()?) {
                // What cannot be read ends the rows, wherever it stands.
                let row = row?;
                if picked.next_if(|&&next| next == index).is_some() {
                    write_row(&mut writer, &row).map_err(cannot_write)?;
                    kept += 1;
                }
            }
            (seen, sample)
        }
    };
    writer.flush().map_err(cannot_write)?;
    if kept == 0 {
        return Err(Failure::experiment(format!("{place}: no rows in it")));
    }
    let mut product = Product::default();
    product.facts.insert("rows".to_owned(), kept.into());
    if wanted != u64::MAX && kept < wanted {
        on_event(Event::Note { message: format!("{wanted} rows asked for, {seen} in {place}") });
    }
    Ok(product)
}

/// A command's output as one file of rows.
fn single_file(path: PathBuf) -> Result<PathBuf, Failure> {
    if path.is_file() {
        return Ok(path);
    }
    let mut files: Vec<_> =
        std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    match files.len() {
        1 => Ok(files.remove(0)),
        count => Err(Failure::experiment(format!("the command left {count} files, where data takes one"))
            .hint("name it: `{ from: commands.NAME, path: FILE.jsonl }`")),
    }
}

/// Indices of `count` rows out of `total`, ascending: those whose digest with the seed is smallest, so that a draw needs
/// no generator to be described and a larger one contains the smaller.
fn draw(total: u64, count: u64, seed: u64) -> Vec<u64> {
    let mut ranked: Vec<(Digest, u64)> =
        (0..total).map(|index| (Digest::of(format!("{seed}:{index}").as_bytes()), index)).collect();
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count < ranked.len() {
        ranked.select_nth_unstable(count);
        ranked.truncate(count);
    }
    let mut picked: Vec<u64> = ranked.into_iter().map(|(_, index)| index).collect();
    picked.sort_unstable();
    picked
}

fn write_row(writer: &mut impl Write, row: &Map<String, Value>) -> io::Result<()> {
    serde_json::to_writer(&mut *writer, row)?;
    writer.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_depends_on_its_seed_and_a_larger_one_contains_it() {
        let small = draw(1000, 10, 0);
        assert_eq!(small.len(), 10);
        assert!(small.is_sorted());
        assert_ne!(small, draw(1000, 10, 1));
        let large = draw(1000, 20, 0);
        assert!(small.iter().all(|index| large.contains(index)));
        assert_eq!(draw(3, 10, 0), [0, 1, 2]);
    }
}
