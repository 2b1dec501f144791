//! The models of a merge, open and checked against each other.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use indexmap::IndexMap;
use mergelab_wire::{MergeJob, MergeSource, Weight};
use safetensors::Dtype;
use serde_json::Value;
use tch::{Kind, Tensor};

use super::elementwise::tiles;
use super::error::{Absent, MergeError};
use super::gradient::gradient;
use super::layers::{count, depth, is_before_layers, is_vocabulary, renumbered, stack};
use super::rules::Decision;
use super::slices::Slice;
use crate::checkpoint::{Checkpoint, NewTensor};
use crate::codec::{decode, first_not_finite, is_float};
use crate::dtype::FloatType;
use crate::lora::Adapter;
use crate::report::Reporter;

/// The head, where it may be the embedding.
pub(crate) const HEAD: &str = "lm_head.weight";

/// One open model.
#[derive(Debug)]
pub struct Source {
    /// Name in the experiment.
    pub name: String,
    /// Its weight in the average; [`Sources::weights`] has that of a tensor.
    pub weight: Weight,
    /// Its tensors, as they are stored.
    pub checkpoint: Checkpoint,
    /// What is applied to them where they are read as numbers.
    pub adapter: Option<Adapter>,
    /// The model's own types of tensors that were written anew for the merge, in fp32.
    pub widened: HashMap<String, Dtype>,
    /// The first layer that it gives to its slice, and that layer in the result.
    pub(super) moved: Option<(usize, usize)>,
}

/// The models of a merge.
#[derive(Debug)]
pub struct Sources {
    /// In the order of the experiment.
    pub models: Vec<Source>,
    /// The base model, where there is one.
    pub base: Option<Source>,
    /// `model_type` of the first model.
    pub family: Option<String>,
    /// The layers of the result that they are merged to.
    layers: Range<usize>,
    /// Tensor names in the first model's order, then those that it lacks; which model says what each of them is.
    names: Vec<String>,
    givers: IndexMap<String, Giver>,
}

/// Which model says what a tensor of the result is: its shape and its type.
#[derive(Clone, Copy, Debug)]
enum Giver {
    Model(usize),
    Base,
}

/// `config.json`, if it is there and JSON; what needs it says so itself.
pub(crate) fn config(model: &Path) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(model.join("config.json")).ok()?).ok()
}

fn open(source: &MergeSource) -> Result<(Source, Option<String>), MergeError> {
    let mut checkpoint = Checkpoint::open(&source.path)?;
    let config = config(&source.path);
    let said = |key: &str| config.as_ref().and_then(|config| config.get(key));
    if let Some(quantization) = said("quantization_config").filter(|value| !value.is_null()) {
        let method = quantization.get("quant_method").and_then(Value::as_str).unwrap_or("an unnamed method");
        return Err(MergeError::Quantized { model: source.name.clone(), method: method.to_owned() });
    }
    // What a loader ignores is not part of the model: a head that is the embedding, and buffers of old checkpoints.
    if said("tie_word_embeddings").and_then(Value::as_bool) == Some(true) {
        checkpoint.forget(HEAD);
    }
    let buffers: Vec<String> =
        checkpoint.names().filter(|name| name.ends_with("rotary_emb.inv_freq")).map(str::to_owned).collect();
    for buffer in buffers {
        checkpoint.forget(&buffer);
    }
    let family = said("model_type").and_then(Value::as_str).map(str::to_owned);
    let (name, weight) = (source.name.clone(), source.weight.clone());
    Ok((Source { name, weight, checkpoint, adapter: None, widened: HashMap::new(), moved: None }, family))
}

impl Sources {
    /// Opens every model. Weights must be those of a mean unless the method takes any.
    ///
    /// # Errors
    /// When one cannot be read or is quantised, or weights make no average.
    pub fn open(job: &MergeJob, takes_any_weight: bool) -> Result<Self, MergeError> {
        Self::of_part(job, takes_any_weight, None)
    }

    /// Opens what every model gives to a part of the result.
    ///
    /// # Errors
    /// As [`Self::open`], and when a model lacks layers that the part takes.
    pub fn of_part(job: &MergeJob, takes_any_weight: bool, slice: Option<&Slice>) -> Result<Self, MergeError> {
        let request = |reason: String| MergeError::Request {
            method: job.method.clone(),
            reason,
            hint: "`models: [{ model: NAME, weight: 0.5 }, …]`",
        };
        if job.models.is_empty() {
            return Err(request("there are no models to merge".to_owned()));
        }
        // What adds up may subtract; weights of Gram matrices and the like are not negative, and not all of them zero.
        let may_be = |weight: f64| weight.is_finite() && (weight >= 0.0 || takes_any_weight);
        for source in &job.models {
            let stated = source.weight.stated();
            let is_empty = |weight: &Weight| match weight {
                Weight::ByName(named) => named.is_empty() || named.iter().any(|named| named.value.is_empty()),
                Weight::Number(_) | Weight::Gradient(_) => weight.stated().is_empty(),
            };
            if is_empty(&source.weight) || !stated.into_iter().all(may_be) {
                return Err(request(format!("the weight of {} is {}", source.name, source.weight)));
            }
        }
        let mut models = Vec::with_capacity(job.models.len());
        let mut family = None;
        for source in &job.models {
            let (source, found) = open(source)?;
            family = family.or(found);
            models.push(source);
        }
        let mut base = job.base.as_ref().map(|base| open(base).map(|(source, _)| source)).transpose()?;
        drop_tied_heads(&mut models)?;
        if let Some(slice) = slice {
            let firsts = slice.models.iter().chain(&slice.base);
            for (source, first) in models.iter_mut().chain(&mut base).zip(firsts) {
                source.cut(slice, *first)?;
            }
        }
        let mut givers = IndexMap::new();
        for (index, model) in models.iter().enumerate() {
            for name in model.checkpoint.names() {
                givers.entry(name.to_owned()).or_insert(Giver::Model(index));
            }
        }
        let names: Vec<String> = givers.keys().cloned().collect();
        let layers = slice.map_or_else(|| 0..count(names.iter().map(String::as_str)), |slice| slice.layers.clone());
        let sources = Self { models, base, family, layers, names, givers };
        let is_weightless = |name: &&String| sources.weights(name).iter().all(|weight| *weight == 0.0);
        if let Some(name) = sources.names.iter().find(is_weightless).filter(|_| !takes_any_weight) {
            return Err(request(format!("the weights of the models add up to zero at {name}")));
        }
        Ok(sources)
    }

    /// The layers of the result that they are merged to.
    pub fn layers(&self) -> &Range<usize> {
        &self.layers
    }

    /// Each model's weight in what becomes of a tensor.
    pub fn weights(&self, tensor: &str) -> Vec<f64> {
        let weight = |source: &Source| gradient(source.weight.of(&source.own_name(tensor)), tensor, &self.layers);
        self.models.iter().map(weight).collect()
    }

    /// Compares what the decisions need of each tensor: that it is there, of one shape, and of a type that can be merged.
    /// A tensor that a rule takes from one model is nobody else's business.
    ///
    /// # Errors
    /// When a tensor that is needed is missing, or differs in shape or kind.
    pub fn settle(
        &mut self,
        decisions: &IndexMap<String, Decision>,
        needs_base: bool,
        reporter: &Reporter,
    ) -> Result<(), MergeError> {
        // The vocabulary first: it is the usual difference, and has its own way out.
        let in_order = decisions.iter().filter(|(name, _)| is_vocabulary(name)).chain(decisions);
        let mut absent: Vec<Absent> = Vec::new();
        let mut other_types: IndexMap<(String, String), usize> = IndexMap::new();
        for (name, decision) in in_order {
            let needed: Vec<&Source> = match decision {
                Decision::Take(index) => vec![&self.models[*index]],
                Decision::Base => self.base.iter().collect(),
                Decision::Own { .. } if needs_base => self.models.iter().chain(&self.base).collect(),
                Decision::Own { .. } | Decision::Average => self.models.iter().collect(),
            };
            if let Some(lacks) = needed.iter().find(|source| !source.checkpoint.contains(name)) {
                let has = self.models.iter().find(|source| source.checkpoint.contains(name));
                let has = has.map_or_else(String::new, |source| source.name.clone());
                let missing = Absent { name: name.clone(), has, lacks: lacks.name.clone() };
                if !absent.contains(&missing) {
                    absent.push(missing);
                }
                continue;
            }
            let giver = match decision {
                Decision::Base => Giver::Base,
                Decision::Take(index) => Giver::Model(*index),
                _ => Giver::Model(0),
            };
            self.givers.insert(name.clone(), giver);
            let Some((first, others)) = needed.split_first() else { continue };
            for other in others {
                if let Some(types) = compare(name, first, other)? {
                    *other_types.entry(types).or_default() += 1;
                }
            }
        }
        if !absent.is_empty() {
            return Err(MergeError::Names(absent));
        }
        for ((first, other), count) in other_types {
            reporter.note(format!("{count} tensors are stored as {first} and as {other}"));
        }
        Ok(())
    }

    /// Tensor names, in the first model's order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    fn giver(&self, name: &str) -> &Source {
        match self.givers.get(name) {
            Some(Giver::Base) => self.base.as_ref().unwrap_or(&self.models[0]),
            Some(Giver::Model(index)) => &self.models[*index],
            None => &self.models[0],
        }
    }

    /// Shape of a tensor of the result.
    ///
    /// # Errors
    /// When there is no such tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize], MergeError> {
        Ok(&self.giver(name).checkpoint.info(name)?.shape)
    }

    /// Stored type of a tensor in the model that it follows: the first, or the one that a rule takes it from.
    ///
    /// # Errors
    /// When there is no such tensor.
    pub fn dtype(&self, name: &str) -> Result<Dtype, MergeError> {
        self.giver(name).dtype(name)
    }

    /// The type to write: what the merge states, or the models' own; `None` if they have several.
    ///
    /// # Errors
    /// When the stated one is not known.
    pub fn output_type(&self, job: &MergeJob) -> Result<Option<FloatType>, MergeError> {
        if let Some(name) = &job.dtype {
            return Ok(Some(FloatType::parse(name)?));
        }
        let mut types = self.names.iter().filter_map(|name| FloatType::for_merged(self.dtype(name).ok()?));
        let first = types.next();
        Ok(first.filter(|first| types.all(|other| other == *first)))
    }

    /// What the output holds: every tensor, floats in the output type.
    ///
    /// # Errors
    /// When there is no such tensor.
    pub fn planned(&self, dtype: Option<FloatType>) -> Result<Vec<NewTensor>, MergeError> {
        let plan = |name: &String| {
            let own = self.dtype(name)?;
            let stored = match (FloatType::for_merged(own), dtype) {
                (Some(own), stated) => stated.unwrap_or(own).header(),
                (None, _) => own,
            };
            Ok(NewTensor { name: name.clone(), dtype: stored, shape: self.shape(name)?.to_vec() })
        };
        self.names.iter().map(plan).collect()
    }
}

/// A head that not every model has, and that is the embedding wherever it stands, is none of its own: old libraries saved
/// it, whatever the configuration says.
fn drop_tied_heads(models: &mut [Source]) -> Result<(), MergeError> {
    let has_head = |model: &Source| model.checkpoint.contains(HEAD);
    if models.iter().all(has_head) {
        return Ok(());
    }
    for model in models.iter().filter(|model| has_head(model)) {
        if !is_tied(&model.checkpoint)? {
            return Ok(());
        }
    }
    for model in models {
        model.checkpoint.forget(HEAD);
    }
    Ok(())
}

/// Whether the head holds the numbers of the embedding.
pub(crate) fn is_tied(checkpoint: &Checkpoint) -> Result<bool, MergeError> {
    let Some(embedding) = checkpoint.names().find(|name| name.ends_with("embed_tokens.weight")) else {
        return Ok(false);
    };
    let (head, table) = (checkpoint.info(HEAD)?, checkpoint.info(embedding)?);
    if head.shape != table.shape || head.dtype != table.dtype {
        return Ok(false);
    }
    for range in tiles(0..head.elements()) {
        let rows = checkpoint.file(embedding)?.bytes(embedding, range.clone())?;
        if checkpoint.file(HEAD)?.bytes(HEAD, range)? != rows {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Refuses two tensors that cannot be merged; the two types where they differ and can.
fn compare(name: &str, first: &Source, other: &Source) -> Result<Option<(String, String)>, MergeError> {
    let (left, right) = (first.checkpoint.info(name)?, other.checkpoint.info(name)?);
    if left.shape != right.shape {
        if is_vocabulary(name) && left.shape.get(1) == right.shape.get(1) && left.shape.len() == 2 {
            return Err(MergeError::Vocabulary {
                name: name.to_owned(),
                first: first.name.clone(),
                first_size: left.shape[0],
                other: other.name.clone(),
                other_size: right.shape[0],
            });
        }
        return Err(MergeError::Shapes {
            name: name.to_owned(),
            first: first.name.clone(),
            first_shape: left.shape.clone(),
            other: other.name.clone(),
            other_shape: right.shape.clone(),
        });
    }
    let (left, right) = (first.dtype(name)?, other.dtype(name)?);
    if left == right {
        return Ok(None);
    }
    if !is_float(left) || !is_float(right) {
        return Err(MergeError::Types {
            name: name.to_owned(),
            first: first.name.clone(),
            first_type: left.to_string(),
            other: other.name.clone(),
            other_type: right.to_string(),
        });
    }
    let said = |dtype: Dtype, source: &Source| format!("{dtype} in {}", source.name);
    Ok(Some((said(left, first), said(right, other))))
}

impl Source {
    /// The type of a tensor in the model.
    ///
    /// # Errors
    /// When there is no such tensor.
    pub fn dtype(&self, name: &str) -> Result<Dtype, MergeError> {
        let stored = self.checkpoint.info(name)?.dtype;
        Ok(self.widened.get(name).copied().unwrap_or(stored))
    }

    /// Takes away all that is not of a slice, and gives its layers their numbers in the result.
    fn cut(&mut self, slice: &Slice, first: usize) -> Result<(), MergeError> {
        let (model, taken) = (self.name.clone(), first..first + slice.layers.len());
        let found = count(self.checkpoint.names());
        if taken.end > found {
            return Err(MergeError::Layers { model, first, end: taken.end, found });
        }
        let mut stacks: Vec<&str> = self.checkpoint.names().filter_map(stack).collect();
        stacks.sort_unstable();
        stacks.dedup();
        if let [one, other, ..] = stacks.as_slice() {
            return Err(MergeError::Stacks { model, one: (*one).to_owned(), other: (*other).to_owned() });
        }
        self.checkpoint.rename(|name| match depth(name) {
            Some(depth) => taken.contains(&depth).then(|| renumbered(name, depth - first + slice.layers.start)),
            None if is_before_layers(name) => slice.is_first.then(|| name.to_owned()),
            None => slice.is_last.then(|| name.to_owned()),
        });
        self.moved = Some((first, slice.layers.start));
        Ok(())
    }

    /// What a tensor of the result is called in the model.
    pub fn own_name<'a>(&self, tensor: &'a str) -> Cow<'a, str> {
        match (self.moved, depth(tensor)) {
            (Some((own, result)), Some(depth)) => renumbered(tensor, depth - result + own).into(),
            _ => tensor.into(),
        }
    }

    /// The elements `range` of a tensor laid flat, as fp32, with the adapter if there is one; what is stored is checked to be
    /// finite.
    ///
    /// # Errors
    /// When they cannot be read or are not finite.
    ///
    /// # Panics
    /// When there are not as many `values` as elements.
    pub fn decode(&self, name: &str, range: Range<usize>, values: &mut [f32]) -> Result<(), MergeError> {
        let file = self.checkpoint.file(name)?;
        let dtype = file.info(name)?.dtype;
        if !is_float(dtype) {
            return Err(file.unread(name, dtype).into());
        }
        decode(dtype, &file.bytes(name, range.clone())?, values);
        if let Some(at) = first_not_finite(values) {
            let mut rest = range.start + at;
            let mut position = Vec::new();
            for side in file.info(name)?.shape.iter().rev() {
                position.insert(0, rest % side);
                rest /= side;
            }
            let (name, model) = (self.own_name(name).into_owned(), self.name.clone());
            return Err(MergeError::NotFinite { name, model, position, value: values[at] });
        }
        if let Some(adapter) = &self.adapter {
            adapter.apply(name, range, values)?;
        }
        Ok(())
    }

    /// The elements `range` of a tensor laid flat, in fp32 or fp64, checked to be finite.
    ///
    /// # Errors
    /// When they cannot be read or are not finite.
    pub fn elements(&self, name: &str, range: Range<usize>, kind: Kind) -> Result<Tensor, MergeError> {
        let mut values = vec![0.0f32; range.len()];
        self.decode(name, range, &mut values)?;
        let tensor = Tensor::f_from_slice(&values).and_then(|values| values.f_to_kind(kind));
        tensor.map_err(MergeError::torch(name))
    }
}
