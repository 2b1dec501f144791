//! `XᵀX` of bfloat16 matrices with fp32 sums, on CPUs with AVX512-BF16.
//!
//! libtorch has no product of bfloat16 matrices with an fp32 result on the CPU: activations would have to be widened first,
//! and fp32 products run at half the rate of bfloat16 ones. The instruction `vdpbf16ps` does what a Gram wants: it adds the
//! exact products of two pairs of bfloat16 numbers to an fp32 sum. So a chunk of activations `[tokens, width]` is laid out
//! in pairs of tokens, and one layout serves both sides of the product.
//!
//! ```text
//! panel 0 (features 0..16)   pair 0: [t0 t1] of feature 0, [t0 t1] of feature 1, …   one cache line
//!                            pair 1: [t2 t3] of feature 0, …
//! panel 1 (features 16..32)  …
//! ```
//!
//! A micro-tile of the result, 8 features by 48, stays in 24 registers while it runs down at most [`DEPTH`] pairs; then it is
//! added to the sum. So sums are blocked: rounding grows with the number of blocks, not of tokens.
#![expect(unsafe_code, reason = "vector loads and stores take pointers; lengths are checked beside each")]

use std::ops::Range;

/// Features of a panel: what one vector register holds of pairs.
const PANEL: usize = 16;
/// Rows of a micro-tile, half a panel.
const ROWS: usize = PANEL / 2;
/// Columns of a micro-tile, three panels.
const COLUMNS: usize = 3 * PANEL;
/// Pairs of tokens that one micro-tile sums up at most: three panels of so many fill half of a second-level cache of 100 KB.
const DEPTH: usize = 256;

/// One pair of tokens in one panel, the two halves apart since a micro-tile has half a panel of rows.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([[u32; ROWS]; 2]);

/// A chunk of activations, in pairs.
#[derive(Debug)]
pub struct Pairs {
    width: usize,
    /// Lines of a panel.
    depth: usize,
    /// Panels, each of `depth` lines; zero where the last panel or the last pair is not full.
    lines: Vec<Line>,
}

/// The number that bits of bfloat16 stand for.
pub fn value(bits: i16) -> f64 {
    f64::from(f32::from_bits(u32::from(bits.cast_unsigned()) << 16))
}

/// Whether this CPU can.
#[cfg(target_arch = "x86_64")]
pub fn available() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")
}

/// Whether this CPU can.
#[cfg(not(target_arch = "x86_64"))]
pub fn available() -> bool {
    false
}

impl Pairs {
    /// Lays out `rows`, each of `width` numbers (the bits of bfloat16), in their order.
    pub fn of<'a>(width: usize, rows: impl ExactSizeIterator<Item = &'a [i16]>) -> Self {
        let depth = rows.len().div_ceil(2);
        let panels = width.div_ceil(COLUMNS) * (COLUMNS / PANEL);
        let mut lines = vec![Line([[0; ROWS]; 2]); panels * depth];
        for (token, row) in rows.enumerate() {
            assert_eq!(row.len(), width, "every row is as wide as the matrix");
            let shift = 16 * (token % 2);
            for (panel, features) in row.chunks(PANEL).enumerate() {
                let line = lines[panel * depth + token / 2].0.as_flattened_mut();
                for (pair, feature) in line.iter_mut().zip(features) {
                    *pair |= u32::from(feature.cast_unsigned()) << shift;
                }
            }
        }
        Self { width, depth, lines }
    }

    /// Adds the rows `rows` of `XᵀX`, from their first diagonal element to the right, to `strip: [rows, width - rows.start]`.
    /// What lies below the diagonal of the matrix is not defined.
    ///
    /// # Panics
    /// When the strip has another size, or this CPU cannot ([`available`]).
    #[cfg(target_arch = "x86_64")]
    pub fn add_to(&self, strip: &mut [f32], rows: Range<usize>) {
        assert!(available(), "this CPU has AVX512-BF16");
        assert_eq!(strip.len(), rows.len() * (self.width - rows.start), "the strip is of these rows");
        // SAFETY: the CPU has the features that the function is compiled for.
        unsafe { x86::add(self, strip, rows) }
    }

    /// No other CPU has the instruction.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn add_to(&self, _strip: &mut [f32], _rows: Range<usize>) {
        unreachable!("callers ask `available` first")
    }

    /// The pairs `depth` of one panel.
    fn panel(&self, panel: usize, depth: &Range<usize>) -> &[Line] {
        &self.lines[panel * self.depth..][depth.clone()]
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_load_si512, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
    };
    use std::mem::transmute;
    use std::ops::Range;

    use super::{COLUMNS, DEPTH, Line, PANEL, Pairs, ROWS};

    /// [`Pairs::add_to`].
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn add(x: &Pairs, strip: &mut [f32], rows: Range<usize>) {
        let span = x.width - rows.start;
        for start in (0..x.depth).step_by(DEPTH) {
            let depth = start..(start + DEPTH).min(x.depth);
            for group in rows.start / COLUMNS..x.width.div_ceil(COLUMNS) {
                let right = [0, 1, 2].map(|panel| x.panel(3 * group + panel, &depth));
                let columns = (group * COLUMNS).max(rows.start)..((group + 1) * COLUMNS).min(x.width);
                for half in rows.start / ROWS..rows.end.min(columns.end).div_ceil(ROWS) {
                    let tile = tile(x.panel(half / 2, &depth), half % 2, right);
                    for row in (half * ROWS).max(rows.start)..((half + 1) * ROWS).min(rows.end) {
                        let sums = &mut strip[(row - rows.start) * span..][..span];
                        let sums = &mut sums[columns.start - rows.start..columns.end - rows.start];
                        let terms = &tile[row - half * ROWS][columns.start - group * COLUMNS..];
                        for (sum, term) in sums.iter_mut().zip(terms) {
                            *sum += term;
                        }
                    }
                }
            }
        }
    }

    /// `[8, 48]`: the products of one half of the left panel with the three on the right, summed over their pairs.
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn tile(left: &[Line], half: usize, right: [&[Line]; 3]) -> [[f32; COLUMNS]; ROWS] {
        let mut sums = [[_mm512_setzero_ps(); 3]; ROWS];
        for (((left, a), b), c) in left.iter().zip(right[0]).zip(right[1]).zip(right[2]) {
            let columns = [load(a), load(b), load(c)];
            for (sums, &row) in sums.iter_mut().zip(&left.0[half & 1]) {
                let row = pairs(_mm512_set1_epi32(row.cast_signed()));
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = _mm512_dpbf16_ps(*sum, row, column);
                }
            }
        }
        let mut tile = [[0.0; COLUMNS]; ROWS];
        for (row, sums) in tile.iter_mut().zip(sums) {
            for (part, sum) in row.as_chunks_mut::<PANEL>().0.iter_mut().zip(sums) {
                // SAFETY: `part` is sixteen floats, as many as a register holds; the store needs no alignment.
                unsafe { _mm512_storeu_ps(part.as_mut_ptr(), sum) }
            }
        }
        tile
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn load(line: &Line) -> __m512bh {
        // SAFETY: a line is the 64 bytes that are read, and aligned to as many.
        pairs(unsafe { _mm512_load_si512(std::ptr::from_ref(line).cast()) })
    }

    /// The same bits, as pairs of bfloat16.
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn pairs(bits: __m512i) -> __m512bh {
        // SAFETY: both are 512 bits without a meaning of their own.
        unsafe { transmute(bits) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits of numbers between -2 and 2 of all magnitudes, the same every time.
    fn numbers(count: usize) -> Vec<i16> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        let number = |_| (next() as f32 / 8_388_608.0 - 1.0) * 0.5_f32.powi(next() as i32 % 6 - 1);
        (0..count).map(number).map(|number| (number.to_bits() >> 16) as i16).collect()
    }

    #[test]
    fn every_shape_of_strip_agrees_with_float64() {
        if !available() {
            eprintln!("skipped: this CPU has no AVX512-BF16");
            return;
        }
        for (tokens, width) in [(1, 1), (2, 7), (3, 16), (31, 47), (600, 48), (37, 49), (64, 130), (1100, 97)] {
            let x = numbers(tokens * width);
            let pairs = Pairs::of(width, x.chunks(width));
            let exact = |i: usize, j: usize| -> f64 { x.chunks(width).map(|row| value(row[i]) * value(row[j])).sum() };
            for rows in [0..width, 0..width.div_ceil(3), width / 3..width, width / 2..width / 2 + 1] {
                let span = width - rows.start;
                let mut strip = vec![1.0; rows.len() * span];
                pairs.add_to(&mut strip, rows.clone());
                for row in rows.clone() {
                    for column in row..width {
                        let found = f64::from(strip[(row - rows.start) * span + column - rows.start]) - 1.0;
                        let scale = (exact(row, row) * exact(column, column)).sqrt() + 1.0;
                        let gap = (found - exact(row, column)).abs() / scale;
                        assert!(gap < 2e-6, "{tokens} x {width}, strip {rows:?}, ({row}, {column}): {gap:e}");
                    }
                }
            }
        }
    }
}
