//! The paired bootstrap: what the difference of two means would be on other documents of the same kind.
//!
//! Documents are drawn with replacement, as many as there are, each with both of its scores; the mean difference of such
//! a draw is one resample. B. Efron and R. Tibshirani, "An Introduction to the Bootstrap" (1993), for the interval; P. Koehn,
//! "Statistical significance tests for machine translation evaluation", EMNLP 2004, for the test.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::ratio::{Part, ratios};

/// How many resamples are drawn.
pub const RESAMPLES: usize = 10_000;

/// Seed of the draws: the same scores give the same figures.
pub const SEED: u64 = 0;

/// What the resamples say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bootstrap {
    /// Between the 2.5th and the 97.5th percentile of the resamples.
    pub interval: [f64; 2],
    /// Two-sided: twice the share of resamples on the rarer side of 0, those at 0 counted on both, and the scores as
    /// they are counted as one resample more, so that it is never 0. At most 1.
    pub p: f64,
}

/// Resamples the differences of single documents; `None` without any.
///
/// The draws are those of ChaCha8, which are the same on every machine.
pub fn bootstrap(differences: &[f64], resamples: usize, seed: u64) -> Option<Bootstrap> {
    let n = differences.len();
    if n == 0 {
        return None;
    }
    of_draws(resamples, seed, |generator| (0..n).map(|_| differences[below(generator, n)]).sum::<f64>() / n as f64)
}

/// The same for two ratios of sums over documents: of each draw both ratios are taken anew, and their difference is the
/// resample. `None` where one of the ratios has no size. A draw in which one has none is drawn again.
pub fn bootstrap_ratios(pairs: &[[Part; 2]], resamples: usize, seed: u64) -> Option<Bootstrap> {
    ratios(pairs.iter())?;
    let n = pairs.len();
    of_draws(resamples, seed, |generator| {
        loop {
            if let Some([first, second]) = ratios((0..n).map(|_| &pairs[below(generator, n)])) {
                return first - second;
            }
        }
    })
}

/// What some resamples say; `None` without any.
fn of_draws(resamples: usize, seed: u64, mut draw: impl FnMut(&mut ChaCha8Rng) -> f64) -> Option<Bootstrap> {
    if resamples == 0 {
        return None;
    }
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let mut values: Vec<f64> = (0..resamples).map(|_| draw(&mut generator)).collect();
    values.sort_unstable_by(f64::total_cmp);
    let at_most = values.iter().filter(|value| **value <= 0.0).count();
    let at_least = values.iter().filter(|value| **value >= 0.0).count();
    let p = 2.0 * (at_most.min(at_least) + 1) as f64 / (resamples + 1) as f64;
    let outside = resamples / 40;
    Some(Bootstrap { interval: [values[outside], values[resamples - 1 - outside]], p: p.min(1.0) })
}

/// A number in `0..n`: the upper half of a product, off by less than one part in 2⁶⁴ / n from even.
fn below(generator: &mut impl RngCore, n: usize) -> usize {
    ((u128::from(generator.next_u64()) * n as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(differences: &[f64]) -> Bootstrap {
        bootstrap(differences, RESAMPLES, SEED).unwrap()
    }

    #[test]
    fn no_difference_anywhere_is_no_finding() {
        assert_eq!(of(&[0.0; 20]), Bootstrap { interval: [0.0, 0.0], p: 1.0 });
        assert_eq!(bootstrap(&[], RESAMPLES, SEED), None);
    }

    #[test]
    fn the_same_difference_everywhere_leaves_no_doubt() {
        let all = of(&[0.5; 20]);
        assert_eq!(all, Bootstrap { interval: [0.5, 0.5], p: 2.0 / 10_001.0 });
    }

    #[test]
    fn the_interval_is_that_of_the_normal_distribution_where_documents_are_many() {
        // Differences 0..400 in steps of 1/400 around 0.1: mean 0.1, deviation 1/√12.
        let differences: Vec<f64> = (0..400).map(|i| (f64::from(i) - 199.5) / 400.0 + 0.1).collect();
        let half = 1.96 / (12.0_f64 * 400.0).sqrt();
        let Bootstrap { interval, p } = of(&differences);
        assert!((interval[0] - (0.1 - half)).abs() < 2e-3, "{interval:?}");
        assert!((interval[1] - (0.1 + half)).abs() < 2e-3, "{interval:?}");
        assert!(p < 1e-3);
    }

    #[test]
    fn of_documents_of_one_size_ratios_are_resampled_as_means_are() {
        let differences = [0.5, -0.25, 1.5, 0.0, 2.0, -1.0, 0.75];
        let pairs = differences.map(|difference| [3.0 + difference, 3.0].map(|x| Part { sum: 8.0 * x, size: 8.0 }));
        let (ratios, means) = (bootstrap_ratios(&pairs, RESAMPLES, SEED).unwrap(), of(&differences));
        assert!((ratios.p - means.p).abs() < 1e-3, "{ratios:?}, {means:?}");
        assert!(ratios.interval.iter().zip(means.interval).all(|(one, other)| (one - other).abs() < 1e-12));
    }

    #[test]
    fn a_long_document_outweighs_many_short_ones() {
        // Nine short documents speak for the second model, and one of a thousand times their length for the first: the
        // ratios say the second has more, or less, with the draw. Means would leave no doubt.
        let short = [Part { sum: 1.0, size: 1.0 }, Part { sum: 3.0, size: 1.0 }];
        let long = [Part { sum: 2000.0, size: 1000.0 }, Part { sum: 1000.0, size: 1000.0 }];
        let mut pairs = vec![short; 9];
        pairs.push(long);
        let ratios = bootstrap_ratios(&pairs, RESAMPLES, SEED).unwrap();
        assert!((0.5..0.9).contains(&ratios.p), "{ratios:?}");
        // 0.9^10 = 0.35 of the draws miss the long one, and give -2.
        assert!((ratios.interval[0] + 2.0).abs() < 1e-12 && ratios.interval[1] > 0.9, "{ratios:?}");
    }

    #[test]
    fn a_draw_without_size_is_drawn_again() {
        let pairs = [[Part { sum: 1.0, size: 0.0 }; 2], [Part { sum: 2.0, size: 1.0 }, Part { sum: 1.0, size: 1.0 }]];
        assert!(bootstrap_ratios(&pairs, RESAMPLES, SEED).unwrap().interval.iter().all(|x| x.is_finite()));
        assert_eq!(bootstrap_ratios(&pairs[..1], RESAMPLES, SEED), None);
    }

    #[test]
    fn the_draws_are_the_same_everywhere() {
        let drawn = bootstrap(&[1.0, -2.0, 4.0, 0.5, -0.25], 8, 1).unwrap();
        assert_eq!(drawn, bootstrap(&[1.0, -2.0, 4.0, 0.5, -0.25], 8, 1).unwrap());
        // The generator's first words for seed 0, as indices into ten: a change of it would change published figures.
        let mut generator = ChaCha8Rng::seed_from_u64(SEED);
        let first: Vec<_> = (0..8).map(|_| below(&mut generator, 10)).collect();
        assert_eq!(first, [7, 4, 6, 0, 8, 5, 8, 9]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn models_in_the_other_order_differ_as_much_the_other_way(
            differences in proptest::collection::vec(-10.0_f64..10.0, 1..40), seed: u64,
        ) {
            let there = bootstrap(&differences, 400, seed).unwrap();
            let opposite: Vec<f64> = differences.iter().map(|difference| -difference).collect();
            let back = bootstrap(&opposite, 400, seed).unwrap();
            let mirrored = Bootstrap { interval: [-back.interval[1], -back.interval[0]], p: back.p };
            prop_assert_eq!(there, mirrored);
            prop_assert!(there.p > 0.0 && there.p <= 1.0);
            prop_assert!(there.interval[0] <= there.interval[1]);
        }
    }
}
