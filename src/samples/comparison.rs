//! What the scores of two models on the same documents say, in figures and in a sentence.

use super::{Choice, Pair};
use crate::stats::{Bootstrap, Difference, Part, RESAMPLES, SEED, SIGNIFICANCE, bootstrap, bootstrap_ratios, mcnemar};

/// Two models on some documents.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// The means and how far they are apart.
    pub difference: Difference,
    /// Documents with two different scores.
    pub differing: usize,
    /// The test.
    pub test: Test,
}

/// How chance is ruled out, or is not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Test {
    /// McNemar's exact test, where every score is 0 or 1.
    McNemar {
        /// Documents that both models get right.
        both_right: usize,
        /// Documents that only one of them gets right: the first, the second.
        only: [usize; 2],
        /// Documents that neither gets right.
        both_wrong: usize,
        /// Two-sided.
        p: f64,
    },
    /// The paired bootstrap, for other scores.
    Bootstrap(Bootstrap),
}

impl Test {
    /// Its p-value, two-sided, in (0, 1].
    pub fn p(&self) -> f64 {
        match self {
            Self::McNemar { p, .. } => *p,
            Self::Bootstrap(bootstrap) => bootstrap.p,
        }
    }
}

impl Comparison {
    /// Of some pairs of finite scores; `None` without any, or where they have no size.
    ///
    /// Figures that are ratios of sums over documents are compared as such: a long document counts for more.
    pub fn of<'a>(pairs: impl IntoIterator<Item = &'a Pair>, choice: &Choice) -> Option<Self> {
        let pairs: Vec<&Pair> = pairs.into_iter().collect();
        let differing = pairs.iter().filter(|pair| pair.differs()).count();
        let parts: Vec<[Part; 2]> = pairs.iter().map(|pair| pair.parts).collect();
        if parts.iter().flatten().any(|part| *part != Part::score(part.sum)) {
            let test = Test::Bootstrap(bootstrap_ratios(&parts, RESAMPLES, SEED)?);
            return Some(Self { difference: Difference::of_ratios(&parts)?, differing, test });
        }
        let scores: Vec<[f64; 2]> = parts.iter().map(|parts| parts.map(|part| part.sum)).collect();
        let difference = Difference::of(&scores)?;
        let test = if scores.iter().flatten().all(|score| is_truth(*score)) {
            let count = |wanted: [bool; 2]| {
                scores.iter().filter(|scores| scores.map(|score| choice.is_best(score)) == wanted).count()
            };
            let only = [count([true, false]), count([false, true])];
            Test::McNemar {
                both_right: count([true, true]),
                only,
                both_wrong: count([false, false]),
                p: mcnemar(only[0] as u64, only[1] as u64),
            }
        } else {
            let differences: Vec<f64> = scores.iter().map(|[first, second]| first - second).collect();
            Test::Bootstrap(bootstrap(&differences, RESAMPLES, SEED)?)
        };
        Some(Self { difference, differing, test })
    }

    /// Whether chance hardly explains it.
    pub fn is_finding(&self) -> bool {
        self.test.p() < SIGNIFICANCE
    }

    /// What it means, for the models' names.
    pub fn sentence(&self, names: [&str; 2], choice: &Choice) -> String {
        let n = self.difference.n;
        let items =
            format!("{} of {n} items {}", self.differing, if self.differing == 1 { "differs" } else { "differ" });
        let p = p_value(self.test.p());
        if self.differing == 0 {
            return format!("No item of {n} differs: no finding.");
        }
        if !self.is_finding() {
            return format!("{items}: {p}, not a finding.");
        }
        let better = if (self.difference.value > 0.0) == choice.higher_is_better { names[0] } else { names[1] };
        format!("{items}: {p}, so {better} is better on these by more than chance explains.")
    }
}

/// Whether a score says right or wrong and nothing between.
pub(super) fn is_truth(score: f64) -> bool {
    [0.0, 1.0].contains(&score)
}

/// `p = 0.031`, or `p < 1e-300`.
pub(super) fn p_value(p: f64) -> String {
    if p < 1e-300 {
        "p < 1e-300".to_owned()
    } else if p < 1e-3 {
        format!("p = {p:.1e}")
    } else if p < 0.1 {
        format!("p = {p:.3}")
    } else {
        // 0.996 is not 1.
        format!("p = {:.2}", if p < 1.0 { p.min(0.99) } else { p })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(higher_is_better: bool) -> Choice {
        Choice { metric: "m".to_owned(), filter: None, higher_is_better, n_shot: None }
    }

    fn compared(counts: &[([f64; 2], usize)], higher_is_better: bool) -> Comparison {
        let pairs = counts.iter().flat_map(|(scores, count)| std::iter::repeat_n(*scores, *count));
        let pairs: Vec<_> =
            pairs.map(|scores| Pair { task: "t".to_owned(), doc_id: 0, parts: scores.map(Part::score) }).collect();
        Comparison::of(&pairs, &choice(higher_is_better)).unwrap()
    }

    #[test]
    fn two_problems_of_164_are_not_a_finding() {
        let two = compared(&[([1.0, 1.0], 72), ([0.0, 0.0], 90), ([1.0, 0.0], 2)], true);
        assert_eq!(two.test, Test::McNemar { both_right: 72, only: [2, 0], both_wrong: 90, p: 0.5 });
        assert_eq!(two.sentence(["a", "b"], &choice(true)), "2 of 164 items differ: p = 0.50, not a finding.");
        let even = compared(&[([1.0, 1.0], 162), ([1.0, 0.0], 1), ([0.0, 1.0], 1)], true);
        assert_eq!(even.sentence(["a", "b"], &choice(true)), "2 of 164 items differ: p = 1.00, not a finding.");
        let none = compared(&[([1.0, 1.0], 164)], true);
        assert_eq!(none.sentence(["a", "b"], &choice(true)), "No item of 164 differs: no finding.");
    }

    #[test]
    fn a_finding_names_the_better_model() {
        let clear = [([1.0, 1.0], 50), ([1.0, 0.0], 40), ([0.0, 1.0], 4)];
        let sentence = "44 of 94 items differ: p = 1.7e-8, so a is better on these by more than chance explains.";
        assert_eq!(compared(&clear, true).sentence(["a", "b"], &choice(true)), sentence);
        let sentence = sentence.replace("so a", "so b");
        assert_eq!(compared(&clear, false).sentence(["a", "b"], &choice(false)), sentence);
    }

    #[test]
    fn where_less_is_better_right_is_zero() {
        let Test::McNemar { both_right, only, both_wrong, .. } =
            compared(&[([0.0, 0.0], 3), ([0.0, 1.0], 2), ([1.0, 1.0], 1)], false).test
        else {
            panic!("scores are 0 or 1")
        };
        assert_eq!((both_right, only, both_wrong), (3, [2, 0], 1));
    }

    #[test]
    fn scores_in_between_are_resampled() {
        let compared = compared(&[([0.5, 0.25], 30), ([0.0, 1.0], 1)], true);
        let Test::Bootstrap(Bootstrap { interval, p }) = compared.test else { panic!("0.5 is neither 0 nor 1") };
        assert!(interval[0] < compared.difference.value && compared.difference.value < interval[1], "{interval:?}");
        assert!(p < 0.05, "{p}");
    }

    #[test]
    fn ratios_of_sums_are_compared_as_such() {
        // 9 rows of 1 byte with 1 bit less, one of 1000 bytes with 1000 bits more.
        let part = |sum, size| Part { sum, size };
        let mut parts = vec![[part(1.0, 1.0), part(2.0, 1.0)]; 9];
        parts.push([part(2000.0, 1000.0), part(1000.0, 1000.0)]);
        let pairs: Vec<_> = parts.into_iter().map(|parts| Pair { task: "t".to_owned(), doc_id: 0, parts }).collect();
        let compared = Comparison::of(&pairs, &choice(false)).unwrap();
        assert!(!compared.is_finding() && compared.difference.value > 0.0, "{compared:?}");
        assert_eq!((compared.differing, compared.difference.means), (10, [2009.0 / 1009.0, 1018.0 / 1009.0]));
    }

    #[test]
    fn p_values_keep_their_size() {
        let shown = [1.0, 0.9999, 0.5, 0.0312, 0.000_123, f64::MIN_POSITIVE].map(p_value);
        assert_eq!(shown, ["p = 1.00", "p = 0.99", "p = 0.50", "p = 0.031", "p = 1.2e-4", "p < 1e-300"]);
    }
}
