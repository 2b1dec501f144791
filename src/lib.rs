//! Reproducible experiments in merging language models.

pub mod experiment;
pub mod report;
