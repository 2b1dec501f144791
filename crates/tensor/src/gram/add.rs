//! Grams of the parts of a data set, added to those of the whole: `G = Σ nᵢ Gᵢ / Σ nᵢ`.
//!
//! Each `Gᵢ` is the mean `Xᵢᵀ Xᵢ / nᵢ` over the tokens of its part, so the sum is the mean over all tokens. It is taken tile
//! by tile in fp64 and rounded once to fp32; a few tiles are in memory at a time, whatever the matrices' size. Tiles are
//! independent and parts are added in their order, so the result does not depend on the number of workers.
//!
//! A part without tokens has an empty index and adds nothing, and neither does a part in which no token reached a module.
//! Where the tokens of any part are not known (matrices that
//! were imported), all parts count as equal and those of the sum are not known either.

use std::collections::HashSet;
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
    if parts.is_empty() {
        return Err(GramError::NoTokens { parts: job.parts.len() });
    }
    let mut index = GramIndex { format: FORMAT, modules: IndexMap::new(), without: without(&parts) };
    let mut sums = Vec::new();
    for matrix in matrices(&parts) {
        match matrix.of_parts(&parts)? {
            Found::Terms(terms) => sums.push(Sum::new(matrix, terms)),
            Found::Nothing(reason) => {
                let names = matrix.modules.iter().map(|module| format!("{module}.weight"));
                index.without.get_or_insert_default().extend(names.map(|name| (name, reason.to_owned())));
            }
        }
    }
    let mut files: IndexMap<&str, Vec<&Sum<'_>>> = IndexMap::new();
    for sum in &sums {
        index.modules.extend(sum.entries());
        files.entry(&sum.entry.file).or_default().push(sum);
    }
    if let Some(without) = &mut index.without {
        without.retain(|tensor, _| tensor.strip_suffix(".weight").is_none_or(|name| !index.modules.contains_key(name)));
    }
    reporter.progress(0, files.len(), "files");
    for (done, (file, sums)) in files.iter().enumerate() {
        add(sums, &out.join(file), pool)?;
        reporter.progress(done + 1, files.len(), "files");
    }
    index.write(out)?;
    if let Some(inputs) = sums.iter().map(Sum::figures).collect::<Option<Vec<_>>>() {
        let largest = inputs.iter().map(|input| input.first_token_share).fold(0.0, f64::max);
        reporter.fact("first_token_share_max", largest);
        Figures { format: FORMAT, inputs }.write(out)?;
    }
    reporter.fact("gram_matrices", sums.len());
    reporter.fact("parts", job.parts.len());
    if let Some(tokens) = sums.iter().filter_map(|sum| sum.n).max() {
        reporter.fact("tokens_counted", tokens);
    }
    Ok(())
}

/// Writes the artifact of a part of a data set none of whose rows gives a token that counts.
///
/// # Errors
/// When it cannot be written.
pub fn write_empty(out: &Path) -> Result<(), FileError> {
    GramIndex { format: FORMAT, modules: IndexMap::new(), without: None }.write(out)
}

/// What `gram-transformers/gram.py` says of a module that no token reached: an expert of a mixture, in a small shard.
const NEVER_RAN: &str = "it never ran";

/// One part that holds tokens.
struct Part<'a> {
    name: &'a str,
    set: GramSet,
    figures: Option<Figures>,
}

impl Part<'_> {
    fn differs(&self, module: &str, reason: impl Into<String>) -> GramError {
        GramError::Parts { part: self.name.to_owned(), module: module.to_owned(), reason: reason.into() }
    }
}

/// Tensors without a Gram in any part, where a part says so.
fn without(parts: &[Part<'_>]) -> Option<IndexMap<String, String>> {
    let mut all: Option<IndexMap<String, String>> = None;
    for (tensor, reason) in parts.iter().filter_map(|part| part.set.without()).flatten() {
        all.get_or_insert_default().entry(tensor.clone()).or_insert_with(|| reason.clone());
    }
    let says = parts.iter().any(|part| part.set.without().is_some());
    all.or_else(|| says.then(IndexMap::new))
}

/// A matrix of the first part that has it.
struct Matrix<'a> {
    origin: &'a Part<'a>,
    /// The modules that read its input.
    modules: Vec<&'a str>,
}

/// What there is of a matrix in the parts.
enum Found<'a> {
    /// The parts in which tokens reached it.
    Terms(Vec<(&'a Part<'a>, &'a GramEntry)>),
    /// One part cannot say which of its tokens count, so that the sum cannot either: the reason.
    Nothing(&'a str),
}

/// All matrices of the parts, in the order in which they first come.
fn matrices<'a>(parts: &'a [Part<'a>]) -> Vec<Matrix<'a>> {
    let mut seen = HashSet::new();
    let mut matrices: IndexMap<(usize, &str, &str), Matrix<'a>> = IndexMap::new();
    for (index, part) in parts.iter().enumerate() {
        for module in part.set.modules().filter(|module| seen.insert(*module)) {
            let entry = part.set.entry(module).expect("a module of the index has an entry");
            let matrix = matrices.entry((index, &entry.file, &entry.tensor));
            matrix.or_insert_with(|| Matrix { origin: part, modules: Vec::new() }).modules.push(module);
        }
    }
    matrices.into_values().collect()
}

impl<'a> Matrix<'a> {
    fn expected(&self, module: &str) -> &'a GramEntry {
        self.origin.set.entry(module).expect("the matrix is of this part")
    }

    /// Its entry in each part that has it: for the same modules, and cut in the same way.
    fn of_parts(&self, parts: &'a [Part<'a>]) -> Result<Found<'a>, GramError> {
        let mut terms = Vec::new();
        for part in parts {
            let mut shared: Option<&GramEntry> = None;
            for (index, module) in self.modules.iter().enumerate() {
                let Some(found) = part.set.entry(module) else {
                    match part.set.why_without(&format!("{module}.weight")) {
                        Some(NEVER_RAN) if shared.is_none() => continue,
                        Some(reason) if reason != NEVER_RAN => return Ok(Found::Nothing(reason)),
                        _ => return Err(part.differs(module, "it has no Gram matrix here")),
                    }
                };
                let expected = self.expected(module);
                if (found.width, found.tile) != (expected.width, expected.tile) {
                    let reason = format!(
                        "a matrix of width {} in tiles of {} here, of width {} in tiles of {} in {}",
                        found.width, found.tile, expected.width, expected.tile, self.origin.name
                    );
                    return Err(part.differs(module, reason));
                }
                if found.transposed != expected.transposed {
                    let reason = format!("its weight lies the other way round here than in {}", self.origin.name);
                    return Err(part.differs(module, reason));
                }
                let is_new = shared.is_none() && index > 0;
                let shared = *shared.get_or_insert(found);
                if is_new || (&found.file, &found.tensor) != (&shared.file, &shared.tensor) {
                    let other = self.modules[0];
                    let reason = format!("it shares the matrix of {other} in {} and not here", self.origin.name);
                    return Err(part.differs(module, reason));
                }
            }
            terms.extend(shared.map(|entry| (part, entry)));
        }
        Ok(Found::Terms(terms))
    }
}

/// One matrix of the sum.
struct Sum<'a> {
    matrix: Matrix<'a>,
    /// Where it lies, as in the first part that has it.
    entry: &'a GramEntry,
    /// The same matrix in each part, and the share with which it counts: `nᵢ / Σ nᵢ`.
    terms: Vec<(&'a Part<'a>, &'a GramEntry, f64)>,
    /// Tokens, where they are known.
    n: Option<u64>,
}

impl<'a> Sum<'a> {
    fn new(matrix: Matrix<'a>, found: Vec<(&'a Part<'a>, &'a GramEntry)>) -> Self {
        let n = found.iter().map(|(_, entry)| entry.n).sum::<Option<u64>>().filter(|&n| n > 0);
        let parts = found.len() as f64;
        let share = |entry: &GramEntry| match (entry.n, n) {
            (Some(of_part), Some(n)) => of_part as f64 / n as f64,
            _ => 1.0 / parts,
        };
        let terms = found.into_iter().map(|(part, entry)| (part, entry, share(entry))).collect();
        Self { entry: matrix.expected(matrix.modules[0]), matrix, terms, n }
    }

    /// What the index says of its modules.
    fn entries(&self) -> impl Iterator<Item = (String, GramEntry)> {
        let entry = |module: &&str| GramEntry { n: self.n, ..self.matrix.expected(module).clone() };
        self.matrix.modules.iter().map(move |module| ((*module).to_owned(), entry(module)))
    }

    /// What is reported of it: the trace, weighted by tokens, and of first tokens the share of the whole energy. `None`
    /// where a part has no figures.
    fn figures(&self) -> Option<InputFigures> {
        let (mut trace, mut first) = (0.0, 0.0);
        for (part, _, share) in &self.terms {
            let module = self.matrix.modules[0];
            let mut inputs = part.figures.as_ref()?.inputs.iter();
            let figures = inputs.find(|input| input.modules.iter().any(|name| name == module))?;
            trace += share * figures.trace;
            first += share * figures.trace * figures.first_token_share;
        }
        Some(InputFigures {
            modules: self.matrix.modules.iter().map(|&module| module.to_owned()).collect(),
            width: self.entry.width,
            trace,
            first_token_share: if trace > 0.0 { first / trace } else { 0.0 },
        })
    }

    /// One tile of it, laid flat: `[tile · tile]`, fp32.
    fn tile(&self, index: usize) -> Result<Tensor, GramError> {
        let mut sum: Option<Tensor> = None;
        for (part, entry, share) in &self.terms {
            let tile = part.set.tile_at(entry, index)?;
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
fn add(sums: &[&Sum<'_>], path: &Path, pool: Pool) -> Result<(), GramError> {
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
pub(super) struct Figures {
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
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, GramError> {
        let path = directory.join("layers.json");
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| GramError::Index { path, reason: error.to_string() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FileError::of("read", &path)(error).into()),
        }
    }

    fn write(&self, directory: &Path) -> Result<(), FileError> {
        let path = directory.join("layers.json");
        let text = serde_json::to_string_pretty(self).expect("finite numbers have a JSON form");
        std::fs::write(&path, text + "\n").map_err(FileError::of("write", &path))
    }
}
