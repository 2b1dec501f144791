//! How an error of any module becomes what the orchestrator shows: a message, a hint and whose fault it is.

use std::path::{Path, PathBuf};
use std::{error, fmt, io};

use mergelab_wire::{Fault, exit};

/// What every error of this crate can say about itself, beside its message.
pub trait Diagnosis: error::Error {
    /// Whose fault it is; decides the exit code.
    fn fault(&self) -> Fault;

    /// What to do about it.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// An error as the orchestrator receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// One sentence that names file, place and values.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whose fault it is.
    pub fault: Fault,
}

impl Failure {
    /// The exit code that goes with it.
    pub fn exit_code(&self) -> u8 {
        match self.fault {
            Fault::Experiment => exit::EXPERIMENT,
            Fault::Stage => exit::FAILED,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl<E: Diagnosis> From<E> for Failure {
    fn from(error: E) -> Self {
        // libtorch appends its C++ stack to what it says; that is for its authors.
        let text = error.to_string();
        let message = text.split("\nException raised from").next().unwrap_or(&text).trim_end().to_owned();
        Self { message, hint: error.hint(), fault: error.fault() }
    }
}

/// A file that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct FileError {
    /// `read`, `write`, `create`, …
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`: what was tried, on which file.
    pub fn of(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { action, path: path.to_path_buf(), source }
    }
}

impl Diagnosis for FileError {
    fn fault(&self) -> Fault {
        // A file that the experiment names and that is not there is the experiment's fault; a full disk is not.
        match (self.action, self.source.kind()) {
            ("read", io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => Fault::Experiment,
            _ => Fault::Stage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Some("the disk is full: free some space and run again".to_owned())
            }
            io::ErrorKind::PermissionDenied => {
                Some("check the permissions of the file and of its directory".to_owned())
            }
            _ => None,
        }
    }
}

impl Diagnosis for tch::TchError {
    fn fault(&self) -> Fault {
        Fault::Stage
    }

    fn hint(&self) -> Option<String> {
        let text = self.to_string();
        (text.contains("out of memory") || text.contains("not enough memory"))
            .then(|| "run fewer programs side by side (`--jobs 1`), or run on a machine with more memory".to_owned())
    }
}
