//! The models of a merge, open and checked against each other.

use std::path::Path;

use mergelab_wire::{MergeJob, MergeSource};
use safetensors::Dtype;
use serde_json::Value;
use tch::{Kind, TchError, Tensor};

use super::error::MergeError;
use super::layers::is_vocabulary;
use crate::checkpoint::{Checkpoint, NewTensor};
use crate::dtype::FloatType;

/// One open model.
#[derive(Debug)]
pub struct Source {
    /// Name in the experiment.
    pub name: String,
    /// Its weight in the average.
    pub weight: f64,
    /// Its tensors.
    pub checkpoint: Checkpoint,
}

/// The models of a merge, of the same tensors and shapes.
#[derive(Debug)]
pub struct Sources {
    /// In the order of the experiment.
    pub models: Vec<Source>,
    /// The base model, where there is one.
    pub base: Option<Source>,
    /// `model_type` of the first model.
    pub family: Option<String>,
    names: Vec<String>,
}

/// Where two tensors of a merge differ in what cannot be merged.
fn compare(name: &str, first: &Source, other: &Source) -> Result<(), MergeError> {
    let (left, right) = (first.checkpoint.info(name)?, other.checkpoint.info(name)?);
    if left.shape == right.shape {
        return Ok(());
    }
    if is_vocabulary(name) && left.shape.get(1) == right.shape.get(1) && left.shape.len() == 2 {
        return Err(MergeError::Vocabulary {
            name: name.to_owned(),
            first: first.name.clone(),
            first_size: left.shape[0],
            other: other.name.clone(),
            other_size: right.shape[0],
        });
    }
    Err(MergeError::Shapes {
        name: name.to_owned(),
        first: first.name.clone(),
        first_shape: left.shape.clone(),
        other: other.name.clone(),
        other_shape: right.shape.clone(),
    })
}

fn open(source: &MergeSource) -> Result<(Source, Option<String>), MergeError> {
    let mut checkpoint = Checkpoint::open(&source.path)?;
    let config = config(&source.path);
    // What a loader ignores is not part of the model: a head that is the embedding, and buffers of old checkpoints.
    if config.as_ref().and_then(|config| config.get("tie_word_embeddings")).and_then(Value::as_bool) == Some(true) {
        checkpoint.forget("lm_head.weight");
    }
    let buffers: Vec<String> =
        checkpoint.names().filter(|name| name.ends_with("rotary_emb.inv_freq")).map(str::to_owned).collect();
    for buffer in buffers {
        checkpoint.forget(&buffer);
    }
    let family = config.and_then(|config| Some(config.get("model_type")?.as_str()?.to_owned()));
    Ok((Source { name: source.name.clone(), weight: source.weight, checkpoint }, family))
}

/// `config.json`, if it is there and JSON; what needs it says so itself.
fn config(model: &Path) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(model.join("config.json")).ok()?).ok()
}

impl Sources {
    /// Opens every model and compares names and shapes.
    ///
    /// # Errors
    /// When one cannot be read, weights make no average, or tensors differ in name or shape.
    pub fn open(job: &MergeJob) -> Result<Self, MergeError> {
        let request = |reason: String| MergeError::Request {
            method: job.method.clone(),
            reason,
            hint: "`models: [{ model: NAME, weight: 0.5 }, …]`",
        };
        if job.models.is_empty() {
            return Err(request("there are no models to merge".to_owned()));
        }
        if let Some(source) = job.models.iter().find(|source| !source.weight.is_finite() || source.weight < 0.0) {
            return Err(request(format!("the weight of {} is {}", source.name, source.weight)));
        }
        if job.models.iter().all(|source| source.weight == 0.0) {
            return Err(request("the weights of the models add up to zero".to_owned()));
        }
        let mut models = Vec::with_capacity(job.models.len());
        let mut family = None;
        for source in &job.models {
            let (source, found) = open(source)?;
            family = family.or(found);
            models.push(source);
        }
        let base = job.base.as_ref().map(|base| open(base).map(|(source, _)| source)).transpose()?;
        let first = &models[0];
        let names: Vec<String> = first.checkpoint.names().map(str::to_owned).collect();
        for other in models[1..].iter().chain(&base) {
            let lacking = |name: &str, has: &Source, lacks: &Source| MergeError::Names {
                name: name.to_owned(),
                has: has.name.clone(),
                lacks: lacks.name.clone(),
            };
            if let Some(name) = names.iter().find(|name| !other.checkpoint.contains(name)) {
                return Err(lacking(name, first, other));
            }
            if let Some(name) = other.checkpoint.names().find(|name| !first.checkpoint.contains(name)) {
                return Err(lacking(name, other, first));
            }
            // The vocabulary first: it is the usual difference, and has its own way out.
            for name in names.iter().filter(|name| is_vocabulary(name)).chain(&names) {
                compare(name, first, other)?;
            }
        }
        Ok(Self { models, base, family, names })
    }

    /// Tensor names, in the first model's order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Shape of a tensor, the same in all models.
    ///
    /// # Errors
    /// When there is no such tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize], MergeError> {
        Ok(&self.models[0].checkpoint.info(name)?.shape)
    }

    /// Stored type of a tensor in the first model.
    ///
    /// # Errors
    /// When there is no such tensor.
    pub fn dtype(&self, name: &str) -> Result<Dtype, MergeError> {
        Ok(self.models[0].checkpoint.info(name)?.dtype)
    }

    /// The type to write: what the merge states, or the first model's own; `None` if that has several.
    ///
    /// # Errors
    /// When the stated one is not known.
    pub fn output_type(&self, job: &MergeJob) -> Result<Option<FloatType>, MergeError> {
        if let Some(name) = &job.dtype {
            return Ok(Some(FloatType::parse(name)?));
        }
        let mut types = self.names.iter().filter_map(|name| FloatType::of_header(self.dtype(name).ok()?));
        let first = types.next();
        Ok(first.filter(|first| types.all(|other| other == *first)))
    }

    /// What the output holds: the first model's tensors, floats in the output type.
    pub fn planned(&self, dtype: Option<FloatType>) -> Vec<NewTensor> {
        let plan = |name: &String| {
            let info = self.models[0].checkpoint.info(name).ok()?;
            let header = match (FloatType::of_header(info.dtype), dtype) {
                (Some(_), Some(dtype)) => dtype.header(),
                _ => info.dtype,
            };
            Some(NewTensor { name: name.clone(), dtype: header, shape: info.shape.clone() })
        };
        self.names.iter().filter_map(plan).collect()
    }
}

impl Source {
    /// The elements `range` of a tensor laid flat, in fp64, checked to be finite.
    ///
    /// # Errors
    /// When they cannot be read or are not finite.
    pub fn elements(&self, name: &str, range: std::ops::Range<usize>) -> Result<Tensor, MergeError> {
        let stored = self.checkpoint.load_range(name, range)?;
        let finite =
            |stored: &Tensor| -> Result<bool, TchError> { Ok(stored.f_isfinite()?.f_all()?.f_int64_value(&[])? != 0) };
        if !finite(&stored).map_err(MergeError::torch(name))? {
            return Err(MergeError::NotFinite { name: name.to_owned(), model: self.name.clone() });
        }
        stored.f_to_kind(Kind::Double).map_err(MergeError::torch(name))
    }
}
