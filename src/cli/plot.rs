//! `mergelab plot`.

use std::path::{Path, PathBuf};

use super::session::Session;
use super::status::look;
use super::{CliError, results, solved};
use crate::experiment::Loaded;
use crate::plot::{self, RowOrigin};
use crate::report::{self, Output};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Experiment file
    file: PathBuf,
    /// Directory that receives the pictures, in place of results/NAME/plots
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Form of the pictures; there is svg
    #[arg(long, value_name = "FORMAT", default_value = "svg", value_parser = format)]
    format: Format,
    /// Draw the figures of the layers that this merge solved, in place of the tables; may be given several times
    #[arg(long, value_name = "STAGE")]
    layers: Vec<String>,
    /// Write nothing; fail if a file would change
    #[arg(long)]
    check: bool,
}

/// What pictures can be written as.
#[derive(Clone, Copy, Debug)]
enum Format {
    Svg,
}

fn format(name: &str) -> Result<Format, String> {
    match name {
        "svg" => Ok(Format::Svg),
        // Its text would be drawn with whichever fonts a machine has, so the same figures would give other bytes.
        "png" => Err("PNG is not written: it would look different on every machine\n\
                      hint: write SVG, and convert that: rsvg-convert FILE.svg -o FILE.png"
            .to_owned()),
        _ => Err("there is svg".to_owned()),
    }
}

/// Writes the pictures of an experiment's tables, or of its merges' layers, from what is there.
pub(super) fn run(arguments: &Arguments) -> Result<u8, CliError> {
    let Format::Svg = arguments.format;
    let session = Session::open(std::slice::from_ref(&arguments.file))?;
    let pictures =
        if arguments.layers.is_empty() { of_tables(&session)? } else { of_layers(&session, &arguments.layers)? };
    // A path on the command line means what it means in the shell.
    let (root, folder): (&Path, PathBuf) = match &arguments.to {
        Some(dir) => (Path::new(""), dir.clone()),
        None => (&session.project.root, report::folder(&session.graph.experiments[0].name).join("plots")),
    };
    let files = pictures.into_iter().map(|(name, text)| (folder.join(name), text.into_bytes())).collect();
    let output = Output { files, ..Output::default() };
    let changes = report::changes(&[output], |path| report::files::read(&root.join(path)))?;
    results::settle(root, &changes, arguments.check, "mergelab plot")
}

/// Pictures by file name.
type Pictures = Vec<(String, String)>;

fn of_tables(session: &Session) -> Result<Pictures, CliError> {
    let experiment = &session.graph.experiments[0];
    if experiment.tables.is_empty() {
        return Err(CliError::Source {
            message: format!("experiment `{}` has no tables, and pictures are made of those", experiment.name),
            hint: Some("add one under `tables:`".to_owned()),
        });
    }
    let (outlooks, facts) = look(session)?;
    let up_to_date = results::up_to_date(&outlooks, &facts);
    let grids = results::with_figures(session, 0, &up_to_date, report::grids)?;
    let pictures = grids.iter().zip(experiment.tables.values()).flat_map(|(grid, table)| {
        let rows: Vec<_> = table.rows.iter().map(|row| origin(&session.loaded[0], &row.model)).collect();
        plot::files(&experiment.name, grid, &rows)
    });
    Ok(pictures.collect())
}

/// Of each merge, or of all that a swept one became.
fn of_layers(session: &Session, stages: &[String]) -> Result<Pictures, CliError> {
    let mut ids = Vec::new();
    for stage in stages {
        ids.extend(session.find(stage)?);
    }
    let (outlooks, facts) = look(session)?;
    let picture = |id| {
        let stage = &session.graph.stage(id).name;
        Ok((format!("{stage}-layers.svg"), plot::layers(stage, &solved::of(session, &outlooks, &facts, id)?)))
    };
    ids.into_iter().map(picture).collect()
}

/// What the file says of a row's model.
fn origin(loaded: &Loaded, model: &str) -> RowOrigin {
    RowOrigin {
        merge: loaded.experiment.merges.contains_key(model),
        expansion: loaded.expansion(&format!("merges.{model}")).cloned(),
    }
}
