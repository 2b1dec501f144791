//! Reading CSV by column name, with errors that name file, line and column, all at once.

use std::path::{Path, PathBuf};

use super::Errors;
use super::nearest::{listed, nearest, suggestion};

/// What is wrong at one place of a CSV file.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}:{line}: {}{problem}", file.display(), self.place())]
pub struct CsvError {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: u64,
    /// Number (from 1) and name of the column, where it is about one.
    pub column: Option<(usize, String)>,
    /// What is wrong, and the way out.
    pub problem: CsvProblem,
}

impl CsvError {
    fn place(&self) -> String {
        self.column.as_ref().map_or_else(String::new, |(number, name)| format!("column {number} (`{name}`): "))
    }
}

/// The ways in which a CSV file can be wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CsvProblem {
    /// No header line.
    #[error("the file is empty; its first line must be `{0}`")]
    Empty(String),
    /// The header lacks columns.
    #[error("columns are missing: {}; the first line must be `{expected}`", listed(missing))]
    MissingColumns {
        /// What is missing.
        missing: Vec<String>,
        /// The whole header.
        expected: String,
    },
    /// A column that nobody reads.
    #[error("unknown column{}", suggestion(nearest.as_deref()))]
    UnknownColumn {
        /// The nearest name that exists.
        nearest: Option<String>,
    },
    /// A column that is there twice.
    #[error("the column is there twice")]
    DoubledColumn,
    /// A line with more or fewer fields than the header.
    #[error("{found} fields where the header has {expected}; a value with a comma needs quotes")]
    Width {
        /// Fields of the line.
        found: usize,
        /// Fields of the header.
        expected: usize,
    },
    /// An empty field that must not be.
    #[error("must not be empty")]
    Missing,
    /// Not a finite number.
    #[error("`{0}` is not a finite number (like 0.704)")]
    NotANumber(String),
    /// A standard error below zero.
    #[error("`{0}` is negative; a standard error is not")]
    Negative(String),
    /// Not a count.
    #[error("`{0}` is not a whole number of at least 0")]
    NotACount(String),
    /// A word that is none of those possible.
    #[error("`{found}` is none of {}", listed(expected))]
    NotAWord {
        /// What stands there.
        found: String,
        /// What may.
        expected: Vec<String>,
    },
    /// Two lines for one cell.
    #[error("the same model, task, metric and filter as line {0}; a cell has one figure")]
    Duplicate(u64),
    /// Two lines for one comparison.
    #[error("the same comparison as line {0}")]
    DoubledComparison(u64),
    /// Not a p-value.
    #[error("`{0:?}` is no p-value, which is above 0 and at most 1")]
    NotAProbability(f64),
    /// What a test found, where there was none.
    #[error("must be empty where `test` says that there was none")]
    NoTest,
}

/// Reads `text` as a CSV file with exactly the columns `names`, in any order, and hands each line to `row`, which reads
/// its fields through [`Fields`]. Blank lines are skipped.
///
/// # Errors
/// Everything wrong with the header; else everything wrong with the lines.
pub(super) fn read<T>(
    text: &str,
    file: &Path,
    names: &[&'static str],
    mut row: impl FnMut(&mut Fields<'_>) -> Result<T, Noted>,
) -> Result<Vec<T>, Errors<CsvError>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut records = reader.records().map(|record| record.expect("text in memory is readable and UTF-8"));
    let Some(header) = records.next() else {
        let problem = CsvProblem::Empty(names.join(","));
        return Err(CsvError { file: file.to_owned(), line: 1, column: None, problem }.into());
    };
    let order = columns(&header, line(text, &header), file, names)?;
    let mut errors = Vec::new();
    let mut rows = Vec::new();
    for record in records {
        let (line, found, expected) = (line(text, &record), record.len(), header.len());
        let mut fields = Fields { record, line, file, order: &order, errors: &mut errors };
        if found == expected {
            rows.extend(row(&mut fields));
        } else {
            fields.refuse(None, CsvProblem::Width { found, expected });
        }
    }
    Errors::unless_any(errors, rows)
}

/// The line on which a record starts. The reader's own count stands before the blank lines that it skips.
fn line(text: &str, record: &csv::StringRecord) -> u64 {
    let position = record.position().expect("records that were read have a position");
    let rest = &text.as_bytes()[usize::try_from(position.byte()).expect("an offset into memory")..];
    let skipped = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).filter(|byte| **byte == b'\n').count();
    position.line() + skipped as u64
}

/// For each of `names` its place in the header.
fn columns(
    header: &csv::StringRecord,
    line: u64,
    file: &Path,
    names: &[&'static str],
) -> Result<Vec<(&'static str, usize)>, Errors<CsvError>> {
    let mut errors = Vec::new();
    let mut refuse = |column: Option<(usize, String)>, problem| {
        errors.push(CsvError { file: file.to_owned(), line, column, problem });
    };
    let mut order: Vec<(&'static str, usize)> = Vec::new();
    for (i, found) in header.iter().map(str::trim).enumerate() {
        let here = || Some((i + 1, found.to_owned()));
        match names.iter().find(|name| **name == found) {
            Some(name) if order.iter().any(|(known, _)| known == name) => refuse(here(), CsvProblem::DoubledColumn),
            Some(name) => order.push((name, i)),
            None => {
                let known: Vec<String> = names.iter().map(ToString::to_string).collect();
                refuse(here(), CsvProblem::UnknownColumn { nearest: nearest(found, &known) });
            }
        }
    }
    let missing: Vec<String> =
        names.iter().filter(|name| !order.iter().any(|(known, _)| known == *name)).map(ToString::to_string).collect();
    if !missing.is_empty() {
        refuse(None, CsvProblem::MissingColumns { missing, expected: names.join(",") });
    }
    Errors::unless_any(errors, order)
}

/// A field that cannot be used; the reason is among the errors already.
#[derive(Debug)]
pub(super) struct Noted;

/// The fields of one line by column name. Each reader notes what is wrong and goes on, so that one pass finds it all.
pub(super) struct Fields<'a> {
    record: csv::StringRecord,
    /// Line, from 1.
    pub(super) line: u64,
    file: &'a Path,
    order: &'a [(&'static str, usize)],
    errors: &'a mut Vec<CsvError>,
}

impl Fields<'_> {
    fn index(&self, name: &str) -> usize {
        self.order.iter().find(|(known, _)| *known == name).expect("only columns of the header are read").1
    }

    fn get(&self, name: &str) -> &str {
        &self.record[self.index(name)]
    }

    /// Takes the spaces around all fields away.
    pub(super) fn trim(&mut self) {
        self.record.trim();
    }

    /// Notes a problem with a column, or with the whole line.
    pub(super) fn refuse(&mut self, name: Option<&str>, problem: CsvProblem) -> Noted {
        let column = name.map(|name| (self.index(name) + 1, name.to_owned()));
        self.errors.push(CsvError { file: self.file.to_owned(), line: self.line, column, problem });
        Noted
    }

    /// A text that may be empty.
    pub(super) fn optional(&self, name: &str) -> Option<String> {
        Some(self.get(name)).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// A text that may not be empty.
    pub(super) fn text(&mut self, name: &str) -> Result<String, Noted> {
        self.optional(name).ok_or_else(|| self.refuse(Some(name), CsvProblem::Missing))
    }

    /// A finite number.
    pub(super) fn number(&mut self, name: &str) -> Result<f64, Noted> {
        let text = self.text(name)?;
        let number = text.trim().parse().ok().filter(|number: &f64| number.is_finite());
        number.ok_or_else(|| self.refuse(Some(name), CsvProblem::NotANumber(text)))
    }

    /// A standard error, or nothing.
    pub(super) fn stderr(&mut self, name: &str) -> Result<Option<f64>, Noted> {
        if self.get(name).is_empty() {
            return Ok(None);
        }
        let number = self.number(name)?;
        if number < 0.0 {
            let text = self.get(name).to_owned();
            return Err(self.refuse(Some(name), CsvProblem::Negative(text)));
        }
        Ok(Some(number))
    }

    /// A count, or nothing.
    pub(super) fn count(&mut self, name: &str) -> Result<Option<u64>, Noted> {
        let text = self.get(name).trim().to_owned();
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| self.refuse(Some(name), CsvProblem::NotACount(text)))
    }

    /// One of a few words, by the word.
    pub(super) fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Result<T, Noted> {
        let found = self.get(name).to_owned();
        let meant = words.iter().find(|(word, _)| *word == found).map(|(_, value)| *value);
        meant.ok_or_else(|| {
            let expected = words.iter().map(|(word, _)| (*word).to_owned()).collect();
            self.refuse(Some(name), CsvProblem::NotAWord { found, expected })
        })
    }
}
