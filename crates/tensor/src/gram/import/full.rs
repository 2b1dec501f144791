//! A whole matrix in a mapped file, read by rectangles and checked as it is read.

use std::ops::Range;

use safetensors::Dtype;

use super::super::error::GramError;
use super::super::index::WIDEST_MATRIX;
use super::FullEntry;
use super::error::ImportError;
use crate::checkpoint::{SafeFile, TensorInfo};
use crate::codec::{decode, first_not_finite};

/// How far `G[i, j]` and `G[j, i]` may be apart, in units of the larger of `√(G[i, i] G[j, j])` and themselves. The two halves
/// of a product round independently, in sums as long as the data; 16-bit numbers are stored to three digits or two.
fn tolerance(dtype: Dtype) -> f32 {
    if dtype == Dtype::BF16 { 2e-2 } else { 4e-3 }
}

/// A whole matrix `[width, width]` in a mapped file.
pub(super) struct Full<'a> {
    /// Name of the module.
    pub(super) module: String,
    /// The file.
    pub(super) file: &'a SafeFile,
    /// Name of the tensor.
    tensor: String,
    /// Rows and columns.
    pub(super) width: usize,
    /// Tokens, where they are known.
    pub(super) n: Option<u64>,
    /// Whether the module's weight is stored `[in, out]`.
    pub(super) transposed: bool,
}

impl<'a> Full<'a> {
    /// Of a pickle, in which tensors go by their modules' names.
    pub(super) fn of_pickle(file: &'a SafeFile, name: &str) -> Result<Self, GramError> {
        Self::new(
            file,
            name,
            FullEntry { tensor: name.to_owned(), file: String::new(), n: None, width: 0, transposed: false },
        )
    }

    /// Of a directory.
    pub(super) fn of_index(file: &'a SafeFile, module: &str, entry: &FullEntry) -> Result<Self, GramError> {
        let full = Self::new(file, module, entry.clone())?;
        if full.width != entry.width {
            let reason = format!("width {} in index.json, {} in the file", entry.width, full.width);
            return Err(full.fault(reason));
        }
        Ok(full)
    }

    fn new(file: &'a SafeFile, module: &str, entry: FullEntry) -> Result<Self, GramError> {
        let info = file.info(&entry.tensor)?;
        let FullEntry { tensor, n, transposed, .. } = entry;
        let width = info.shape.first().copied().unwrap_or(0);
        let full = Self { module: module.to_owned(), file, tensor, width, n, transposed };
        let dtype = info.dtype;
        if !matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(full.fault(format!("its numbers are {dtype}, not float64, float32, float16 or bfloat16")));
        }
        if info.shape.len() != 2 || info.shape[1] != width {
            return Err(full.fault(format!("it is not square: {:?}", info.shape)));
        }
        if width == 0 || width > WIDEST_MATRIX {
            return Err(full.fault(format!("its width is {width}")));
        }
        if info.range().len() < width * width * dtype.bitsize() / 8 {
            return Err(full.fault("it is a view that repeats its elements".to_owned()));
        }
        Ok(full)
    }

    /// This matrix is no Gram matrix.
    pub(super) fn fault(&self, reason: String) -> GramError {
        ImportError::Matrix { path: self.file.path().to_path_buf(), module: self.module.clone(), reason }.into()
    }

    fn info(&self) -> &TensorInfo {
        self.file.info(&self.tensor).expect("it was found when the matrix was opened")
    }

    /// Where in the file it lies.
    pub(super) fn range(&self) -> &Range<usize> {
        self.info().range()
    }

    /// Whether another matrix is the same to the bit, and of a weight that is stored the same way.
    pub(super) fn equals(&self, other: &Self) -> Result<bool, GramError> {
        const CHUNK: usize = 1 << 20;
        let (one, two) = (self.info(), other.info());
        if (one.dtype, self.width, self.transposed, self.n) != (two.dtype, other.width, other.transposed, other.n) {
            return Ok(false);
        }
        if std::ptr::eq(self.file, other.file) && one == two {
            return Ok(true);
        }
        if !one.is_row_major() || !two.is_row_major() {
            return Ok(false);
        }
        let elements = one.elements();
        for start in (0..elements).step_by(CHUNK) {
            let range = start..(start + CHUNK).min(elements);
            if self.file.bytes(&self.tensor, range.clone())? != other.file.bytes(&other.tensor, range)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Its pages count no longer as this process's memory.
    pub(super) fn let_go(&self) {
        self.file.let_go(&self.tensor);
    }

    /// Elements of `rows` and `columns`, row-major, as fp32.
    fn rectangle(&self, rows: &Range<usize>, columns: &Range<usize>) -> Result<Vec<f32>, GramError> {
        let dtype = self.info().dtype;
        let mut values = vec![0.0; rows.len() * columns.len()];
        for (row, values) in rows.clone().zip(values.chunks_mut(columns.len().max(1))) {
            let start = row * self.width;
            let bytes = self.file.bytes(&self.tensor, start + columns.start..start + columns.end)?;
            decode(dtype, &bytes, values);
        }
        if let Some(at) = first_not_finite(&values) {
            let (row, column) = (rows.start + at / columns.len(), columns.start + at % columns.len());
            return Err(self.fault(format!("G[{row}, {column}] is {}", values[at])));
        }
        Ok(values)
    }

    /// The diagonal; no number on it may be below zero.
    pub(super) fn diagonal(&self) -> Result<Vec<f32>, GramError> {
        let mut diagonal = Vec::with_capacity(self.width);
        for at in 0..self.width {
            let value = self.rectangle(&(at..at + 1), &(at..at + 1))?[0];
            if value < 0.0 {
                return Err(self.fault(format!("G[{at}, {at}] is {value}, and a mean of squares is not negative")));
            }
            diagonal.push(value);
        }
        Ok(diagonal)
    }

    /// The elements of `rows` and `columns` (above the diagonal, or on it), held against those below; and how far these are
    /// from them at most, in units of `√(G[i, i] G[j, j])`.
    pub(super) fn upper(
        &self,
        rows: &Range<usize>,
        columns: &Range<usize>,
        diagonal: &[f32],
    ) -> Result<(Vec<f32>, f32), GramError> {
        let values = self.rectangle(rows, columns)?;
        let mirror = if rows == columns { None } else { Some(self.rectangle(columns, rows)?) };
        let mirror = mirror.as_deref().unwrap_or(&values);
        let tolerance = tolerance(self.info().dtype);
        let mut farthest = 0.0f32;
        for (down, row) in rows.clone().enumerate() {
            for (across, column) in columns.clone().enumerate() {
                let (value, other) = (values[down * columns.len() + across], mirror[across * rows.len() + down]);
                let gap = (value - other).abs();
                if gap > 0.0 {
                    let scale = diagonal[row].sqrt() * diagonal[column].sqrt();
                    if gap > tolerance * scale.max(value.abs()).max(other.abs()) {
                        return Err(self.fault(format!(
                            "it is not symmetric: G[{row}, {column}] is {value:e}, and G[{column}, {row}] is {other:e}"
                        )));
                    }
                    farthest = farthest.max(gap / scale.max(f32::MIN_POSITIVE));
                }
            }
        }
        Ok((values, farthest))
    }
}
