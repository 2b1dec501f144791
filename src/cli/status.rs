//! `mergelab status`.

use mergelab_wire::exit;
use serde_json::json;

use super::session::Session;
use super::{CliError, Files, output};
use crate::exec::{Outlook, State, Surveyor, outlook};
use crate::plan::{Facts, Graph};
use crate::store::Store;

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
    let (outlooks, _) = look(&session)?;
    if arguments.json {
        output::print_json(&as_json(&session.graph, &outlooks));
    } else {
        output::print(&as_text(&session.graph, &outlooks));
    }
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

/// The word for a state.
pub(super) fn word(state: State) -> &'static str {
    match state {
        State::UpToDate => "up-to-date",
        State::Run => "run",
        State::Waits => "waits",
    }
}

fn as_json(graph: &Graph, outlooks: &[Outlook]) -> serde_json::Value {
    let stages = graph.iter().zip(outlooks).map(|((id, stage), outlook)| {
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
pub(super) fn as_text(graph: &Graph, outlooks: &[Outlook]) -> String {
    let width = graph.stages.iter().map(|stage| stage.name.chars().count()).max().unwrap_or(0).min(60);
    let mut text = String::new();
    let mut current = None;
    for ((id, stage), outlook) in graph.iter().zip(outlooks) {
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
