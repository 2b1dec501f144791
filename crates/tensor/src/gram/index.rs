//! The Gram artifact: `index.json`, and one safetensors file per layer.
//!
//! `index.json` is `{ format, modules: { NAME: { file, tensor, n, width, tile } } }`: for each linear module, by its full
//! name, where its Gram lies and how it is cut ([`super::tiles`]). Modules that read the same input name the same tensor.
//! The matrices are means over the `n` tokens; a part of a data set that gives no tokens has no modules. A module whose
//! weight is stored `[in, out]` (GPT-2's `Conv1D`) is marked `transposed`. Where the engine saw the whole model,
//! `without: { TENSOR: REASON }` names every other matrix of the checkpoint that is, or may be, a linear layer's: what is
//! in neither list is not one.
//!
//! Format history: 1, the first.

use std::ops::Range;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, TchError, Tensor};

use super::error::GramError;
use super::tiles::Tiling;
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
    /// Whether the module's weight is stored `[in, out]`, and not `[out, in]`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub transposed: bool,
}

/// The contents of `index.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct GramIndex {
    /// [`FORMAT`].
    pub format: u32,
    /// Module name -> Gram.
    pub modules: IndexMap<String, GramEntry>,
    /// Tensor name -> why it has no Gram, of all matrices that are or may be linear layers' weights; absent where the
    /// model was not looked at so (the native engine, whose families are known, and imported Grams).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without: Option<IndexMap<String, String>>,
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

    /// Whether a tensor is a linear layer's weight, for all that the artifact says: `None` where it does not say.
    pub fn is_linear(&self, tensor: &str) -> Option<bool> {
        let without = self.index.without.as_ref()?;
        let module = tensor.strip_suffix(".weight");
        Some(without.contains_key(tensor) || module.is_some_and(|module| self.index.modules.contains_key(module)))
    }

    /// Why a linear layer's weight has no Gram, where the artifact says so.
    pub fn why_without(&self, tensor: &str) -> Option<&str> {
        self.index.without.as_ref()?.get(tensor).map(String::as_str)
    }

    /// Tensors that are or may be linear layers' weights and have no Gram, with the reason; `None` where the artifact does
    /// not say.
    pub fn without(&self) -> Option<&IndexMap<String, String>> {
        self.index.without.as_ref()
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
        self.part(entry, 0..entry.width, 0..entry.width)
    }

    /// The rectangle `[rows, columns]` of a matrix, fp32, on the CPU; only the tiles that reach into it are read.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn part(&self, entry: &GramEntry, rows: Range<usize>, columns: Range<usize>) -> Result<Tensor, GramError> {
        let fail = || GramError::torch(format!("tiles of {}", entry.tensor));
        let tiling = entry.tiling();
        let part = Tensor::f_empty([rows.len() as i64, columns.len() as i64], (Kind::Float, Device::Cpu));
        let part = part.map_err(fail())?;
        for i in tiling.touching(&rows) {
            for j in tiling.touching(&columns) {
                // The lower triangle is the upper one's mirror.
                let tile = self.tile(entry, i.min(j), i.max(j))?;
                let copy = || -> Result<(), TchError> {
                    let tile = if i <= j { tile.shallow_clone() } else { tile.f_tr()? };
                    let (here, there) = (overlap(&tiling.rows(i), &rows), overlap(&tiling.rows(j), &columns));
                    let cut = |x: &Tensor, axis, range: &Range<usize>, origin: usize| {
                        x.f_narrow(axis, (range.start - origin) as i64, range.len() as i64)
                    };
                    let tile = cut(&cut(&tile, 0, &here, i * tiling.tile)?, 1, &there, j * tiling.tile)?;
                    cut(&cut(&part, 0, &here, rows.start)?, 1, &there, columns.start)?.f_copy_(&tile)
                };
                copy().map_err(fail())?;
            }
        }
        Ok(part)
    }

    /// The diagonal `[width]`, fp32, on the CPU.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn diagonal(&self, entry: &GramEntry) -> Result<Tensor, GramError> {
        let fail = || GramError::torch(format!("tiles of {}", entry.tensor));
        let blocks = (0..entry.tiling().blocks())
            .map(|block| self.tile(entry, block, block)?.f_diagonal(0, 0, 1).map_err(fail()));
        let blocks = blocks.collect::<Result<Vec<_>, _>>()?;
        Tensor::f_cat(&blocks, 0).and_then(|all| all.f_narrow(0, 0, entry.width as i64)).map_err(fail())
    }

    /// A tile by its place in the file, laid flat: `[tile · tile]`, fp32, on the CPU.
    ///
    /// # Errors
    /// When it cannot be read.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn tile_at(&self, entry: &GramEntry, index: usize) -> Result<Tensor, GramError> {
        let file = self.files.get(&entry.file).ok_or_else(|| GramError::Index {
            path: self.directory.join("index.json"),
            reason: format!("{} is not of this artifact", entry.file),
        })?;
        let size = entry.tile * entry.tile;
        Ok(file.load_range(&entry.tensor, index * size..(index + 1) * size)?)
    }

    /// The tile `(i, j)` of the upper triangle, `[tile, tile]`.
    fn tile(&self, entry: &GramEntry, i: usize, j: usize) -> Result<Tensor, GramError> {
        let side = entry.tile as i64;
        let tile = self.tile_at(entry, entry.tiling().first(i) + j - i)?;
        tile.f_view([side, side]).map_err(GramError::torch(format!("tiles of {}", entry.tensor)))
    }
}

/// One Gram of an artifact.
#[derive(Clone, Copy, Debug)]
pub struct Gram<'a> {
    /// The artifact.
    pub set: &'a GramSet,
    /// Where in it.
    pub entry: &'a GramEntry,
}

impl Gram<'_> {
    /// Rows and columns.
    pub fn width(self) -> usize {
        self.entry.width
    }

    /// [`GramSet::matrix`].
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn matrix(self) -> Result<Tensor, GramError> {
        self.set.matrix(self.entry)
    }

    /// [`GramSet::part`].
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn part(self, rows: Range<usize>, columns: Range<usize>) -> Result<Tensor, GramError> {
        self.set.part(self.entry, rows, columns)
    }

    /// [`GramSet::diagonal`].
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn diagonal(self) -> Result<Tensor, GramError> {
        self.set.diagonal(self.entry)
    }
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    a.start.max(b.start)..a.end.min(b.end)
}

impl GramEntry {
    /// How it is cut.
    pub fn tiling(&self) -> Tiling {
        Tiling { width: self.width, tile: self.tile.max(1) }
    }
}
