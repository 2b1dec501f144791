//! Rows of a data set: read, picked, and written as JSON Lines, one object a row with its columns in order.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use mergelab_wire::Event;
use serde_json::{Map, Value};

use super::{Context, Failure, Job, Product};
use crate::digest::Digest;
use crate::experiment::{Data, DataSource, Pick};

/// What this version cannot read yet.
pub(super) fn unsupported(path: &Path) -> Option<String> {
    let extension = ending(path);
    match extension.as_str() {
        "parquet" | "gz" | "zst" => Some(format!("{}: reading .{extension} is not in this version", path.display())),
        _ => None,
    }
}

/// Ending of a file's name, in lower case as the experiment language takes it.
fn ending(path: &Path) -> String {
    path.extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// Reads the file and keeps the rows that are asked for.
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
        DataSource::Hub { repo, .. } => return Err(Failure::stage(format!("{repo}: the hub cannot be reached"))),
    };
    let out = job.out.join("rows.jsonl");
    let cannot_write = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull => Failure::stage(format!("no space left on the disk that holds {}", out.display())),
        _ => Failure::stage(format!("cannot write {}: {error}", out.display())),
    };
    let mut writer = BufWriter::new(File::create(&out).map_err(cannot_write)?);
    let mut kept = 0_u64;
    let (seen, wanted) = match data.rows {
        Pick::All | Pick::First(_) => {
            let wanted = if let Pick::First(count) = data.rows { count } else { u64::MAX };
            let mut seen = 0_u64;
            for row in Rows::open(&path)? {
                if seen == wanted {
                    break;
                }
                let row = row?;
                seen += 1;
                write_row(&mut writer, &row).map_err(cannot_write)?;
                kept += 1;
            }
            (seen, wanted)
        }
        Pick::Sample { sample, seed } => {
            let mut seen = 0_u64;
            for row in Rows::open(&path)? {
                row?;
                seen += 1;
            }
            let picked = draw(seen, sample, seed);
            let mut picked = picked.iter().peekable();
            for (index, row) in (0_u64..).zip(Rows::open(&path)?) {
                if picked.next_if(|&&next| next == index).is_some() {
                    write_row(&mut writer, &row?).map_err(cannot_write)?;
                    kept += 1;
                }
            }
            (seen, sample)
        }
    };
    writer.flush().map_err(cannot_write)?;
    if kept == 0 {
        return Err(Failure::experiment(format!("{}: no rows in it", path.display())));
    }
    let mut product = Product::default();
    product.facts.insert("rows".to_owned(), kept.into());
    if wanted != u64::MAX && kept < wanted {
        on_event(Event::Note { message: format!("{wanted} rows asked for, {seen} in {}", path.display()) });
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

type Row = Result<Map<String, Value>, Failure>;

/// The rows of a file, one at a time where the format allows.
struct Rows(Box<dyn Iterator<Item = Row>>);

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        self.0.next()
    }
}

impl Rows {
    fn open(path: &Path) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|error| Failure::experiment(format!("{}: {error}", path.display())))?;
        match ending(path).as_str() {
            "jsonl" => Ok(Self(Box::new(json_lines(path.to_path_buf(), file)))),
            "json" => json_array(path, file),
            "csv" => comma_separated(path, file),
            _ => Err(Failure::experiment(format!("{}: not a file of rows by its name", path.display()))
                .hint("rows are read from .jsonl, .json and .csv")),
        }
    }
}

fn json_lines(path: PathBuf, file: File) -> impl Iterator<Item = Row> {
    let lines = BufReader::new(file).split(b'\n').enumerate();
    lines.filter_map(move |(index, line)| {
        let place = || format!("{}:{}", path.display(), index + 1);
        let line = match line {
            Ok(line) => line,
            Err(error) => return Some(Err(Failure::stage(format!("{}: {error}", place())))),
        };
        let line = if index == 0 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
        if line.trim_ascii().is_empty() {
            return None;
        }
        Some(object(serde_json::from_slice(line), place))
    })
}

fn json_array(path: &Path, file: File) -> Result<Rows, Failure> {
    let refuse = |error: serde_json::Error| Failure::experiment(format!("{}: {error}", path.display()));
    let value: Value = serde_json::from_reader(BufReader::new(file)).map_err(refuse)?;
    let Value::Array(items) = value else {
        return Err(Failure::experiment(format!("{}: not a list of rows", path.display()))
            .hint("a .json file holds one list of objects; for one object a line, name it .jsonl"));
    };
    let path = path.to_path_buf();
    let rows = items.into_iter().enumerate();
    Ok(Rows(Box::new(
        rows.map(move |(index, item)| object(Ok(item), || format!("{}: row {}", path.display(), index + 1))),
    )))
}

fn comma_separated(path: &Path, file: File) -> Result<Rows, Failure> {
    let path = path.to_path_buf();
    let refuse = move |error: csv::Error| Failure::experiment(format!("{}: {error}", path.display()));
    let mut reader = csv::Reader::from_reader(file);
    let header = reader.headers().map_err(&refuse)?.clone();
    Ok(Rows(Box::new(reader.into_records().map(move |record| {
        let record = record.map_err(&refuse)?;
        Ok(header.iter().zip(&record).map(|(name, text)| (name.to_owned(), Value::from(text))).collect())
    }))))
}

fn object(value: Result<Value, serde_json::Error>, place: impl Fn() -> String) -> Row {
    match value {
        Ok(Value::Object(row)) => Ok(row),
        Ok(_) => Err(Failure::experiment(format!("{}: a row is an object of columns", place()))),
        Err(error) => {
            // The place is ours; what is left of serde's is the column.
            let text = error.to_string();
            let (reason, column) = text.rsplit_once(" at line 1 column ").unwrap_or((&text, "1"));
            Err(Failure::experiment(format!("{}:{column}: not JSON: {reason}", place())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(name: &str, text: &str) -> Result<Vec<String>, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let strip = |failure: Failure| Failure {
            message: failure.message.replace(&*dir.path().to_string_lossy(), "DIR"),
            ..failure
        };
        Rows::open(&path)
            .map_err(strip)?
            .map(|row| row.map(|row| Value::Object(row).to_string()).map_err(strip))
            .collect()
    }

    #[test]
    fn the_three_formats_give_the_same_rows_with_columns_in_order() {
        let expected = [r#"{"q":"1 + 1","a":"2"}"#, r#"{"q":"é","a":""}"#];
        assert_eq!(
            rows("x.jsonl", "{\"q\": \"1 + 1\", \"a\": \"2\"}\r\n\n{\"q\":\"é\",\"a\":\"\"}").unwrap(),
            expected
        );
        assert_eq!(rows("x.json", "[{\"q\": \"1 + 1\", \"a\": \"2\"},\n {\"q\":\"é\",\"a\":\"\"}]").unwrap(), expected);
        assert_eq!(rows("x.csv", "q,a\n1 + 1,2\né,\n").unwrap(), expected);
    }

    #[test]
    fn a_broken_row_is_named_by_line_and_column() {
        let message = |name, text| rows(name, text).unwrap_err().message;
        assert_eq!(message("x.jsonl", "{}\n{\"a\": }\n"), "DIR/x.jsonl:2:7: not JSON: expected value");
        assert_eq!(message("x.jsonl", "[1]\n"), "DIR/x.jsonl:1: a row is an object of columns");
        assert_eq!(message("x.json", "{}"), "DIR/x.json: not a list of rows");
        assert!(message("x.csv", "a,b\n1\n").contains("line: 2"));
        assert!(message("x.txt", "").contains("not a file of rows"));
    }

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
