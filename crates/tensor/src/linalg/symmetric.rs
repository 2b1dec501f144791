//! Symmetric matrices by their upper half: strips of rows, each from its first diagonal element to the right.
//!
//! That is how Grams lie in their files, so nothing is mirrored; and a product with the half is a product with the whole.

use std::ops::Range;

use tch::{Device, TchError, Tensor};

use super::{SolveError, inner};
use crate::gram::Gram;
use crate::parallel::Pool;

/// Rows of a strip; those of a Gram's widest tile, so that each tile is read once.
const STRIP: usize = 512;

/// A symmetric matrix; its diagonal blocks are whole.
#[derive(Debug)]
pub struct Symmetric {
    /// First row, and `[rows, width - first row]`.
    strips: Vec<(i64, Tensor)>,
}

/// Strips of a matrix of this width.
pub(super) fn strips(width: usize) -> impl Iterator<Item = Range<usize>> {
    (0..width).step_by(STRIP).map(move |start| start..(start + STRIP).min(width))
}

/// Numbers that the upper half of a matrix of this width is kept as.
pub(crate) fn kept(width: usize) -> usize {
    strips(width).map(|rows| rows.len() * (width - rows.start)).sum()
}

/// Bytes of a tensor's numbers.
pub(super) fn bytes(tensor: &Tensor) -> u64 {
    (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64
}

impl Symmetric {
    /// A matrix made strip by strip, each by `make` from its rows: `[rows, width - first row]`.
    ///
    /// # Errors
    /// Those of `make`.
    pub(super) fn by_strips(
        width: usize,
        pool: Pool,
        make: impl Fn(Range<usize>) -> Result<Tensor, SolveError> + Sync,
    ) -> Result<Self, SolveError> {
        let made = pool.map(strips(width).collect(), |rows| Ok::<_, SolveError>((rows.start as i64, make(rows)?)))?;
        Ok(Self { strips: made })
    }

    /// A Gram, in fp32 on a device.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(gram: Gram<'_>, device: Device, pool: Pool) -> Result<Self, SolveError> {
        let width = gram.width();
        Self::by_strips(width, pool, |rows| Ok(gram.part(rows.clone(), rows.start..width)?.f_to_device(device)?))
    }

    /// A matrix `[width, width]` that is there whole.
    #[cfg(test)]
    pub(crate) fn of(whole: &Tensor) -> Result<Self, TchError> {
        let width = whole.size2()?.0;
        let strip = |rows: Range<usize>| {
            let (start, height) = (rows.start as i64, rows.len() as i64);
            Ok((start, whole.f_narrow(0, start, height)?.f_narrow(1, start, width - start)?.copy()))
        };
        Ok(Self { strips: strips(width as usize).map(strip).collect::<Result<_, TchError>>()? })
    }

    /// Another handle on the same numbers, for another thread.
    pub(crate) fn share(&self) -> Self {
        let strips = self.strips.iter().map(|(start, strip)| (*start, strip.shallow_clone()));
        Self { strips: strips.collect() }
    }

    /// Bytes of its numbers.
    pub fn bytes(&self) -> u64 {
        self.strips.iter().map(|(_, strip)| bytes(strip)).sum()
    }

    /// Rows and columns.
    pub(super) fn width(&self) -> i64 {
        self.strips.first().map_or(0, |(_, strip)| strip.size()[1])
    }

    /// A tensor of its type, where it lies.
    pub(super) fn like(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let Some((_, strip)) = self.strips.first() else { return Ok(x.shallow_clone()) };
        x.f_to_device(strip.device())?.f_to_kind(strip.f_kind()?)
    }

    /// Its numbers in rows of at most so many, which divide those of a strip: each from its first diagonal element to the right.
    ///
    /// # Errors
    /// When libtorch fails.
    pub(super) fn rows(&self, height: usize) -> Result<Vec<Tensor>, TchError> {
        let mut rows = Vec::new();
        for (_, strip) in &self.strips {
            let (all, span) = strip.size2()?;
            for first in (0..all).step_by(height) {
                let row = strip.f_narrow(0, first, (all - first).min(height as i64))?;
                rows.push(row.f_narrow(1, first, span - first)?);
            }
        }
        Ok(rows)
    }

    /// Adds a number to every element of the diagonal.
    ///
    /// # Errors
    /// When libtorch fails.
    pub(super) fn shift(&self, by: f64) -> Result<(), TchError> {
        for (_, strip) in &self.strips {
            let _ = strip.f_diagonal(0, 0, 1)?.f_add_scalar_(by)?;
        }
        Ok(())
    }

    /// Adds `x A` to `sum`, both `[rows, width]` and of the matrix's type.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn multiply_into(&self, sum: &Tensor, x: &Tensor) -> Result<(), TchError> {
        for (start, strip) in &self.strips {
            add_product(sum, x, *start, strip)?;
        }
        Ok(())
    }

    /// `x A` for `x: [rows, width]`, of the matrix's type.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn multiply(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let product = x.f_zeros_like()?;
        self.multiply_into(&product, x)?;
        Ok(product)
    }

    /// `tr a A bᵀ` for all pairs of the basis `[rows, width]`, row by row. Half a product with the matrix for each of the
    /// basis.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn forms(&self, basis: &[Tensor]) -> Result<Vec<f64>, TchError> {
        let mut forms = vec![0.0; basis.len() * basis.len()];
        for (start, strip) in &self.strips {
            add_forms(&mut forms, basis, *start, strip)?;
        }
        Ok(forms)
    }
}

/// Adds to the forms of a basis what one strip and its mirror below the diagonal contribute.
pub(super) fn add_forms(forms: &mut [f64], basis: &[Tensor], start: i64, strip: &Tensor) -> Result<(), TchError> {
    let size = basis.len();
    let (height, span) = strip.size2()?;
    let rest = span - height;
    for (left, a) in basis.iter().enumerate() {
        let product = a.f_narrow(1, start, height)?.f_mm(strip)?;
        for (right, b) in basis.iter().enumerate() {
            // The diagonal block counts once, what is right of it for itself and for its mirror below.
            let block = inner(&product.f_narrow(1, 0, height)?, &b.f_narrow(1, start, height)?)?;
            let beside = inner(&product.f_narrow(1, height, rest)?, &b.f_narrow(1, start + height, rest)?)?;
            forms[left * size + right] += block + beside;
            forms[right * size + left] += beside;
        }
    }
    Ok(())
}

/// Adds to `sum` what one strip and its mirror below the diagonal contribute to `x A`.
pub(super) fn add_product(sum: &Tensor, x: &Tensor, start: i64, strip: &Tensor) -> Result<(), TchError> {
    let (height, span) = strip.size2()?;
    let rest = span - height;
    let _ = sum.f_narrow(1, start, span)?.f_addmm_(&x.f_narrow(1, start, height)?, strip)?;
    if rest > 0 {
        let mirror = strip.f_narrow(1, height, rest)?.f_tr()?;
        let _ = sum.f_narrow(1, start, height)?.f_addmm_(&x.f_narrow(1, start + height, rest)?, &mirror)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn a_product_and_forms_with_the_half_are_those_with_the_whole() {
        tch::manual_seed(7);
        let options = (Kind::Double, Device::Cpu);
        for width in [1_usize, 3, 512, 513, 1100] {
            let x = Tensor::randn([width as i64, width as i64], options);
            let whole = &x + x.tr();
            let half = Symmetric::of(&whole).unwrap();
            let basis = [Tensor::randn([4, width as i64], options), Tensor::randn([4, width as i64], options)];
            let gap = half.multiply(&basis[0]).unwrap() - basis[0].matmul(&whole);
            assert!(gap.abs().max().double_value(&[]) < 1e-10, "{width}");
            let forms = half.forms(&basis).unwrap();
            for (at, found) in forms.iter().enumerate() {
                let exact = (basis[at / 2].matmul(&whole) * &basis[at % 2]).sum(Kind::Double).double_value(&[]);
                assert!((found - exact).abs() < 1e-9 * width as f64, "{width}, form {at}: {found} {exact}");
            }
        }
    }
}
