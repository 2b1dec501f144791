//! A LoRA adapter of the difference between a model and its base: of every linear layer the nearest change of low rank.
//!
//! Embeddings, head, norms and biases are no changes of low rank. They are kept whole where that is asked for, and else what
//! they differ by is told. `layers.json` beside the adapter has it all:
//! `{ "format": 1, "layers": [{ module, shape, rank, relative_error }], "whole": [tensor],
//! "left_out": [{ tensor, relative_difference }] }`, errors relative to the norm of the layer's difference, and differences to
//! that of the base's tensor (null where it is zero).
//!
//! Format history: 1, the first.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use mergelab_wire::{ExtractLoraJob, MergeJob, TokenIds};
use safetensors::Dtype;
use serde_json::{Value, json};
use tch::{Kind, TchError, Tensor};

use super::adapted::of_one;
use super::elementwise::tiles;
use super::error::{Absent, MergeError};
use super::figures::{finite, ratio};
use super::layers::{is_linear, is_transposed, is_transposed_layer, is_vocabulary};
use super::rules::Decision;
use super::sources::{Source, Sources};
use super::{Machine, stream};
use crate::checkpoint::{NewTensor, Writer};
use crate::codec::is_float;
use crate::dtype::FloatType;
use crate::failure::{Failure, FileError};
use crate::lora::{LoraError, Truncated, Written, names_of_factors, truncate};
use crate::parallel::Pool;
use crate::report::Reporter;

/// Makes the adapter.
///
/// # Errors
/// When the models do not fit, or cannot be read, or are the same, or the work fails.
pub fn run(job: &ExtractLoraJob, out: &Path, machine: Machine, reporter: &Reporter) -> Result<(), Failure> {
    extract(job, out, machine, reporter).map_err(|error| {
        let hint = hint(&error);
        let failure = Failure::from(error);
        Failure { hint: hint.map(str::to_owned).or(failure.hint), ..failure }
    })
}

/// The way out of what is a merge's error as well, and has another one there.
fn hint(error: &MergeError) -> Option<&'static str> {
    Some(match error {
        MergeError::Names(_) | MergeError::Shapes { .. } | MergeError::Layout { .. } | MergeError::Types { .. } => {
            "an adapter is for a model of the same architecture and size: name the one that this was made from (`--base`)"
        }
        MergeError::Vocabulary { .. } => "leave `--modules-to-save` out, for an adapter of the layers alone",
        MergeError::Quantized { .. } => {
            "load it in `transformers`, dequantise it and save it; then name that as the model"
        }
        _ => return None,
    })
}

fn extract(job: &ExtractLoraJob, out: &Path, machine: Machine, reporter: &Reporter) -> Result<(), MergeError> {
    let base = of_one(&job.base_name, &job.base).models.pop();
    let of_two = MergeJob { base, ..of_one(&job.name, &job.model) };
    let mut sources = Sources::open(&of_two, false)?;
    check_names(&sources)?;
    check_tokens(job, reporter)?;
    let (linear, others): (Vec<String>, Vec<String>) =
        sources.names().iter().cloned().partition(|name| is_low_rank(&sources, name));
    let compared = linear.iter().chain(if job.whole { &others[..] } else { &[] });
    let decisions = compared.map(|name| (name.clone(), Decision::Own { alpha: None })).collect();
    sources.settle(&decisions, true, reporter)?;
    let (model, base) = (&sources.models[0], sources.base.as_ref().expect("it was opened above"));

    let layers = changes(job, (model, base), &linear, machine, reporter)?;
    if layers.is_empty() {
        let (name, base) = (job.name.clone(), job.base_name.clone());
        return Err(LoraError::Same { name, base }.into());
    }
    let (whole, left_out) = differing((model, base), &others, job.whole, machine.host)?;
    let config = super::sources::config(&job.base).unwrap_or(Value::Null);
    let ranks: Vec<(String, usize)> = layers.iter().map(|(module, change)| (module.clone(), change.rank)).collect();
    let written = Written {
        base: &job.base_name,
        ranks: &ranks,
        linear: &linear.iter().map(|name| module(name).to_owned()).collect::<Vec<_>>(),
        whole: &whole,
        is_transposed: is_transposed(sources.family.as_deref()),
        is_causal: config["architectures"][0].as_str().is_some_and(is_causal),
        is_tied: config["tie_word_embeddings"] == true,
    };
    write(&written, (model, sources.family.as_deref()), &layers, out)?;
    report(&layers, (&whole, &left_out), out, reporter)?;
    Ok(())
}

/// Refuses to keep tables whole by which another token would have each row: the tokenizer of an adapter is its base's.
fn check_tokens(job: &ExtractLoraJob, reporter: &Reporter) -> Result<(), LoraError> {
    let Some(two) = TokenIds::read(&job.model).conflict(&TokenIds::read(&job.base)) else { return Ok(()) };
    let (name, base) = (job.name.clone(), job.base_name.clone());
    if job.whole {
        return Err(LoraError::Tokens { name, base, token: two.token, ids: (two.first, two.other) });
    }
    reporter.note(format!(
        "the token {:?} is {} in {name} and {} in {base}: the adapter is of the layers alone, and its tokenizer is that of {base}",
        two.token, two.first, two.other
    ));
    Ok(())
}

/// Refuses a base with tensors that the model does not have: an adapter takes nothing away. A head may be the embedding.
fn check_names(sources: &Sources) -> Result<(), MergeError> {
    let (model, base) = (&sources.models[0], sources.base.as_ref().expect("it was opened above"));
    let lacks = |name: &&str| !model.checkpoint.contains(name) && !is_vocabulary(name);
    let absent = base.checkpoint.names().filter(lacks).map(|name| Absent {
        name: name.to_owned(),
        has: base.name.clone(),
        lacks: model.name.clone(),
    });
    let absent: Vec<Absent> = absent.collect();
    if absent.is_empty() { Ok(()) } else { Err(MergeError::Names(absent)) }
}

/// Whether a tensor is the weight of a linear layer that an adapter changes: the head, which is one, is kept whole.
fn is_low_rank(sources: &Sources, name: &str) -> bool {
    let shape = sources.shape(name).unwrap_or_default();
    let is_number = sources.dtype(name).is_ok_and(is_float);
    is_number && !is_vocabulary(name) && is_linear(&[], sources.family.as_deref(), name, shape)
}

fn module(weight: &str) -> &str {
    weight.strip_suffix(".weight").unwrap_or(weight)
}

/// The changes of all linear layers that have one, by module.
fn changes(
    job: &ExtractLoraJob,
    (model, base): (&Source, &Source),
    linear: &[String],
    machine: Machine,
    reporter: &Reporter,
) -> Result<Vec<(String, Truncated)>, MergeError> {
    let mut widest = 0;
    for name in linear {
        widest = widest.max(needed(&base.checkpoint.info(name)?.shape));
    }
    let pool = match machine.memory {
        Some(budget) if budget < stream::PROGRAM + widest => {
            return Err(MergeError::Memory { budget, needed: stream::PROGRAM + widest });
        }
        Some(budget) => {
            let workers = (budget - stream::PROGRAM) / widest.max(1);
            Pool::new(machine.host.workers().min(usize::try_from(workers).unwrap_or(usize::MAX)))
        }
        None => machine.host,
    };
    let done = AtomicUsize::new(0);
    reporter.progress(0, linear.len(), "layers");
    let changes = pool.map(linear.iter().collect(), |name: &String| -> Result<_, MergeError> {
        let change = truncate(&difference((model, base), name)?, job.size).map_err(MergeError::torch(name))?;
        reporter.progress(done.fetch_add(1, Ordering::Relaxed) + 1, linear.len(), "layers");
        Ok(change.map(|change| (module(name).to_owned(), change)))
    })?;
    Ok(changes.into_iter().flatten().collect())
}

/// Bytes that the change of a layer takes meanwhile, in fp64: the difference, its approximation and what it is read through;
/// the products of its shorter side, their eigenvectors and what those are found with.
fn needed(shape: &[usize]) -> u64 {
    let (all, side) = (shape.iter().product::<usize>() as u64, shape.iter().copied().min().unwrap_or(0) as u64);
    8 * (3 * all + 4 * side * side)
}

/// What a layer of the model has more than that of its base, `[rows, columns]` in fp64.
fn difference((model, base): (&Source, &Source), name: &str) -> Result<Tensor, MergeError> {
    let shape: Vec<i64> = base.checkpoint.info(name)?.shape.iter().map(|side| *side as i64).collect();
    let all = 0..shape.iter().product::<i64>() as usize;
    let ours = model.elements(name, all.clone(), Kind::Double)?;
    let theirs = base.elements(name, all, Kind::Double)?;
    let made = || -> Result<Tensor, TchError> { ours.f_sub(&theirs)?.f_view(shape.as_slice()) };
    made().map_err(MergeError::torch(name))
}

/// A tensor that is left out, and how much it differs, where both models have it in one shape.
type LeftOut = (String, Option<f64>);

/// Of tensors that are no linear layers those that differ: what is kept whole, and what is left out.
fn differing(
    (model, base): (&Source, &Source),
    others: &[String],
    keeps: bool,
    pool: Pool,
) -> Result<(Vec<String>, Vec<LeftOut>), MergeError> {
    let compared = pool.map(others.iter().collect(), |name: &String| compare((model, base), name))?;
    let mut parts = (Vec::new(), Vec::new());
    for (name, found) in others.iter().zip(compared) {
        match found {
            Compared::Same => {}
            Compared::Differs(_) if keeps => parts.0.push(name.clone()),
            Compared::Differs(by) => parts.1.push((name.clone(), by)),
        }
    }
    Ok(parts)
}

/// How a tensor of the model is to that of its base.
enum Compared {
    Same,
    /// By so much of its norm, where that can be said.
    Differs(Option<f64>),
}

fn compare((model, base): (&Source, &Source), name: &str) -> Result<Compared, MergeError> {
    let ours = model.checkpoint.info(name)?;
    let Ok(theirs) = base.checkpoint.info(name) else { return Ok(Compared::Differs(None)) };
    if ours.shape != theirs.shape {
        return Ok(Compared::Differs(None));
    }
    if !is_float(ours.dtype) || !is_float(theirs.dtype) {
        let bytes = |source: &Source| {
            Ok::<_, MergeError>(source.checkpoint.file(name)?.bytes(name, 0..ours.elements())?.into_owned())
        };
        return Ok(if bytes(model)? == bytes(base)? { Compared::Same } else { Compared::Differs(None) });
    }
    let (mut change, mut norm) = (0.0, 0.0);
    let mut tile = [Vec::new(), Vec::new()];
    for range in tiles(0..ours.elements()) {
        for (source, values) in [model, base].into_iter().zip(&mut tile) {
            values.resize(range.len(), 0.0);
            source.decode(name, range.clone(), values)?;
        }
        for (ours, theirs) in tile[0].iter().zip(&tile[1]) {
            let (ours, theirs) = (f64::from(*ours), f64::from(*theirs));
            change += (ours - theirs) * (ours - theirs);
            norm += theirs * theirs;
        }
    }
    Ok(if change == 0.0 { Compared::Same } else { Compared::Differs(ratio(change.sqrt(), norm.sqrt())) })
}

/// Writes the adapter's two files.
fn write(
    written: &Written<'_>,
    (model, family): (&Source, Option<&str>),
    layers: &[(String, Truncated)],
    out: &Path,
) -> Result<(), MergeError> {
    let mut planned = Vec::new();
    let mut factors = Vec::new();
    for (module, change) in layers {
        // Of `[in, out]` the factors are those of the transpose.
        let turn = |tensor: &Tensor| tensor.f_tr()?.f_contiguous();
        let (a, b) = if is_transposed_layer(family, module) {
            let turned = turn(&change.left).and_then(|a| Ok((a, turn(&change.right)?)));
            turned.map_err(MergeError::torch(module))?
        } else {
            (change.right.shallow_clone(), change.left.shallow_clone())
        };
        for (name, tensor) in names_of_factors(module).into_iter().zip([a, b]) {
            let shape = tensor.size().iter().map(|side| *side as usize).collect();
            planned.push(NewTensor { name: name.clone(), dtype: Dtype::F32, shape });
            factors.push((name, tensor));
        }
    }
    for tensor in written.whole {
        let info = model.checkpoint.info(tensor)?;
        let dtype = FloatType::for_merged(info.dtype).map_or(info.dtype, FloatType::header);
        planned.push(NewTensor { name: written.name_of_whole(tensor), dtype, shape: info.shape.clone() });
    }
    let writer = Writer::single(&out.join("adapter_model.safetensors"), planned)?;
    for (name, tensor) in factors {
        writer.write(&name, 0, &tensor)?;
    }
    for tensor in written.whole {
        let (name, info) = (written.name_of_whole(tensor), model.checkpoint.info(tensor)?);
        if !is_float(info.dtype) {
            writer.write_bytes(&name, 0, &model.checkpoint.file(tensor)?.bytes(tensor, 0..info.elements())?)?;
            continue;
        }
        for range in tiles(0..info.elements()) {
            writer.write(&name, range.start, &model.elements(tensor, range, Kind::Float)?)?;
        }
    }
    for shard in writer.shards() {
        shard.sync()?;
    }
    writer.finish();
    put(&out.join("adapter_config.json"), &written.config())
}

fn put(path: &Path, value: &Value) -> Result<(), MergeError> {
    let text = serde_json::to_string_pretty(value).expect("names and numbers have a JSON form") + "\n";
    Ok(std::fs::write(path, text).map_err(FileError::of("write", path))?)
}

/// Writes what each layer lost, and tells how much that is in all.
fn report(
    layers: &[(String, Truncated)],
    (whole, left_out): (&[String], &[LeftOut]),
    out: &Path,
    reporter: &Reporter,
) -> Result<(), MergeError> {
    let of_layer = |(module, change): &(String, Truncated)| {
        let shape = [change.left.size()[0], change.right.size()[1]];
        json!({ "module": module, "shape": shape, "rank": change.rank, "relative_error": finite(change.error()) })
    };
    let of_left_out = |(tensor, by): &LeftOut| json!({ "tensor": tensor, "relative_difference": by });
    let sum = |part: fn(&Truncated) -> f64| layers.iter().map(|(_, change)| part(change)).sum::<f64>();
    let error = (sum(|change| change.lost) / sum(|change| change.all)).sqrt();
    reporter.fact("layers", layers.len());
    reporter.fact("relative_error", json!(finite(error)));
    let all = json!({
        "format": 1,
        "relative_error": finite(error),
        "layers": layers.iter().map(of_layer).collect::<Vec<_>>(),
        "whole": whole,
        "left_out": left_out.iter().map(of_left_out).collect::<Vec<_>>(),
    });
    put(&out.join("layers.json"), &all)
}

/// Whether a class of transformers predicts the next token; GPT-2's does under an older name.
fn is_causal(class: &str) -> bool {
    class.ends_with("ForCausalLM") || class.ends_with("LMHeadModel")
}
