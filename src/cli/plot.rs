//! `mergelab plot`.

use std::path::{Path, PathBuf};

use super::session::Session;
use super::status::look;
use super::{CliError, results};
use crate::experiment::{Loaded, Row};
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

/// Writes the pictures of an experiment's tables from what is there.
pub(super) fn run(arguments: &Arguments) -> Result<u8, CliError> {
    let Format::Svg = arguments.format;
    let session = Session::open(std::slice::from_ref(&arguments.file))?;
    let experiment = &session.graph.experiments[0];
    if experiment.tables.is_empty() {
        return Err(CliError::Source {
            message: format!("experiment `{}` has no tables, and pictures are made of those", experiment.name),
            hint: Some("add one under `tables:`".to_owned()),
        });
    }
    let (outlooks, facts) = look(&session)?;
    let up_to_date = results::up_to_date(&outlooks, &facts);
    let grids = results::with_figures(&session, 0, &up_to_date, report::grids)?;

    // A path on the command line means what it means in the shell.
    let (root, folder): (&Path, PathBuf) = match &arguments.to {
        Some(dir) => (Path::new(""), dir.clone()),
        None => (&session.project.root, report::folder(&experiment.name).join("plots")),
    };
    let mut output = Output::default();
    for (grid, table) in grids.iter().zip(experiment.tables.values()) {
        let rows: Vec<_> = table.rows.iter().map(|row| origin(&session.loaded[0], row)).collect();
        let pictures = plot::files(&experiment.name, grid, &rows);
        output.files.extend(pictures.into_iter().map(|(name, text)| (folder.join(name), text.into_bytes())));
    }
    let changes = report::changes(&[output], |path| report::files::read(&root.join(path)))?;
    results::settle(root, &changes, arguments.check, "mergelab plot")
}

/// What the file says of a row's model. Replicates are one point of whatever else they are swept over.
fn origin(loaded: &Loaded, row: &Row) -> RowOrigin {
    let model = row.members.first().map_or(&row.model, |member| &member.model);
    let expansion = loaded.expansion(&format!("merges.{model}")).cloned().map(|mut expansion| {
        expansion.coordinates.retain(|(key, _)| row.replicates.as_ref() != Some(key));
        expansion
    });
    // What stands across the table is on no axis.
    let is_across = row.members.iter().any(|member| member.at.is_some());
    RowOrigin {
        merge: loaded.experiment.merges.contains_key(model),
        expansion: expansion.filter(|expansion| !is_across && !expansion.coordinates.is_empty()),
    }
}
