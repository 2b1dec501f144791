//! `adapter_config.json`: how strongly each module's change counts, and what an adapter may ask for that is not applied.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::LoraError;
use crate::failure::FileError;

/// Name of the file.
pub(super) const FILE: &str = "adapter_config.json";

/// Keys that make more of an adapter than a change of low rank, where they say something.
const UNSUPPORTED: [&str; 12] = [
    "use_dora",
    "lora_bias",
    "use_qalora",
    "use_bdlora",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "arrow_config",
    "velora_config",
    "monteclora_config",
    "kasa_config",
];

/// Ways to begin the training that leave the model's own weights as they are. Others (PiSSA, OLoRA, LoftQ, CorDA) train
/// from changed ones, so that the change is not one of the model's.
const PLAIN_STARTS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// What is read of the file.
#[derive(Debug, Deserialize)]
struct Stated {
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    rank_pattern: Option<IndexMap<String, usize>>,
    alpha_pattern: Option<IndexMap<String, f64>>,
    base_model_name_or_path: Option<String>,
}

/// An adapter's configuration.
#[derive(Debug)]
pub(super) struct Config {
    stated: Stated,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
}

impl Config {
    /// Reads the configuration in an adapter's directory.
    ///
    /// # Errors
    /// When it cannot be read, or is of an adapter that is not applied here.
    pub(super) fn read(directory: &Path) -> Result<Self, LoraError> {
        let path = directory.join(FILE);
        let text = std::fs::read(&path).map_err(FileError::of("read", &path))?;
        Self::parse(&text, &path)
    }

    fn parse(text: &[u8], path: &Path) -> Result<Self, LoraError> {
        let wrong = |reason: String| LoraError::Config { path: path.to_path_buf(), reason };
        let all: Map<String, Value> = serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
        refuse(&all, path)?;
        let stated: Stated = serde_json::from_value(Value::Object(all)).map_err(|error| wrong(error.to_string()))?;
        let pattern = |key: &str| {
            // As PEFT matches it: the end of a module's name, from a dot on.
            Regex::new(&format!(r"^(?:.*\.)?(?:{key})$"))
                .map_err(|error| wrong(format!("{key:?} is no pattern that is read: {error}")))
        };
        let ranks = stated.rank_pattern.iter().flatten().map(|(key, rank)| Ok((pattern(key)?, *rank)));
        let ranks = ranks.collect::<Result<_, LoraError>>()?;
        let alphas = stated.alpha_pattern.iter().flatten().map(|(key, alpha)| Ok((pattern(key)?, *alpha)));
        let alphas = alphas.collect::<Result<_, LoraError>>()?;
        Ok(Self { stated, ranks, alphas })
    }

    /// The rank of a module's change.
    pub(super) fn rank(&self, module: &str) -> usize {
        of_module(&self.ranks, module).unwrap_or(self.stated.r)
    }

    /// What `B·A` of a module is multiplied by.
    pub(super) fn scale(&self, module: &str) -> f64 {
        let (rank, alpha) =
            (self.rank(module) as f64, of_module(&self.alphas, module).unwrap_or(self.stated.lora_alpha));
        alpha / if self.stated.use_rslora { rank.sqrt() } else { rank }
    }

    /// Whether weights are stored as `[in, out]`.
    pub(super) fn is_transposed(&self) -> bool {
        self.stated.fan_in_fan_out
    }

    /// The model that the adapter was trained on, as it says itself: a name on the hub, or somebody's path.
    pub(super) fn trained_on(&self) -> Option<&str> {
        self.stated.base_model_name_or_path.as_deref().filter(|name| !name.is_empty())
    }
}

/// The value of the first pattern that a module's name fits.
fn of_module<T: Copy>(patterns: &[(Regex, T)], module: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| pattern.is_match(module)).map(|(_, value)| *value)
}

/// Refuses what is not a change of low rank alone.
fn refuse(all: &Map<String, Value>, path: &Path) -> Result<(), LoraError> {
    let unsupported = |key: &str, value: &Value| LoraError::Unsupported {
        path: path.to_path_buf(),
        key: key.to_owned(),
        value: value.to_string(),
    };
    match all.get("peft_type") {
        Some(Value::String(kind)) if kind == "LORA" => {}
        Some(other) => return Err(unsupported("peft_type", other)),
        None => {
            let reason = "it has no `peft_type`, and so is no adapter's".to_owned();
            return Err(LoraError::Config { path: PathBuf::from(path), reason });
        }
    }
    let says_something = |value: &&Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    };
    for key in UNSUPPORTED {
        if let Some(value) = all.get(key).filter(says_something) {
            return Err(unsupported(key, value));
        }
    }
    match all.get("init_lora_weights") {
        Some(Value::String(start)) if !PLAIN_STARTS.contains(&start.as_str()) => {
            Err(unsupported("init_lora_weights", &all["init_lora_weights"]))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(changes: &Value) -> Result<Config, LoraError> {
        let mut all = json!({ "peft_type": "LORA", "r": 8, "lora_alpha": 16 });
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        Config::parse(all.to_string().as_bytes(), Path::new(FILE))
    }

    #[test]
    fn the_scale_is_alpha_over_the_rank_or_its_root_by_the_first_pattern_that_fits() {
        let plain = parse(&json!({})).unwrap();
        assert_eq!((plain.rank("a.q_proj"), plain.scale("a.q_proj")), (8, 2.0));
        let rooted = parse(&json!({ "use_rslora": true, "r": 16 })).unwrap();
        assert_eq!((rooted.rank("a.q_proj"), rooted.scale("a.q_proj")), (16, 4.0));
        let patterns = json!({
            "rank_pattern": { "q_proj": 4, "layers.0.self_attn.q_proj": 2, "^layers.1.mlp": 1 },
            "alpha_pattern": { r".*\.1\..*": 32 },
        });
        let by_pattern = parse(&patterns).unwrap();
        assert_eq!(
            (by_pattern.rank("layers.0.self_attn.q_proj"), by_pattern.scale("layers.0.self_attn.q_proj")),
            (4, 4.0)
        );
        assert_eq!((by_pattern.rank("layers.1.mlp"), by_pattern.scale("layers.1.mlp")), (1, 32.0));
        // The end of a name from a dot on, and nothing less.
        assert_eq!(by_pattern.rank("layers.0.eq_proj"), 8);
    }

    #[test]
    fn what_is_more_than_a_change_of_low_rank_is_refused_by_name() {
        let refused = |changes: Value| parse(&changes).unwrap_err().to_string();
        assert_eq!(
            refused(json!({ "peft_type": "LOHA" })),
            "adapter_config.json: `peft_type` is \"LOHA\", which is not applied here"
        );
        assert!(refused(json!({ "use_dora": true })).contains("`use_dora` is true"));
        assert!(refused(json!({ "init_lora_weights": "pissa_niter_4" })).contains("\"pissa_niter_4\""));
        assert!(
            refused(json!({ "layer_replication": [[0, 2], [1, 3]] })).contains("`layer_replication` is [[0,2],[1,3]]")
        );
        assert!(refused(json!({ "rank_pattern": { "(": 1 } })).contains("\"(\" is no pattern that is read"));
        assert!(refused(json!({ "lora_alpha": null })).contains("invalid type: null"));
        parse(
            &json!({ "use_dora": false, "layer_replication": null, "target_parameters": [], "init_lora_weights": true }),
        )
        .unwrap();
        parse(&json!({ "init_lora_weights": "gaussian", "loftq_config": {} })).unwrap();
    }
}
