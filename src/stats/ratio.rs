//! Figures that are ratios of sums over documents: bits over bytes, nats over tokens.
//!
//! A mean is the one in which every document has the same size. Any other ratio is not the mean of the documents' own
//! ratios, so neither is the difference of two of them.

use super::Difference;

/// What one document adds to a figure `Σ sum / Σ size`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// Its part of what is divided.
    pub sum: f64,
    /// Its part of what that is divided by; not negative. 1 where the figure is the mean of the documents' scores.
    pub size: f64,
}

impl Part {
    /// A score of which the figure is the mean.
    pub fn score(score: f64) -> Self {
        Self { sum: score, size: 1.0 }
    }

    /// The document's own ratio; `None` if it has no size.
    pub fn value(self) -> Option<f64> {
        (self.size > 0.0).then(|| self.sum / self.size)
    }
}

/// Both ratios of some documents; `None` where one of the two has no size.
pub(super) fn ratios<'a>(pairs: impl Iterator<Item = &'a [Part; 2]>) -> Option<[f64; 2]> {
    let zero = [Part { sum: 0.0, size: 0.0 }; 2];
    let total = pairs.fold(zero, |total, pair| {
        [0, 1].map(|side| Part { sum: total[side].sum + pair[side].sum, size: total[side].size + pair[side].size })
    });
    let [first, second] = total.map(Part::value);
    Some([first?, second?])
}

impl Difference {
    /// Of two ratios over the same documents, first model first; `None` where one of the two has no size.
    ///
    /// The standard error is that of the difference of two ratio estimators (W. G. Cochran, *Sampling Techniques*, 3rd
    /// edition, section 6.4), documents being the sample: `√(n / (n - 1) · Σ (eᵢ - fᵢ)²)`, with `eᵢ = (xᵢ - R yᵢ) / Σ y`
    /// of the first ratio `R = Σ x / Σ y` and `fᵢ` the same of the second.
    pub fn of_ratios(pairs: &[[Part; 2]]) -> Option<Self> {
        let means = ratios(pairs.iter())?;
        let sizes = [0, 1].map(|side| pairs.iter().map(|pair| pair[side].size).sum::<f64>());
        let residual = |pair: &[Part; 2], side: usize| (pair[side].sum - means[side] * pair[side].size) / sizes[side];
        let squares: f64 = pairs.iter().map(|pair| (residual(pair, 0) - residual(pair, 1)).powi(2)).sum();
        let n = pairs.len() as f64;
        let stderr = (pairs.len() > 1).then(|| (n / (n - 1.0) * squares).sqrt());
        Some(Self { n: pairs.len(), means, value: means[0] - means[1], stderr })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(sum: f64, size: f64) -> Part {
        Part { sum, size }
    }

    #[test]
    fn a_ratio_counts_sizes_and_not_documents() {
        // Python: x, y = [8, 2, 30, 1], [10, 1, 20, 0]; u = [10, 1, 33, 2] over the same y;
        // e = [(a - 41 / 31 * c - (b - 46 / 31 * c)) / 31 for a, b, c in zip(x, u, y)]; sqrt(4 / 3 * sum(t * t for t in e))
        let pairs = [
            [part(8.0, 10.0), part(10.0, 10.0)],
            [part(2.0, 1.0), part(1.0, 1.0)],
            [part(30.0, 20.0), part(33.0, 20.0)],
            [part(1.0, 0.0), part(2.0, 0.0)],
        ];
        let difference = Difference::of_ratios(&pairs).unwrap();
        assert_eq!((difference.n, difference.means), (4, [41.0 / 31.0, 46.0 / 31.0]));
        assert!((difference.value + 5.0 / 31.0).abs() < 1e-15);
        assert!((difference.stderr.unwrap() - 0.059_474_256_675_276_616).abs() < 1e-14, "{difference:?}");
    }

    #[test]
    fn of_documents_of_one_size_it_is_the_difference_of_two_means() {
        let scores = [[1.0, 0.25], [1.0, 0.5], [0.5, 1.0], [0.0, 1.0]];
        let of_ratios =
            Difference::of_ratios(&scores.map(|scores| scores.map(|score| part(7.0 * score, 7.0)))).unwrap();
        let of_means = Difference::of(&scores).unwrap();
        assert_eq!((of_ratios.n, of_ratios.means), (of_means.n, of_means.means));
        assert!((of_ratios.value - of_means.value).abs() < 1e-15);
        assert!((of_ratios.stderr.unwrap() - of_means.stderr.unwrap()).abs() < 1e-15);
    }

    #[test]
    fn without_any_size_there_is_no_ratio() {
        assert_eq!(Difference::of_ratios(&[]), None);
        assert_eq!(Difference::of_ratios(&[[part(1.0, 2.0), part(1.0, 0.0)]]), None);
        assert_eq!(part(1.0, 0.0).value(), None);
    }
}
