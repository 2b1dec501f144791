//! A results table: the metrics of its evaluations in every format.

use std::collections::HashMap;
use std::path::Path;

use indexmap::IndexMap;

use super::{Context, Failure, Job, Product};
use crate::digest::Key;
use crate::experiment::{Section, Table};
use crate::plan::{Artifact, Graph, Spec, StageId};
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

/// What comes of the tests that the tables of an experiment ask for: of those that are among `found`, and from the answers of
/// its evaluations.
///
/// # Errors
/// When answers cannot be read.
pub fn tests<'a>(
    graph: &Graph,
    experiment: usize,
    inputs: &Inputs<'_>,
    found: &[Paired],
    result: impl Fn(StageId) -> Option<&'a Artifact>,
) -> Result<Vec<Paired>, TestError> {
    let (mut known, wanted) = report::paired::known(report::comparisons(inputs), found);
    if wanted.is_empty() {
        return Ok(known);
    }
    let evaluations = graph.iter().filter(|(_, stage)| stage.experiment == experiment);
    let by_cell: HashMap<(&str, &str), &Artifact> =
        evaluations.filter_map(|(id, stage)| Some((stage.spec.evaluated()?, result(id)?))).collect();
    known.extend(samples::test(&wanted, |model, task| by_cell.get(&(model, task)).copied())?);
    Ok(known)
}

/// What tests found for those tables of an experiment whose results `result` gives: a table that is up to date is one of
/// the evaluations that are there, so nothing has to be read and drawn again.
///
/// # Errors
/// When a result cannot be read.
pub fn found<'a>(
    graph: &Graph,
    experiment: usize,
    result: impl Fn(StageId) -> Option<&'a Artifact>,
) -> Result<Vec<Paired>, FileError> {
    let mut found = Vec::new();
    for (id, stage) in graph.iter().filter(|(_, stage)| stage.experiment == experiment) {
        if let (Spec::Table { .. }, Some(artifact)) = (&stage.spec, result(id)) {
            found.extend(report::files::found(&artifact.location, Path::new(""))?);
        }
    }
    Ok(found)
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
    let paired = tests(context.graph, job.stage.experiment, &inputs, &[], |id| by_id.get(&id).copied())
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
        let tests = table.is_tested().then(|| (report::PAIRED, report::paired::to_csv(&paired)));
        for (file, text) in files.into_iter().chain(tests) {
            let path = job.out.join(file);
            std::fs::write(&path, text)
                .map_err(|error| Failure::stage(format!("cannot write {}: {error}", path.display())))?;
        }
    }
    Ok(Product::default())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::experiment::parse;
    use crate::report::{Finding, PairedTest, Untested};

    const EXPERIMENT: &str = "name: x
models: { a: { path: a }, b: { path: b }, c: { path: c } }
evals: { e: { models: [a, b, c], backend: command, run: [score, '{out}'] } }
tables: { t: { rows: [a, b, c], columns: [{ task: e, metric: acc }], baseline: a } }
";

    #[test]
    fn a_test_that_was_made_is_not_made_again_and_others_are() {
        let experiment = parse(Path::new("x.yaml"), EXPERIMENT).unwrap().experiment;
        let tables = experiment.tables.clone();
        let graph = Graph::new(vec![Arc::new(experiment)]);
        let text = r#"[{"metric": "acc", "value": 0.5}]"#;
        let figure = report::parse_metrics(text, Path::new("m")).unwrap().remove(0);
        let measured = ["a", "b", "c"].map(|model| figure.clone().of(model, "e", &format!("key of {model}")));
        let (published, absent) = (IndexMap::new(), Absent::default());
        let inputs = Inputs {
            experiment: "x",
            tables: &tables,
            measured: &measured,
            others: &[],
            published: &published,
            paired: &[],
            absent: &absent,
        };
        let finding = Finding { n: 9, difference: 0.1, stderr: None, test: PairedTest::McNemar, p: 0.5 };
        let wanted = report::comparisons(&inputs);
        // A table's own result has its own key in the place of those of evaluations.
        let mut found: Vec<Paired> = wanted.iter().map(|wanted| wanted.with(Ok(finding))).collect();
        for one in &mut found {
            one.model.key = "key of the table".to_owned();
        }
        let made = tests(&graph, 0, &inputs, &found, |_| panic!("nothing has to be read")).unwrap();
        assert_eq!(made, wanted.iter().map(|wanted| wanted.with(Ok(finding))).collect::<Vec<_>>());

        let made = tests(&graph, 0, &inputs, &found[..1], |_| None).unwrap();
        assert_eq!((made.len(), made[0].result, made[1].result), (2, Ok(finding), Err(Untested::NoAnswers)));
    }
}
