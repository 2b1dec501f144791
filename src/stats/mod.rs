//! Two models on the same documents: how far their scores are apart, and whether that is more than chance.
//!
//! Scores of one document on two models go together, so nothing here compares two means as if they came from different
//! documents: what is looked at is the difference on each.

mod bootstrap;
mod difference;
mod mcnemar;
mod ratio;

pub use bootstrap::{Bootstrap, RESAMPLES, SEED, bootstrap, bootstrap_ratios};
pub use difference::Difference;
pub use mcnemar::mcnemar;
pub use ratio::Part;

/// A p-value from which on a difference is called no finding.
pub const SIGNIFICANCE: f64 = 0.05;
