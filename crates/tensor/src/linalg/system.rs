//! The scaled system of one shared input.
//!
//! With `G̃ᵢ = α Gᵢ + (1-α) diag Gᵢ`, `S = Σ uᵢ G̃ᵢ` and `D = diag S`, the corrections `C = W - W̄` solve
//! `(D^-½ S D^-½) (D^½ Cᵀ) = D^-½ Σ uᵢ G̃ᵢ (Wᵢ - W̄)ᵀ`. The scaled matrix has unit diagonal and, for α < 1, a condition number
//! of at most `1 + αd/(1-α)`. A feature that no token ever had has a zero row; it gets a unit diagonal and a zero right-hand
//! side, and its correction is zero exactly.
//!
//! The Grams stay in their files: every matrix is made from them strip by strip, in fp64, and rounded once to the type that
//! is asked for. So a system of width `d` takes `d²` numbers a matrix and no more, whatever the number of models.

use std::ops::Range;

use tch::{Device, Kind, TchError, Tensor};

use super::SolveError;
use crate::gram::Gram;
use crate::parallel::Pool;

/// Rows of a strip.
const STRIP: usize = 256;

/// One model's part in the sum.
#[derive(Clone, Copy, Debug)]
pub struct Term<'a> {
    /// Gram matrix.
    pub gram: Gram<'a>,
    /// What it is multiplied by in `Σ uᵢ G̃ᵢ`: the model's weight, over the trace where Grams are normalised.
    pub scale: f64,
    /// The model's weight in `W̄`.
    pub weight: f64,
}

/// The scaled system.
#[derive(Debug)]
pub struct ScaledSystem<'a> {
    terms: &'a [Term<'a>],
    pivot: usize,
    alpha: f64,
    device: Device,
    /// `D^-½`; zero for features that were never seen.
    root: Vec<f64>,
    /// Per model but the pivot: the diagonal of its unscaled matrix in the right-hand side.
    side_diagonals: Vec<Vec<f64>>,
}

impl<'a> ScaledSystem<'a> {
    /// A system whose matrices live on `device`. The pivot is the model whose difference from the average follows from the
    /// others', for `Σ wᵢ (Wᵢ - W̄) = 0`.
    ///
    /// # Errors
    /// When a Gram cannot be read or its diagonal is not finite.
    pub fn new(terms: &'a [Term<'a>], pivot: usize, alpha: f64, device: Device) -> Result<Self, SolveError> {
        let diagonals = terms
            .iter()
            .map(|term| Ok(Vec::<f64>::try_from(term.gram.diagonal()?.f_to_kind(Kind::Double)?)?))
            .collect::<Result<Vec<_>, SolveError>>()?;
        let width = diagonals.first().map_or(0, Vec::len);
        let total =
            |feature: usize| -> f64 { terms.iter().zip(&diagonals).map(|(term, all)| term.scale * all[feature]).sum() };
        if diagonals.iter().flatten().any(|energy| !energy.is_finite()) {
            return Err(SolveError::NotFinite);
        }
        let root = (0..width).map(total).map(|sum| if sum > 0.0 { sum.sqrt().recip() } else { 0.0 }).collect();
        let mut system = Self { terms, pivot, alpha, device, root, side_diagonals: Vec::new() };
        let side = |index: usize| -> Vec<f64> {
            let (scale, taken) = (terms[index].scale, system.taken(index));
            diagonals[index].iter().zip(&diagonals[pivot]).map(|(own, last)| scale * own - taken * last).collect()
        };
        system.side_diagonals = system.others().map(side).collect();
        Ok(system)
    }

    /// Rows and columns.
    pub fn width(&self) -> usize {
        self.root.len()
    }

    /// α.
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    /// How many features were never seen.
    pub fn unseen(&self) -> usize {
        self.root.iter().filter(|root| **root == 0.0).count()
    }

    /// Indices of all models but the pivot, in order.
    pub fn others(&self) -> impl Iterator<Item = usize> + use<'a> {
        let pivot = self.pivot;
        (0..self.terms.len()).filter(move |index| *index != pivot)
    }

    /// What the pivot's Gram is multiplied by where it is taken out of another's.
    pub fn taken(&self, index: usize) -> f64 {
        let (term, last) = (&self.terms[index], &self.terms[self.pivot]);
        term.weight / last.weight * last.scale
    }

    /// `D^-½`, `[width]`, fp64.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn root(&self) -> Result<Tensor, TchError> {
        Tensor::f_from_slice(&self.root)?.f_to_device(self.device)
    }

    /// Per model but the pivot, the diagonal of its unscaled matrix in the right-hand side, `[width]`, fp64.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn side_diagonals(&self) -> Result<Vec<Tensor>, TchError> {
        self.side_diagonals.iter().map(|side| Tensor::f_from_slice(side)?.f_to_device(self.device)).collect()
    }

    /// `D^-½ S D^-½`, `[width, width]`, unit diagonal.
    ///
    /// # Errors
    /// When a Gram cannot be read or is not finite, or libtorch fails.
    pub fn matrix(&self, kind: Kind, pool: Pool) -> Result<Tensor, SolveError> {
        self.by_strips(kind, pool, |rows| self.matrix_rows(rows))
    }

    /// The matrices `H̃ⱼ` of the right-hand side, `[width, width]`, one per model but the pivot:
    /// `Σᵢ uᵢ G̃ᵢ (Wᵢ - W̄)ᵀ D^-½` is `Σⱼ (Wⱼ - W̄) H̃ⱼ` in row form.
    ///
    /// The pivot's Gram is taken out of each other's; two models take one product.
    ///
    /// # Errors
    /// When a Gram cannot be read or libtorch fails.
    pub fn sides(&self, kind: Kind, pool: Pool) -> Result<Vec<Tensor>, SolveError> {
        (0..self.side_diagonals.len())
            .map(|side| self.by_strips(kind, pool, |rows| self.side_rows(side, rows)))
            .collect()
    }

    /// Strips of rows, of a fixed height.
    pub(super) fn strips(&self) -> Vec<Range<usize>> {
        (0..self.width()).step_by(STRIP).map(|start| start..(start + STRIP).min(self.width())).collect()
    }

    fn by_strips(
        &self,
        kind: Kind,
        pool: Pool,
        rows_of: impl Fn(Range<usize>) -> Result<Tensor, SolveError> + Sync,
    ) -> Result<Tensor, SolveError> {
        let width = self.width() as i64;
        let matrix = Tensor::f_empty([width, width], (kind, self.device))?;
        let work = self.strips().into_iter().map(|rows| {
            let strip = matrix.f_narrow(0, rows.start as i64, rows.len() as i64)?;
            Ok((rows, strip))
        });
        let work = work.collect::<Result<Vec<_>, TchError>>()?;
        pool.map(work, |(rows, mut strip)| Ok::<_, SolveError>(strip.f_copy_(&rows_of(rows)?)?))?;
        Ok(matrix)
    }

    /// `Σ cᵢ Gᵢ` for these rows with its off-diagonals scaled by α, `[rows, width]`, fp64.
    fn combined(&self, rows: &Range<usize>, factors: &[(usize, f64)]) -> Result<Tensor, SolveError> {
        let mut sum: Option<Tensor> = None;
        for &(index, factor) in factors {
            let part = self.terms[index].gram.part(rows.clone(), 0..self.width())?;
            let mut part = part.f_to_device(self.device)?.f_to_kind(Kind::Double)?;
            let part = part.f_mul_scalar_(factor)?;
            sum = Some(match sum {
                None => part,
                Some(mut sum) => sum.f_add_(&part)?,
            });
        }
        let mut sum = sum.ok_or(SolveError::NotFinite)?;
        let diagonal = diagonal_of(&sum, rows)?.f_mul_scalar(1.0)?;
        let sum = sum.f_mul_scalar_(self.alpha)?;
        diagonal_of(&sum, rows)?.f_copy_(&diagonal)?;
        Ok(sum)
    }

    /// These rows of [`Self::matrix`], fp64.
    pub(super) fn matrix_rows(&self, rows: Range<usize>) -> Result<Tensor, SolveError> {
        let all: Vec<(usize, f64)> = self.terms.iter().map(|term| term.scale).enumerate().collect();
        let mut sum = self.combined(&rows, &all)?;
        if !sum.f_sum(Kind::Double)?.f_double_value(&[])?.is_finite() {
            return Err(SolveError::NotFinite);
        }
        let root = self.root()?;
        let here = root.f_narrow(0, rows.start as i64, rows.len() as i64)?;
        let scaled = sum.f_mul_(&root.f_unsqueeze(0)?)?.f_mul_(&here.f_unsqueeze(1)?)?;
        let _ = diagonal_of(&scaled, &rows)?.f_fill_(1.0)?;
        Ok(scaled)
    }

    /// These rows of the matrix at `side` in [`Self::sides`], fp64.
    pub(super) fn side_rows(&self, side: usize, rows: Range<usize>) -> Result<Tensor, SolveError> {
        let index = self.others().nth(side).expect("a side is of a model");
        let factors = [(index, self.terms[index].scale), (self.pivot, -self.taken(index))];
        Ok(self.combined(&rows, &factors)?.f_mul_(&self.root()?.f_unsqueeze(0)?)?)
    }
}

/// The matrix's diagonal in a strip of its rows.
fn diagonal_of(strip: &Tensor, rows: &Range<usize>) -> Result<Tensor, TchError> {
    strip.f_narrow(1, rows.start as i64, rows.len() as i64)?.f_diagonal(0, 0, 1)
}
