//! The experiment language: one YAML file, parsed, validated and expanded into a typed [`Experiment`].
//!
//! The way of a file: YAML events become a tree that knows its places (`tree`); sweeps are expanded and names declared
//! (`sweep`, `names`); every entry is read by the file named after it; and what spans entries is checked at the end.
//! Every error is collected with its place, so all of a file's errors are shown at once.

mod column;
mod command;
mod context;
mod densities;
mod depth;
mod diagnostics;
mod elsewhere;
mod filters;
mod fisher;
mod gram;
mod keys;
mod layout;
mod links;
mod loaded;
mod loss;
mod merge;
mod mergekit;
mod methods;
mod names;
mod params;
mod parse;
mod per_model;
mod placeholders;
mod read;
mod row;
mod rule;
mod scalar;
mod schema;
mod settings;
mod slices;
mod sources;
mod suite;
mod sweep;
mod table;
#[cfg(test)]
mod tests;
mod tokenizer;
mod tree;
mod types;
mod weighted;
mod weights;

pub use depth::layers;
pub use diagnostics::{Diagnostic, Diagnostics, Source, Span};
pub use layout::{
    Across, Bold, Column, Elsewhere, Mean, MeanOf, Member, Notation, Row, Table, TableColumn, results_folder,
};
pub use loaded::{Files, LoadError, Loaded, Root, check_names, load};
pub use mergekit::{as_name, import};
pub use methods::{Kind, METHODS, Method, Need, Param, method};
pub use parse::{parse, parse_with};
pub use placeholders::{UnknownPlaceholder, substitute};
#[cfg(feature = "fetch")]
pub(crate) use read::did_you_mean;
pub use read::is_name;
pub use scalar::size;
pub use schema::schema;
pub use types::*;
