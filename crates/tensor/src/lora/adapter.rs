//! An open adapter: what it makes of each tensor of the model that it is applied to.

use std::ops::Range;
use std::path::Path;

use indexmap::IndexMap;

use super::config::Config;
use super::error::LoraError;
use super::low_rank::LowRank;
use super::names::{Part, read};
use crate::checkpoint::{Checkpoint, CheckpointError, SafeFile, pickled};
use crate::codec::{decode, first_not_finite, is_float};

/// How a file is opened.
type Open = fn(&Path) -> Result<SafeFile, CheckpointError>;

/// Files that may hold the tensors, in the order in which they are looked for.
const FORMS: [(&str, Open); 2] = [("adapter_model.safetensors", SafeFile::open), ("adapter_model.bin", pickled::open)];

/// The output projection, which may be the embedding.
const HEAD: &str = "lm_head.weight";

/// An adapter. Its factors are held in fp32; what was trained whole stays in its file.
#[derive(Debug)]
pub struct Adapter {
    file: SafeFile,
    config: Config,
    changes: IndexMap<String, Change>,
}

/// What becomes of one tensor.
#[derive(Debug, Default)]
struct Change {
    /// The tensor of the adapter that takes its place.
    whole: Option<String>,
    /// What is added to it.
    low_rank: Option<LowRank>,
}

/// The tensors of one module, by name.
#[derive(Debug, Default)]
struct Factors {
    a: Option<String>,
    b: Option<String>,
    is_embedding: bool,
}

impl Adapter {
    /// Opens the adapter in a directory.
    ///
    /// # Errors
    /// When it cannot be read, is not applied here, or its tensors and its configuration do not belong together.
    pub fn open(directory: &Path) -> Result<Self, LoraError> {
        let config = Config::read(directory)?;
        let form = FORMS.iter().map(|(name, open)| (directory.join(name), open)).find(|(path, _)| path.exists());
        let Some((path, open)) = form else {
            return Err(LoraError::NoTensors { directory: directory.to_path_buf() });
        };
        let file = open(&path)?;
        let mut changes: IndexMap<String, Change> = IndexMap::new();
        let mut modules: IndexMap<String, Factors> = IndexMap::new();
        for name in file.tensors().keys() {
            let Some((module, part)) = read(name) else {
                return Err(LoraError::Name { path, name: name.clone() });
            };
            if part == Part::Whole {
                changes.entry(module).or_default().whole = Some(name.clone());
                continue;
            }
            let factors = modules.entry(module).or_default();
            factors.is_embedding |= matches!(part, Part::EmbeddingA | Part::EmbeddingB);
            match part {
                Part::A | Part::EmbeddingA => factors.a = Some(name.clone()),
                _ => factors.b = Some(name.clone()),
            }
        }
        if modules.is_empty() {
            return Err(LoraError::Empty { path });
        }
        for (module, factors) in modules {
            let change = low_rank(&file, &config, &module, factors)?;
            changes.entry(format!("{module}.weight")).or_default().low_rank = Some(change);
        }
        Ok(Self { file, config, changes })
    }

    /// Holds the adapter against the model that it is applied to: every tensor that it changes must be there, in its shape.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check(&self, base: &str, checkpoint: &Checkpoint) -> Result<(), LoraError> {
        let trained_on = || self.config.trained_on().map(str::to_owned);
        for (tensor, change) in &self.changes {
            let (tensor, base) = (tensor.clone(), base.to_owned());
            let Ok(info) = checkpoint.info(&tensor) else {
                return Err(match &*tensor {
                    HEAD => LoraError::Tied { tensor, base },
                    _ => LoraError::Absent { tensor, base, trained_on: trained_on() },
                });
            };
            let whole = change.whole.as_ref().map(|name| self.file.info(name)).transpose()?;
            let shapes = whole.map(|whole| whole.shape.clone()).into_iter();
            for shape in shapes.chain(change.low_rank.as_ref().map(|change| change.shape().to_vec())) {
                if shape != info.shape {
                    let (base_shape, change_shape) = (info.shape.clone(), shape);
                    return Err(LoraError::Shape { tensor, base, base_shape, change_shape, trained_on: trained_on() });
                }
            }
            if !is_float(info.dtype) {
                return Err(LoraError::Type { tensor, base, dtype: info.dtype.to_string() });
            }
        }
        Ok(())
    }

    /// Makes of elements of the model's tensor what they are with the adapter; of a tensor that it does not change nothing
    /// else. `range` is of the tensor laid flat.
    ///
    /// # Errors
    /// When the adapter's file cannot be read, or what stands in it is not finite.
    pub fn apply(&self, tensor: &str, range: Range<usize>, values: &mut [f32]) -> Result<(), LoraError> {
        let Some(change) = self.changes.get(tensor) else { return Ok(()) };
        if let Some(name) = &change.whole {
            read_into(&self.file, name, range.clone(), values)?;
        }
        if let Some(low_rank) = &change.low_rank {
            low_rank.add(range.start, values);
        }
        Ok(())
    }

    /// How many tensors it adds a change of low rank to, and how many it replaces.
    pub fn counts(&self) -> (usize, usize) {
        let count = |is: fn(&Change) -> bool| self.changes.values().filter(|change| is(change)).count();
        (count(|change| change.low_rank.is_some()), count(|change| change.whole.is_some()))
    }

    /// The model that it was trained on, as it says itself.
    pub fn trained_on(&self) -> Option<&str> {
        self.config.trained_on()
    }

    /// Bytes that it holds in memory.
    pub fn bytes(&self) -> u64 {
        self.changes.values().filter_map(|change| change.low_rank.as_ref()).map(LowRank::bytes).sum()
    }
}

/// The change of a module from its two factors.
fn low_rank(file: &SafeFile, config: &Config, module: &str, factors: Factors) -> Result<LowRank, LoraError> {
    let path = || file.path().to_path_buf();
    let half = |lacks| LoraError::Half { path: path(), module: module.to_owned(), lacks };
    let a = factors.a.ok_or_else(|| half("lora_A"))?;
    let b = factors.b.ok_or_else(|| half("lora_B"))?;
    let (rank, shape_a, shape_b) = (config.rank(module), &file.info(&a)?.shape, &file.info(&b)?.shape);
    for (name, shape, found) in [(&a, shape_a, shape_a.first()), (&b, shape_b, shape_b.get(1))] {
        let (Some(found), 2) = (found, shape.len()) else {
            let reason = format!("{name} has shape {shape:?}, and only matrices are changed here");
            return Err(LoraError::Config { path: path(), reason });
        };
        if *found != rank || rank == 0 {
            return Err(LoraError::Rank { path: path(), module: module.to_owned(), stated: rank, found: *found });
        }
    }
    let is_transposed = factors.is_embedding || config.is_transposed();
    let parts = (all(file, &b)?, all(file, &a)?);
    Ok(LowRank::new(parts, rank, config.scale(module), is_transposed))
}

/// A whole tensor.
fn all(file: &SafeFile, name: &str) -> Result<Vec<f32>, LoraError> {
    let mut values = vec![0.0; file.info(name)?.elements()];
    let range = 0..values.len();
    read_into(file, name, range, &mut values)?;
    Ok(values)
}

fn read_into(file: &SafeFile, name: &str, range: Range<usize>, values: &mut [f32]) -> Result<(), LoraError> {
    let dtype = file.info(name)?.dtype;
    if !is_float(dtype) {
        return Err(file.unread(name, dtype).into());
    }
    decode(dtype, &file.bytes(name, range.clone())?, values);
    match first_not_finite(values) {
        None => Ok(()),
        Some(at) => {
            let (path, name, position) = (file.path().to_path_buf(), name.to_owned(), range.start + at);
            Err(LoraError::NotFinite { path, name, position, value: values[at] })
        }
    }
}
