//! Reproducible experiments in merging language models.

pub mod artifact;
pub mod cli;
pub mod diff;
pub mod digest;
pub mod exec;
pub mod experiment;
pub mod layers;
pub mod methods;
pub mod page;
pub mod plan;
pub mod plot;
pub mod project;
pub mod publish;
pub mod report;
pub mod samples;
pub mod stage;
pub mod stats;
pub mod store;
