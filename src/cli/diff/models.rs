//! Two models: stages that are up to date, or directories.

use std::path::{Path, PathBuf};

use mergelab_wire::DiffSide;
use serde_json::json;

use super::{CliError, Form, Side, heads};
use crate::cli::interrupts::Interrupts;
use crate::cli::session::Session;
use crate::cli::status::{look, whole};
use crate::cli::{alone, output};
use crate::diff::Models;
use crate::plan::{Graph, Kind, StageId};
use crate::project::Project;
use crate::stage::compare_models;
use crate::store::Use;

/// How many tensors are named where not all are asked for.
const MOST: usize = 5;

/// A model, and where it lies.
struct Model {
    /// As the command line says it.
    side: Side,
    path: PathBuf,
    /// Held so that its weights are not dropped meanwhile.
    _use: Option<Use>,
}

/// Compares two models and says whether they differ; nothing where it was interrupted.
pub(super) fn run(
    sides: [Side; 2],
    form: Form,
    chart: Option<&Path>,
    interrupts: &Interrupts,
) -> Result<Option<bool>, CliError> {
    let (models, project) = open(sides)?;
    let named = models.each_ref().map(|model| DiffSide { name: model.side.to_string(), path: model.path.clone() });
    let graph = Graph::new(Vec::new());
    let made = alone::run((&project, &graph), interrupts, |context, scratch, on_event| {
        compare_models(context, named, scratch, on_event)
    })?;
    interrupts.take_back();
    let Some(found) = made else { return Ok(None) };
    let found = Models::of(found);
    if let Some(path) = chart {
        let names = models.each_ref().map(|model| model.side.to_string());
        std::fs::write(path, crate::plot::difference(&names, &found)).map_err(alone::failed("write", path))?;
        say!("written: {}", path.display());
    }
    match form {
        Form::Json => {
            let side = |model: &Model| {
                let (stage, file) = match &model.side {
                    Side::Stage(stage, file) => (Some(stage), Some(file)),
                    _ => (None, None),
                };
                json!({ "stage": stage, "file": file, "path": model.path })
            };
            let mut object = json!({ "kind": "models", "sides": models.each_ref().map(side) });
            if let (serde_json::Value::Object(object), serde_json::Value::Object(more)) = (&mut object, json!(found)) {
                object.extend(more);
            }
            output::print_json(&object);
        }
        Form::Csv => output::print(&found.csv()),
        Form::Text { all } => {
            let names = models.each_ref().map(|model| model.side.to_string());
            output::print(&format!("{}\n{}", heads(&names), found.text(MOST, all)));
        }
    }
    Ok(Some(found.differ))
}

/// Finds both models, and the project whose tensor program compares them: the first stage's, or that around the working
/// directory.
fn open(sides: [Side; 2]) -> Result<([Model; 2], Project), CliError> {
    let mut sessions: Vec<(PathBuf, Session)> = Vec::new();
    for side in &sides {
        if let Side::Stage(_, file) = side
            && sessions.iter().all(|(known, _)| known != file)
        {
            sessions.push((file.clone(), Session::open(std::slice::from_ref(file))?));
        }
    }
    let looked = sessions.iter().map(|(_, session)| look(session)).collect::<Result<Vec<_>, _>>()?;
    let model = |side: Side| match &side {
        Side::Stage(stage, file) => {
            let at = sessions.iter().position(|(known, _)| known == file).expect("its file was opened above");
            let (session, (outlooks, facts)) = (&sessions[at].1, &looked[at]);
            let id = session.find_one(stage)?;
            check_model(session, id)?;
            let (_, artifact, held) = whole(session, outlooks, facts, id)?;
            Ok(Model { path: artifact.location.clone(), side, _use: held })
        }
        Side::Directory(path) | Side::Results(path) | Side::Experiment(path) => {
            let absolute = std::path::absolute(path).map_err(alone::failed("find", path))?;
            Ok::<_, CliError>(Model { path: absolute, side, _use: None })
        }
    };
    let [first, second] = sides;
    let models = [model(first)?, model(second)?];
    let project = match sessions.into_iter().next() {
        Some((_, session)) => session.project,
        None => Project::find(Path::new(""))?,
    };
    Ok((models, project))
}

/// Refuses a stage that makes no model.
fn check_model(session: &Session, id: StageId) -> Result<(), CliError> {
    let stage = session.graph.stage(id);
    match stage.spec.kind() {
        Kind::Model | Kind::Merge => Ok(()),
        Kind::Eval => Err(CliError::Usage(format!(
            "{} is no model or merge\nhint: `mergelab samples {} FILE --against STAGE` compares answers",
            stage.name, stage.name
        ))),
        _ => Err(CliError::Usage(format!("{} is no model or merge", stage.name))),
    }
}
