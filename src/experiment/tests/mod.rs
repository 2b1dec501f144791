//! The language as a whole: one test a rule.

mod example;
mod files;
mod mergekit;
mod messages;
mod others;
mod properties;
mod rules;
mod schema;
mod slices;
mod sweeps;
mod tables;
mod values;

use std::path::Path;

use super::{Diagnostics, Experiment, Loaded, parse};

/// The example of the design, with the data set that it leaves out.
const DESIGN: &str = include_str!("design.yaml");

/// What every other test builds on: two models, their data, Grams and a suite.
const BASE: &str = "\
name: small
models:
  a: { path: models/a }
  b: { path: models/b }
  base: { path: models/base }
data:
  text-a: { path: a.jsonl, text: '{{ text }}' }
  text-b: { path: b.jsonl, text: '{{ text }}' }
grams:
  ga: { model: a, data: text-a }
  gb: { model: b, data: text-b }
";

/// Reads [`BASE`] with more sections after it.
fn with(sections: &str) -> Result<Loaded, Diagnostics> {
    parse(Path::new("small.yaml"), &format!("{BASE}{sections}"))
}

/// The experiment of [`with`], which must be valid.
fn valid(sections: &str) -> Experiment {
    with(sections).unwrap_or_else(|errors| panic!("{errors}")).experiment
}

/// The messages of [`with`], which must be wrong.
fn errors(sections: &str) -> Vec<String> {
    messages(with(sections))
}

/// The messages for a whole file, which must be wrong.
fn errors_of(text: &str) -> Vec<String> {
    messages(parse(Path::new("small.yaml"), text))
}

/// The first error of [`with`] as it is shown.
fn shown(sections: &str) -> String {
    with(sections).expect_err("this file is wrong").render(false)
}

fn messages(read: Result<Loaded, Diagnostics>) -> Vec<String> {
    read.expect_err("this file is wrong").list().iter().map(|diagnostic| diagnostic.message.clone()).collect()
}
