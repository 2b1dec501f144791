//! The scaled system of one shared input.
//!
//! With `G̃ᵢ = α Gᵢ + (1-α) diag Gᵢ`, `S = Σ uᵢ G̃ᵢ` and `D = diag S`, the corrections `C = W - W̄` solve
//! `(D^-½ S D^-½) (D^½ Cᵀ) = D^-½ Σ uᵢ G̃ᵢ (Wᵢ - W̄)ᵀ`. The scaled matrix has unit diagonal and, for α < 1, a condition number
//! of at most `1 + αd/(1-α)`. A feature that no token ever had has a zero row; it gets a unit diagonal and a zero right-hand
//! side, and its correction is zero exactly.
//!
//! The Grams stay in their files: every matrix is made from their upper halves strip by strip. So a system of width `d` takes
//! `d²/2` numbers a matrix, whatever the number of models.

use std::ops::Range;

use tch::{Device, Kind, TchError, Tensor};

use super::SolveError;
use super::symmetric::{Symmetric, add_product, strips};
use crate::gram::Gram;
use crate::parallel::Pool;

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
    /// Bytes that its matrices may take.
    room: Option<u64>,
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
        let mut system = Self { terms, pivot, alpha, device, root, side_diagonals: Vec::new(), room: None };
        let side = |index: usize| -> Vec<f64> {
            let (scale, taken) = (terms[index].scale, system.taken(index));
            diagonals[index].iter().zip(&diagonals[pivot]).map(|(own, last)| scale * own - taken * last).collect()
        };
        system.side_diagonals = system.others().map(side).collect();
        Ok(system)
    }

    /// The same system, whose matrices may take so many bytes.
    #[must_use]
    pub fn within(self, room: Option<u64>) -> Self {
        Self { room, ..self }
    }

    /// Refuses a step that takes so many bytes for each number of a whole matrix.
    ///
    /// # Errors
    /// When they are more than there is room for.
    pub(crate) fn afford(&self, what: &'static str, bytes: u64) -> Result<(), SolveError> {
        let width = self.width();
        let needed = bytes * (width * width) as u64;
        match self.room {
            Some(left) if needed > left => Err(SolveError::Memory { what, width, needed, left }),
            _ => Ok(()),
        }
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

    /// `D^-½ S D^-½`, unit diagonal, computed in `kind`.
    ///
    /// # Errors
    /// When a Gram cannot be read or is not finite, or libtorch fails.
    pub fn matrix(&self, kind: Kind, pool: Pool) -> Result<Symmetric, SolveError> {
        Symmetric::by_strips(self.width(), pool, |rows| self.matrix_strip(&rows, kind))
    }

    /// The same in the upper half of a tensor `[width, width]`; the rest is not defined.
    ///
    /// # Errors
    /// As [`Self::matrix`].
    pub(super) fn upper(&self, kind: Kind, pool: Pool) -> Result<Tensor, SolveError> {
        let width = self.width() as i64;
        let matrix = Tensor::f_empty([width, width], (kind, self.device))?;
        let work = strips(self.width()).map(|rows| {
            let (start, height) = (rows.start as i64, rows.len() as i64);
            Ok((matrix.f_narrow(0, start, height)?.f_narrow(1, start, width - start)?, rows))
        });
        let work = work.collect::<Result<Vec<_>, TchError>>()?;
        pool.map(work, |(mut strip, rows)| Ok::<_, SolveError>(strip.f_copy_(&self.matrix_strip(&rows, kind)?)?))?;
        Ok(matrix)
    }

    /// The matrices `H̃ⱼ` of the right-hand side, one per model but the pivot, computed in `kind`:
    /// `Σᵢ uᵢ G̃ᵢ (Wᵢ - W̄)ᵀ` is `Σⱼ (Wⱼ - W̄) H̃ⱼ` in row form.
    ///
    /// The pivot's Gram is taken out of each other's; two models take one product.
    ///
    /// # Errors
    /// When a Gram cannot be read or libtorch fails.
    pub fn sides(&self, kind: Kind, pool: Pool) -> Result<Vec<Symmetric>, SolveError> {
        let side = |index: usize| {
            let factors = [(index, self.terms[index].scale), (self.pivot, -self.taken(index))];
            Symmetric::by_strips(self.width(), pool, |rows| self.combined(&rows, &factors, kind))
        };
        self.others().map(side).collect()
    }

    /// `Σ cᵢ Gᵢ` with its off-diagonals scaled by α: `rows`, from their first diagonal element to the right.
    fn combined(&self, rows: &Range<usize>, factors: &[(usize, f64)], kind: Kind) -> Result<Tensor, SolveError> {
        let mut sum: Option<Tensor> = None;
        for &(index, factor) in factors {
            let part = self.terms[index].gram.part(rows.clone(), rows.start..self.width())?;
            let mut part = part.f_to_device(self.device)?.f_to_kind(kind)?;
            let part = part.f_mul_scalar_(factor)?;
            sum = Some(match sum {
                None => part,
                Some(mut sum) => sum.f_add_(&part)?,
            });
        }
        let mut sum = sum.ok_or(SolveError::NotFinite)?;
        let diagonal = sum.f_diagonal(0, 0, 1)?.f_mul_scalar(1.0)?;
        let sum = sum.f_mul_scalar_(self.alpha)?;
        sum.f_diagonal(0, 0, 1)?.f_copy_(&diagonal)?;
        Ok(sum)
    }

    /// A strip of the matrix.
    fn matrix_strip(&self, rows: &Range<usize>, kind: Kind) -> Result<Tensor, SolveError> {
        let all: Vec<(usize, f64)> = self.terms.iter().map(|term| term.scale).enumerate().collect();
        let mut sum = self.combined(rows, &all, kind)?;
        // A NaN is the least and the greatest.
        if ![sum.f_min()?, sum.f_max()?].iter().all(|end| end.f_double_value(&[]).is_ok_and(f64::is_finite)) {
            return Err(SolveError::NotFinite);
        }
        let root = self.root()?.f_to_kind(kind)?;
        let (start, height) = (rows.start as i64, rows.len() as i64);
        let right = root.f_narrow(0, start, root.size1()? - start)?.f_unsqueeze(0)?;
        let scaled = sum.f_mul_(&right)?.f_mul_(&root.f_narrow(0, start, height)?.f_unsqueeze(1)?)?;
        let _ = scaled.f_diagonal(0, 0, 1)?.f_fill_(1.0)?;
        Ok(scaled)
    }

    /// For some rows of scaled corrections `X` and differences `Wⱼ - W̄`, `[rows, width]` in fp64, their right-hand side and
    /// `X A`, in fp64 from the Grams themselves: each is read once.
    ///
    /// # Errors
    /// When a Gram cannot be read or libtorch fails.
    pub(super) fn both_sides(
        &self,
        differences: &[Tensor],
        solved: &Tensor,
        pool: Pool,
    ) -> Result<(Tensor, Tensor), SolveError> {
        let (rows, root) = (solved.size2()?.0, self.root()?.f_unsqueeze(0)?);
        let corrections = solved.f_mul(&root)?;
        // What each Gram is multiplied with: the corrections, and its part of the differences, one above the other.
        let mut factors = Vec::with_capacity(self.terms.len());
        for (index, term) in self.terms.iter().enumerate() {
            let difference = if index == self.pivot {
                let mut sum = corrections.f_zeros_like()?;
                for (difference, other) in differences.iter().zip(self.others()) {
                    sum = sum.f_sub_(&difference.f_mul_scalar(self.taken(other))?)?;
                }
                sum
            } else {
                let side = self.others().position(|other| other == index).expect("it is one of the others");
                differences[side].f_mul_scalar(term.scale)?
            };
            factors.push(Tensor::f_cat(&[corrections.f_mul_scalar(term.scale)?, difference], 0)?);
        }
        let options = (Kind::Double, self.device);
        let shape = [2 * rows, self.width() as i64];
        let work =
            strips(self.width()).map(|strip| (factors.iter().map(Tensor::shallow_clone).collect::<Vec<_>>(), strip));
        let parts = pool.map(work.collect(), |(factors, strip)| {
            let sum = Tensor::f_zeros(shape, options)?;
            for (factor, term) in factors.iter().zip(self.terms) {
                let gram = term.gram.part(strip.clone(), strip.start..self.width())?.f_to_device(self.device)?;
                add_product(&sum, factor, strip.start as i64, &gram.f_to_kind(Kind::Double)?)?;
            }
            Ok::<_, SolveError>(sum)
        })?;
        let mut sum = Tensor::f_zeros(shape, options)?;
        for part in parts {
            sum = sum.f_add_(&part)?;
        }
        // Off the diagonal α, on it one; a scaled diagonal is one, and a feature never seen has no correction.
        let off = |x: Tensor| x.f_mul_scalar(self.alpha)?.f_mul(&root);
        let product = off(sum.f_narrow(0, 0, rows)?)?.f_add(&solved.f_mul_scalar(1.0 - self.alpha)?)?;
        let mut rhs = off(sum.f_narrow(0, rows, rows)?)?;
        for (difference, diagonal) in differences.iter().zip(self.side_diagonals()?) {
            let own = difference.f_mul(&diagonal)?.f_mul(&root)?.f_mul_scalar(1.0 - self.alpha)?;
            rhs = rhs.f_add_(&own)?;
        }
        Ok((rhs, product))
    }
}
