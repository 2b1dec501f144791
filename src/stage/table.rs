//! A results table: the metrics of its evaluations in every format.

use std::collections::HashMap;

use indexmap::IndexMap;

use super::{Context, Failure, Job, Product};
use crate::digest::Key;
use crate::experiment::{Section, Table};
use crate::plan::{Artifact, Graph, StageId};
use crate::report::{self, Absent, FileError, Inputs, Measurement, Paired};
use crate::samples::{self, TestError};

/// Figures of all evaluations of an experiment whose results `result` gives, in the order of the experiment.
///
/// # Errors
/// When a result cannot be read.
pub fn measurements<'a>(
    graph: &Graph,
    experiment: usize,
    result: impl Fn(StageId) -> Option<(&'a Artifact, Key)>,
) -> Result<Vec<Measurement>, FileError> {
    let mut figures = Vec::new();
    for (id, stage) in graph.iter().filter(|(_, stage)| stage.experiment == experiment) {
        let Some((model, task)) = stage.spec.evaluated() else { continue };
        let Some((artifact, key)) = result(id) else { continue };
        let metrics = report::files::metrics(&artifact.location.join("metrics.json"))?;
        figures.extend(metrics.into_iter().map(|metric| metric.of(model, task, &key.to_string())));
    }
    Ok(figures)
}

/// What comes of the tests that the tables of an experiment ask for, from the answers of its evaluations.
///
/// # Errors
/// When answers cannot be read.
pub fn tests<'a>(
    graph: &Graph,
    experiment: usize,
    inputs: &Inputs<'_>,
    result: impl Fn(StageId) -> Option<&'a Artifact>,
) -> Result<Vec<Paired>, TestError> {
    let wanted = report::comparisons(inputs);
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let evaluations = graph.iter().filter(|(_, stage)| stage.experiment == experiment);
    let by_cell: HashMap<(&str, &str), &Artifact> =
        evaluations.filter_map(|(id, stage)| Some((stage.spec.evaluated()?, result(id)?))).collect();
    samples::test(&wanted, |model, task| by_cell.get(&(model, task)).copied())
}

/// Renders one table from the evaluations that it needs.
pub(super) fn run(context: &Context<'_>, name: &str, table: &Table, job: &Job<'_>) -> Result<Product, Failure> {
    let refuse = |error: FileError| Failure::experiment(error.to_string());
    let by_id: HashMap<StageId, &Artifact> =
        job.stage.needs.iter().map(|need| (need.stage, &*job.inputs[&need.role])).collect();
    // A table's figures are decided by the digests of evaluations, so the key of what made them has no place in it.
    let key = job.key;
    let figures =
        measurements(context.graph, job.stage.experiment, |id| Some((*by_id.get(&id)?, key))).map_err(refuse)?;
    let tables: Section<Table> = IndexMap::from([(name.to_owned(), table.clone())]);
    let published = report::files::published(&context.project.root, &tables).map_err(refuse)?;
    let others = report::files::others(&context.project.root, &tables).map_err(refuse)?;
    let inputs = Inputs {
        experiment: &context.graph.experiments[job.stage.experiment].name,
        tables: &tables,
        measured: &figures,
        others: &others,
        published: &published,
        paired: &[],
        absent: &Absent::default(),
    };
    let paired = tests(context.graph, job.stage.experiment, &inputs, |id| by_id.get(&id).copied())
        .map_err(|error| Failure::stage(format!("{} on {}: {error}", error.model, error.task)))?;
    let grids = report::grids(&Inputs { paired: &paired, ..inputs })
        .map_err(|errors| Failure::experiment(errors.to_string()))?;
    for grid in &grids {
        let files = [
            ("table.md", report::markdown(grid)),
            ("table.csv", report::sheet(grid)),
            ("table.tex", report::latex(grid)),
            ("table.html", report::html(grid)),
        ];
        for (file, text) in files {
            let path = job.out.join(file);
            std::fs::write(&path, text)
                .map_err(|error| Failure::stage(format!("cannot write {}: {error}", path.display())))?;
        }
    }
    Ok(Product::default())
}
