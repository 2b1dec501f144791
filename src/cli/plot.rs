//! `mergelab plot`.

use std::path::{Path, PathBuf};

use super::session::Session;
use super::status::look;
use super::{CliError, results, solved};
use crate::plot::{self, RowOrigin};
use crate::report::{self, Output};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Experiment file
    file: PathBuf,
    /// Directory that receives the pictures, in place of results/NAME/plots
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Form of the pictures
    #[arg(long, value_name = "FORMAT", default_value = "svg", value_enum)]
    format: Format,
    /// Draw the figures of the layers that this merge solved, in place of the tables; may be given several times
    #[arg(long, value_name = "STAGE")]
    layers: Vec<String>,
    /// Font file for letters of a PNG that the program's own font lacks; may be given several times
    #[arg(long, value_name = "FILE")]
    font: Vec<PathBuf>,
    /// Write nothing; fail if a file would change
    #[arg(long)]
    check: bool,
}

/// What pictures can be written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Lines and text, for a README and for papers
    Svg,
    /// Pixels, two for one of the SVG
    Png,
}

/// Writes the pictures of an experiment's tables, or of its merges' layers, from what is there.
pub(super) fn run(arguments: &Arguments) -> Result<u8, CliError> {
    if arguments.format == Format::Svg && !arguments.font.is_empty() {
        let message = "`--font` goes with `--format png`: an SVG is drawn with the fonts of its reader";
        return Err(CliError::Usage(message.to_owned()));
    }
    let session = Session::open(std::slice::from_ref(&arguments.file))?;
    let pictures =
        if arguments.layers.is_empty() { of_tables(&session)? } else { of_layers(&session, &arguments.layers)? };
    // A path on the command line means what it means in the shell.
    let (root, folder): (&Path, PathBuf) = match &arguments.to {
        Some(dir) => (Path::new(""), dir.clone()),
        None => (&session.project.root, report::folder(&session.graph.experiments[0].name).join("plots")),
    };
    let files = pictures.into_iter().map(|(name, text)| (folder.join(name), text.into_bytes())).collect();
    let mut output = Output { files, ..Output::default() };
    if arguments.format == Format::Png {
        as_png(&mut output, &arguments.font)?;
    }
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
        let rows: Vec<_> = table.rows.iter().map(|row| RowOrigin::of(&session.loaded[0], row)).collect();
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

/// Draws the pictures, and says which letters no font has.
#[cfg(feature = "png")]
fn as_png(output: &mut Output, fonts: &[PathBuf]) -> Result<(), CliError> {
    use plot::png::{Painter, PngError};

    let refuse = |error: PngError| CliError::Usage(error.to_string());
    let painter = Painter::new(fonts).map_err(refuse)?;
    let mut missing = std::collections::BTreeSet::new();
    for (path, bytes) in &mut output.files {
        let png = painter.draw(&String::from_utf8_lossy(bytes)).map_err(|error| CliError::Failed(error.to_string()))?;
        *bytes = png.bytes;
        path.set_extension("png");
        missing.extend(png.missing);
    }
    if !missing.is_empty() {
        let letters: Vec<String> = missing.into_iter().map(String::from).collect();
        say!("note: no font has {}; boxes stand for them", letters.join(" "));
        say!("hint: `--font FILE` adds a font that has them");
    }
    Ok(())
}

#[cfg(not(feature = "png"))]
fn as_png(_: &mut Output, _: &[PathBuf]) -> Result<(), CliError> {
    let message = "this mergelab was built without its feature `png`: write SVG, and convert that";
    Err(CliError::Usage(message.to_owned()))
}
