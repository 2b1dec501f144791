//! A Gram that weights are measured with: held in memory, or read from its file again each time.

use tch::{Device, Tensor};

use super::SolveError;
use super::symmetric::{Symmetric, add_forms, strips};
use crate::gram::Gram;
use crate::parallel::Pool;

/// A Gram for quadratic forms, in fp32. Both ways give the same numbers to the bit.
#[derive(Debug)]
pub enum Measure<'a> {
    /// In memory.
    Held(Symmetric),
    /// In its file, to be computed with on a device; a strip of it is in memory at a time.
    InFile(Gram<'a>, Device),
}

impl<'a> Measure<'a> {
    /// A Gram that is read now, where it is to be held.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn new(gram: Gram<'a>, device: Device, held: bool, pool: Pool) -> Result<Self, SolveError> {
        Ok(if held { Self::Held(Symmetric::read(gram, device, pool)?) } else { Self::InFile(gram, device) })
    }

    /// Another handle on the same numbers, for another thread.
    pub(crate) fn share(&self) -> Self {
        match self {
            Self::Held(matrix) => Self::Held(matrix.share()),
            Self::InFile(gram, device) => Self::InFile(*gram, *device),
        }
    }

    /// `tr a G bᵀ` for all pairs of the basis `[rows, width]`, row by row.
    ///
    /// # Errors
    /// When it cannot be read or libtorch fails.
    pub fn forms(&self, basis: &[Tensor]) -> Result<Vec<f64>, SolveError> {
        match self {
            Self::Held(matrix) => Ok(matrix.forms(basis)?),
            Self::InFile(gram, device) => {
                let width = gram.width();
                let mut forms = vec![0.0; basis.len() * basis.len()];
                for rows in strips(width) {
                    let strip = gram.part(rows.clone(), rows.start..width)?.f_to_device(*device)?;
                    add_forms(&mut forms, basis, rows.start as i64, &strip)?;
                }
                Ok(forms)
            }
        }
    }
}
