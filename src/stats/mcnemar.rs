//! McNemar's test in its exact form.
//!
//! Of the documents that only one of two models gets right, each is as likely to be the one's as the other's if the
//! models are equally good: their number is binomial with 1/2, whatever the documents on which they agree. Q. McNemar,
//! "Note on the sampling error of the difference between correlated proportions or percentages", Psychometrika 12 (1947).

/// Two-sided p-value: how likely a split at least as uneven as this one is between equal models.
///
/// `2 P(X ≤ min(a, b))` with `X ~ Binomial(a + b, 1/2)`, and 1 where that is more. The largest term is taken in
/// logarithms and the others relative to it, so that nothing overflows; what is smaller than any `f64` is given as the
/// smallest positive one. Never 0.
pub fn mcnemar(only_first: u64, only_second: u64) -> f64 {
    let (few, all) = (only_first.min(only_second), only_first + only_second);
    if 2 * few + 1 >= all {
        return 1.0;
    }
    // ln (all choose few), then the sum of the terms down to 0 in units of the last.
    let last: f64 = (1..=few).map(|i| ((all - few + i) as f64 / i as f64).ln()).sum();
    let (mut term, mut sum) = (1.0, 1.0);
    for i in (1..=few).rev() {
        term *= i as f64 / (all - i + 1) as f64;
        sum += term;
        if term < sum * f64::EPSILON / 4.0 {
            break;
        }
    }
    let log = last + f64::ln(sum) - (all - 1) as f64 * std::f64::consts::LN_2;
    log.exp().clamp(f64::MIN_POSITIVE, 1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn is(only_first: u64, only_second: u64, expected: f64) {
        let p = mcnemar(only_first, only_second);
        assert!((p / expected - 1.0).abs() < 1e-10, "{only_first}, {only_second}: {p:e}, not {expected:e}");
    }

    #[test]
    fn small_counts_are_fractions() {
        is(0, 0, 1.0);
        is(1, 0, 1.0);
        is(2, 0, 0.5);
        is(1, 1, 1.0);
        is(5, 0, 2.0 / 32.0);
        is(6, 1, 2.0 * (1.0 + 7.0) / 128.0);
        is(3, 12, 2.0 * (1.0 + 15.0 + 105.0 + 455.0) / 32768.0);
    }

    #[test]
    fn values_are_those_of_scipy() {
        // scipy 1.17.1: binomtest(a, a + b).pvalue
        is(15, 5, 4.138_946_533_203e-2);
        is(8, 20, 3.569_813_817_739e-2);
        is(40, 4, 1.705_143_404_251e-8);
        is(70, 50, 8.240_747_932_753e-2);
        is(600, 400, 2.728_464_156_066e-10);
        is(1000, 900, 2.310_884_510_890e-2);
        is(5000, 5200, 4.878_796_312_682e-2);
        is(30, 900, 6.071_989_797_167e-224);
    }

    #[test]
    fn counts_beyond_any_benchmark_neither_overflow_nor_vanish() {
        is(1_000_000, 1_000_000, 1.0);
        is(1_000_000, 0, f64::MIN_POSITIVE);
        let p = mcnemar(500_500, 499_500);
        // One normal standard deviation: 2 (1 - Φ(0.999)) with the correction for continuity.
        assert!((p - 0.3178).abs() < 1e-3, "{p}");
    }

    proptest! {
        #[test]
        fn the_order_of_the_models_does_not_matter_and_p_is_a_probability(a in 0_u64..3000, b in 0_u64..3000) {
            let p = mcnemar(a, b);
            prop_assert_eq!(p.to_bits(), mcnemar(b, a).to_bits());
            prop_assert!(p > 0.0 && p <= 1.0, "{}", p);
        }

        #[test]
        fn a_more_uneven_split_of_as_many_is_less_likely(few in 0_u64..1000, many in 0_u64..1000) {
            let (few, many) = (few.min(many), few.max(many));
            prop_assert!(mcnemar(few, many + 2) <= mcnemar(few + 1, many + 1));
        }
    }
}
