//! Numbers that are drawn: each depends on nothing but a seed and a place, whatever else is drawn, in which order, and on how
//! many threads.

use sha2::{Digest as _, Sha256};

/// A number in [0, 1) for every position.
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

    /// The number at a position.
    #[inline]
    pub fn at(self, position: usize) -> f64 {
        (mix(self.key ^ position as u64) >> 11) as f64 * f64::EPSILON / 2.0
    }
}

/// `SplitMix64` (Steele, Lea and Flood, 2014), one step.
#[inline]
fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
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
}
