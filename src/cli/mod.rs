//! The command line: one file a subcommand. Data goes to standard output, everything else to standard error.

/// Prints a line to standard error. One that cannot be written is lost, and the run goes on: `eprintln!` would end it.
macro_rules! say {
    ($($arguments:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($arguments)*);
    }};
}

mod against;
mod alone;
mod at_hand;
mod cell;
mod commands;
mod depths;
mod diff;
mod elsewhere;
mod error;
mod evaluated;
mod explain;
mod export;
mod extract_lora;
mod figures;
mod grams;
mod graph;
mod import;
mod interrupts;
mod key;
mod methods;
mod output;
mod plot;
mod progress;
mod publish;
mod rate;
mod render;
mod report;
mod results;
mod revisions;
mod run;
mod samples;
mod schema;
mod session;
mod show;
mod solved;
mod status;
mod transfer;
mod verify;
mod vocabularies;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use mergelab_wire::exit;

pub use error::CliError;
use interrupts::Interrupts;

/// Reproducible experiments in merging language models.
///
/// An experiment file says which models to merge, on which data to capture Gram matrices, which merges to make, which
/// benchmarks to run and which table goes into the README. `mergelab run` does what is not up to date.
#[derive(Debug, Parser)]
#[command(name = "mergelab", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 a stage failed, or what it needs is not there; 2 usage; 3 the experiment is \
                          wrong; 4 the store or the results do not agree; 130 interrupted.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run what is not up to date
    Run(run::Arguments),
    /// Say of each stage whether it is up to date, would run and why, or waits
    Status(status::Arguments),
    /// Say why a stage would run, or what its result rests on
    Explain(explain::Arguments),
    /// Print everything that decides a stage's result
    Key(key::Arguments),
    /// Print the graph of stages
    Graph(graph::Arguments),
    /// Write tables and results from what is there
    Render(render::Arguments),
    /// Draw the tables as pictures, for papers and documents
    Plot(plot::Arguments),
    /// Write an experiment as one page, to look at and to send
    ///
    /// Tables, charts, figures of layers, stages with their times, answers that differ, and where each number comes from, in one
    /// file that needs nothing else.
    Report(report::Arguments),
    /// Show an artifact: path, manifest, metrics, log
    Show(show::Arguments),
    /// Say how two models, two sets of results or two experiments differ
    ///
    /// A is the first side, B the second; a difference is B minus A.
    Diff(diff::Arguments),
    /// Show the answers of an evaluation, or hold them against another model's
    Samples(samples::Arguments),
    /// Gram matrices for other programs
    #[command(subcommand)]
    Grams(grams::Command),
    /// Experiments from files of other tools
    #[command(subcommand)]
    Import(import::Command),
    /// Copy an artifact out of the store, as a directory of plain files
    Export(export::Arguments),
    /// Write what a merge or a model has more than its base as a LoRA adapter
    ///
    /// Of every linear layer the nearest change of low rank, as PEFT writes it, with the error of each layer on standard
    /// output. A model entry `lora: DIR` reads it again.
    ExtractLora(extract_lora::Arguments),
    /// Upload a merge or Gram matrices to the hub, with a card that has the scores
    Publish(publish::Arguments),
    /// Hash everything in the store again
    Verify(verify::Arguments),
    /// List the merge methods, or print the page of one
    Methods(methods::Arguments),
    /// Print the JSON Schema of experiment files, for editors
    Schema,
}

/// Experiment files.
#[derive(Debug, clap::Args)]
struct Files {
    /// Experiment files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Runs the command line and gives the exit code.
pub fn main(cli: Cli) -> u8 {
    let interrupts = Interrupts::install();
    let result = match cli.command {
        Command::Run(arguments) => run::run(&arguments, &interrupts),
        Command::Status(arguments) => status::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Key(arguments) => key::run(&arguments),
        Command::Graph(arguments) => graph::run(&arguments),
        Command::Render(arguments) => render::run(&arguments),
        Command::Plot(arguments) => plot::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Show(arguments) => show::run(&arguments),
        Command::Diff(arguments) => diff::run(&arguments, &interrupts),
        Command::Samples(arguments) => samples::run(&arguments),
        Command::Grams(command) => grams::run(&command, &interrupts),
        Command::Import(command) => import::run(&command),
        Command::Export(arguments) => export::run(&arguments, &interrupts),
        Command::ExtractLora(arguments) => extract_lora::run(&arguments, &interrupts),
        Command::Publish(arguments) => publish::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Methods(arguments) => methods::run(&arguments),
        Command::Schema => Ok(schema::run()),
    };
    match result {
        Ok(exit::DONE) if output::was_lost() => exit::FAILED,
        Ok(code) => code,
        Err(error) => {
            error.print();
            error.exit_code()
        }
    }
}
