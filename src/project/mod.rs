//! The project that an experiment file belongs to: its root, its settings, the programs that it uses.

pub mod git;
pub mod lock_file;
mod python;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use python::Python;

/// A project on disk.
#[derive(Clone, Debug)]
pub struct Project {
    /// Directory to which paths in experiment files are relative; absolute.
    pub root: PathBuf,
    /// `mergelab.toml`.
    pub config: Config,
}

/// `mergelab.toml`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `[store]`.
    pub store: StoreConfig,
    /// `[python]`.
    pub python: PythonConfig,
    /// `[executor]`: read by executors other than the local one.
    pub executor: toml::Table,
}

/// `[store]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Where artifacts are kept; `.mergelab` if absent.
    pub path: Option<PathBuf>,
    /// `s3://…` or a directory.
    pub remote: Option<String>,
}

/// `[python]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PythonConfig {
    /// An interpreter, or a virtual environment's directory.
    pub path: Option<PathBuf>,
}

/// A project that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// `mergelab.toml` is there and cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// `mergelab.toml` is wrong.
    #[error("{}: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
}

impl Project {
    /// The project around a directory: the nearest parent with a `mergelab.toml` or a `.git`, else the working directory.
    ///
    /// # Errors
    /// When `mergelab.toml` cannot be read or is wrong.
    pub fn find(directory: &Path) -> Result<Self, ProjectError> {
        let absolute = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let directory = absolute(if directory.as_os_str().is_empty() { Path::new(".") } else { directory });
        let is_root = |dir: &&Path| dir.join("mergelab.toml").is_file() || dir.join(".git").exists();
        let root = directory.ancestors().find(is_root).map_or_else(|| absolute(Path::new(".")), Path::to_path_buf);
        let path = root.join("mergelab.toml");
        let config = match std::fs::read_to_string(&path) {
            Ok(text) => {
                toml::from_str(&text).map_err(|source| ProjectError::Config { path, source: Box::new(source) })?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Config::default(),
            Err(source) => return Err(ProjectError::Read { path, source }),
        };
        Ok(Self { root, config })
    }

    /// Where artifacts are kept.
    pub fn store_path(&self) -> PathBuf {
        self.root.join(self.config.store.path.as_deref().unwrap_or(Path::new(".mergelab")))
    }

    /// The Python that evaluations and commands use: `[python] path`, else `VIRTUAL_ENV`, else the project's `.venv`,
    /// else the one that libtorch lies in.
    pub fn python(&self) -> Option<Python> {
        let configured = self.config.python.path.as_ref().map(|path| self.root.join(path));
        if let Some(path) = configured {
            return Python::at(&path);
        }
        let candidates = [
            std::env::var_os("VIRTUAL_ENV").map(PathBuf::from),
            Some(self.root.join(".venv")),
            // .venv/lib/python3.11/site-packages/torch
            std::env::var_os("LIBTORCH").and_then(|torch| Path::new(&torch).ancestors().nth(4).map(Path::to_path_buf)),
        ];
        candidates.into_iter().flatten().find_map(|path| Python::at(&path))
    }

    /// The tensor program: beside this one, else `MERGELAB_TENSOR`, else on the path.
    pub fn tensor_program(&self) -> Option<PathBuf> {
        let name = "mergelab-tensor";
        let beside = std::env::current_exe().ok().and_then(|own| own.parent().map(|dir| dir.join(name)));
        let named = std::env::var_os("MERGELAB_TENSOR").map(PathBuf::from);
        let on_path = std::env::var_os("PATH").map(|path| find_on_path(&path, name));
        [beside, named, on_path.flatten()].into_iter().flatten().find(|path| path.is_file())
    }

    /// A path of an experiment file, absolute.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }
}

fn find_on_path(path: &OsStr, name: &str) -> Option<PathBuf> {
    std::env::split_paths(path).map(|dir| dir.join(name)).find(|path| path.is_file())
}
