//! Grams of the parts of a data set, added to those of the whole: `G = Σ nᵢ Gᵢ / Σ nᵢ`.
//!
//! Each `Gᵢ` is the mean `Xᵢᵀ Xᵢ / nᵢ` over the tokens of its part, so the sum is the mean over all tokens. It is taken tile
//! by tile in fp64 and rounded once to fp32; a few tiles are in memory at a time, whatever the matrices' size. Tiles are
//! independent and parts are added in their order, so the result does not depend on the number of workers.
//!
//! A part without tokens has an empty index and adds nothing. Where the tokens of any part are not known (matrices that
//! were imported), all parts count as equal and those of the sum are not known either.

use std::path::Path;

use indexmap::IndexMap;
use mergelab_wire::AddGramsJob;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::error::GramError;
use super::index::{FORMAT, GramEntry, GramIndex, GramSet};
use crate::checkpoint::{NewTensor, Writer};
use crate::failure::FileError;
use crate::parallel::Pool;
use crate::report::Reporter;

/// Adds the parts and writes the artifact.
///
/// # Errors
/// When a part cannot be read, parts differ in modules, widths or tilings, or none holds any tokens.
pub fn run(job: &AddGramsJob, out: &Path, pool: Pool, reporter: &Reporter) -> Result<(), GramError> {
    let mut parts = Vec::new();
    for part in &job.parts {
        let set = GramSet::open(&part.path)?;
        if set.modules().next().is_some() {
            parts.push(Part { name: &part.name, figures: Figures::read(&part.path)?, set });
        } else {
            reporter.note(format!("{}: no row gives a token that counts", part.name));
        }
    }
    let Some(first) = parts.first() else { return Err(GramError::NoTokens { parts: job.parts.len() }) };
    let matrices = matrices(&first.set);
    for part in &parts[1..] {
        agree(first, part, &matrices)?;
    }
    let mut entries = IndexMap::new();
    let mut files: IndexMap<&str, Vec<Sum<'_>>> = IndexMap::new();
    for modules in &matrices {
        let sum = Sum::new(&parts, modules)?;
        entries.extend(modules.iter().map(|module| (module.clone(), GramEntry { n: sum.n, ..sum.entry.clone() })));
        files.entry(&sum.entry.file).or_default().push(sum);
    }
    reporter.progress(0, files.len(), "files");
    for (done, (file, sums)) in files.iter().enumerate() {
        add(sums, &out.join(file), pool)?;
        reporter.progress(done + 1, files.len(), "files");
    }
    // The order of the first part's index, whatever shares a matrix with whatever.
    let modules = first.set.modules().map(|module| (module.to_owned(), entries[module].clone())).collect();
    GramIndex { format: FORMAT, modules }.write(out)?;
    Figures::of_sum(&parts, &matrices, &entries).map_or(Ok(()), |figures| figures.write(out))?;
    reporter.fact("parts", job.parts.len());
    if let Some(tokens) = entries.values().filter_map(|entry| entry.n).max() {
        reporter.fact("tokens_counted", tokens);
    }
    Ok(())
}

/// Writes the artifact of a part of a data set none of whose rows gives a token that counts.
///
/// # Errors
/// When it cannot be written.
pub fn write_empty(out: &Path) -> Result<(), FileError> {
    GramIndex { format: FORMAT, modules: IndexMap::new() }.write(out)
}

/// One part that holds tokens.
struct Part<'a> {
    name: &'a str,
    set: GramSet,
    figures: Option<Figures>,
}

impl Part<'_> {
    fn entry(&self, module: &str) -> Result<&GramEntry, GramError> {
        self.set.entry(module).ok_or_else(|| self.differs(module, "it has no Gram matrix here"))
    }

    fn differs(&self, module: &str, reason: impl Into<String>) -> GramError {
        GramError::Parts { part: self.name.to_owned(), module: module.to_owned(), reason: reason.into() }
    }
}

/// Modules of each matrix of an artifact: those that read one input.
fn matrices(set: &GramSet) -> Vec<Vec<String>> {
    let mut matrices: IndexMap<(&str, &str), Vec<String>> = IndexMap::new();
    for module in set.modules() {
        let entry = set.entry(module).expect("a module of the index has an entry");
        matrices.entry((&entry.file, &entry.tensor)).or_default().push(module.to_owned());
    }
    matrices.into_values().collect()
}

/// Checks that a part has the first one's matrices, each for the same modules and cut in the same way.
fn agree(first: &Part<'_>, part: &Part<'_>, matrices: &[Vec<String>]) -> Result<(), GramError> {
    for modules in matrices {
        let shared = part.entry(&modules[0])?;
        for module in modules {
            let (expected, found) = (first.entry(module)?, part.entry(module)?);
            if (found.width, found.tile) != (expected.width, expected.tile) {
                let reason = format!(
                    "a matrix of width {} in tiles of {} here, of width {} in tiles of {} in {}",
                    found.width, found.tile, expected.width, expected.tile, first.name
                );
                return Err(part.differs(module, reason));
            }
            if (&found.file, &found.tensor) != (&shared.file, &shared.tensor) {
                let reason = format!("it shares the matrix of {} in {} and not here", modules[0], first.name);
                return Err(part.differs(module, reason));
            }
        }
    }
    match part.set.modules().find(|module| first.set.entry(module).is_none()) {
        Some(module) => Err(part.differs(module, format!("it has no Gram matrix in {}", first.name))),
        None => Ok(()),
    }
}

/// One matrix of the sum.
struct Sum<'a> {
    /// Where it lies, as in the first part.
    entry: &'a GramEntry,
    /// The same matrix in each part, and the share with which it counts: `nᵢ / Σ nᵢ`.
    terms: Vec<(&'a GramSet, &'a GramEntry, f64)>,
    /// Tokens, where they are known.
    n: Option<u64>,
}

impl<'a> Sum<'a> {
    fn new(parts: &'a [Part<'a>], modules: &[String]) -> Result<Self, GramError> {
        let module = modules.first().expect("a matrix is some module's");
        let entries = parts.iter().map(|part| part.entry(module)).collect::<Result<Vec<_>, _>>()?;
        let tokens: Option<Vec<u64>> = entries.iter().map(|entry| entry.n).collect();
        let n = tokens.as_ref().map(|tokens| tokens.iter().sum::<u64>());
        let share = |index: usize| match (&tokens, n) {
            (Some(tokens), Some(n)) if n > 0 => tokens[index] as f64 / n as f64,
            _ => 1.0 / parts.len() as f64,
        };
        let terms = parts.iter().zip(&entries).enumerate();
        let terms = terms.map(|(index, (part, entry))| (&part.set, *entry, share(index))).collect();
        Ok(Self { entry: entries[0], terms, n })
    }

    /// One tile of it, laid flat: `[tile · tile]`, fp32.
    fn tile(&self, index: usize) -> Result<Tensor, GramError> {
        let mut sum: Option<Tensor> = None;
        for (set, entry, share) in &self.terms {
            let tile = set.tile(entry, index)?;
            let fail = || GramError::torch(format!("sum of {}", entry.tensor));
            let mut term = tile.f_to_kind(Kind::Double).map_err(fail())?;
            let term = term.f_mul_scalar_(*share).map_err(fail())?;
            sum = Some(match sum {
                Some(mut sum) => sum.f_add_(&term).map_err(fail())?,
                None => term,
            });
        }
        let sum = sum.expect("a sum has a term");
        sum.f_to_kind(Kind::Float).map_err(GramError::torch(format!("sum of {}", self.entry.tensor)))
    }
}

/// Writes one file of sums.
fn add(sums: &[Sum<'_>], path: &Path, pool: Pool) -> Result<(), GramError> {
    let planned = sums.iter().map(|sum| {
        let tiling = sum.entry.tiling();
        let shape = vec![tiling.tiles(), tiling.tile, tiling.tile];
        NewTensor { name: sum.entry.tensor.clone(), dtype: Dtype::F32, shape }
    });
    let writer = Writer::single(path, planned.collect())?;
    let tiles = sums.iter().flat_map(|sum| (0..sum.entry.tiling().tiles()).map(move |tile| (sum, tile)));
    pool.map(tiles.collect(), |(sum, tile)| -> Result<(), GramError> {
        let size = sum.entry.tile * sum.entry.tile;
        Ok(writer.write(&sum.entry.tensor, tile * size, &sum.tile(tile)?)?)
    })?;
    writer.finish();
    Ok(())
}

/// The contents of `layers.json`: what is reported of each matrix.
#[derive(Debug, Serialize, Deserialize)]
struct Figures {
    format: u32,
    inputs: Vec<InputFigures>,
}

/// What is reported of one matrix.
#[derive(Debug, Serialize, Deserialize)]
struct InputFigures {
    modules: Vec<String>,
    width: usize,
    trace: f64,
    first_token_share: f64,
}

impl Figures {
    /// Those of an artifact; `None` where it has none (matrices that were imported).
    fn read(directory: &Path) -> Result<Option<Self>, GramError> {
        let path = directory.join("layers.json");
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| GramError::Index { path, reason: error.to_string() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FileError::of("read", &path)(error).into()),
        }
    }

    /// Those of a sum: traces weighted by tokens, and of first tokens the share of the whole energy. `None` where a part
    /// has none.
    fn of_sum(parts: &[Part<'_>], matrices: &[Vec<String>], sums: &IndexMap<String, GramEntry>) -> Option<Self> {
        let inputs = matrices.iter().map(|modules| {
            let (mut energy, mut first, mut tokens) = (0.0, 0.0, 0.0);
            for part in parts {
                let figures = part.figures.as_ref()?.inputs.iter().find(|input| input.modules.contains(&modules[0]))?;
                let sum = &sums[&modules[0]];
                let n = sum.n.and(part.set.entry(&modules[0])?.n).map_or(1.0, |n| n as f64);
                energy += figures.trace * n;
                first += figures.first_token_share * figures.trace * n;
                tokens += n;
            }
            Some(InputFigures {
                modules: modules.clone(),
                width: sums[&modules[0]].width,
                trace: if tokens > 0.0 { energy / tokens } else { 0.0 },
                first_token_share: if energy > 0.0 { first / energy } else { 0.0 },
            })
        });
        Some(Self { format: FORMAT, inputs: inputs.collect::<Option<_>>()? })
    }

    fn write(&self, directory: &Path) -> Result<(), FileError> {
        let path = directory.join("layers.json");
        let text = serde_json::to_string_pretty(self).expect("finite numbers have a JSON form");
        std::fs::write(&path, text + "\n").map_err(FileError::of("write", &path))
    }
}
