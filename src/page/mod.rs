//! `report.html`: an experiment as one page that needs nothing else, to look at and to send.
//!
//! [`html`] makes it of what is known: figures and tables, the stages with their manifests, figures of layers, and
//! answers of evaluations. The same store gives the same bytes: nothing here knows the time. What depends on a store
//! (times, keys, layers, answers) is left out where there is none.
//!
//! Tables, answers, stages and provenance are written here (`page.html`), so that they can be read without script.
//! Charts are drawn in the browser from data in JSON, by the library in `assets/charts` and the scripts in `browser/`.
//! Nothing that an experiment or a model says can run as a script: text is escaped, data stands in an element that is
//! never executed, scripts write text and no markup, and the page's policy allows the scripts that it begins with and
//! no others (`policy`).

mod differences;
mod groups;
mod layers;
mod policy;
mod provenance;
mod shell;
mod stages;
mod tables;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use indexmap::{IndexMap, IndexSet};
use serde::Serialize;

use crate::exec::Outlook;
use crate::experiment::Loaded;
use crate::plan::{Facts, Graph, StageId};
use crate::report::{Grid, Measurement};

/// The file, in an experiment's folder under `results/`.
pub const FILE: &str = "report.html";

/// What a page is made from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The experiment, with its text.
    pub loaded: &'a Loaded,
    /// The graph that it is part of.
    pub graph: &'a Graph,
    /// Its place in the graph.
    pub experiment: usize,
    /// What is known of each stage.
    pub outlooks: &'a [Outlook],
    /// Results of stages.
    pub facts: &'a Facts,
    /// The project's root: paths are written relative to it.
    pub root: &'a Path,
    /// Measured figures.
    pub measured: &'a [Measurement],
    /// Measured figures of other experiments.
    pub others: &'a [Measurement],
    /// Published figures by the path that tables name.
    pub published: &'a IndexMap<PathBuf, Vec<Measurement>>,
    /// The tables, filled.
    pub grids: &'a [Grid],
    /// What speaks against the figures of evaluations.
    pub warnings: &'a HashMap<StageId, Vec<String>>,
}

impl<'a> Inputs<'a> {
    /// All figures, measured first.
    fn figures(&self) -> impl Iterator<Item = &'a Measurement> + use<'a> {
        self.measured.iter().chain(self.others).chain(self.published.values().flatten())
    }

    /// A text with paths of the project relative to its root.
    fn relative(&self, text: &str) -> String {
        let root = format!("{}/", self.root.display());
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(&root) {
            let (before, after) = (&rest[..at], &rest[at + root.len()..]);
            let begins = !before.ends_with(|c: char| c.is_alphanumeric() || "/._-".contains(c));
            out.push_str(before);
            if !begins {
                out.push_str(&root);
            }
            rest = after;
        }
        out + rest
    }
}

/// What the scripts draw.
#[derive(Debug, Serialize)]
struct Data<'a> {
    experiment: &'a str,
    /// The file, as it was named.
    file: String,
    stages: &'a [stages::Stage],
    /// Nodes of the picture of the graph.
    groups: &'a IndexSet<String>,
    versions: &'a IndexSet<BTreeMap<String, String>>,
    figures: Vec<tables::FigureOf<'a>>,
    tables: &'a [tables::Shown],
    layers: Vec<layers::Layers>,
    layouts: IndexSet<layers::Layout>,
}

/// The page.
pub fn html(inputs: &Inputs<'_>) -> String {
    let experiment = &inputs.loaded.experiment;
    let stages = stages::Stages::of(inputs);
    let tables = tables::tables(inputs);
    let (layers, layouts) = layers::layers(inputs, &stages);
    let data = Data {
        experiment: &experiment.name,
        file: inputs.relative(&experiment.file.display().to_string()),
        figures: tables::figures(inputs, &stages),
        stages: &stages.list,
        groups: &stages.groups,
        versions: &stages.versions,
        tables: &tables,
        layers,
        layouts,
    };
    let json = serde_json::to_string(&data).expect("names, texts and finite numbers become JSON");
    shell::page(inputs, &stages, &tables, !data.layers.is_empty(), &json)
}
