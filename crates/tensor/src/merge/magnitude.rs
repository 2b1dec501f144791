//! The largest elements of a task vector, found without holding it: two counts over its magnitudes' bits.
//!
//! The bits of positive floats order as the floats do. A first pass counts magnitudes by their upper bits, which gives the
//! bin of the k-th largest; a second counts those of that bin by their lower bits, which gives it exactly. Of equal
//! magnitudes at the edge the first ones stay, so that exactly k do, whatever the number of threads.

use super::elementwise::{TILE, tiles};
use super::error::MergeError;
use super::sources::Source;

/// Lower bits, told apart by the second pass.
const LOWER: u32 = 15;

/// The difference of one tensor between a model and the base, in fp32.
#[derive(Clone, Copy, Debug)]
pub struct TaskVector<'a> {
    /// The model.
    pub model: &'a Source,
    /// What it was trained from.
    pub base: &'a Source,
    /// The tensor.
    pub tensor: &'a str,
}

/// Which elements stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    /// Bits of the smallest magnitude that stays.
    edge: u32,
    /// Elements of that magnitude stay before this position.
    end: usize,
}

impl Trim {
    const ALL: Self = Self { edge: 0, end: usize::MAX };
    const NONE: Self = Self { edge: u32::MAX, end: 0 };

    /// Whether the element of this difference at this position stays.
    pub fn keeps(self, difference: f32, position: usize) -> bool {
        let bits = difference.abs().to_bits();
        bits > self.edge || bits == self.edge && position < self.end
    }
}

impl TaskVector<'_> {
    /// The `⌊density·n⌋` elements of the largest magnitudes.
    ///
    /// # Errors
    /// When a tensor cannot be read or is not finite.
    pub fn trim(self, density: f64) -> Result<Trim, MergeError> {
        let elements = self.model.checkpoint.info(self.tensor)?.elements();
        let kept = (density * elements as f64) as usize;
        if kept >= elements {
            return Ok(Trim::ALL);
        }
        if kept == 0 {
            return Ok(Trim::NONE);
        }
        let mut upper = vec![0usize; 1 << (32 - LOWER)];
        self.each(|_, magnitude| upper[(magnitude.to_bits() >> LOWER) as usize] += 1)?;
        let (bin, above) = kth_from_above(&upper, kept);
        let mut lower = vec![0usize; 1 << LOWER];
        self.each(|_, magnitude| {
            let bits = magnitude.to_bits();
            if (bits >> LOWER) as usize == bin {
                lower[(bits & ((1 << LOWER) - 1)) as usize] += 1;
            }
        })?;
        let (rest, within) = kth_from_above(&lower, kept - above);
        let edge = (bin as u32) << LOWER | rest as u32;
        // So many of the edge's own magnitude stay; where that is not all of them, it takes a look at which are first.
        let mut equal = kept - above - within;
        if equal == lower[rest] {
            return Ok(Trim { edge, end: usize::MAX });
        }
        let mut end = 0;
        self.each(|position, magnitude| {
            if magnitude.to_bits() == edge && equal > 0 {
                equal -= 1;
                end = position + 1;
            }
        })?;
        Ok(Trim { edge, end })
    }

    /// What brings the sum of magnitudes that stay to that of all; 1 where there is nothing to scale.
    ///
    /// # Errors
    /// When a tensor cannot be read or is not finite.
    pub fn rescaling(self, trim: Trim) -> Result<f64, MergeError> {
        let (mut all, mut kept) = (0.0, 0.0);
        self.each(|position, magnitude| {
            all += f64::from(magnitude);
            kept += if trim.keeps(magnitude, position) { f64::from(magnitude) } else { 0.0 };
        })?;
        Ok(if all > 0.0 && kept > 0.0 { all / kept } else { 1.0 })
    }

    /// Position and magnitude of every element.
    fn each(self, mut visit: impl FnMut(usize, f32)) -> Result<(), MergeError> {
        let (mut model, mut base) = (vec![0.0; TILE], vec![0.0; TILE]);
        for tile in tiles(0..self.model.checkpoint.info(self.tensor)?.elements()) {
            let (model, base) = (&mut model[..tile.len()], &mut base[..tile.len()]);
            self.model.decode(self.tensor, tile.clone(), model)?;
            self.base.decode(self.tensor, tile.clone(), base)?;
            for ((position, model), base) in tile.zip(&*model).zip(&*base) {
                visit(position, (model - base).abs());
            }
        }
        Ok(())
    }
}

/// The bin of the k-th largest, and how many are in the bins above it.
fn kth_from_above(counts: &[usize], k: usize) -> (usize, usize) {
    let mut above = 0;
    for (bin, count) in counts.iter().enumerate().rev() {
        if above + count >= k {
            return (bin, above);
        }
        above += count;
    }
    unreachable!("there are at least k elements")
}
