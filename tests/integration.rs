//! Integration tests: one binary, one file per behaviour.
//!
//! They need neither Python nor libtorch, but for some in `datasets`, `engines`, `evaluations`, `losses`, `sandbox` and
//! `vllm`, which say so where they have to skip, as those of `browser` do where there is no Chromium, and for those of the
//! hub, which start a hub in plain Python. Most experiments here are made of commands; where models are merged and
//! evaluated, two shell scripts in `fakes/` stand in for `mergelab-tensor` and for Python.

mod project;

#[cfg(feature = "fetch")]
mod browser;
mod comparisons;
mod crash;
#[cfg(feature = "fetch")]
mod datasets;
mod diff;
mod engines;
mod evaluations;
mod export;
mod grams;
mod help;
#[cfg(feature = "fetch")]
mod hub;
#[cfg(feature = "fetch")]
mod hub_server;
mod inputs;
mod keys;
mod layers;
mod locks;
mod loras;
mod losses;
mod mergekit;
mod other_experiments;
mod plot;
mod processes;
#[cfg(feature = "fetch")]
mod publishing;
mod recipes;
mod render;
#[cfg(feature = "fetch")]
mod report;
mod repository;
mod reruns;
#[cfg(feature = "fetch")]
mod revisions;
#[cfg(feature = "fetch")]
mod samples;
mod sandbox;
mod science;
mod scorers;
mod selection;
mod shards;
mod signals;
mod store;
mod swept_tables;
#[cfg(feature = "fetch")]
mod uploads;
mod views;
mod vllm;
mod vocabularies;
