//! `mergelab samples`.

use std::path::PathBuf;

use mergelab_wire::exit;

use super::evaluated::Evaluated;
use super::session::Session;
use super::status::look;
use super::{CliError, against, output};
use crate::samples::{Choice, Width, answer};

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct Arguments {
    /// Evaluation, such as evals.suite/avg/gsm8k
    stage: String,
    /// Experiment file
    file: PathBuf,
    /// Only answers whose score is not the best there is
    #[arg(long, conflicts_with = "right")]
    wrong: bool,
    /// Only answers whose score is the best there is
    #[arg(long)]
    right: bool,
    /// Only this document (of each task, in a group)
    #[arg(long, value_name = "ID")]
    doc: Option<u64>,
    /// At most so many answers; of items that differ, 20 unless given
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Judge by this metric; the first in metrics.json that documents have a score by unless given
    #[arg(long, value_name = "NAME")]
    metric: Option<String>,
    /// Judge by the metric under this filter of the answers
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Hold the answers against those of another evaluation, or of another model on the same task
    #[arg(long, value_name = "STAGE", conflicts_with_all = ["wrong", "right", "doc"])]
    against: Option<String>,
    /// Whole texts, in place of one line for each
    #[arg(long)]
    full: bool,
    /// Print JSON: a record a line, or one object with --against
    #[arg(long)]
    json: bool,
}

/// Columns of a line where nobody's terminal says how many there are.
const COLUMNS: usize = 100;

/// How many items that differ are shown without `--limit`.
const ITEMS: usize = 20;

/// Prints an evaluation's answers, or what two evaluations have in common.
pub(super) fn run(arguments: &Arguments) -> Result<u8, CliError> {
    let session = Session::open(std::slice::from_ref(&arguments.file))?;
    let id = session.find_one(&arguments.stage)?;
    let other = arguments.against.as_deref().map(|wanted| against::find(&session, id, wanted)).transpose()?;
    let (outlooks, facts) = look(&session)?;
    let evaluated = Evaluated::of(&session, &outlooks, &facts, id)?;
    let choice = evaluated.choose(arguments.metric.as_deref(), arguments.filter.as_deref())?;
    let width = if arguments.full { Width::Full } else { Width::Columns(columns()) };
    if let Some(other) = other {
        let other = Evaluated::of(&session, &outlooks, &facts, other)?;
        let show = against::Show { limit: arguments.limit.unwrap_or(ITEMS), width, json: arguments.json };
        against::compare(&session, [&evaluated, &other], &choice, &show)?;
    } else {
        list(arguments, &evaluated, &choice, width)?;
    }
    Ok(exit::DONE)
}

fn list(arguments: &Arguments, evaluated: &Evaluated<'_>, choice: &Choice, width: Width) -> Result<(), CliError> {
    let (mut seen, mut shown) = (0_u64, 0_usize);
    for sample in evaluated.samples()? {
        let sample = sample.map_err(|error| evaluated.refuse(error))?;
        seen += 1;
        let is_best = sample.score(&choice.metric, choice.filter.as_deref()).map(|score| choice.is_best(score));
        // A document without a score is neither right nor wrong.
        let is_wanted = match (arguments.wrong, arguments.right) {
            (false, false) => true,
            (_, right) => is_best == Some(right),
        };
        if !is_wanted || arguments.doc.is_some_and(|doc| doc != sample.doc_id) {
            continue;
        }
        if arguments.limit.is_some_and(|limit| shown >= limit) {
            say!("the first {shown}, by {choice}: there are more, which --limit left out");
            return Ok(());
        }
        if arguments.json {
            output::print_json_line(&sample.record);
        } else {
            let gap = if shown == 0 { "" } else { "\n" };
            output::print(&format!("{gap}{}", answer(&sample, choice, width)));
        }
        shown += 1;
    }
    if let Some(doc) = arguments.doc.filter(|_| shown == 0 && !arguments.wrong && !arguments.right) {
        return Err(CliError::Usage(format!("{} has no document {doc}; it has {seen} documents", evaluated.stage)));
    }
    say!("{shown} of {seen} documents, by {choice}");
    Ok(())
}

/// Columns of the terminal that is printed to.
fn columns() -> usize {
    rustix::termios::tcgetwinsize(rustix::stdio::stdout())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0)
        .unwrap_or(COLUMNS)
}
