//! Parquet files that pyarrow wrote (`make.py`), and what is left of them after an accident.

use std::fs;
use std::path::{Path, PathBuf};

use mergelab_fetch::parquet::Rows;
use serde_json::Value;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The rows as JSON Lines up to the first error, and that error without the directory.
fn read(path: &Path) -> (String, Option<String>) {
    let mut text = String::new();
    let shown = |error: String| error.replace(&format!("{}/", path.parent().unwrap().display()), "");
    let rows = match Rows::open(path) {
        Ok(rows) => rows,
        Err(error) => return (text, Some(shown(error.to_string()))),
    };
    for row in rows {
        match row {
            Ok(row) => text.push_str(&format!("{}\n", Value::Object(row))),
            Err(error) => return (text, Some(shown(error.to_string()))),
        }
    }
    (text, None)
}

#[test]
fn every_file_gives_the_rows_that_were_written_to_it() {
    let mut compared = 0;
    for entry in fs::read_dir(data("")).unwrap() {
        let expected = entry.unwrap().path();
        if expected.extension().is_some_and(|ending| ending == "jsonl") {
            let (rows, error) = read(&expected.with_extension("parquet"));
            assert_eq!(error, None, "{}", expected.display());
            assert_eq!(rows, fs::read_to_string(&expected).unwrap(), "{}", expected.display());
            compared += 1;
        }
    }
    assert_eq!(compared, 10);
}

#[test]
fn the_number_of_rows_is_known_before_they_are_read() {
    assert_eq!(Rows::open(&data("groups.parquet")).unwrap().total(), 1200);
}

#[test]
fn a_value_that_json_cannot_hold_is_named_by_row_and_column() {
    let (before, error) = read(&data("bytes.parquet"));
    assert_eq!(before.lines().count(), 2);
    assert_eq!(error.unwrap(), "bytes.parquet, row 3, column image.bytes: 4 bytes that are not UTF-8 (from byte 0)");
    let (_, error) = read(&data("infinite.parquet"));
    assert_eq!(error.unwrap(), "infinite.parquet, row 2, column x: JSON has no number for inf");
}

#[test]
fn a_file_that_is_cut_off_says_so_wherever_it_is_cut() {
    let whole = fs::read(data("chats-zstd.parquet")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    for end in 0..whole.len() {
        fs::write(&path, &whole[..end]).unwrap();
        let (rows, error) = read(&path);
        assert_eq!(rows, "");
        let expected = match end {
            0 => "x.parquet: the file is empty",
            1..4 => "x.parquet: not a Parquet file: it does not begin with PAR1",
            _ => "x.parquet: the Parquet file ends early: it is cut off (no footer)",
        };
        assert_eq!(error.unwrap(), expected, "{end}");
    }
}

#[test]
fn another_format_under_the_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    fs::write(&path, "{\"a\": 1}\n{\"a\": 2}\n").unwrap();
    assert_eq!(read(&path).1.unwrap(), "x.parquet: not a Parquet file: it does not begin with PAR1");
}

#[test]
fn any_damaged_byte_gives_rows_or_an_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    let mut refused = 0;
    for name in ["chats-snappy", "chats-plain", "nested", "types"] {
        let whole = fs::read(data(&format!("{name}.parquet"))).unwrap();
        for at in (0..whole.len()).step_by(11) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(&path, &damaged).unwrap();
            refused += usize::from(read(&path).1.is_some());
        }
    }
    assert!(refused > 100, "{refused}");
}
