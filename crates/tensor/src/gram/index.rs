//! The Gram artifact: `index.json`, and one safetensors file per layer.
//!
//! `index.json` is `{ format, modules: { NAME: { file, tensor, n, width, tile } } }`: for each linear module, by its full
//! name, where its Gram lies and how it is cut ([`super::tiles`]). Modules that read the same input name the same tensor.
//! The matrices are means over the `n` tokens. A part of a data set that gives no tokens has no modules.
//!
//! Format history: 1, the first.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::error::GramError;
use super::tiles::{Tiling, unpack};
use crate::checkpoint::SafeFile;
use crate::failure::FileError;

/// Version of the artifact's layout.
pub const FORMAT: u32 = 1;

/// Where one module's Gram lies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GramEntry {
    /// File beside the index.
    pub file: String,
    /// Tensor in it, `[tiles, tile, tile]`.
    pub tensor: String,
    /// Tokens it is the mean over; absent where that is not known (imported).
    pub n: Option<u64>,
    /// Rows and columns.
    pub width: usize,
    /// Rows and columns of a tile.
    pub tile: usize,
}

/// The contents of `index.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct GramIndex {
    /// [`FORMAT`].
    pub format: u32,
    /// Module name -> Gram.
    pub modules: IndexMap<String, GramEntry>,
}

/// A Gram artifact, open for reading.
#[derive(Debug)]
pub struct GramSet {
    directory: PathBuf,
    index: GramIndex,
    files: IndexMap<String, SafeFile>,
}

impl GramIndex {
    /// Writes `index.json`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, directory: &Path) -> Result<(), FileError> {
        let path = directory.join("index.json");
        let text = serde_json::to_string_pretty(self).expect("names and numbers have a JSON form");
        std::fs::write(&path, text + "\n").map_err(FileError::of("write", &path))
    }
}

impl GramSet {
    /// Opens an artifact and checks that every Gram is where the index says, in the shape it says.
    ///
    /// # Errors
    /// When the index or a file cannot be read, is of another format, or they do not fit.
    pub fn open(directory: &Path) -> Result<Self, GramError> {
        let path = directory.join("index.json");
        let fail = |reason: String| GramError::Index { path: path.clone(), reason };
        let text = std::fs::read_to_string(&path).map_err(FileError::of("read", &path))?;
        let index: GramIndex = serde_json::from_str(&text).map_err(|error| fail(error.to_string()))?;
        if index.format != FORMAT {
            return Err(fail(format!("Gram format {}, this program reads {FORMAT}", index.format)));
        }
        let mut files = IndexMap::new();
        for (module, entry) in &index.modules {
            if Path::new(&entry.file).components().count() != 1 {
                return Err(fail(format!("{module}: file {:?} is not beside the index", entry.file)));
            }
            if !files.contains_key(&entry.file) {
                files.insert(entry.file.clone(), SafeFile::open(&directory.join(&entry.file))?);
            }
            let tiling = entry.tiling();
            let expected = [tiling.tiles(), entry.tile, entry.tile];
            let info = files[&entry.file].info(&entry.tensor)?;
            if info.shape != expected || info.dtype != safetensors::Dtype::F32 {
                return Err(fail(format!(
                    "{module}: {:?} {:?} in {}, not F32 {expected:?}",
                    info.dtype, info.shape, entry.file
                )));
            }
        }
        Ok(Self { directory: directory.to_path_buf(), index, files })
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where a module's Gram lies, if it has one.
    pub fn entry(&self, module: &str) -> Option<&GramEntry> {
        self.index.modules.get(module)
    }

    /// Names of the modules that have one.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.index.modules.keys().map(String::as_str)
    }

    /// The full matrix `[width, width]`, fp32, on the CPU.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn matrix(&self, entry: &GramEntry) -> Result<Tensor, GramError> {
        let tiles = self.file(entry)?.load(&entry.tensor)?;
        unpack(entry.tiling(), &tiles).map_err(GramError::torch(format!("tiles of {}", entry.tensor)))
    }

    /// One of its tiles, laid flat: `[tile · tile]`, fp32, on the CPU.
    ///
    /// # Errors
    /// When it cannot be read.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn tile(&self, entry: &GramEntry, index: usize) -> Result<Tensor, GramError> {
        let size = entry.tile * entry.tile;
        Ok(self.file(entry)?.load_range(&entry.tensor, index * size..(index + 1) * size)?)
    }

    fn file(&self, entry: &GramEntry) -> Result<&SafeFile, GramError> {
        self.files.get(&entry.file).ok_or_else(|| GramError::Index {
            path: self.directory.join("index.json"),
            reason: format!("{} is not of this artifact", entry.file),
        })
    }
}

impl GramEntry {
    /// How it is cut.
    pub fn tiling(&self) -> Tiling {
        Tiling { width: self.width, tile: self.tile.max(1) }
    }
}
