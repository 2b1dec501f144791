//! What was measured for one cell: a figure, or replicates of one as mean and standard deviation.

use super::measurement::Measurement;

/// A measured value with what stands behind its ±.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Score {
    pub(super) value: f64,
    /// What ± shows: the standard error, or over replicates their standard deviation.
    pub(super) spread: Option<f64>,
    /// Standard error of the value: over replicates that of their mean, `sd / √n`.
    pub(super) stderr: Option<f64>,
    /// How many replicates it is the mean of, where it is of replicates.
    pub(super) replicates: Option<usize>,
}

impl Score {
    /// One figure.
    pub(super) fn of(figure: &Measurement) -> Self {
        Self { value: figure.value, spread: figure.stderr, stderr: figure.stderr, replicates: None }
    }

    /// The mean over values of replicates, with their standard deviation `√(Σ (vᵢ - v̄)² / (n - 1))`: none for one.
    /// `None` without values.
    pub(super) fn over(values: &[f64]) -> Option<Self> {
        let n = values.len() as f64;
        let value = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|one| (one - value).powi(2)).sum();
        let spread = (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt());
        let stderr = spread.map(|spread| spread / n.sqrt());
        (!values.is_empty()).then_some(Self { value, spread, stderr, replicates: Some(values.len()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicates_are_a_mean_with_the_standard_deviation_of_a_sample() {
        // 2, 4, 4, 4, 5, 5, 7, 9: mean 5, squares 9 + 1 + 1 + 1 + 0 + 0 + 4 + 16 = 32, √(32 / 7) = 2.13809, / √8 = 0.75593.
        let score = Score::over(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert_eq!((score.value, score.replicates), (5.0, Some(8)));
        assert!((score.spread.unwrap() - 2.138_089_935_299_395).abs() < 1e-12);
        assert!((score.stderr.unwrap() - 0.755_928_946_018_454_5).abs() < 1e-12);
    }

    #[test]
    fn one_replicate_has_no_standard_deviation_and_none_is_nothing() {
        let one = Score { value: 0.5, spread: None, stderr: None, replicates: Some(1) };
        assert_eq!(Score::over(&[0.5]), Some(one));
        assert_eq!(Score::over(&[]), None);
    }
}
