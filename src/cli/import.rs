//! `mergelab import`.

use std::io;
use std::path::{Path, PathBuf};

use super::{CliError, output};
use crate::experiment::{self, Files, LoadError, Root};
use crate::project::Project;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Print the experiment that a mergekit configuration is
    ///
    /// One merge of the models that the configuration names, which gives the same as `method: mergekit` does with it. Paths of
    /// models are relative to the project's root.
    Mergekit(Mergekit),
}

#[derive(Debug, clap::Args)]
pub(super) struct Mergekit {
    /// mergekit configuration
    file: PathBuf,
    /// Name of the experiment and of its merge; that of the file if absent
    #[arg(long, value_parser = name)]
    name: Option<String>,
}

/// Runs a subcommand.
pub(super) fn run(command: &Command) -> Result<u8, CliError> {
    let Command::Mergekit(Mergekit { file, name }) = command;
    let folder = file.parent().map(Path::to_path_buf).unwrap_or_default();
    let project = Project::find(&folder)?;
    let contents = std::fs::read(file).map_err(|source| LoadError::Read { path: file.clone(), source })?;
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let name = name.clone().unwrap_or_else(|| experiment::as_name(&stem));
    let files = One { file, contents: &contents, project: Root(&project.root) };
    match experiment::import(file, &name, &files) {
        Ok(text) => output::print(&text),
        Err(wrong) => return Err(CliError::Experiment(vec![wrong])),
    }
    Ok(mergelab_wire::exit::DONE)
}

fn name(text: &str) -> Result<String, String> {
    let hint = "a name starts with a letter or digit and goes on with letters, digits, `.`, `_` and `-`";
    if experiment::is_name(text) { Ok(text.to_owned()) } else { Err(hint.to_owned()) }
}

/// A file that was named on the command line, and the project for all others.
struct One<'a> {
    file: &'a Path,
    contents: &'a [u8],
    project: Root<'a>,
}

impl Files for One<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path == self.file { Ok(self.contents.to_vec()) } else { self.project.read(path) }
    }

    fn is_directory(&self, path: &Path) -> bool {
        self.project.is_directory(path)
    }
}
