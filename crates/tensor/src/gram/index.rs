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
use super::names::{Mismatch, matched};
use super::tiles::{Tiling, WIDEST};
use crate::checkpoint::SafeFile;
use crate::failure::FileError;

/// Version of the artifact's layout.
pub const FORMAT: u32 = 1;

/// Rows and columns of a matrix, at most: far more than any layer has, and few enough that their products are numbers.
pub(super) const WIDEST_MATRIX: usize = 1 << 22;

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
            if !(1..=WIDEST_MATRIX).contains(&entry.width) || !(1..=WIDEST_MATRIX).contains(&entry.tile) {
                return Err(fail(format!("{module}: a matrix of width {} in tiles of {}", entry.width, entry.tile)));
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

    /// Takes over a model's names of its modules, where those of Grams that were made elsewhere differ by wrappers. Says
    /// whether there is a Gram of a head that the model has not, because it is the embedding.
    ///
    /// # Errors
    /// When no module goes by a name, or more than one.
    pub fn take_names(&mut self, modules: &[&str]) -> Result<bool, GramError> {
        // Who saw the whole model named its modules as the checkpoint does.
        if self.index.without.is_some() {
            return Ok(false);
        }
        let names: Vec<&str> = self.modules().collect();
        let found = matched(&names, modules).map_err(|mismatch| {
            let reason = match mismatch {
                Mismatch::Ambiguous(reason) => reason,
                Mismatch::Unknown(names) => {
                    let shown: Vec<String> = names.iter().take(5).map(|name| format!("{name:?}")).collect();
                    let more = names.len() - shown.len();
                    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                    format!("the model has no linear module for the Gram matrices of {}{more}", shown.join(", "))
                }
            };
            GramError::Names { directory: self.directory.clone(), reason }
        })?;
        let modules: Vec<Option<String>> = found.modules.into_iter().map(|name| name.map(str::to_owned)).collect();
        let has_spare_head = modules.contains(&None);
        let entries = std::mem::take(&mut self.index.modules).into_values();
        self.index.modules =
            modules.into_iter().zip(entries).filter_map(|(name, entry)| Some((name?, entry))).collect();
        Ok(has_spare_head)
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
                let (here, there) = (overlap(&tiling.rows(i), &rows), overlap(&tiling.rows(j), &columns));
                // The lower triangle is the upper one's mirror. Of a tile no more than the rows that are asked for is read.
                let ((upper, down), (right, across)) =
                    if i <= j { ((i, &here), (j, &there)) } else { ((j, &there), (i, &here)) };
                let first = upper * tiling.tile;
                let strip = self.tile_rows(entry, (upper, right), down.start - first..down.end - first)?;
                let copy = || -> Result<(), TchError> {
                    let cut = |x: &Tensor, axis, range: &Range<usize>, origin: usize| {
                        x.f_narrow(axis, (range.start - origin) as i64, range.len() as i64)
                    };
                    let found = cut(&strip, 1, across, right * tiling.tile)?;
                    let found = if i <= j { found } else { found.f_tr()? };
                    cut(&cut(&part, 0, &here, rows.start)?, 1, &there, columns.start)?.f_copy_(&found)
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
        let blocks = (0..entry.width).step_by(WIDEST).map(|start| {
            let rows = start..(start + WIDEST).min(entry.width);
            self.part(entry, rows.clone(), rows)?.f_diagonal(0, 0, 1).map_err(fail())
        });
        Tensor::f_cat(&blocks.collect::<Result<Vec<_>, _>>()?, 0).map_err(fail())
    }

    /// A tile by its place in the file, laid flat: `[tile · tile]`, fp32, on the CPU.
    ///
    /// # Errors
    /// When it cannot be read.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn tile_at(&self, entry: &GramEntry, index: usize) -> Result<Tensor, GramError> {
        let size = entry.tile * entry.tile;
        Ok(self.file(entry)?.load_range(&entry.tensor, index * size..(index + 1) * size)?)
    }

    /// Rows of the tile `(i, j)` of the upper triangle, `[rows, tile]`.
    fn tile_rows(&self, entry: &GramEntry, (i, j): (usize, usize), rows: Range<usize>) -> Result<Tensor, GramError> {
        let start = (entry.tiling().first(i) + j - i) * entry.tile * entry.tile;
        let range = start + rows.start * entry.tile..start + rows.end * entry.tile;
        let strip = self.file(entry)?.load_range(&entry.tensor, range)?;
        let shape = [rows.len() as i64, entry.tile as i64];
        strip.f_view(shape).map_err(GramError::torch(format!("tiles of {}", entry.tensor)))
    }

    fn file(&self, entry: &GramEntry) -> Result<&SafeFile, GramError> {
        self.files.get(&entry.file).ok_or_else(|| GramError::Index {
            path: self.directory.join("index.json"),
            reason: format!("{} is not of this artifact", entry.file),
        })
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

#[cfg(test)]
mod tests {
    use super::super::tiles::pack;
    use super::*;

    /// An artifact of one Gram, cut as told, and the Gram.
    fn written(directory: &Path, tiling: Tiling) -> (GramSet, Tensor) {
        let width = tiling.width as i64;
        let numbers = Tensor::arange(width * width, (Kind::Float, Device::Cpu)).view([width, width]);
        let gram = numbers.triu(0) + numbers.triu(1).tr();
        let strips = (0..tiling.blocks()).map(|block| {
            let rows = tiling.rows(block);
            let (start, height) = (rows.start as i64, rows.len() as i64);
            pack(tiling, block, &gram.narrow(0, start, height).narrow(1, start, width - start)).unwrap()
        });
        let tiles = Tensor::cat(&strips.collect::<Vec<_>>(), 0);
        Tensor::write_safetensors(&[("gram", &tiles)], directory.join("grams.safetensors")).unwrap();
        let entry = serde_json::json!({
            "file": "grams.safetensors", "tensor": "gram", "n": 1, "width": tiling.width, "tile": tiling.tile,
        });
        let index = serde_json::json!({ "format": 1, "modules": { "layer": entry } });
        std::fs::write(directory.join("index.json"), index.to_string()).unwrap();
        (GramSet::open(directory).unwrap(), gram)
    }

    #[test]
    fn any_part_is_that_of_the_whole_however_wide_the_tiles_are() {
        for tile in [1, 3, 5, 7, 9] {
            let directory = tempfile::tempdir().unwrap();
            let (set, gram) = written(directory.path(), Tiling { width: 7, tile });
            let entry = set.entry("layer").unwrap();
            for (rows, columns) in [(0..7, 0..7), (2..5, 2..7), (4..6, 0..3), (6..7, 1..2)] {
                let found = set.part(entry, rows.clone(), columns.clone()).unwrap();
                let expected = gram.narrow(0, rows.start as i64, rows.len() as i64).narrow(
                    1,
                    columns.start as i64,
                    columns.len() as i64,
                );
                assert_eq!(found, expected, "tiles of {tile}, {rows:?} by {columns:?}");
            }
            assert_eq!(set.diagonal(entry).unwrap(), gram.diagonal(0, 0, 1), "tiles of {tile}");
        }
    }
}
