//! A model directory's weights, from one file or from shards.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::Deserialize;
use tch::Tensor;

use super::CheckpointError;
use super::file::{SafeFile, TensorInfo};
use super::pickled;
use crate::failure::FileError;

/// How a file is opened.
type Open = fn(&Path) -> Result<SafeFile, CheckpointError>;

/// A file with a whole model, or the index of one in parts, in the order in which they are looked for: as transformers does,
/// what is in safetensors first, since a folder of the hub's cache may have the same model in both forms.
const FORMS: [(&str, &str, Open); 2] = [
    ("model.safetensors", "model.safetensors.index.json", SafeFile::open),
    ("pytorch_model.bin", "pytorch_model.bin.index.json", pickled::open),
];

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// A model directory's weights.
#[derive(Debug)]
pub struct Checkpoint {
    directory: PathBuf,
    files: Vec<SafeFile>,
    /// Tensor name -> index in `files`; in the order of files, then of bytes.
    tensors: IndexMap<String, usize>,
}

impl Checkpoint {
    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` names; else `pytorch_model.bin`, or the
    /// shards that its index names.
    ///
    /// # Errors
    /// When there are none, a shard is missing, a header does not describe its file, or the index names a tensor that its
    /// shard lacks.
    pub fn open(directory: &Path) -> Result<Self, CheckpointError> {
        let lies_there = |name: &str| directory.join(name).exists();
        let form = FORMS.iter().find(|(whole, index, _)| lies_there(whole) || lies_there(index));
        let Some((whole, index, open)) = form else {
            return Err(CheckpointError::NoWeights { directory: directory.to_path_buf() });
        };
        if lies_there(whole) {
            let file = open(&directory.join(whole))?;
            let tensors = file.tensors().keys().map(|name| (name.clone(), 0)).collect();
            return Ok(Self { directory: directory.to_path_buf(), files: vec![file], tensors });
        }
        let path = directory.join(index);
        let text = std::fs::read_to_string(&path).map_err(FileError::of("read", &path))?;
        let index: Index = serde_json::from_str(&text)
            .map_err(|error| CheckpointError::Index { path: path.clone(), reason: error.to_string() })?;
        Self::parts(&path, &index.weight_map, *open)
    }

    /// Opens the safetensors files beside an index that says, by name of the tensor, in which of them it is.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn indexed(index: &Path, files: &BTreeMap<String, String>) -> Result<Self, CheckpointError> {
        Self::parts(index, files, SafeFile::open)
    }

    fn parts(path: &Path, weight_map: &BTreeMap<String, String>, open: Open) -> Result<Self, CheckpointError> {
        let directory = path.parent().unwrap_or(Path::new(""));
        let mut tensors = IndexMap::new();
        let fail = |reason: String| CheckpointError::Index { path: path.to_path_buf(), reason };
        let mut names: Vec<&String> = weight_map.values().collect();
        names.sort_unstable();
        names.dedup();
        let mut files = Vec::with_capacity(names.len());
        for (number, name) in names.into_iter().enumerate() {
            if Path::new(name).components().count() != 1 || name.starts_with('.') {
                return Err(fail(format!("shard {name:?} is not a file of this directory")));
            }
            if !directory.join(name).exists() {
                return Err(fail(format!("shard {name} is missing")));
            }
            let file = open(&directory.join(name))?;
            // What the index does not name, or names elsewhere, does not exist for a loader.
            let own = file.tensors().keys().filter(|tensor| weight_map.get(*tensor) == Some(name));
            tensors.extend(own.map(|tensor| (tensor.clone(), number)));
            files.push(file);
        }
        if let Some((tensor, shard)) = weight_map.iter().find(|(tensor, _)| !tensors.contains_key(*tensor)) {
            return Err(fail(format!("{tensor:?} should be in {shard} and is not")));
        }
        Ok(Self { directory: directory.to_path_buf(), files, tensors })
    }

    /// The model directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Tensor names, in the order of files and bytes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether a tensor is there.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Removes a tensor from what [`Self::names`] gives: it is in the file and not in the model.
    pub fn forget(&mut self, name: &str) {
        self.tensors.shift_remove(name);
    }

    /// Has the tensors of a file in place of those of their names; names that are not here stay away.
    pub fn replace(&mut self, file: SafeFile) {
        for (name, number) in &mut self.tensors {
            if file.tensors().contains_key(name) {
                *number = self.files.len();
            }
        }
        self.files.push(file);
    }

    /// Gives tensors other names; those without one are removed as by [`Self::forget`].
    pub fn rename(&mut self, new: impl Fn(&str) -> Option<String>) {
        let named = std::mem::take(&mut self.tensors).into_iter();
        self.tensors = named.filter_map(|(name, file)| Some((new(&name)?, file))).collect();
        for file in &mut self.files {
            file.rename(&new);
        }
    }

    /// The file that holds a tensor.
    ///
    /// # Errors
    /// When it is not there.
    pub fn file(&self, name: &str) -> Result<&SafeFile, CheckpointError> {
        let number = self
            .tensors
            .get(name)
            .ok_or_else(|| CheckpointError::Missing { place: self.directory.clone(), name: name.to_owned() })?;
        Ok(&self.files[*number])
    }

    /// Type and shape of a tensor.
    ///
    /// # Errors
    /// When it is not there.
    pub fn info(&self, name: &str) -> Result<&TensorInfo, CheckpointError> {
        self.file(name)?.info(name)
    }

    /// A copy of one tensor, in its stored type, on the CPU.
    ///
    /// # Errors
    /// When it is not there or of a type that is not read.
    pub fn load(&self, name: &str) -> Result<Tensor, CheckpointError> {
        self.file(name)?.load(name)
    }

    /// A copy of one tensor whose shape must be this one.
    ///
    /// # Errors
    /// As [`Self::load`], and when its shape is another.
    pub fn load_shaped(&self, name: &str, expected: &[usize]) -> Result<Tensor, CheckpointError> {
        let found = &self.info(name)?.shape;
        if found != expected {
            return Err(CheckpointError::Shape {
                place: self.directory.clone(),
                name: name.to_owned(),
                found: found.clone(),
                expected: expected.to_vec(),
            });
        }
        self.load(name)
    }

    /// A copy of the elements `range` of one tensor laid flat, in its stored type, on the CPU.
    ///
    /// # Errors
    /// When it is not there or of a type that is not read.
    pub fn load_range(&self, name: &str, range: Range<usize>) -> Result<Tensor, CheckpointError> {
        self.file(name)?.load_range(name, range)
    }
}
