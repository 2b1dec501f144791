//! Reproducible experiments in merging language models.

pub mod artifact;
pub mod digest;
pub mod experiment;
pub mod plan;
pub mod report;
pub mod store;
