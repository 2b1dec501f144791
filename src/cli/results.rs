//! From what is there to `results/`, README blocks and plots; used by `run`, `render` and `plot`.

use std::collections::HashMap;
use std::path::Path;

use mergelab_wire::exit;

use super::session::Session;
use super::{CliError, elsewhere, evaluated};
use crate::digest::Key;
use crate::exec::Outlook;
use crate::experiment::Table;
use crate::plan::{Artifact, Facts, Stage, StageId};
use crate::report::{self, Absent, Change, Errors, Inputs, Measurement, ReportError, State};
use crate::samples::TestError;
use crate::stage::{found, measurements, tests};

/// What is up to date, by stage.
pub(super) type Results<'a> = HashMap<StageId, (&'a Artifact, Key)>;

/// What is up to date by the outlook of a graph.
pub(super) fn up_to_date<'a>(outlooks: &[Outlook], facts: &'a Facts) -> Results<'a> {
    let results = facts.results.iter();
    results.filter_map(|(id, artifact)| Some((*id, (&**artifact, outlooks[id.0].key?)))).collect()
}

/// The files that the results of some experiments are made of, held against those on disk.
pub(super) fn changes(
    session: &Session,
    experiments: &[usize],
    results: &Results<'_>,
) -> Result<Vec<Change>, CliError> {
    let root = &session.project.root;
    let mut outputs = Vec::new();
    for &index in experiments {
        let experiment = &session.graph.experiments[index];
        // One that only makes models has no figures.
        if experiment.evals.is_empty() && experiment.tables.is_empty() {
            continue;
        }
        outputs.push(with_figures(session, index, results, |inputs| {
            for note in report::unshown(inputs) {
                say!("note: {note}");
            }
            report::render(inputs)
        })?);
    }
    Ok(report::changes(&outputs, |path| report::files::read(&root.join(path)))?)
}

/// What `make` makes of the figures of an experiment.
///
/// Figures, and what tests of them found, come from the store where it has any of the experiment, and otherwise from what
/// `results/` holds, so that this works in a checkout alone.
pub(super) fn with_figures<T>(
    session: &Session,
    index: usize,
    results: &Results<'_>,
    make: impl FnOnce(&Inputs<'_>) -> Result<T, Errors<ReportError>>,
) -> Result<T, CliError> {
    let experiment = &session.graph.experiments[index];
    let root = &session.project.root;
    let result = |id| results.get(&id).copied();
    let (measured, is_stored) = measured(session, index, results)?;
    let published = report::files::published(root, &experiment.tables)?;
    let others = elsewhere::figures(session, index)?;
    let inputs = Inputs {
        experiment: &experiment.name,
        tables: &experiment.tables,
        measured: &measured,
        others: &others,
        published: &published,
        paired: &[],
        absent: &Absent::default(),
    };
    let paired = if is_stored {
        let found = found(&session.graph, index, |id| Some(result(id)?.0))?;
        tests(&session.graph, index, &inputs, &found, |id| Some(result(id)?.0))
            .map_err(|error| refuse(session, index, error))?
    } else if experiment.tables.values().any(Table::is_tested) {
        report::files::paired(root, &experiment.name)?
    } else {
        Vec::new()
    };
    Ok(make(&Inputs { paired: &paired, ..inputs })?)
}

/// The measured figures of an experiment, and whether they are those in the store.
fn measured(session: &Session, index: usize, results: &Results<'_>) -> Result<(Vec<Measurement>, bool), CliError> {
    let measured = measurements(&session.graph, index, |id| results.get(&id).copied())?;
    let is_stored = !measured.is_empty();
    Ok((if is_stored { measured } else { kept(session, index)? }, is_stored))
}

/// All figures of an experiment as `results.csv` has them: measured ones from where [`with_figures`] takes them, and then those
/// that others published.
pub(super) fn figures(session: &Session, index: usize, results: &Results<'_>) -> Result<Vec<Measurement>, CliError> {
    let (mut figures, _) = measured(session, index, results)?;
    let tables = &session.graph.experiments[index].tables;
    figures.extend(report::files::published(&session.project.root, tables)?.into_values().flatten());
    Ok(figures)
}

/// Writes what changed under `root`, or with `check` only says what would, and that `way_out` writes it.
pub(super) fn settle(root: &Path, changes: &[Change], check: bool, way_out: &str) -> Result<u8, CliError> {
    let changed: Vec<_> = changes.iter().filter(|change| change.state != State::Same).collect();
    for change in &changed {
        let word = if change.state == State::New { "new" } else { "changed" };
        say!("{word}: {}", change.path.display());
    }
    if check && !changed.is_empty() {
        say!("error: {} files differ from what is there to be rendered", changed.len());
        say!("hint: `{way_out}` writes them");
        return Ok(exit::DISAGREES);
    }
    report::files::write(root, changes)?;
    Ok(exit::DONE)
}

/// An error of samples that a table's tests need.
fn refuse(session: &Session, index: usize, error: TestError) -> CliError {
    let TestError { model, task, source } = error;
    let of = |stage: &Stage| stage.experiment == index && stage.spec.evaluated() == Some((&model, &task));
    let stage = session.graph.iter().find(|(_, stage)| of(stage)).map_or("", |(_, stage)| stage.name.as_str());
    evaluated::refuse(stage, source)
}

/// Figures that `results/` holds of models and tasks that the experiment still has.
fn kept(session: &Session, index: usize) -> Result<Vec<Measurement>, CliError> {
    let experiment = &session.graph.experiments[index];
    let mut figures = report::files::measured(&session.project.root, &experiment.name)?.unwrap_or_default();
    figures.retain(|figure| {
        experiment.evals.iter().any(|(name, suite)| {
            suite.models.contains(&figure.model) && suite.measures(name).iter().any(|task| task.name == figure.task)
        })
    });
    Ok(figures)
}

/// Refuses, before anything runs, a file that has no place for a table that goes into it.
pub(super) fn check_places(session: &Session, experiments: &[usize]) -> Result<(), CliError> {
    let root = &session.project.root;
    let tables = experiments.iter().map(|&index| {
        let experiment = &session.graph.experiments[index];
        (experiment.name.as_str(), &experiment.tables)
    });
    Ok(report::check_places(tables, |path| report::files::read(&root.join(path)))?)
}
