//! `mergelab status`.

use std::path::Path;

use mergelab_wire::exit;
use serde_json::json;

use super::session::Session;
use super::{CliError, Files, output};
use crate::exec::{Outlook, State, Surveyor, made_again, outlook};
use crate::plan::{Artifact, Facts, Graph, Stage, StageId};
use crate::store::{Manifest, Store, Use};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    files: Files,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Says of each stage what a run would do with it.
pub(super) fn run(arguments: &Arguments) -> Result<u8, CliError> {
    let session = Session::open(&arguments.files.files)?;
    let (mut outlooks, _) = look(&session)?;
    let wanted = vec![true; outlooks.len()];
    made_again(&session.graph, &mut outlooks, &wanted);
    print(&session.graph, &outlooks, &wanted, arguments.json);
    Ok(exit::DONE)
}

/// The outlook of every stage; a store that is not there holds nothing.
pub(super) fn look(session: &Session) -> Result<(Vec<Outlook>, Facts), CliError> {
    let store = session.existing_store()?;
    let mut facts = session.facts();
    let scratch;
    let read_from = match &store {
        Some(store) => store,
        None => {
            scratch = Store::nowhere(&session.project.store_path());
            &scratch
        }
    };
    let surveyor = Surveyor::new(&session.project, session.python.as_ref(), read_from);
    let outlooks = outlook(&session.graph, &session.project, store.as_ref(), &surveyor, &mut facts)?;
    if let Some(store) = &store {
        // What was learnt in passing is worth keeping; a store that is not ours to write to loses nothing.
        let _ = store.save_stats();
    }
    Ok((outlooks, facts))
}

/// What a stage that is up to date made.
pub(super) fn up_to_date<'a>(
    session: &Session,
    outlooks: &'a [Outlook],
    facts: &'a Facts,
    id: StageId,
) -> Result<(&'a Manifest, &'a Artifact), CliError> {
    let outlook = &outlooks[id.0];
    match (&outlook.manifest, facts.results.get(&id)) {
        (Some(manifest), Some(artifact)) => Ok((manifest, artifact)),
        _ => Err(not_made(session, outlook, id)),
    }
}

/// A stage whose result is not there.
fn not_made(session: &Session, outlook: &Outlook, id: StageId) -> CliError {
    let (stage, file) = (&session.graph.stage(id).name, file_of(session, id));
    let message = format!("{stage} is not up to date: {}", outlook.reason);
    CliError::NotThere { message, hint: format!("run it first: `mergelab run {} --only {stage}`", file.display()) }
}

fn file_of(session: &Session, id: StageId) -> &Path {
    &session.loaded[session.graph.stage(id).experiment].experiment.file
}

/// As [`up_to_date`], with all of its files, which are not dropped as long as the third value is held.
pub(super) fn whole<'a>(
    session: &Session,
    outlooks: &'a [Outlook],
    facts: &'a Facts,
    id: StageId,
) -> Result<(&'a Manifest, &'a Artifact, Option<Use>), CliError> {
    let stage = &session.graph.stage(id).name;
    let file = file_of(session, id).display();
    let (manifest, artifact) = up_to_date(session, outlooks, facts, id)?;
    if manifest.is_dropped() {
        let message = format!("the weights of {stage} were dropped (`keep: recipe`)");
        let set = if outlooks[id.0].state == State::UpToDate { "set `keep: weights` for it, and " } else { "" };
        let hint = format!("{set}make it again by `mergelab run {file} --only {stage}`");
        return Err(CliError::NotThere { message, hint });
    }
    // A store that is not ours to write to drops nothing by our hand; a file that goes all the same is an error when it
    // is read.
    let held = session.existing_store()?.and_then(|store| store.hold(&manifest.key).ok());
    Ok((manifest, artifact, held))
}

/// The word for a state.
pub(super) fn word(state: State) -> &'static str {
    match state {
        State::UpToDate => "up-to-date",
        State::Run => "run",
        State::Waits => "waits",
    }
}

/// Prints the outlook of the stages that are wanted.
pub(super) fn print(graph: &Graph, outlooks: &[Outlook], wanted: &[bool], json: bool) {
    if json {
        output::print_json(&as_json(graph, outlooks, wanted));
    } else {
        output::print(&as_text(graph, outlooks, wanted));
    }
}

fn pairs<'a>(
    graph: &'a Graph,
    outlooks: &'a [Outlook],
    wanted: &'a [bool],
) -> impl Iterator<Item = (StageId, &'a Stage, &'a Outlook)> {
    graph.iter().filter(|(id, _)| wanted[id.0]).map(|(id, stage)| (id, stage, &outlooks[id.0]))
}

pub(super) fn as_json(graph: &Graph, outlooks: &[Outlook], wanted: &[bool]) -> serde_json::Value {
    let stages = pairs(graph, outlooks, wanted).map(|(id, stage, outlook)| {
        json!({
            "experiment": graph.experiment_name(id),
            "stage": stage.name,
            "state": word(outlook.state),
            "reason": outlook.reason,
            "key": outlook.key,
        })
    });
    stages.collect()
}

/// One line a stage, aligned.
fn as_text(graph: &Graph, outlooks: &[Outlook], wanted: &[bool]) -> String {
    let names = pairs(graph, outlooks, wanted).map(|(_, stage, _)| stage.name.chars().count());
    let width = names.max().unwrap_or(0).min(60);
    let mut text = String::new();
    let mut current = None;
    for (id, stage, outlook) in pairs(graph, outlooks, wanted) {
        if graph.experiments.len() > 1 && current != Some(stage.experiment) {
            current = Some(stage.experiment);
            text += &format!("{}:\n", graph.experiment_name(id));
        }
        let line = format!("{:10}  {:width$}  {}", word(outlook.state), stage.name, outlook.reason);
        text += line.trim_end();
        text.push('\n');
    }
    text
}
