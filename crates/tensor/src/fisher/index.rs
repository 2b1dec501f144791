//! `fisher.json`: which file holds the Fisher information of which parameter.
//!
//! ```text
//! fisher.json              { format, labels, sequences, tokens, log_likelihood, norm, tensors: { NAME: { file, sum } } }
//! embedding.safetensors    the embedding
//! layer-00000.safetensors  one a decoder layer
//! output.safetensors       the final norm, and the output projection where it is not the embedding
//! ```
//!
//! Tensors are fp32, under the names and in the shapes of the checkpoint.
//!
//! Format history: 1, the first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use mergelab_wire::Labels;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::error::FisherError;
use crate::checkpoint::Checkpoint;
use crate::failure::FileError;

/// Version of the layout.
const FORMAT: u32 = 1;

/// The index's name.
const NAME: &str = "fisher.json";

/// What lies in the artifact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FisherIndex {
    /// Version of the layout.
    pub format: u32,
    /// Whose next tokens the likelihood is of.
    pub labels: Labels,
    /// Sequences that had a part in it.
    pub sequences: usize,
    /// Tokens that counted: what the sums of squares were divided by.
    pub tokens: usize,
    /// Mean over these tokens of `log p`.
    pub log_likelihood: f64,
    /// `‖F‖`: the root of the sum of squares over all parameters.
    pub norm: f64,
    /// Parameters, in the order in which a model comes to them.
    pub tensors: IndexMap<String, FisherEntry>,
}

/// Where the Fisher information of one parameter lies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FisherEntry {
    /// File beside the index.
    pub file: String,
    /// Sum over its elements.
    pub sum: f64,
}

impl FisherIndex {
    /// An index of the current format.
    pub(super) fn new(labels: Labels, sequences: usize, tokens: usize) -> Self {
        let tensors = IndexMap::new();
        Self { format: FORMAT, labels, sequences, tokens, log_likelihood: 0.0, norm: 0.0, tensors }
    }

    /// Writes it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(&self, directory: &Path) -> Result<(), FileError> {
        let path = directory.join(NAME);
        let text = serde_json::to_string_pretty(self).expect("finite numbers and names");
        std::fs::write(&path, text + "\n").map_err(FileError::of("write", &path))
    }
}

/// An open artifact.
#[derive(Debug)]
pub struct FisherSet {
    /// Its directory.
    pub directory: PathBuf,
    /// What lies in it.
    pub index: FisherIndex,
    /// Its tensors.
    pub tensors: Checkpoint,
}

impl FisherSet {
    /// Opens an artifact.
    ///
    /// # Errors
    /// When it cannot be read, is of another format, or a tensor is missing or not of fp32.
    pub fn open(directory: &Path) -> Result<Self, FisherError> {
        let path = directory.join(NAME);
        let fail = |reason: String| FisherError::Index { path: path.clone(), reason };
        let text = std::fs::read_to_string(&path).map_err(FileError::of("read", &path))?;
        let index: FisherIndex = serde_json::from_str(&text).map_err(|error| fail(error.to_string()))?;
        if index.format != FORMAT {
            return Err(fail(format!("Fisher format {}, this program reads {FORMAT}", index.format)));
        }
        let files: BTreeMap<String, String> =
            index.tensors.iter().map(|(name, entry)| (name.clone(), entry.file.clone())).collect();
        let tensors = Checkpoint::indexed(&path, &files)?;
        for name in index.tensors.keys() {
            let dtype = tensors.info(name)?.dtype;
            if dtype != Dtype::F32 {
                return Err(fail(format!("{name} is {dtype}, not F32")));
            }
        }
        Ok(Self { directory: directory.to_path_buf(), index, tensors })
    }
}
