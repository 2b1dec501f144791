//! The difference of two means over the same documents.

/// Means of two models, and their difference with its paired standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Documents.
    pub n: usize,
    /// Mean score of each model.
    pub means: [f64; 2],
    /// The first mean minus the second.
    pub value: f64,
    /// `√(Σ (dᵢ - d̄)² / (n (n - 1)))` over the differences `dᵢ` of single documents; not there for one document.
    pub stderr: Option<f64>,
}

impl Difference {
    /// Of pairs of finite scores, first model first; `None` without any.
    pub fn of(pairs: &[[f64; 2]]) -> Option<Self> {
        if pairs.is_empty() {
            return None;
        }
        let n = pairs.len() as f64;
        let mean = |of: &dyn Fn(&[f64; 2]) -> f64| pairs.iter().map(of).sum::<f64>() / n;
        let means = [mean(&|pair| pair[0]), mean(&|pair| pair[1])];
        let value = mean(&|pair| pair[0] - pair[1]);
        let squares: f64 = pairs.iter().map(|pair| (pair[0] - pair[1] - value).powi(2)).sum();
        let stderr = (pairs.len() > 1).then(|| (squares / (n * (n - 1.0))).sqrt());
        Some(Self { n: pairs.len(), means, value, stderr })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_error_is_that_of_the_differences() {
        // Differences 1, 1, 0, -1: mean 1/4, variance 11/12 with n - 1, over n.
        let pairs = [[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]];
        let difference = Difference::of(&pairs).unwrap();
        assert_eq!((difference.n, difference.means, difference.value), (4, [0.75, 0.5], 0.25));
        assert!((difference.stderr.unwrap() - (11.0_f64 / 48.0).sqrt()).abs() < 1e-15);
    }

    #[test]
    fn scores_that_move_together_have_no_error_in_their_difference() {
        let difference = Difference::of(&[[3.0, 1.0], [8.0, 6.0], [2.0, 0.0]]).unwrap();
        assert_eq!((difference.value, difference.stderr), (2.0, Some(0.0)));
    }

    #[test]
    fn one_document_has_a_difference_without_an_error_and_none_has_none() {
        assert_eq!(Difference::of(&[[1.0, 0.0]]).unwrap().stderr, None);
        assert_eq!(Difference::of(&[]), None);
    }
}
