//! What needs large libraries: the hub, Parquet files, and streams compressed with gzip or zstd.
//!
//! A crate of its own behind a default feature of `mergelab`, so that the orchestrator also builds without them.

pub mod compressed;
pub mod hub;
pub mod parquet;
