//! `mergelab diff`: two models, two sets of results or two experiments.

mod experiments;
mod models;
mod results;
mod sides;

use std::path::PathBuf;

use mergelab_wire::exit;

use self::sides::{Side, Sides};
use super::CliError;
use super::interrupts::Interrupts;
use crate::report::plain;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct Arguments {
    /// Two sides: stages of models or merges with their file, model directories, results, or experiment files
    #[arg(required = true, num_args = 1..=4, value_name = "SIDE")]
    sides: Vec<String>,
    /// Print JSON
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print every tensor, or every figure, as CSV
    #[arg(long)]
    csv: bool,
    /// Of models, a line for every tensor; of results, figures that are the same too
    #[arg(long, conflicts_with_all = ["json", "csv"])]
    all: bool,
    /// Of models, draw the relative difference by layer and kind of tensor
    #[arg(long, value_name = "FILE.svg")]
    chart: Option<PathBuf>,
    /// Exit with 4 where the sides differ
    #[arg(long)]
    exit_code: bool,
}

const EXAMPLES: &str = "\
Sides:
  STAGE STAGE FILE          two models or merges of one experiment
  STAGE FILE STAGE FILE     of two experiments
  DIR DIR                   model directories; a stage with its file may stand in place of either
  results.csv results.csv   results, or the folders that they lie in
  FILE FILE                 experiments: entries, parameters, scores; scores beside a results.csv

A word that begins with `models.`, `merges.` or another section is a stage; write ./merges.x for a directory of that name.";

/// What may be asked of any two sides.
#[derive(Clone, Copy, Debug)]
enum Form {
    Text { all: bool },
    Json,
    Csv,
}

impl Arguments {
    fn form(&self) -> Form {
        match (self.json, self.csv) {
            (true, _) => Form::Json,
            (_, true) => Form::Csv,
            _ => Form::Text { all: self.all },
        }
    }
}

/// A line for each side.
fn heads([a, b]: &[String; 2]) -> String {
    format!("A: {}\nB: {}\n", plain(a), plain(b))
}

/// Says how two sides differ.
pub(super) fn run(arguments: &Arguments, interrupts: &Interrupts) -> Result<u8, CliError> {
    let sides = Sides::read(&arguments.sides)?;
    let form = arguments.form();
    if arguments.chart.is_some() && !matches!(sides, Sides::Models(_)) {
        return Err(CliError::Usage(
            "--chart draws two models; the sides here are none\nhint: `mergelab plot FILE` draws the tables of an experiment"
                .to_owned(),
        ));
    }
    let differ = match sides {
        Sides::Models(sides) => match models::run(sides, form, arguments.chart.as_deref(), interrupts)? {
            Some(differ) => differ,
            None => return Ok(exit::INTERRUPTED),
        },
        Sides::Results(sides) => results::run(sides, form)?,
        Sides::Experiments(files) => experiments::run(&files, form)?,
    };
    Ok(if differ && arguments.exit_code { exit::DISAGREES } else { exit::DONE })
}
