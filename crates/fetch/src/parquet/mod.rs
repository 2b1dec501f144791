//! Rows of a Parquet file as JSON objects, columns in the file's order.
//!
//! One row group after the other, and in it a few hundred rows at once, whatever the size of the file. Compression by
//! snappy, gzip, zstd, brotli and LZ4 is read. [`value`] says what becomes of dates, decimals and bytes.

mod column;
mod form;
mod guard;
mod shape;
mod value;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Map, Value};

use column::Column;
pub use form::Form;
use guard::caught;
use shape::{Broken, Shape};

/// First and last bytes of every Parquet file.
const MAGIC: &[u8; 4] = b"PAR1";
/// Last bytes of one whose footer is encrypted.
const ENCRYPTED: &[u8; 4] = b"PARE";

/// What can be wrong with a Parquet file.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no Parquet file, or no whole one.
    #[error("{}: {reason}", path.display())]
    NotParquet {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It does not hold together.
    #[error("{}, row {row}: the Parquet file is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        row: u64,
        /// What the reader said.
        reason: String,
    },
    /// A value that JSON cannot hold.
    #[error("{}, row {row}, column {column}: {reason}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        row: u64,
        /// Path of the column, with dots.
        column: String,
        /// What it is.
        reason: String,
    },
}

impl RowsError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::File { .. } => None,
            Self::NotParquet { .. } | Self::Damaged { .. } => Some("copy or download it again"),
            Self::Value { .. } => Some("write the file anew without this column: every column of a row is read"),
        }
    }
}

/// The rows of a file, in order; ends after the first error.
pub struct Rows {
    path: PathBuf,
    reader: SerializedFileReader<File>,
    fields: Vec<(String, Shape)>,
    columns: Vec<Column>,
    /// The row group that comes next.
    group: usize,
    /// Rows left in the one that is being read.
    left: i64,
    /// Rows read.
    row: u64,
    over: bool,
}

impl Rows {
    /// Opens a file and reads its footer.
    ///
    /// # Errors
    /// When it cannot be read, is no Parquet file, is cut off, or has a schema of an unknown form.
    pub fn open(path: &Path) -> Result<Self, RowsError> {
        let io = |source| RowsError::File { path: path.to_path_buf(), source };
        let not = |reason: String| RowsError::NotParquet { path: path.to_path_buf(), reason };
        let mut file = File::open(path).map_err(io)?;
        if let Some(reason) = not_parquet(&mut file).map_err(io)? {
            return Err(not(reason.to_owned()));
        }
        let damaged = |error: ParquetError| not(format!("the Parquet file is damaged: {}", said(&error)));
        let reader = caught(|| SerializedFileReader::new(file)).map_err(damaged)?;
        let fields = caught(|| shape::fields(reader.metadata().file_metadata().schema())).map_err(damaged)?;
        Ok(Self {
            path: path.to_path_buf(),
            reader,
            fields,
            columns: Vec::new(),
            group: 0,
            left: 0,
            row: 0,
            over: false,
        })
    }

    /// How many rows the footer says there are.
    pub fn total(&self) -> u64 {
        let groups = self.reader.metadata().row_groups();
        groups.iter().map(|group| u64::try_from(group.num_rows()).unwrap_or(0)).sum()
    }

    /// The columns of a row, in the file's order, and what kind of values they have.
    pub fn columns(&self) -> Vec<(String, Form)> {
        let schema = self.reader.metadata().file_metadata().schema_descr();
        self.fields.iter().map(|(name, shape)| (name.clone(), shape.form(schema))).collect()
    }

    fn read(&mut self) -> Result<Option<Map<String, Value>>, Broken> {
        while self.left <= 0 {
            if self.group == self.reader.num_row_groups() {
                return Ok(None);
            }
            let group = self.reader.get_row_group(self.group)?;
            self.left = group.metadata().num_rows();
            self.columns = (0..group.num_columns())
                .map(|at| {
                    let description = group.metadata().column(at).column_descr_ptr();
                    Ok(Column::new(description, group.get_column_reader(at)?))
                })
                .collect::<Result<_, ParquetError>>()?;
            self.group += 1;
        }
        let mut row = Map::with_capacity(self.fields.len());
        for (name, shape) in &self.fields {
            row.insert(name.clone(), shape.read(&mut self.columns)?);
        }
        self.left -= 1;
        Ok(Some(row))
    }
}

impl Iterator for Rows {
    type Item = Result<Map<String, Value>, RowsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let row = caught(|| self.read());
        self.row += 1;
        let (path, number) = (|| self.path.clone(), self.row);
        let error = match row {
            Ok(Some(row)) => return Some(Ok(row)),
            Ok(None) => {
                self.over = true;
                return None;
            }
            Err(Broken::Damaged(error)) => RowsError::Damaged { path: path(), row: number, reason: said(&error) },
            Err(Broken::Value(at, reason)) => {
                RowsError::Value { path: path(), row: number, column: self.columns[at].name(), reason }
            }
        };
        self.over = true;
        Some(Err(error))
    }
}

/// Why a file is no Parquet file as far as its first and last bytes show.
fn not_parquet(file: &mut File) -> io::Result<Option<&'static str>> {
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok(Some("the file is empty"));
    }
    let (mut first, mut last) = ([0; 4], [0; 4]);
    // Both marks and the length of the footer.
    if length >= 12 {
        file.read_exact(&mut first)?;
        file.seek(SeekFrom::End(-4))?;
        file.read_exact(&mut last)?;
        file.rewind()?;
    } else {
        file.read_exact(&mut first[..usize::try_from(length).unwrap_or(4).min(4)])?;
    }
    Ok(match (&first, &last) {
        (_, ENCRYPTED) => Some("the Parquet file is encrypted"),
        (MAGIC, MAGIC) => None,
        (MAGIC, _) => Some("the Parquet file ends early: it is cut off (no footer)"),
        _ => Some("not a Parquet file: it does not begin with PAR1"),
    })
}

/// What the library says, without its own prefixes.
fn said(error: &ParquetError) -> String {
    match error {
        ParquetError::General(text) | ParquetError::NYI(text) | ParquetError::EOF(text) => text.clone(),
        other => other.to_string(),
    }
}
