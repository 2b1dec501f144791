//! Errors of the command line, and the one place where they become exit codes.

use std::io::IsTerminal;

use mergelab_wire::exit;

use crate::experiment::{Diagnostics, LoadError};
use crate::plan::{GraphError, WAY_OUT};
use crate::project::ProjectError;
use crate::report::{Errors, FileError, ReportError};
use crate::store::StoreError;

/// Why a command cannot do what it was asked.
#[derive(Debug)]
pub enum CliError {
    /// Flags, files or stages that are not there.
    Usage(String),
    /// Experiment files that are wrong, each with all of its errors.
    Experiment(Vec<Diagnostics>),
    /// Something the experiment names is wrong.
    Source {
        /// What.
        message: String,
        /// The way out.
        hint: Option<String>,
    },
    /// A project that cannot be used.
    Project(ProjectError),
    /// The store cannot be used.
    Store(StoreError),
    /// Something in the store is not what it was, or a lock file does not agree.
    Damaged {
        /// What.
        message: String,
        /// The way out.
        hint: String,
    },
    /// Something that is needed is not installed.
    Missing {
        /// What, for what, and where it was looked for.
        message: String,
    },
    /// What is asked for was not made yet, or is gone.
    NotThere {
        /// What.
        message: String,
        /// The way out.
        hint: String,
    },
    /// Anything else that could not be done.
    Failed(String),
}

impl CliError {
    /// The exit code that stands for it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Project(_) => exit::USAGE,
            Self::Experiment(_) | Self::Source { .. } => exit::EXPERIMENT,
            Self::Store(
                StoreError::TooNew { .. }
                | StoreError::LaterManifest { .. }
                | StoreError::NoFormat { .. }
                | StoreError::Manifest { .. },
            )
            | Self::Damaged { .. } => exit::DISAGREES,
            Self::Store(_) | Self::Failed(_) | Self::Missing { .. } | Self::NotThere { .. } => exit::FAILED,
        }
    }

    /// Prints it to standard error.
    pub fn print(&self) {
        let (message, hint) = match self {
            Self::Experiment(files) => {
                let texts: Vec<_> = files.iter().map(|file| file.render(colour_on_stderr())).collect();
                say!("{}", texts.join("\n\n"));
                return;
            }
            Self::Usage(message) | Self::Failed(message) => (message.clone(), None),
            Self::Missing { message } => {
                (message.clone(), Some(format!("{WAY_OUT}; --keep-going does what does not need it")))
            }
            Self::Source { message, hint } => (message.clone(), hint.clone()),
            Self::Damaged { message, hint } | Self::NotThere { message, hint } => (message.clone(), Some(hint.clone())),
            Self::Project(error) => (error.to_string(), None),
            Self::Store(error) => (
                error.to_string(),
                match error {
                    StoreError::TooNew { .. } | StoreError::LaterManifest { .. } => {
                        Some("use the mergelab that made it, or a newer one".to_owned())
                    }
                    StoreError::NoFormat { .. } => {
                        Some("is this a store? `[store] path` in mergelab.toml names it".to_owned())
                    }
                    StoreError::Full { .. } => Some("free some space; nothing was lost".to_owned()),
                    _ => None,
                },
            ),
        };
        say!("error: {message}");
        if let Some(hint) = hint {
            say!("hint: {hint}");
        }
    }
}

/// Whether messages may be coloured.
pub(super) fn colour_on_stderr() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ProjectError> for CliError {
    fn from(error: ProjectError) -> Self {
        Self::Project(error)
    }
}

impl From<GraphError> for CliError {
    fn from(error: GraphError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<LoadError> for CliError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Read { .. } => Self::Usage(error.to_string()),
            LoadError::Invalid(diagnostics) => Self::Experiment(vec![diagnostics]),
        }
    }
}

impl From<FileError> for CliError {
    fn from(error: FileError) -> Self {
        Self::Source { message: error.to_string(), hint: error.hint() }
    }
}

impl From<Errors<ReportError>> for CliError {
    fn from(errors: Errors<ReportError>) -> Self {
        let hint = errors.as_slice().iter().find_map(ReportError::hint);
        Self::Source { message: errors.to_string(), hint }
    }
}
