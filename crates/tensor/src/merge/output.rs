//! The files of a model directory beside its weights.

use std::fs;
use std::path::Path;

use indexmap::IndexMap;
use mergelab_wire::MergeJob;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::align::Aligned;
use super::error::MergeError;
use super::layers::is_vocabulary;
use super::sources::Sources;
use crate::dtype::FloatType;
use crate::failure::FileError;

/// Files that a tokenizer may consist of.
const TOKENIZER_FILES: [&str; 14] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
];

/// Those of them that say what the tokens are and know nothing of any that were added to `tokenizer.json`.
const WITHOUT_ADDED: [&str; 8] = [
    "tokenizer.model",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
];

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(FileError::of("read", path))
}

/// Writes a file with the process's own permissions: what it was copied from may be read-only.
fn put(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    fs::write(path, bytes).map_err(FileError::of("write", path))
}

/// Whether the directory that gives config and tokenizer fits the weights.
///
/// # Errors
/// When it has no `config.json`, or that names another vocabulary.
pub fn check(job: &MergeJob, sources: &Sources) -> Result<(), MergeError> {
    let path = job.tokenizer.join("config.json");
    let config = |reason: String| MergeError::Config { path: path.clone(), reason };
    let value: Value = serde_json::from_slice(&read(&path)?).map_err(|error| config(error.to_string()))?;
    let embedding = sources.names().iter().find(|name| is_vocabulary(name));
    if let (Some(size), Some(name)) = (value.get("vocab_size").and_then(Value::as_u64), embedding) {
        let rows = sources.shape(name)?[0];
        if rows as u64 != size {
            return Err(config(format!("vocab_size is {size}, and {name} has {rows} rows")));
        }
    }
    Ok(())
}

/// Writes configuration, tokenizer, model card and provenance.
///
/// # Errors
/// When a file cannot be read or written.
pub(super) fn write(
    job: &MergeJob,
    sources: &Sources,
    (dtype, aligned): (Option<FloatType>, Option<&Aligned>),
    out: &Path,
) -> Result<(), MergeError> {
    copy(&job.tokenizer, dtype, out)?;
    if let Some(aligned) = aligned {
        put_vocabulary(aligned, out)?;
    }
    put(&out.join("README.md"), job.card.as_bytes())?;
    let text =
        serde_json::to_string_pretty(&provenance(job, sources, dtype)).expect("names and numbers have a JSON form");
    put(&out.join("merge.json"), (text + "\n").as_bytes())?;
    Ok(())
}

/// Writes a model's configuration, with the type of the weights, and its tokenizer.
///
/// # Errors
/// When a file cannot be read or written.
pub fn copy(model: &Path, dtype: Option<FloatType>, out: &Path) -> Result<(), MergeError> {
    let path = model.join("config.json");
    let config =
        with_dtype(&read(&path)?, dtype).map_err(|error| MergeError::Config { path, reason: error.to_string() })?;
    put(&out.join("config.json"), &config)?;
    for name in TOKENIZER_FILES {
        let from = model.join(name);
        if from.is_file() {
            put(&out.join(name), &read(&from)?)?;
        }
    }
    let templates = model.join("additional_chat_templates");
    if templates.is_dir() {
        let target = out.join("additional_chat_templates");
        fs::create_dir_all(&target).map_err(FileError::of("create", &target))?;
        for entry in fs::read_dir(&templates).map_err(FileError::of("read", &templates))? {
            let entry = entry.map_err(FileError::of("read", &templates))?;
            put(&target.join(entry.file_name()), &read(&entry.path())?)?;
        }
    }
    Ok(())
}

/// Says in a model directory what became of its vocabulary: the size of it, and the tokens that were added. Files of the
/// tokenizer that do not know those are not kept, `tokenizer.json` being read before them.
fn put_vocabulary(aligned: &Aligned, out: &Path) -> Result<(), MergeError> {
    let path = out.join("config.json");
    let wrong = |path: &Path, error: &serde_json::Error| MergeError::Config {
        path: path.to_path_buf(),
        reason: error.to_string(),
    };
    let sized = with_vocabulary(&read(&path)?, aligned.rows).map_err(|error| wrong(&path, &error))?;
    put(&path, &sized)?;
    let Some(tokenizer) = &aligned.tokenizer else { return Ok(()) };
    put(&out.join("tokenizer.json"), tokenizer.as_bytes())?;
    for name in WITHOUT_ADDED {
        let path = out.join(name);
        if path.exists() {
            fs::remove_file(&path).map_err(FileError::of("remove", &path))?;
        }
    }
    let path = out.join("tokenizer_config.json");
    if path.exists() {
        let mut config: Value = serde_json::from_slice(&read(&path)?).map_err(|error| wrong(&path, &error))?;
        if let Some(listed) = config.get_mut("added_tokens_decoder").and_then(Value::as_object_mut) {
            listed.extend(aligned.added.iter().map(|(id, token)| (id.to_string(), json!(token))));
            let text = serde_json::to_string_pretty(&config).expect("JSON has a text");
            put(&path, (text + "\n").as_bytes())?;
        }
    }
    Ok(())
}

/// `config.json` with another size of the vocabulary; unchanged to the byte where it has that.
fn with_vocabulary(config: &[u8], rows: usize) -> serde_json::Result<Vec<u8>> {
    let mut values: IndexMap<String, Box<RawValue>> = serde_json::from_slice(config)?;
    // Models with several parts say it of the one that has text.
    let (key, new) = match (values.get("vocab_size"), values.get("text_config")) {
        (None, Some(part)) => ("text_config", with_vocabulary(part.get().as_bytes(), rows)?),
        (None, None) => return Ok(config.to_vec()),
        (Some(size), _) if size.get() == rows.to_string() => return Ok(config.to_vec()),
        (Some(_), _) => ("vocab_size", rows.to_string().into_bytes()),
    };
    values.insert(key.to_owned(), serde_json::from_slice(&new)?);
    let mut bytes = serde_json::to_vec_pretty(&values)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// `config.json` with its type set to that of the weights; unchanged to the byte where it says so already.
fn with_dtype(config: &[u8], dtype: Option<FloatType>) -> serde_json::Result<Vec<u8>> {
    let Some(dtype) = dtype else { return Ok(config.to_vec()) };
    let mut values: IndexMap<String, Box<RawValue>> = serde_json::from_slice(config)?;
    let new = serde_json::value::to_raw_value(dtype.name())?;
    let stated: Vec<&str> = ["dtype", "torch_dtype"].into_iter().filter(|key| values.contains_key(*key)).collect();
    if !stated.is_empty() && stated.iter().all(|key| values[*key].get() == new.get()) {
        return Ok(config.to_vec());
    }
    // Libraries of every age read `torch_dtype`.
    for key in if stated.is_empty() { vec!["torch_dtype"] } else { stated } {
        values.insert(key.to_owned(), new.clone());
    }
    let mut bytes = serde_json::to_vec_pretty(&values)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// `merge.json`: what was merged how. No paths and no times, so that the same merge gives the same file everywhere.
fn provenance(job: &MergeJob, sources: &Sources, dtype: Option<FloatType>) -> Value {
    let models: Vec<Value> = job
        .models
        .iter()
        .map(|model| {
            json!({
                "name": model.name,
                "weight": model.weight,
                "grams": model.grams.is_some() || model.capture.is_some(),
                "held_out": model.held_out.is_some(),
            })
        })
        .collect();
    json!({
        "format": 1,
        "program": concat!("mergelab-tensor ", env!("CARGO_PKG_VERSION")),
        "method": job.method,
        "models": models,
        "base": job.base.as_ref().map(|base| &base.name),
        "alpha": job.alpha,
        "params": job.params,
        "rules": job.rules,
        "normalize": job.normalize,
        "solver": job.solver,
        "dtype": dtype.map(FloatType::name),
        "shard_size": job.shard_size,
        "alignment": job.alignment,
        "origin": job.origin,
        "tensors": sources.names().len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_keeps_its_order_and_gets_the_type_of_the_weights() {
        let config = br#"{"z": {"b": 1, "a": 2}, "torch_dtype": "bfloat16", "a": 1}"#;
        let same = with_dtype(config, Some(FloatType::BFloat16)).unwrap();
        assert_eq!(same, config);
        let new = String::from_utf8(with_dtype(config, Some(FloatType::Float32)).unwrap()).unwrap();
        assert_eq!(new, "{\n  \"z\": {\"b\": 1, \"a\": 2},\n  \"torch_dtype\": \"float32\",\n  \"a\": 1\n}\n");
    }
}
