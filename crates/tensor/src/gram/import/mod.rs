//! Gram matrices that were made elsewhere, as an artifact of our form.
//!
//! From a pickle of whole matrices, from a directory of whole matrices (what [`super::export`] writes), or from an artifact.
//! Files are mapped; of a whole matrix a few tiles per worker are in memory at a time. Every matrix is checked: square,
//! finite, symmetric up to rounding ([`full`]), and no number on its diagonal below zero. Of each pair of elements the upper
//! one is kept, as in a capture.
//!
//! Modules that read one input have equal matrices in a pickle of whole ones. Those of a layer are compared, and what is
//! equal to the bit is stored once, so that a merge solves their systems together; what differs stays apart. Names stay as
//! they are: a merge, which knows the models, matches them ([`super::names`]).

pub mod error;
mod full;
mod layers;
mod tiled;

use std::path::Path;

use indexmap::IndexMap;
use mergelab_wire::{GramFiles, ImportGramsJob};
use serde::{Deserialize, Serialize};

use super::error::GramError;
use super::index::FORMAT;
use crate::checkpoint::{SafeFile, pickled};
use crate::failure::FileError;
use crate::parallel::Pool;
use crate::report::Reporter;
use error::ImportError;
use full::Full;

/// Bytes of an `index.json`, at most.
const LARGEST_INDEX: u64 = 256 << 20;

/// The contents of an `index.json` of whole matrices: `{ format, matrices: { NAME: { file, tensor, n, width } } }`, with
/// `transposed` and `without` as in an artifact's.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FullIndex {
    /// [`FORMAT`].
    pub(super) format: u32,
    /// Module name -> matrix.
    pub(super) matrices: IndexMap<String, FullEntry>,
    /// As in an artifact's index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) without: Option<IndexMap<String, String>>,
}

/// Where one module's matrix lies.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct FullEntry {
    /// File beside the index.
    pub(super) file: String,
    /// Tensor in it, `[width, width]`.
    pub(super) tensor: String,
    /// Tokens it is the mean over; absent where that is not known.
    pub(super) n: Option<u64>,
    /// Rows and columns.
    pub(super) width: usize,
    /// Whether the module's weight is stored `[in, out]`, and not `[out, in]`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) transposed: bool,
}

/// Writes the artifact of what a job names.
///
/// # Errors
/// When a file cannot be read, or what it holds are not Gram matrices.
pub fn run(job: &ImportGramsJob, out: &Path, pool: Pool, reporter: &Reporter) -> Result<(), GramError> {
    match &job.from {
        GramFiles::Pickle(path) => {
            let file = pickled::open(path)?;
            let whole =
                file.tensors().keys().map(|name| Full::of_pickle(&file, name)).collect::<Result<Vec<_>, _>>()?;
            layers::write((path, &whole), None, out, pool, reporter)
        }
        GramFiles::Directory(directory) => {
            let path = directory.join("index.json");
            let index = read_index(&path)?;
            let fail = |reason: String| GramError::from(ImportError::Index { path: path.clone(), reason });
            let shape: Shape = serde_json::from_slice(&index).map_err(|error| fail(error.to_string()))?;
            if shape.format != FORMAT {
                return Err(fail(format!("Gram format {}, this program reads {FORMAT}", shape.format)));
            }
            if shape.modules.is_some() {
                return tiled::copy(directory, &index, out, pool, reporter);
            }
            let index: FullIndex = serde_json::from_slice(&index).map_err(|error| fail(error.to_string()))?;
            let files = open_all(directory, &index).map_err(|error| match error {
                Opening::Name(reason) => fail(reason),
                Opening::File(error) => error,
            })?;
            let full = |(module, entry): (&String, &FullEntry)| Full::of_index(&files[&entry.file], module, entry);
            let whole = index.matrices.iter().map(full).collect::<Result<Vec<_>, _>>()?;
            layers::write((&path, &whole), index.without.clone(), out, pool, reporter)
        }
    }
}

/// Which of the two forms an index has.
#[derive(Deserialize)]
struct Shape {
    format: u32,
    modules: Option<serde::de::IgnoredAny>,
}

enum Opening {
    Name(String),
    File(GramError),
}

fn open_all(directory: &Path, index: &FullIndex) -> Result<IndexMap<String, SafeFile>, Opening> {
    let mut files = IndexMap::new();
    for (module, entry) in &index.matrices {
        if !is_beside(&entry.file) {
            return Err(Opening::Name(format!("{module}: {:?} is no safetensors file beside the index", entry.file)));
        }
        if !files.contains_key(&entry.file) {
            let file = SafeFile::open(&directory.join(&entry.file)).map_err(|error| Opening::File(error.into()))?;
            files.insert(entry.file.clone(), file);
        }
    }
    Ok(files)
}

/// Whether a name is that of a safetensors file in the directory itself.
fn is_beside(file: &str) -> bool {
    Path::new(file).file_name().is_some_and(|name| name == file) && file.ends_with(".safetensors")
}

fn read_index(path: &Path) -> Result<Vec<u8>, GramError> {
    let size = std::fs::metadata(path).map_err(FileError::of("read", path))?.len();
    if size > LARGEST_INDEX {
        let reason = format!("{size} bytes are more than an index has");
        return Err(ImportError::Index { path: path.to_path_buf(), reason }.into());
    }
    Ok(std::fs::read(path).map_err(FileError::of("read", path))?)
}
