//! Results, tables and README blocks.
//!
//! Figures go in, files come out as values: [`render`] makes the contents of `results/<experiment>/` and the blocks for
//! other files, [`changes`] holds them against what lies on disk, [`files::write`] writes. The same figures give the
//! same bytes: nothing here knows the time, the machine or the store.
//!
//! | file | what |
//! |---|---|
//! | `results.csv`, `metrics.csv` | every figure, and which way is better ([`results`]) |
//! | `paired.csv` | what tests found, where a table asks for some ([`paired`]) |
//! | `table.md`, `table.tex`, `table.html` | all tables of the experiment |
//! | `table-NAME.csv` | one table as a sheet |

use std::path::{Component, Path, PathBuf};

use indexmap::{IndexMap, IndexSet};

use crate::experiment::{Section, Table};

mod alike;
mod block;
mod columns;
mod errors;
mod fences;
pub mod files;
mod filled;
mod grid;
mod html;
mod latex;
mod markdown;
mod marks;
mod mean;
mod measurement;
mod metric;
pub(crate) mod nearest;
pub mod paired;
pub mod published;
mod replicates;
pub mod results;
mod score;
mod select;
mod sheet;
mod table;
mod text;
mod unshown;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_compared;
#[cfg(test)]
mod tests_latex;
#[cfg(test)]
mod tests_others;
#[cfg(test)]
mod tests_published;
#[cfg(test)]
mod tests_swept;

pub use block::{Block, BlockError, Marker, markers, replace};
pub use columns::{CsvError, CsvProblem};
pub use errors::Errors;
pub use files::FileError;
pub use grid::{Against, Cell, Compared, FAR, Figure, Grid, Heading, Line, Origin, Published, Verdict};
pub(crate) use grid::{aside, letter, mark, missing, quoted};
pub use html::html;
pub(crate) use html::html_with;
pub use latex::latex;
pub use markdown::markdown;
pub use measurement::{Measurement, Metric, MetricsError, Source, parse_metrics};
pub use metric::{higher_is_better, is_rate};
pub use paired::{Comparison, Finding, Paired, PairedError, PairedTest, Side, Untested};
pub use select::FiguresError;
pub use sheet::sheet;
pub use table::{Absent, ColumnProblem, TableError};
pub(crate) use text::{plain, tame};
pub use unshown::unshown;

/// What the results of one experiment are made from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Name of the experiment.
    pub experiment: &'a str,
    /// Its tables.
    pub tables: &'a Section<Table>,
    /// Measured figures in the order of the experiment, of all its suites: also what no table shows is kept, and says
    /// which metrics and filters a task has.
    pub measured: &'a [Measurement],
    /// Measured figures of other experiments, of models under the names that they have here ([`files::others`]).
    pub others: &'a [Measurement],
    /// Published figures by the path that tables name ([`files::published`]).
    pub published: &'a IndexMap<PathBuf, Vec<Measurement>>,
    /// What came of the tests that tables ask for ([`comparisons`]).
    pub paired: &'a [Paired],
    /// Why figures are missing, where more is known than that.
    pub absent: &'a Absent,
}

impl<'a> Inputs<'a> {
    /// What was measured, here and by other experiments.
    fn all_measured(&self) -> impl Iterator<Item = &'a Measurement> {
        self.measured.iter().chain(self.others)
    }
}

/// The results of one experiment; paths are relative to the project root.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// Whole files.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// Blocks, and the files that they stand in.
    pub blocks: Vec<(PathBuf, Block)>,
}

/// Why results cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Measured figures that do not fit together.
    #[error("experiment `{experiment}`: {source}")]
    Figures {
        /// The experiment.
        experiment: String,
        /// What is wrong.
        source: FiguresError,
    },
    /// A table that the figures cannot fill.
    #[error("experiment `{experiment}`: {source}")]
    Table {
        /// The experiment.
        experiment: String,
        /// What is wrong.
        source: TableError,
    },
    /// What tests found does not go with the figures.
    #[error("{}: {source}", folder(experiment).join(PAIRED).display())]
    Paired {
        /// The experiment.
        experiment: String,
        /// What is wrong.
        source: PairedError,
    },
    /// Published figures that nobody read.
    #[error("experiment `{experiment}`: table `{table}`: {} was not read", file.display())]
    NotRead {
        /// The experiment.
        experiment: String,
        /// The table.
        table: String,
        /// Its `published:`.
        file: PathBuf,
    },
    /// A file whose blocks cannot be replaced.
    #[error("{}: {source}", file.display())]
    Block {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: BlockError,
    },
    /// A file for a block that is not there.
    #[error("{}: there is no such file for the block `{name}`", file.display())]
    NoFile {
        /// The file.
        file: PathBuf,
        /// The first block that was to stand in it.
        name: String,
    },
    /// A file that cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

impl ReportError {
    /// The way out, where the message does not name it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Block { source, .. } => Some(source.hint()),
            Self::NoFile { name, .. } => {
                let missing = BlockError::Missing { names: vec![name.clone()] };
                Some(format!("make the file, then {}", missing.hint()))
            }
            Self::Paired { .. } => {
                Some("`mergelab render` makes it anew where the store has the evaluations and their answers".to_owned())
            }
            Self::File(error) => error.hint(),
            Self::Figures { .. } | Self::Table { .. } | Self::NotRead { .. } => None,
        }
    }
}

pub use crate::experiment::results_folder as folder;

/// Every figure of an experiment, in its folder.
const RESULTS: &str = "results.csv";

/// Which way is better, in an experiment's folder.
const METRICS: &str = "metrics.csv";

/// What tests found, in an experiment's folder and in a table's result.
pub const PAIRED: &str = "paired.csv";

/// The tests that tables ask for, each once, in the order of tables, columns and rows. A table that the figures cannot
/// fill asks for none.
pub fn comparisons(inputs: &Inputs<'_>) -> Vec<Comparison> {
    let measured = select::Index::new(inputs.all_measured());
    let mut wanted: IndexSet<Comparison> = IndexSet::new();
    for (name, table) in inputs.tables.iter().filter(|(_, table)| table.is_tested()) {
        let published = select::Index::new(figures_published(inputs, table).unwrap_or_default());
        let figures = filled::Figures { measured: &measured, published: &published, absent: inputs.absent };
        for filled in table::fill(name, table, &figures).unwrap_or_default().iter().flatten() {
            wanted.extend(marks::Wanted::of(table, filled, &figures).into_all());
        }
    }
    wanted.into_iter().collect()
}

/// The published figures of a table.
///
/// # Errors
/// The path of its file, if that was not read.
fn figures_published<'a>(inputs: &Inputs<'a>, table: &'a Table) -> Result<&'a [Measurement], &'a PathBuf> {
    let Some(path) = &table.published else { return Ok(&[]) };
    inputs.published.get(path).map(Vec::as_slice).ok_or(path)
}

/// The tables of an experiment, filled.
///
/// # Errors
/// Everything that does not fit, of all tables.
pub fn grids(inputs: &Inputs<'_>) -> Result<Vec<Grid>, Errors<ReportError>> {
    let experiment = || inputs.experiment.to_owned();
    let mut errors = Vec::new();
    if let Err(found) = select::check(inputs.all_measured()) {
        errors.extend(
            found.into_vec().into_iter().map(|source| ReportError::Figures { experiment: experiment(), source }),
        );
    }
    let measured = select::Index::new(inputs.all_measured());
    let paired = paired::Index::new(inputs.paired);
    let mut grids = Vec::new();
    for (name, table) in inputs.tables {
        let published = match figures_published(inputs, table) {
            Ok(figures) => select::Index::new(figures),
            Err(file) => {
                let (table, file) = (name.clone(), file.clone());
                errors.push(ReportError::NotRead { experiment: experiment(), table, file });
                continue;
            }
        };
        let figures = filled::Figures { measured: &measured, published: &published, absent: inputs.absent };
        match grid(name, table, &figures, &paired, &experiment) {
            Ok(grid) => grids.push(grid),
            Err(found) => errors.extend(found),
        }
    }
    Errors::unless_any(errors, grids)
}

/// One table, filled.
fn grid(
    name: &str,
    table: &Table,
    figures: &filled::Figures<'_>,
    paired: &paired::Index<'_>,
    experiment: &dyn Fn() -> String,
) -> Result<Grid, Vec<ReportError>> {
    let of_table = |found: Errors<TableError>| {
        let found = found.into_vec().into_iter();
        found.map(|source| ReportError::Table { experiment: experiment(), source }).collect::<Vec<_>>()
    };
    let columns = table::fill(name, table, figures).map_err(of_table)?;
    let (mut tests, mut errors) = (Vec::new(), Vec::new());
    for filled in &columns {
        let found = filled.as_ref().map(|filled| marks::Wanted::of(table, filled, figures));
        match found.map(|wanted| marks::Tests::of(&wanted, paired)).transpose() {
            Ok(found) => tests.push(found.unwrap_or_default()),
            Err(found) => {
                errors.extend(found.into_iter().map(|source| ReportError::Paired { experiment: experiment(), source }));
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    table::build(name, table, &columns, &tests, figures).map_err(of_table)
}

/// All that an experiment's results are on disk.
///
/// # Errors
/// As [`grids`].
pub fn render(inputs: &Inputs<'_>) -> Result<Output, Errors<ReportError>> {
    let grids = grids(inputs)?;
    let folder = folder(inputs.experiment);
    let mut output = Output::default();
    let mut file = |name: &str, text: String| output.files.push((folder.join(name), text.into_bytes()));

    // Two tables may name one file, so a figure counts once.
    let used: IndexSet<&PathBuf> = inputs.tables.values().filter_map(|table| table.published.as_ref()).collect();
    let published = used.into_iter().filter_map(|path| inputs.published.get(path)).flatten();
    file(RESULTS, results::to_csv(inputs.measured.iter().chain(published)));
    // Also without a direction in it, so that an older one does not stay.
    file(METRICS, results::directions_to_csv(inputs.measured));
    if inputs.tables.values().any(Table::is_tested) {
        let paired = paired::Index::new(inputs.paired);
        file(PAIRED, paired::to_csv(comparisons(inputs).iter().filter_map(|wanted| paired.get(wanted).ok())));
    }
    if !grids.is_empty() {
        file("table.md", headed(&grids, markdown, |name| format!("## {}\n\n", markdown::escape(name))));
        file("table.tex", headed(&grids, latex, |name| format!("% {name}\n")));
        file("table.html", html::page(inputs.experiment, &grids));
    }
    for grid in &grids {
        file(&format!("table-{}.csv", grid.name), sheet(grid));
    }
    for (grid, table) in grids.iter().zip(inputs.tables.values()) {
        if let Some(into) = &table.into {
            let (experiment, table) = (inputs.experiment.to_owned(), grid.name.clone());
            output.blocks.push((into.clone(), Block { experiment, table, body: markdown(grid) }));
        }
    }
    Ok(output)
}

/// Several tables in one file, each under its name; one alone needs none.
fn headed(grids: &[Grid], format: fn(&Grid) -> String, heading: impl Fn(&str) -> String) -> String {
    match grids {
        [grid] => format(grid),
        grids => grids.iter().map(|grid| heading(&grid.name) + &format(grid)).collect::<Vec<_>>().join("\n"),
    }
}

/// What writing would do to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is not there yet.
    New,
    /// Its bytes would change.
    Changed,
    /// It has these bytes already.
    Same,
}

/// A file as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The file, relative to the project root.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What they do to it.
    pub state: State,
}

/// Holds the results of experiments against the files that are there, which `read` gives by path (relative to the project
/// root; `None` if there is none). Give all experiments of a run at once: their blocks may stand in one file.
///
/// For `--check`, everything that is not [`State::Same`] would change.
///
/// # Errors
/// Every file that cannot be read, and every file whose blocks cannot be replaced.
pub fn changes(
    outputs: &[Output],
    read: impl Fn(&Path) -> Result<Option<Vec<u8>>, FileError>,
) -> Result<Vec<Change>, Errors<ReportError>> {
    let mut changes = Vec::new();
    let mut errors = Vec::new();
    let mut hold = |path: &Path, bytes: Vec<u8>, old: Option<Vec<u8>>| {
        let state = match old {
            None => State::New,
            Some(old) if old == bytes => State::Same,
            Some(_) => State::Changed,
        };
        changes.push(Change { path: path.to_owned(), bytes, state });
    };
    for (path, bytes) in outputs.iter().flat_map(|output| &output.files) {
        match read(path) {
            Ok(old) => hold(path, bytes.clone(), old),
            Err(error) => errors.push(error.into()),
        }
    }
    let mut by_file: IndexMap<PathBuf, Vec<Block>> = IndexMap::new();
    for (path, block) in outputs.iter().flat_map(|output| &output.blocks) {
        // `./README.md` is the same file: its blocks go in together, or the last would undo the others.
        let path = path.components().filter(|part| *part != Component::CurDir).collect();
        by_file.entry(path).or_default().push(block.clone());
    }
    for (path, blocks) in by_file {
        match with_blocks(&path, &blocks, &read) {
            Ok((old, new)) => hold(&path, new.into_bytes(), Some(old.into_bytes())),
            Err(found) => errors.extend(found.into_vec()),
        }
    }
    Errors::unless_any(errors, changes)
}

/// A file's text, and what it becomes with the blocks.
fn with_blocks(
    path: &Path,
    blocks: &[Block],
    read: impl Fn(&Path) -> Result<Option<Vec<u8>>, FileError>,
) -> Result<(String, String), Errors<ReportError>> {
    let file = || path.to_owned();
    let bytes = read(path)
        .map_err(ReportError::from)?
        .ok_or_else(|| ReportError::NoFile { file: file(), name: blocks[0].name() })?;
    let old = files::text(bytes, path).map_err(ReportError::from)?;
    let new = block::replace(&old, blocks).map_err(|source| ReportError::Block { file: file(), source })?;
    Ok((old, new))
}

/// Whether the files that tables go into have a place for them, to be asked before a long run.
///
/// # Errors
/// As [`changes`] would, for blocks.
pub fn check_places<'a>(
    tables: impl IntoIterator<Item = (&'a str, &'a Section<Table>)>,
    read: impl Fn(&Path) -> Result<Option<Vec<u8>>, FileError>,
) -> Result<(), Errors<ReportError>> {
    let blocks = tables.into_iter().flat_map(|(experiment, tables)| {
        tables.iter().filter_map(move |(name, table)| {
            let block = Block { experiment: experiment.to_owned(), table: name.clone(), body: String::new() };
            Some((table.into.clone()?, block))
        })
    });
    changes(&[Output { files: Vec::new(), blocks: blocks.collect() }], read).map(|_| ())
}
