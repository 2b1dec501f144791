//! `mergelab report`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use mergelab_wire::exit;

use super::session::Session;
use super::status::look;
use super::{CliError, figures, output, results};
use crate::exec::Outlook;
use crate::page::{self, Inputs};
use crate::plan::{Facts, Kind};
use crate::report::{self, Change, Output, State};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Experiment file
    file: PathBuf,
    /// File to write, in place of results/NAME/report.html
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Show it in the browser
    #[arg(long)]
    open: bool,
}

/// Writes an experiment's page and prints where it lies.
pub(super) fn run(arguments: &Arguments) -> Result<u8, CliError> {
    let session = Session::open(std::slice::from_ref(&arguments.file))?;
    let (outlooks, facts) = look(&session)?;
    let bytes = html(&session, 0, &outlooks, &facts)?.into_bytes();
    // A path on the command line means what it means in the shell.
    let (root, path): (&Path, PathBuf) = match &arguments.output {
        Some(path) => (Path::new(""), path.clone()),
        None => (&session.project.root, place(&session, 0)),
    };
    report::files::write(root, &[Change { path: path.clone(), bytes, state: State::Changed }])?;
    let written = root.join(&path);
    let written = std::path::absolute(&written).unwrap_or(written);
    output::print(&format!("{}\n", written.display()));
    if arguments.open {
        open::that_detached(&written).map_err(|error| CliError::NotThere {
            message: format!("no browser could be started: {error}"),
            hint: format!("open {} in one", written.display()),
        })?;
    }
    Ok(exit::DONE)
}

/// The pages of some experiments, held against those on disk.
pub(super) fn changes(
    session: &Session,
    experiments: &[usize],
    (outlooks, facts): (&[Outlook], &Facts),
) -> Result<Vec<Change>, CliError> {
    let page = |&index: &usize| {
        let files = vec![(place(session, index), html(session, index, outlooks, facts)?.into_bytes())];
        Ok(Output { files, blocks: Vec::new() })
    };
    let pages = experiments.iter().map(page).collect::<Result<Vec<_>, CliError>>()?;
    Ok(report::changes(&pages, |path| report::files::read(&session.project.root.join(path)))?)
}

/// Where an experiment's page lies, relative to the project's root.
pub(super) fn place(session: &Session, index: usize) -> PathBuf {
    report::folder(&session.graph.experiments[index].name).join(page::FILE)
}

/// The page of an experiment.
fn html(session: &Session, index: usize, outlooks: &[Outlook], facts: &Facts) -> Result<String, CliError> {
    let evaluations = facts.results.iter().filter(|(id, _)| session.graph.stage(**id).spec.kind() == Kind::Eval);
    let warnings: HashMap<_, _> = evaluations.map(|(id, result)| (*id, figures::warnings(&result.location))).collect();
    let up_to_date = results::up_to_date(outlooks, facts);
    results::with_figures(session, index, &up_to_date, |figures| {
        Ok(page::html(&Inputs {
            loaded: &session.loaded[index],
            graph: &session.graph,
            experiment: index,
            outlooks,
            facts,
            root: &session.project.root,
            measured: figures.measured,
            others: figures.others,
            published: figures.published,
            grids: &report::grids(figures)?,
            warnings: &warnings,
        }))
    })
}
