//! `mergelab explain`.

use std::path::PathBuf;

use mergelab_wire::exit;

use super::cell::{self, Cell};
use super::session::Session;
use super::status::{look, word};
use super::{CliError, output};
use crate::exec::{History, Outlook, State, made_again};
use crate::plan::{Stage, StageId, differences};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Stage, such as merges.regmean, and the experiment file; without a stage, all that would run
    #[arg(required = true, num_args = 1..=2, value_names = ["STAGE", "FILE"])]
    stage_and_file: Vec<PathBuf>,
    /// Say where a number of a table comes from: a row by its model or label, a column by its number, label or task
    #[arg(long, num_args = 3, value_names = ["TABLE", "ROW", "COLUMN"])]
    cell: Option<Vec<String>>,
}

/// Says why a stage would run, or what its result rests on.
pub(super) fn run(arguments: &Arguments) -> Result<u8, CliError> {
    let (name, file) = match arguments.stage_and_file.as_slice() {
        [file] => (None, file),
        [name, file] => (Some(name.to_string_lossy()), file),
        _ => unreachable!("clap takes one or two"),
    };
    let session = Session::open(std::slice::from_ref(file))?;
    let (mut outlooks, facts) = look(&session)?;
    if let Some([table, row, column]) = arguments.cell.as_deref() {
        if name.is_some() {
            return Err(CliError::Usage("--cell says which number is meant: name the file alone".to_owned()));
        }
        output::print(&cell::text(&session, (&outlooks, &facts), &Cell { file, table, row, column })?);
        return Ok(exit::DONE);
    }
    made_again(&session.graph, &mut outlooks, &vec![true; session.graph.stages.len()]);
    let store = session.existing_store()?;
    let mut history = History::new(store.as_ref());
    let stages: Vec<StageId> = match name {
        Some(name) => session.find(&name)?,
        None => session.graph.iter().map(|(id, _)| id).filter(|id| outlooks[id.0].state != State::UpToDate).collect(),
    };
    if stages.is_empty() {
        output::print("everything is up to date\n");
    }
    for id in stages {
        let stage = session.graph.stage(id);
        output::print(&explain(&session, stage, &outlooks[id.0], &mut history, id));
    }
    Ok(exit::DONE)
}

fn explain(session: &Session, stage: &Stage, outlook: &Outlook, history: &mut History<'_>, id: StageId) -> String {
    let mut text = format!("{}: {}\n", stage.name, word(outlook.state));
    if let (State::UpToDate, Some(manifest)) = (outlook.state, &outlook.manifest) {
        text += &format!("  made {} by {} on {}\n", manifest.ended, manifest.stage, manifest.host);
        if let Some(git) = &manifest.git {
            let dirty = if git.dirty { ", with changes" } else { "" };
            text += &format!("  from commit {}{dirty}\n", git.commit);
        }
        text += &format!("  digest {}\n", manifest.digest);
        if manifest.is_dropped() {
            text += "  its weights were dropped, and are made again when something needs them\n";
        }
        if let Some(key_struct) = &outlook.key_struct {
            for (name, digest) in &key_struct.inputs {
                text += &format!("  rests on {name} {digest}\n");
            }
            for (name, version) in &key_struct.tools {
                text += &format!("  rests on {name} {version}\n");
            }
        }
        return text;
    }
    let experiment = session.graph.experiment_name(id);
    let earlier = outlook.key_struct.as_ref().and_then(|now| Some((now, history.nearest(experiment, stage, now)?)));
    match earlier {
        Some((now, earlier)) => {
            let changes = differences(&earlier.key_struct, &now.to_value());
            if changes.is_empty() {
                text += &format!("  {}\n", outlook.reason);
            } else {
                text += &format!("  since it ran {}:\n", earlier.started);
                text.extend(changes.iter().map(|change| format!("  {change}\n")));
            }
        }
        None => text += &format!("  {}\n", outlook.reason),
    }
    text
}
