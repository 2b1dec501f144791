//! What is told of a group while it is solved: sums over its blocks of rows, and which way its system went.

use super::correct::{Method, Scaled};
use super::objective::Known;
use crate::linalg::Path;

/// Sums over a block, added up in the order of blocks.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    pub(super) mean: f64,
    pub(super) correction: f64,
    pub(super) rounding: f64,
    pub(super) rhs: f64,
    pub(super) residual: f64,
    /// Most steps of a row, and rows given up, with conjugate gradient.
    pub(super) iterations: usize,
    pub(super) given_up: usize,
    pub(super) known: Known,
    /// Per Gram: the quadratic forms on the differences, and the correction where it is in the basis.
    pub(super) used: Vec<Vec<f64>>,
    pub(super) held_out: Vec<Vec<f64>>,
}

impl Sums {
    /// Adds another block's.
    pub(super) fn add(&mut self, other: &Self) {
        self.mean += other.mean;
        self.correction += other.correction;
        self.rounding += other.rounding;
        self.rhs += other.rhs;
        self.residual += other.residual;
        self.iterations = self.iterations.max(other.iterations);
        self.given_up += other.given_up;
        self.known.add(&other.known);
        for (mine, theirs) in [(&mut self.used, &other.used), (&mut self.held_out, &other.held_out)] {
            if mine.is_empty() {
                mine.clone_from(theirs);
            } else {
                for (a, b) in mine.iter_mut().flatten().zip(theirs.iter().flatten()) {
                    *a += b;
                }
            }
        }
    }
}

/// How a group was solved, for the figures.
pub(super) struct Solution {
    pub(super) path: Path,
    pub(super) steps: Vec<String>,
    pub(super) condition: Option<f64>,
    pub(super) cut: i64,
}

impl Solution {
    pub(super) fn of(method: &Method) -> Self {
        match method {
            Method::Scaled(Scaled { factor, .. }) => Self {
                path: factor.path(),
                steps: factor.steps().to_vec(),
                condition: Some(factor.condition()),
                cut: factor.cut(),
            },
            Method::Conjugate(_) => Self { path: Path::ConjugateGradient, steps: Vec::new(), condition: None, cut: 0 },
            Method::Plain(_) => Self { path: Path::Plain, steps: Vec::new(), condition: None, cut: 0 },
            Method::Average => Self { path: Path::Cholesky, steps: Vec::new(), condition: None, cut: 0 },
        }
    }

    /// Takes over what another factor found on the way down; its steps are told already.
    pub(super) fn fell(&mut self, method: &Method) {
        let lower = Self::of(method);
        (self.path, self.condition, self.cut) = (lower.path, lower.condition, lower.cut);
    }
}
