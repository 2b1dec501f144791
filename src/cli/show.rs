//! `mergelab show`.

use std::path::PathBuf;

use mergelab_wire::exit;
use serde_json::{Value, json};

use super::session::Session;
use super::status::{look, up_to_date};
use super::{CliError, figures, output, solved};
use crate::plan::Kind;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Stage, such as merges.regmean
    stage: String,
    /// Experiment file
    file: PathBuf,
    /// Print JSON
    #[arg(long, conflicts_with = "log")]
    json: bool,
    /// Print what its program printed, also where it failed
    #[arg(long)]
    log: bool,
    /// Print the figures of each layer that a merge solved, as CSV
    #[arg(long, conflicts_with_all = ["json", "log"])]
    csv: bool,
}

/// Shows an artifact.
pub(super) fn run(arguments: &Arguments) -> Result<u8, CliError> {
    let session = Session::open(std::slice::from_ref(&arguments.file))?;
    let id = session.find_one(&arguments.stage)?;
    let (outlooks, facts) = look(&session)?;
    let outlook = &outlooks[id.0];
    let store = session.existing_store()?;
    if arguments.log {
        let logged = outlook.manifest.as_ref().and_then(|manifest| manifest.log.clone());
        let path = match (&store, logged, &outlook.key) {
            (Some(store), Some(log), _) => Some(store.root().join(log)),
            (Some(store), None, Some(key)) => Some(store.log_path(key)),
            _ => None,
        };
        let text = path.and_then(|path| std::fs::read(path).ok());
        let text = text.ok_or_else(|| CliError::Failed(format!("{} has no log", arguments.stage)))?;
        output::print(&String::from_utf8_lossy(&text));
        return Ok(exit::DONE);
    }
    if arguments.csv {
        output::print(&solved::of(&session, &outlooks, &facts, id)?.csv());
        return Ok(exit::DONE);
    }
    let (manifest, artifact) = up_to_date(&session, &outlooks, &facts, id)?;
    let of_evaluation = |file: &str| match session.graph.stage(id).spec.kind() {
        Kind::Eval => std::fs::read(artifact.location.join(file))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or(Value::Null),
        _ => Value::Null,
    };
    let metrics = of_evaluation("metrics.json");
    if arguments.json {
        let mut shown = json!({
            "experiment": session.graph.experiment_name(id),
            "stage": session.graph.stage(id).name,
            "key": outlook.key,
            "path": artifact.location,
            "manifest": manifest,
            "metrics": metrics,
        });
        let warnings = of_evaluation("warnings.json");
        if !warnings.is_null() {
            shown["warnings"] = warnings;
        }
        output::print_json(&shown);
        return Ok(exit::DONE);
    }
    let mut text = format!("{}\n  path    {}\n", session.graph.stage(id).name, artifact.location.display());
    text += &format!("  key     {}\n  digest  {}\n", manifest.key, manifest.digest);
    text += &format!("  made    {} to {} on {}\n", manifest.started, manifest.ended, manifest.host);
    if let Some(command) = manifest.facts.get("command").and_then(Value::as_str) {
        text += &format!("  command {command}\n");
    }
    for file in &manifest.outputs {
        let dropped = if file.dropped { ", dropped" } else { "" };
        text += &format!("  file    {} ({} bytes{dropped})\n", file.path, file.size);
    }
    if session.graph.stage(id).spec.kind() == Kind::Eval {
        text += &figures::lines(&artifact.location, manifest, &metrics);
    }
    output::print(&text);
    Ok(exit::DONE)
}
