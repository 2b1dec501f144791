//! The only part of the report that touches files.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use super::columns::CsvError;
use super::measurement::{Measurement, Metric, MetricsError, Source};
use super::paired::{self, Paired};
use super::{Change, Errors, METRICS, RESULTS, State, measurement, published, results};
use crate::experiment::{Elsewhere, Section, Table};

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system says no.
    #[error("{}: cannot {what}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What was to be done with it.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// Not UTF-8.
    #[error("{}:{line}: not UTF-8; save the file in that encoding", file.display())]
    NotText {
        /// The file.
        file: PathBuf,
        /// The first line that is not.
        line: usize,
    },
    /// A file that its owner protects.
    #[error("{}: is read-only; make it writable (`chmod u+w`) to have it updated", file.display())]
    ReadOnly {
        /// The file.
        file: PathBuf,
    },
    /// Results of another experiment that a table shows, which are not there.
    #[error("{}: there are no results of {} yet, and table `{table}` shows models of it", file.display(), experiment.display())]
    NoResults {
        /// Where they belong.
        file: PathBuf,
        /// The file of the other experiment.
        experiment: PathBuf,
        /// The table.
        table: String,
    },
    /// A CSV file that is wrong.
    #[error(transparent)]
    Csv(#[from] Errors<CsvError>),
    /// A `metrics.json` that is wrong.
    #[error(transparent)]
    Metrics(#[from] Errors<MetricsError>),
}

impl FileError {
    /// The way out, where the message does not name it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoResults { experiment, .. } => {
                Some(format!("run it first: `mergelab run {}`", experiment.display()))
            }
            _ => None,
        }
    }
}

fn failed(file: &Path, what: &'static str) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::Io { file: file.to_owned(), what, source }
}

/// The bytes of a file, `None` if it is not there.
///
/// # Errors
/// When it is there and cannot be read.
pub fn read(file: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(file, "read it")(error)),
    }
}

/// Bytes as text.
///
/// # Errors
/// When they are not UTF-8, with the line.
pub(super) fn text(bytes: Vec<u8>, file: &Path) -> Result<String, FileError> {
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        FileError::NotText { file: file.to_owned(), line: 1 + String::from_utf8_lossy(good).matches('\n').count() }
    })
}

fn read_text(file: &Path) -> Result<String, FileError> {
    text(fs::read(file).map_err(failed(file, "read it"))?, file)
}

/// The entries of an evaluation's `metrics.json`.
///
/// # Errors
/// When it cannot be read or is wrong.
pub fn metrics(file: &Path) -> Result<Vec<Metric>, FileError> {
    Ok(measurement::parse_metrics(&read_text(file)?, file)?)
}

/// The published figures that tables name, by the path in the table; `root` is the project's.
///
/// # Errors
/// The first file that cannot be read or is wrong.
pub fn published(root: &Path, tables: &Section<Table>) -> Result<IndexMap<PathBuf, Vec<Measurement>>, FileError> {
    let mut all = IndexMap::new();
    for path in tables.values().filter_map(|table| table.published.as_ref()) {
        if !all.contains_key(path) {
            let file = root.join(path);
            all.insert(path.clone(), published::from_csv(&read_text(&file)?, path)?);
        }
    }
    Ok(all)
}

/// The measured figures in `results/<experiment>/` under the project's root, so that tables can be made without a store;
/// `None` if there are no results yet.
///
/// # Errors
/// When a file there cannot be read or is wrong.
pub fn measured(root: &Path, experiment: &str) -> Result<Option<Vec<Measurement>>, FileError> {
    let folder = super::folder(experiment);
    let file = folder.join(RESULTS);
    let Some(bytes) = read(&root.join(&file))? else { return Ok(None) };
    let mut figures = results::from_csv(&text(bytes, &file)?, &file)?;
    figures.retain(|figure| figure.source == Source::Measured);
    let file = folder.join(METRICS);
    if let Some(bytes) = read(&root.join(&file))? {
        results::add_directions(&mut figures, &text(bytes, &file)?, &file)?;
    }
    Ok(Some(figures))
}

/// All figures of a file like `results.csv`; with the directions of the `metrics.csv` beside it, where it has that name.
///
/// # Errors
/// When one cannot be read or is wrong.
pub fn results(file: &Path) -> Result<Vec<Measurement>, FileError> {
    let mut figures = results::from_csv(&read_text(file)?, file)?;
    // Beside a file of another name one of this name may be anything.
    let beside = file.with_file_name("metrics.csv");
    if file.ends_with("results.csv")
        && let Some(bytes) = read(&beside)?
    {
        results::add_directions(&mut figures, &text(bytes, &beside)?, &beside)?;
    }
    Ok(figures)
}

/// The measured figures of the other experiments that tables show models of, each under the name that its model has there:
/// what `results/` keeps of them. `root` is the project's.
///
/// # Errors
/// The first experiment that has no results, or a file that cannot be read or is wrong.
pub fn others(root: &Path, tables: &Section<Table>) -> Result<Vec<Measurement>, FileError> {
    let mut figures = Vec::new();
    let mut read: Vec<&Elsewhere> = Vec::new();
    for (table, other) in
        tables.iter().flat_map(|(name, table)| table.others().into_iter().map(move |other| (name, other)))
    {
        if read.contains(&other) {
            continue;
        }
        read.push(other);
        let found = measured(root, &other.experiment)?.ok_or_else(|| FileError::NoResults {
            file: super::folder(&other.experiment).join(RESULTS),
            experiment: other.file.clone(),
            table: table.clone(),
        })?;
        figures.extend(found.into_iter().map(|figure| Measurement { model: other.outside(&figure.model), ..figure }));
    }
    Ok(figures)
}

/// What `results/<experiment>/` under the project's root says that tests found; nothing if there is no such file.
///
/// # Errors
/// When it cannot be read or is wrong.
pub fn paired(root: &Path, experiment: &str) -> Result<Vec<Paired>, FileError> {
    found(root, &super::folder(experiment))
}

/// What `folder` under `root` says that tests found; nothing if there is no such file.
///
/// # Errors
/// When it cannot be read or is wrong.
pub fn found(root: &Path, folder: &Path) -> Result<Vec<Paired>, FileError> {
    let file = folder.join(super::PAIRED);
    let Some(bytes) = read(&root.join(&file))? else { return Ok(Vec::new()) };
    Ok(paired::from_csv(&text(bytes, &file)?, &file)?)
}

/// Writes what changed, each file by rename; leaves the others alone. Paths are relative to `root`.
///
/// # Errors
/// The first file that cannot be written; those before it are.
pub fn write(root: &Path, changes: &[Change]) -> Result<(), FileError> {
    changes.iter().filter(|change| change.state != State::Same).try_for_each(|change| {
        let file = root.join(&change.path);
        replace(&file, &change.bytes)
    })
}

/// Replaces a file by rename and keeps its permissions. A link stays a link: what it leads to is replaced. A file whose
/// bytes are the same already keeps also its times.
///
/// # Errors
/// When it is read-only (a rename would not mind), or the system says no.
pub fn replace(file: &Path, bytes: &[u8]) -> Result<(), FileError> {
    if read(file)?.is_some_and(|old| old == bytes) {
        return Ok(());
    }
    let target = match fs::canonicalize(file) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => file.to_owned(),
        Err(error) => return Err(failed(file, "find it")(error)),
    };
    let permissions = fs::metadata(&target).map(|metadata| metadata.permissions()).ok();
    if permissions.as_ref().is_some_and(fs::Permissions::readonly) {
        return Err(FileError::ReadOnly { file: file.to_owned() });
    }
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed(folder, "make the folder"))?;
    // A new file gets what the umask leaves of 0666, as any program's does; tempfile alone would give 0600.
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(".mergelab-").permissions(fs::Permissions::from_mode(0o666));
    let mut new = builder.tempfile_in(folder).map_err(failed(file, "write beside it"))?;
    let written =
        new.write_all(bytes).and_then(|()| permissions.map_or(Ok(()), |as_old| new.as_file().set_permissions(as_old)));
    written.and_then(|()| new.as_file().sync_all()).map_err(failed(file, "write it"))?;
    new.persist(&target).map_err(|error| failed(file, "replace it")(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_the_same_bytes_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.md");
        fs::write(&file, "a").unwrap();
        let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        fs::File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
        replace(&file, b"a").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), long_ago);
        replace(&file, b"b").unwrap();
        assert_ne!(fs::metadata(&file).unwrap().modified().unwrap(), long_ago);
    }

    #[test]
    fn permissions_and_links_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a.md"), folder.path().join("link.md"));
        fs::write(&file, "a").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, b"b").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"b");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn a_new_file_gets_its_folders_and_the_usual_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("results/x/table.md");
        replace(&file, b"b").unwrap();
        let usual = folder.path().join("usual");
        fs::write(&usual, "").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions(), fs::metadata(&usual).unwrap().permissions());
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_read_only_file_is_refused_unless_it_is_right_already() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.md");
        fs::write(&file, "a").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
        replace(&file, b"a").unwrap();
        assert!(matches!(replace(&file, b"b"), Err(FileError::ReadOnly { .. })));
        assert_eq!(fs::read(&file).unwrap(), b"a");
    }

    #[test]
    fn a_file_that_is_no_text_is_named_with_its_line() {
        let error = text(b"a\nb\xff\n".to_vec(), Path::new("README.md")).unwrap_err();
        assert_eq!(error.to_string(), "README.md:2: not UTF-8; save the file in that encoding");
    }
}
