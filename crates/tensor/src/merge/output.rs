//! The files of a model directory beside its weights.

use std::fs;
use std::path::Path;

use indexmap::IndexMap;
use mergelab_wire::MergeJob;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::align::Vocabulary;
use super::error::MergeError;
use super::layered;
use super::layers::is_vocabulary;
use super::sources::Sources;
use crate::dtype::FloatType;
use crate::failure::FileError;

/// Files that a tokenizer may consist of, beside [`WITHOUT_ADDED`].
const TOKENIZER_FILES: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
];

/// Files of a tokenizer that say what the tokens are and know nothing of any that were added to `tokenizer.json`.
pub(super) const WITHOUT_ADDED: [&str; 8] = [
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
    tensors: usize,
    (dtype, made): (Option<FloatType>, Option<&Vocabulary>),
    out: &Path,
) -> Result<(), MergeError> {
    copy(&job.tokenizer, (dtype, layered::values(job)?), out)?;
    if let Some(made) = made {
        put_vocabulary(made, out)?;
    }
    put(&out.join("README.md"), job.card.as_bytes())?;
    let text =
        serde_json::to_string_pretty(&provenance(job, tensors, dtype)).expect("names and numbers have a JSON form");
    put(&out.join("merge.json"), (text + "\n").as_bytes())?;
    Ok(())
}

/// Writes a model's configuration, with the type of the weights and some values of its own, and its tokenizer.
///
/// # Errors
/// When a file cannot be read or written.
pub fn copy(
    model: &Path,
    (dtype, values): (Option<FloatType>, IndexMap<String, Value>),
    out: &Path,
) -> Result<(), MergeError> {
    let path = model.join("config.json");
    let config = with_values(&read(&path)?, values).and_then(|config| with_dtype(&config, dtype));
    let config = config.map_err(|error| MergeError::Config { path, reason: error.to_string() })?;
    put(&out.join("config.json"), &config)?;
    for name in TOKENIZER_FILES.iter().chain(&WITHOUT_ADDED) {
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
fn put_vocabulary(made: &Vocabulary, out: &Path) -> Result<(), MergeError> {
    let path = out.join("config.json");
    let wrong = |path: &Path, error: &serde_json::Error| MergeError::Config {
        path: path.to_path_buf(),
        reason: error.to_string(),
    };
    let sized = with_vocabulary(&read(&path)?, made.rows).map_err(|error| wrong(&path, &error))?;
    put(&path, &sized)?;
    let Some(tokenizer) = &made.tokenizer else { return Ok(()) };
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
            listed.extend(made.added.iter().map(|(id, token)| (id.to_string(), json!(token))));
            let text = serde_json::to_string_pretty(&config).expect("JSON has a text");
            put(&path, (text + "\n").as_bytes())?;
        }
    }
    Ok(())
}

/// `config.json` with another size of the vocabulary; unchanged to the byte where it has that.
fn with_vocabulary(config: &[u8], rows: usize) -> serde_json::Result<Vec<u8>> {
    let values: IndexMap<String, Value> = serde_json::from_slice(config)?;
    let size_in = |values: Option<&Value>| values.and_then(|part| part.get("vocab_size")).cloned();
    // Models with several parts say it of the one that has text.
    let changed = match (values.get("vocab_size"), values.get("text_config")) {
        (Some(size), _) if *size != json!(rows) => ("vocab_size".to_owned(), json!(rows)),
        (None, part) if size_in(part).is_some_and(|size| size != json!(rows)) => {
            let mut part = part.cloned().unwrap_or_default();
            part["vocab_size"] = json!(rows);
            ("text_config".to_owned(), part)
        }
        _ => return Ok(config.to_vec()),
    };
    with_values(config, IndexMap::from([changed]))
}

/// `config.json` with other values; unchanged to the byte where there are none.
fn with_values(config: &[u8], changed: IndexMap<String, Value>) -> serde_json::Result<Vec<u8>> {
    if changed.is_empty() {
        return Ok(config.to_vec());
    }
    let mut values: IndexMap<String, Box<RawValue>> = serde_json::from_slice(config)?;
    for (key, value) in changed {
        values.insert(key, serde_json::value::to_raw_value(&value)?);
    }
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
fn provenance(job: &MergeJob, tensors: usize, dtype: Option<FloatType>) -> Value {
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
    let mut all = json!({
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
        "tensors": tensors,
    });
    if !job.slices.is_empty() {
        all["slices"] = json!(job.slices);
    }
    all
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
    #[test]
    fn the_size_of_the_vocabulary_stands_where_the_config_has_it() {
        let sized = |config: &str| String::from_utf8(with_vocabulary(config.as_bytes(), 7).unwrap()).unwrap();
        for same in [r#"{"vocab_size":7}"#, r#"{"text_config":{"vocab_size":7}}"#, r#"{"n_embd":2}"#] {
            assert_eq!(sized(same), same);
        }
        let value = |config: &str| serde_json::from_str::<Value>(&sized(config)).unwrap();
        assert_eq!(value(r#"{"vocab_size":5,"a":1}"#), json!({ "vocab_size": 7, "a": 1 }));
        let parts = value(r#"{"text_config":{"vocab_size":5,"b":2}}"#);
        assert_eq!(parts, json!({ "text_config": { "vocab_size": 7, "b": 2 } }));
    }
}
