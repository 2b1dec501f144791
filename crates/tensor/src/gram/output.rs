//! The artifact of a capture: one file of tiles a layer, the index, and what is reported of each input.

use std::path::Path;

use indexmap::IndexMap;
use safetensors::Dtype;
use serde_json::json;

use super::accumulate::Accumulator;
use super::error::GramError;
use super::index::{FORMAT, GramEntry, GramIndex, GramSet};
use crate::checkpoint::{NewTensor, Writer};
use crate::failure::FileError;
use crate::model::Input;
use crate::parallel::Pool;
use crate::report::Reporter;

/// What is reported of one Gram, in `layers.json`.
#[derive(Debug, serde::Serialize)]
struct InputFigures {
    /// The modules that read the input.
    modules: Vec<String>,
    /// Its width.
    width: usize,
    /// Trace of the mean `Xᵀ X / n`.
    trace: f64,
    /// Share of the trace that first tokens of sequences hold.
    first_token_share: f64,
}

/// A Gram that is ready to be written.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Its name in the file.
    pub(crate) name: String,
    /// The modules that read the input.
    pub(crate) modules: Vec<String>,
    /// The sums.
    pub(crate) sum: Accumulator,
}

impl Finished {
    /// The Gram of a layer's input.
    pub(crate) fn of(input: Input, modules: Vec<String>, sum: Accumulator) -> Self {
        Self { name: input.name().to_owned(), modules, sum }
    }
}

/// Writes the artifact file by file.
#[derive(Debug)]
pub(crate) struct Output<'a> {
    directory: &'a Path,
    modules: IndexMap<String, GramEntry>,
    figures: Vec<InputFigures>,
}

impl<'a> Output<'a> {
    /// An artifact in an empty directory.
    pub(crate) fn new(directory: &'a Path) -> Self {
        Self { directory, modules: IndexMap::new(), figures: Vec::new() }
    }

    /// Writes one file of Grams and notes them in the index; nothing where there are none.
    ///
    /// # Errors
    /// When the file cannot be written or libtorch fails.
    pub(crate) fn write(&mut self, file: &str, grams: Vec<Finished>, pool: Pool) -> Result<(), GramError> {
        if grams.is_empty() {
            return Ok(());
        }
        let planned = grams.iter().map(|gram| {
            let tiling = gram.sum.tiling();
            let shape = vec![tiling.tiles(), tiling.tile, tiling.tile];
            NewTensor { name: gram.name.clone(), dtype: Dtype::F32, shape }
        });
        let writer = Writer::single(&self.directory.join(file), planned.collect())?;
        let mut blocks = Vec::new();
        for Finished { name, modules, sum } in grams {
            let (tiling, tokens) = (sum.tiling(), sum.tokens());
            let energy = sum.energy().map_err(GramError::torch(file))?;
            let entry = GramEntry {
                file: file.to_owned(),
                tensor: name.clone(),
                n: Some(tokens as u64),
                width: tiling.width,
                tile: tiling.tile,
                transposed: false,
            };
            self.modules.extend(modules.iter().map(|module| (module.clone(), entry.clone())));
            self.figures.push(InputFigures {
                modules,
                width: tiling.width,
                trace: energy / tokens as f64,
                first_token_share: if energy > 0.0 { sum.first_energy() / energy } else { 0.0 },
            });
            blocks.extend(sum.into_blocks().into_iter().map(|block| (name.clone(), block)));
        }
        pool.map(blocks, |(name, block)| {
            let start = block.start();
            let tiles = block.tiles().map_err(GramError::torch(file))?;
            writer.write(&name, start, &tiles).map_err(GramError::from)
        })?;
        writer.finish();
        Ok(())
    }

    /// Writes the index alone, and opens the artifact: of Grams that are used at once and not kept.
    ///
    /// # Errors
    /// When a file cannot be written or read.
    pub(crate) fn open(self) -> Result<GramSet, GramError> {
        GramIndex { format: FORMAT, modules: self.modules, without: None }.write(self.directory)?;
        GramSet::open(self.directory)
    }

    /// Writes the index and the figures.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn finish(self, reporter: &Reporter) -> Result<(), GramError> {
        GramIndex { format: FORMAT, modules: self.modules, without: None }.write(self.directory)?;
        let path = self.directory.join("layers.json");
        let figures = json!({ "format": FORMAT, "inputs": self.figures });
        let text = serde_json::to_string_pretty(&figures).expect("finite numbers");
        std::fs::write(&path, text + "\n").map_err(FileError::of("write", &path))?;
        let largest = self.figures.iter().map(|figure| figure.first_token_share).fold(0.0, f64::max);
        reporter.fact("gram_matrices", self.figures.len());
        reporter.fact("first_token_share_max", json!(largest));
        Ok(())
    }
}
