//! Rows of a file, one at a time: JSON Lines, JSON, CSV and Parquet, by the ending of its name.
//!
//! The first three may lie in gzip or zstd, with `.gz` or `.zst` after their own ending. Parquet is compressed inside. It
//! and the compressions need large libraries, and are there with the feature `fetch`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Failure;
#[cfg(feature = "fetch")]
pub(crate) use mergelab_fetch::parquet::Form;

/// One row: its columns, in the file's order.
pub(crate) type Row = Result<Map<String, Value>, Failure>;

/// The rows of a file.
pub(crate) struct Rows(Box<dyn Iterator<Item = Row>>);

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        self.0.next()
    }
}

/// How rows are written, and how that is compressed.
struct Written {
    /// `jsonl`, `json`, `csv`, `parquet`, or what else stands there; in lower case, as the experiment language takes it.
    /// `ndjson` is `jsonl` under the name that some data sets of the hub give it.
    format: String,
    /// `gz` or `zst`.
    compression: Option<String>,
}

impl Written {
    fn of(path: &Path) -> Self {
        let ending = |path: &Path| path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        match ending(path) {
            Some(last) if last == "gz" || last == "zst" => Self {
                format: path.file_stem().and_then(|stem| ending(Path::new(stem))).unwrap_or_default(),
                compression: Some(last),
            },
            last => Self { format: last.unwrap_or_default(), compression: None },
        }
    }
}

/// How a file's rows are written, if they can be read: the ending that says so, in lower case.
#[cfg(feature = "fetch")]
pub(super) fn format(path: &Path) -> Option<String> {
    const FORMATS: [&str; 5] = ["jsonl", "ndjson", "json", "csv", "parquet"];
    let Written { format, compression } = Written::of(path);
    (FORMATS.contains(&&*format) && (format != "parquet" || compression.is_none())).then_some(format)
}

/// What this build of the program cannot read.
pub(super) fn unsupported(path: &Path) -> Option<String> {
    let form = Written::of(path);
    let large = form.compression.or((form.format == "parquet").then_some(form.format))?;
    (!cfg!(feature = "fetch")).then(|| {
        format!("{}: this mergelab was built without the feature `fetch`, which reads .{large}", path.display())
    })
}

impl Rows {
    /// Opens a file by its name's ending.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        if let Some(reason) = unsupported(path) {
            return Err(Failure::stage(reason));
        }
        let form = Written::of(path);
        match (form.format.as_str(), form.compression.as_deref()) {
            ("jsonl" | "ndjson", compression) => {
                Ok(Self(Box::new(json_lines(path.to_path_buf(), stream(path, compression)?))))
            }
            ("json", compression) => json(path, stream(path, compression)?),
            ("csv", compression) => comma_separated(path, stream(path, compression)?),
            ("parquet", None) => parquet(path),
            ("parquet", Some(ending)) => {
                Err(Failure::experiment(format!("{}: a Parquet file is compressed inside", path.display()))
                    .hint(format!("unpack it, and name it without .{ending}")))
            }
            _ => Err(Failure::experiment(format!("{}: not a file of rows by its name", path.display())).hint(
                "rows are read from .parquet, and from .jsonl, .json and .csv, also with .gz or .zst behind them",
            )),
        }
    }

    /// How many rows a file has. Where that is written nowhere, all of them are read.
    pub(super) fn count(path: &Path) -> Result<u64, Failure> {
        #[cfg(feature = "fetch")]
        if matches!(Written::of(path), Written { format, compression: None } if format == "parquet") {
            return Ok(mergelab_fetch::parquet::Rows::open(path).map_err(|error| of_parquet(&error))?.total());
        }
        let mut count = 0;
        for row in Self::open(path)? {
            row?;
            count += 1;
        }
        Ok(count)
    }
}

/// The columns of a file, as far as they are known without all of its rows: of Parquet and CSV what they say, of JSON
/// those of its first `bytes`, or of the whole list where it is one.
#[cfg(feature = "fetch")]
pub(super) fn columns(path: &Path, bytes: usize) -> Result<Vec<(String, Option<Form>)>, Failure> {
    let Written { format, compression } = Written::of(path);
    if format == "parquet" {
        let rows = mergelab_fetch::parquet::Rows::open(path).map_err(|error| of_parquet(&error))?;
        return Ok(rows.columns().into_iter().map(|(name, form)| (name, Some(form))).collect());
    }
    let mut left = match &*format {
        "csv" => 1,
        "json" if is_list(path, compression.as_deref())? => usize::MAX,
        _ => bytes,
    };
    let mut names = indexmap::IndexSet::new();
    for row in Rows::open(path)? {
        let row = row?;
        left = left.saturating_sub(serde_json::to_string(&row).map_or(0, |text| text.len() + 1));
        names.extend(row.into_iter().map(|(name, _)| name));
        if left == 0 {
            break;
        }
    }
    Ok(names.into_iter().map(|name| (name, None)).collect())
}

#[cfg(feature = "fetch")]
fn is_list(path: &Path, compression: Option<&str>) -> Result<bool, Failure> {
    let mut stream = BufReader::new(stream(path, compression)?);
    let refuse = |error: io::Error| broken_off(&path.display().to_string(), &error);
    pass_mark(&mut stream).map_err(refuse)?;
    Ok(peek(&mut stream).map_err(refuse)? == Some(b'['))
}

/// A file's contents, out of its compression.
fn stream(path: &Path, compression: Option<&str>) -> Result<Box<dyn Read>, Failure> {
    let refuse = |error: io::Error| Failure::experiment(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(refuse)?;
    #[cfg(feature = "fetch")]
    if let Some(compression) = compression.and_then(mergelab_fetch::compressed::Compression::of_ending) {
        return Ok(Box::new(compression.open(file).map_err(refuse)?));
    }
    // Without the feature, what is compressed is refused before it is opened.
    let _ = compression;
    Ok(Box::new(file))
}

#[cfg(feature = "fetch")]
fn of_parquet(error: &mergelab_fetch::parquet::RowsError) -> Failure {
    let failure = Failure::experiment(error.to_string());
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

#[cfg(feature = "fetch")]
fn parquet(path: &Path) -> Result<Rows, Failure> {
    let rows = mergelab_fetch::parquet::Rows::open(path).map_err(|error| of_parquet(&error))?;
    Ok(Rows(Box::new(rows.map(|row| row.map_err(|error| of_parquet(&error))))))
}

#[cfg(not(feature = "fetch"))]
fn parquet(path: &Path) -> Result<Rows, Failure> {
    Err(Failure::stage(format!("{}: cannot be read", path.display())))
}

/// A stream that is damaged is the file's fault; what else stops reading is the machine's.
fn broken_off(place: &str, error: &io::Error) -> Failure {
    let message = format!("{place}: {error}");
    if error.kind() == io::ErrorKind::InvalidData { Failure::experiment(message) } else { Failure::stage(message) }
}

fn json_lines(path: PathBuf, stream: Box<dyn Read>) -> impl Iterator<Item = Row> {
    let mut lines = BufReader::with_capacity(1 << 16, stream);
    let mut buffer = Vec::new();
    let mut number = 0_u64;
    let mut over = false;
    std::iter::from_fn(move || {
        while !over {
            buffer.clear();
            number += 1;
            let place = || format!("{}:{number}", path.display());
            match lines.read_until(b'\n', &mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    over = true;
                    return Some(Err(broken_off(&place(), &error)));
                }
            }
            let line = if number == 1 { buffer.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&buffer) } else { &buffer };
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            if !line.trim_ascii().is_empty() {
                return Some(object(serde_json::from_slice(line), place));
            }
        }
        None
    })
}

/// A `.json` file holds one list of rows, or, as many on the hub do, one row a line.
fn json(path: &Path, stream: Box<dyn Read>) -> Result<Rows, Failure> {
    let mut stream = BufReader::with_capacity(1 << 16, stream);
    let refuse = |error: io::Error| broken_off(&path.display().to_string(), &error);
    pass_mark(&mut stream).map_err(refuse)?;
    if peek(&mut stream).map_err(refuse)? == Some(b'{') {
        let hint = "a .json file holds one list of objects, or one object a line";
        let rows = json_lines(path.to_path_buf(), Box::new(stream));
        return Ok(Rows(Box::new(rows.map(move |row| row.map_err(|failure| failure.hint(hint))))));
    }
    Ok(Rows(Box::new(json_list(path.to_path_buf(), stream))))
}

/// A list, of which one row at a time is held.
fn json_list(path: PathBuf, mut stream: BufReader<Box<dyn Read>>) -> impl Iterator<Item = Row> {
    let mut row = 0_u64;
    let mut over = false;
    std::iter::from_fn(move || {
        if over {
            return None;
        }
        let next = next_of_list(&path, &mut stream, row);
        row += 1;
        over = !matches!(next, Ok(Some(_)));
        next.transpose()
    })
}

/// The next row of a list, of which so many were read; nothing after its end.
fn next_of_list(
    path: &Path,
    stream: &mut BufReader<Box<dyn Read>>,
    before: u64,
) -> Result<Option<Map<String, Value>>, Failure> {
    let broken = |error: &io::Error| broken_off(&path.display().to_string(), error);
    let refuse = |reason: &str| Failure::experiment(format!("{}: row {}: {reason}", path.display(), before + 1));
    if before == 0 && symbol(stream).map_err(|error| broken(&error))? != Some(b'[') {
        return Err(Failure::experiment(format!("{}: not a list of rows", path.display()))
            .hint("a .json file holds one list of objects, or one object a line"));
    }
    let mut next = peek(stream).map_err(|error| broken(&error))?;
    if before > 0 && next == Some(b',') {
        stream.consume(1);
        next = peek(stream).map_err(|error| broken(&error))?;
    } else if before > 0 && next.is_some_and(|next| next != b']') {
        return Err(refuse("not JSON: expected `,` or `]`"));
    } else if next == Some(b']') {
        stream.consume(1);
        return match peek(stream).map_err(|error| broken(&error))? {
            None => Ok(None),
            Some(_) => Err(refuse("not JSON: something stands behind the list")),
        };
    }
    match next {
        Some(b'{') => {}
        Some(_) => return Err(refuse("a row is an object of columns")),
        None => return Err(refuse("the file ends before the list does: it is cut off")),
    }
    // It ends with its `}`, so that no byte behind it is read ahead.
    let value = Map::deserialize(&mut serde_json::Deserializer::from_reader(stream));
    value.map(Some).map_err(|error| {
        if error.is_io() { broken(&error.into()) } else { refuse(&format!("not JSON: {error} of the row")) }
    })
}

/// Goes past a mark of byte order.
fn pass_mark(stream: &mut impl BufRead) -> io::Result<()> {
    let is_there = stream.fill_buf()?.starts_with(b"\xef\xbb\xbf");
    stream.consume(if is_there { 3 } else { 0 });
    Ok(())
}

/// The next byte that is no space, which stays.
fn peek(stream: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let buffer = stream.fill_buf()?;
        if buffer.is_empty() {
            return Ok(None);
        }
        let spaces = buffer.len() - buffer.trim_ascii_start().len();
        let next = buffer.get(spaces).copied();
        stream.consume(spaces);
        if next.is_some() {
            return Ok(next);
        }
    }
}

/// The same, taken.
fn symbol(stream: &mut impl BufRead) -> io::Result<Option<u8>> {
    let next = peek(stream)?;
    stream.consume(usize::from(next.is_some()));
    Ok(next)
}

fn comma_separated(path: &Path, stream: Box<dyn Read>) -> Result<Rows, Failure> {
    let path = path.to_path_buf();
    let refuse = move |error: csv::Error| {
        let shown = path.display();
        match error.kind() {
            csv::ErrorKind::Io(error) => broken_off(&shown.to_string(), error),
            csv::ErrorKind::UnequalLengths { pos: Some(place), expected_len, len } => {
                let line = place.line();
                Failure::experiment(format!("{shown}:{line}: {len} fields, where the header has {expected_len}"))
                    .hint("a field with a comma or a line break in it stands in double quotes")
            }
            _ => Failure::experiment(format!("{shown}: {error}")),
        }
    };
    let mut reader = csv::Reader::from_reader(stream);
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

    /// The rows of a file of this name, as JSON; its directory is `DIR` in messages.
    fn rows(name: &str, bytes: impl AsRef<[u8]>) -> Result<Vec<String>, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
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
    fn the_three_text_formats_give_the_same_rows_with_columns_in_order() {
        let expected = [r#"{"q":"1 + 1","a":"2"}"#, r#"{"q":"é","a":""}"#];
        assert_eq!(
            rows("x.jsonl", "{\"q\": \"1 + 1\", \"a\": \"2\"}\r\n\n{\"q\":\"é\",\"a\":\"\"}").unwrap(),
            expected
        );
        assert_eq!(rows("x.json", "[{\"q\": \"1 + 1\", \"a\": \"2\"},\n {\"q\":\"é\",\"a\":\"\"}]").unwrap(), expected);
        assert_eq!(rows("x.csv", "q,a\n1 + 1,2\né,\n").unwrap(), expected);
        assert_eq!(rows("x.json", " [ ] \n").unwrap(), [""; 0]);
        // Under the names that they often have on the hub.
        let lines = "\u{feff}{\"q\": \"1 + 1\", \"a\": \"2\"}\n{\"q\":\"é\",\"a\":\"\"}\n";
        assert_eq!(rows("x.json", lines).unwrap(), expected);
        assert_eq!(rows("x.ndjson", lines).unwrap(), expected);
    }

    #[test]
    fn a_broken_row_is_named_by_line_and_column() {
        let message = |name, text| rows(name, text).unwrap_err().message;
        assert_eq!(message("x.jsonl", "{}\n{\"a\": }\n"), "DIR/x.jsonl:2:7: not JSON: expected value");
        assert_eq!(message("x.jsonl", "{}\n{\"a\""), "DIR/x.jsonl:2:4: not JSON: EOF while parsing an object");
        assert_eq!(message("x.jsonl", "[1]\n"), "DIR/x.jsonl:1: a row is an object of columns");
        assert_eq!(message("x.json", "1"), "DIR/x.json: not a list of rows");
        assert_eq!(message("x.json", "[{}, 1]"), "DIR/x.json: row 2: a row is an object of columns");
        assert_eq!(message("x.json", "[{} {}]"), "DIR/x.json: row 2: not JSON: expected `,` or `]`");
        for cut in ["[{}", "[{},"] {
            let ends = "DIR/x.json: row 2: the file ends before the list does: it is cut off";
            assert_eq!(message("x.json", cut), ends);
        }
        assert_eq!(message("x.json", "[{}]]"), "DIR/x.json: row 2: not JSON: something stands behind the list");
        let column = "DIR/x.json: row 1: not JSON: expected value at line 1 column 7 of the row";
        assert_eq!(message("x.json", "[{\"a\": }]"), column);
        assert_eq!(message("x.json", "{\n  \"a\": [1]\n}"), "DIR/x.json:1:1: not JSON: EOF while parsing an object");
        assert_eq!(message("x.csv", "a,b\n1,2\n1\n"), "DIR/x.csv:3: 1 fields, where the header has 2");
        assert_eq!(message("x.txt", ""), "DIR/x.txt: not a file of rows by its name");
        assert_eq!(message("x.gz", ""), "DIR/x.gz: not a file of rows by its name");
    }

    #[test]
    fn a_mark_of_byte_order_is_no_part_of_the_first_row() {
        assert_eq!(rows("x.jsonl", "\u{feff}{\"a\":1}\n").unwrap(), ["{\"a\":1}"]);
        assert_eq!(rows("x.json", "\u{feff}[{\"a\":1}]").unwrap(), ["{\"a\":1}"]);
        assert_eq!(rows("x.csv", "\u{feff}a\n1\n").unwrap(), ["{\"a\":\"1\"}"]);
    }
}

#[cfg(all(test, feature = "fetch"))]
mod compressed {
    use super::*;

    /// `{"a":1}` and `{"a":2}` (`tests/rows/make.py`); as JSON Lines, each is a member or frame of its own.
    const FILES: &[(&str, &[u8])] = &[
        ("x.jsonl.gz", include_bytes!("../../tests/rows/x.jsonl.gz")),
        ("x.jsonl.zst", include_bytes!("../../tests/rows/x.jsonl.zst")),
        ("x.json.gz", include_bytes!("../../tests/rows/x.json.gz")),
        ("x.json.zst", include_bytes!("../../tests/rows/x.json.zst")),
        ("X.CSV.GZ", include_bytes!("../../tests/rows/x.csv.gz")),
        ("x.csv.zst", include_bytes!("../../tests/rows/x.csv.zst")),
        ("x.parquet", include_bytes!("../../tests/rows/x.parquet")),
    ];

    fn open(name: &str, bytes: &[u8]) -> Result<(u64, Vec<String>), String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let read = || {
            let rows = Rows::open(&path)?.map(|row| row.map(|row| Value::Object(row).to_string()));
            Ok((Rows::count(&path)?, rows.collect::<Result<_, _>>()?))
        };
        read().map_err(|failure: Failure| failure.message.replace(&*dir.path().to_string_lossy(), "DIR"))
    }

    #[test]
    fn every_format_gives_the_same_rows_out_of_every_compression() {
        for (name, bytes) in FILES {
            let (count, rows) = open(name, bytes).unwrap();
            let expected = if name.to_lowercase().contains("csv") {
                [r#"{"a":"1"}"#, r#"{"a":"2"}"#]
            } else {
                [r#"{"a":1}"#, r#"{"a":2}"#]
            };
            assert_eq!((count, &rows[..]), (2, &expected.map(str::to_owned)[..]), "{name}");
        }
    }

    #[test]
    fn a_file_that_is_cut_off_is_named() {
        for (name, bytes) in FILES {
            let message = open(name, &bytes[..bytes.len() - 5]).unwrap_err();
            assert!(message.starts_with(&format!("DIR/{name}")), "{message}");
            assert!(message.contains("cut off"), "{message}");
        }
        let (_, lines) = FILES[0];
        let message = open("x.jsonl.gz", &lines[..lines.len() - 5]).unwrap_err();
        assert_eq!(message, "DIR/x.jsonl.gz:3: the gzip stream ends early: the file is cut off");
    }

    #[test]
    fn a_compressed_parquet_file_is_refused() {
        let message = open("x.parquet.gz", b"").unwrap_err();
        assert_eq!(message, "DIR/x.parquet.gz: a Parquet file is compressed inside");
    }
}
