//! Numbers that are drawn: each depends on nothing but a seed and a place, whatever else is drawn, in which order, and on how
//! many threads.

use sha2::{Digest as _, Sha256};

use crate::system::vectorized;

/// Positions whose bits come of one key.
const GROUP: usize = 4096;

/// Even numbers for every position.
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    key: u64,
}

impl Draws {
    /// Draws of a seed for something that has a name, apart from those for other names.
    pub fn named(seed: u64, name: &str, index: usize) -> Self {
        let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(index.to_le_bytes());
        let digest = digest.chain_update(name).finalize();
        let mut key = [0; 8];
        key.copy_from_slice(&digest[..8]);
        Self { key: u64::from_le_bytes(key) }
    }

    /// Draws of a seed for something that has a number.
    pub fn numbered(seed: u64, number: usize) -> Self {
        Self { key: mix(mix(seed) ^ number as u64) }
    }

    /// A number in [0, 1) at a position.
    #[inline]
    pub fn at(self, position: usize) -> f64 {
        (mix(self.key ^ position as u64) >> 11) as f64 * f64::EPSILON / 2.0
    }

    /// 32 even bits at every position from one on: for a test with a [`threshold`], and many times faster than [`Self::at`].
    pub fn fill(self, start: usize, bits: &mut [u32]) {
        let (mut at, mut rest) = (start, bits);
        while !rest.is_empty() {
            let first = at % GROUP;
            let (part, others) = rest.split_at_mut(rest.len().min(GROUP - first));
            let key = mix(self.key ^ (at / GROUP) as u64);
            vectorized(|| {
                for (place, bits) in (first as u32..).zip(&mut *part) {
                    *bits = mix_place(key, place);
                }
            });
            at += part.len();
            rest = others;
        }
    }
}

/// Bits below this come up with a probability, to a part in 2³².
pub fn threshold(probability: f64) -> u32 {
    (probability * 2f64.powi(32) + 0.5) as u32
}

/// `SplitMix64` (Steele, Lea and Flood, 2014), one step.
#[inline]
fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A place under a key: two rounds of multiplying as Wellons found them to mix best
/// (<https://github.com/skeeto/hash-prospector>), with half of the key before each.
#[inline]
fn mix_place(key: u64, place: u32) -> u32 {
    let mut bits = place.wrapping_add(key as u32);
    bits = (bits ^ (bits >> 16)).wrapping_mul(0x21f0_aaad);
    bits ^= (key >> 32) as u32;
    bits = (bits ^ (bits >> 15)).wrapping_mul(0x735a_2d97);
    bits ^ (bits >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_even_and_those_of_other_names_seeds_and_indices_are_others() {
        let count = 100_000;
        let draws = |seed, name, index| {
            let draws = Draws::named(seed, name, index);
            (0..count).map(|at| draws.at(at)).collect::<Vec<f64>>()
        };
        let first = draws(0, "a", 0);
        assert!(first.iter().all(|draw| (0.0..1.0).contains(draw)));
        // Five standard errors of a mean of even numbers.
        let bound = 5.0 * (1.0 / 12.0f64 / count as f64).sqrt();
        assert!((first.iter().sum::<f64>() / count as f64 - 0.5).abs() < bound);
        for other in [draws(1, "a", 0), draws(0, "b", 0), draws(0, "a", 1)] {
            let product: f64 = first.iter().zip(&other).map(|(a, b)| (a - 0.5) * (b - 0.5)).sum();
            assert!((product / count as f64).abs() < 5.0 / 12.0 / (count as f64).sqrt(), "{product}");
        }
        assert_eq!(first, draws(0, "a", 0));
    }

    #[test]
    fn bits_are_even_the_same_in_any_pieces_and_as_likely_below_a_threshold_as_it_says() {
        let draws = Draws::named(3, "a", 1);
        let mut whole = vec![0; 100_000];
        draws.fill(0, &mut whole);
        for (start, length) in [(0, 5), (3, 7), (GROUP, 16), (GROUP - 1, 2), (40, 0), (77, 3 * GROUP)] {
            let mut piece = vec![0; length];
            draws.fill(start, &mut piece);
            assert_eq!(piece, whole[start..start + length], "{start} {length}");
        }
        let count = whole.len() as f64;
        for probability in [0.1, 0.5, 0.93] {
            let below = whole.iter().filter(|bits| **bits < threshold(probability)).count() as f64 / count;
            // Five standard errors.
            assert!((below - probability).abs() < 5.0 * (probability * (1.0 - probability) / count).sqrt(), "{below}");
        }
        for bit in 0..32 {
            let ones = whole.iter().filter(|bits| **bits >> bit & 1 == 1).count() as f64 / count;
            assert!((ones - 0.5).abs() < 5.0 * (0.25 / count).sqrt(), "bit {bit}: {ones}");
        }
        // Neighbours, and those of the same place in the next group.
        for distance in [1, 2, 8, GROUP] {
            let pairs = whole.iter().zip(&whole[distance..]);
            let product: f64 =
                pairs.map(|(a, b)| (f64::from(*a) / 2f64.powi(32) - 0.5) * (f64::from(*b) / 2f64.powi(32) - 0.5)).sum();
            assert!((product / count).abs() < 5.0 / 12.0 / count.sqrt(), "{distance}: {product}");
        }
        assert_eq!([threshold(0.0), threshold(0.5), threshold(1.0)], [0, 1 << 31, u32::MAX]);
    }
}
