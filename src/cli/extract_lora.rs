//! `mergelab extract-lora`.

use std::fmt::Write as _;
use std::path::PathBuf;

use mergelab_wire::{ExtractLoraJob, LoraSize, exit};
use serde::Deserialize;

use super::export::refused;
use super::interrupts::Interrupts;
use super::session::Session;
use super::status::{look, whole};
use super::{CliError, alone, output};
use crate::plan::{Kind, StageId};
use crate::stage;

/// Rank of the layers where nothing else is said.
const RANK: usize = 32;

/// How many tensors that were left out are named.
const NAMED: usize = 5;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Stage of a merge or a model, such as merges.ties
    stage: String,
    /// Experiment file
    file: PathBuf,
    /// Directory that receives the adapter; made if it is not there, and must be empty
    dir: PathBuf,
    /// Model or merge that the adapter is for [default: the stage's own base]
    #[arg(long, value_name = "MODEL")]
    base: Option<String>,
    /// Rank of every layer's change [default: 32]
    #[arg(long, value_name = "N", conflicts_with = "energy", value_parser = clap::value_parser!(u32).range(1..))]
    rank: Option<u32>,
    /// Layer by layer the smallest rank that keeps this share of the squared singular values, such as 0.9
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    energy: Option<f64>,
    /// Keep what is no linear layer whole where it differs: embeddings, head, norms, biases
    #[arg(long)]
    modules_to_save: bool,
}

/// A share above 0 and up to 1.
fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("a share is a number above 0 and up to 1".to_owned()),
    }
}

/// Writes the difference between a model and its base as a LoRA adapter.
pub(super) fn run(arguments: &Arguments, interrupts: &Interrupts) -> Result<u8, CliError> {
    let session = Session::open(std::slice::from_ref(&arguments.file))?;
    let id = session.find_one(&arguments.stage)?;
    check_model(&session, id)?;
    let base = base_of(&session, id, arguments.base.as_deref())?;
    let (outlooks, facts) = look(&session)?;
    let (_, model, _use) = whole(&session, &outlooks, &facts, id)?;
    let (_, base_model, _use_of_base) = whole(&session, &outlooks, &facts, base)?;
    let name = session.graph.stage(id).name.clone();
    let job = ExtractLoraJob {
        name: name.clone(),
        model: model.location.clone(),
        base_name: stage::name_of_model(session.graph.stage(base)),
        base: base_model.location.clone(),
        size: match (arguments.energy, arguments.rank) {
            (Some(share), _) => LoraSize::Energy(share),
            (None, rank) => LoraSize::Rank(rank.map_or(RANK, |rank| rank as usize)),
        },
        whole: arguments.modules_to_save,
    };
    let filled = alone::fill(&session, &arguments.dir, interrupts, |context, places, on_event| {
        stage::extract_lora(context, job, places, on_event)
    })?;
    let Some((new, ())) = filled else { return Ok(exit::INTERRUPTED) };
    let layers = new.path().join("layers.json");
    let text = std::fs::read(&layers).map_err(alone::failed("read", &layers))?;
    let report: Report =
        serde_json::from_slice(&text).map_err(|error| CliError::Failed(format!("{}: {error}", layers.display())))?;
    new.finish().map_err(|error| refused(error, &arguments.dir))?;
    interrupts.take_back();
    report.tell(&name);
    say!("{name}: written to {}", arguments.dir.display());
    output::print(&report.table());
    Ok(exit::DONE)
}

/// Refuses a stage that makes no model.
fn check_model(session: &Session, id: StageId) -> Result<(), CliError> {
    let stage = session.graph.stage(id);
    match stage.spec.kind() {
        Kind::Model | Kind::Merge => Ok(()),
        _ => Err(CliError::Usage(format!("{} is no model or merge", stage.name))),
    }
}

/// What a model is held against: the one that is named, or its own base.
fn base_of(session: &Session, id: StageId, named: Option<&str>) -> Result<StageId, CliError> {
    let Some(named) = named else {
        let stage = session.graph.stage(id);
        return stage.need("base").ok_or_else(|| {
            let hint = "name the model that the adapter is to be for: `--base MODEL`";
            CliError::Usage(format!("{} has no base\nhint: {hint}", stage.name))
        });
    };
    let sections = ["models", "merges"];
    let by_entry = sections.iter().find_map(|section| session.graph.find(&format!("{section}.{named}")).ok());
    let id = match by_entry.as_deref() {
        Some([id]) => *id,
        _ => session.find_one(named)?,
    };
    check_model(session, id).map(|()| id)
}

/// `layers.json` of an adapter.
#[derive(Debug, Deserialize)]
struct Report {
    relative_error: Option<f64>,
    layers: Vec<Layer>,
    whole: Vec<String>,
    left_out: Vec<LeftOut>,
}

#[derive(Debug, Deserialize)]
struct Layer {
    module: String,
    shape: [u64; 2],
    rank: u64,
    relative_error: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct LeftOut {
    tensor: String,
    relative_difference: Option<f64>,
}

impl Report {
    /// One line a layer.
    fn table(&self) -> String {
        let width = self.layers.iter().map(|layer| layer.module.len()).max().unwrap_or(0).max("module".len());
        let mut text = format!("{:width$}  {:>13}  {:>5}  {:>14}\n", "module", "shape", "rank", "relative error");
        for Layer { module, shape: [rows, columns], rank, relative_error } in &self.layers {
            let shape = format!("{rows} x {columns}");
            let error = share(*relative_error);
            let _ = writeln!(text, "{module:width$}  {shape:>13}  {rank:>5}  {error:>14}");
        }
        text
    }

    /// What was kept, and what was lost.
    fn tell(&self, name: &str) {
        let ranks = || self.layers.iter().map(|layer| layer.rank);
        let ranks = match (ranks().min().unwrap_or(0), ranks().max().unwrap_or(0)) {
            (least, most) if least == most => format!("rank {least}"),
            (least, most) => format!("ranks {least} to {most}"),
        };
        let count = self.layers.len();
        say!("{name}: {count} layers of {ranks}, relative error {} of their difference", share(self.relative_error));
        if !self.whole.is_empty() {
            say!("{name}: {} tensors kept whole", self.whole.len());
        }
        if self.left_out.is_empty() {
            return;
        }
        let one = |LeftOut { tensor, relative_difference }: &LeftOut| match relative_difference {
            Some(by) => format!("{tensor} (by {})", share(Some(*by))),
            None => tensor.clone(),
        };
        let mut named: Vec<String> = self.left_out.iter().take(NAMED).map(one).collect();
        let rest = self.left_out.len() - named.len();
        if rest > 0 {
            named.push(format!("and {rest} more"));
        }
        say!("note: {} tensors are no linear layers, differ and are lost: {}", self.left_out.len(), named.join(", "));
        say!("hint: `--modules-to-save` keeps them whole");
    }
}

/// A share in three digits.
fn share(value: Option<f64>) -> String {
    match value {
        Some(value) if value != 0.0 && value < 1e-3 => format!("{value:.1e}"),
        Some(value) => format!("{value:.3}"),
        None => "-".to_owned(),
    }
}
