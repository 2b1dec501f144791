//! `config.json` of the natively supported families, as the options of one decoder.
//!
//! Defaults are those of the families' configuration classes in `transformers` 5, because a `config.json` leaves out
//! what equals them.

use std::path::{Path, PathBuf};

use mergelab_wire::{Fault, NATIVE_FAMILIES};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::rope::RopeScaling;
use crate::dtype::{FloatType, UnknownDtype};
use crate::failure::{Diagnosis, FileError};

/// More layers than any model has; a number above it is damage.
const MOST_LAYERS: usize = 10_000;

/// What can be wrong with a `config.json`.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not a configuration, or says something this decoder does not do.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No native forward pass for this family.
    #[error("{}: no native forward pass for model_type {family:?}", path.display())]
    Family {
        /// The file.
        path: PathBuf,
        /// Its `model_type`.
        family: String,
    },
    /// An unknown `dtype`.
    #[error(transparent)]
    Dtype(#[from] UnknownDtype),
}

impl Diagnosis for ConfigError {
    fn fault(&self) -> Fault {
        match self {
            Self::File(error) => error.fault(),
            _ => Fault::Experiment,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Invalid { .. } => None,
            Self::Family { .. } => Some(format!(
                "native families are {}; `engine: transformers` (or auto) captures whatever else transformers loads",
                NATIVE_FAMILIES.join(", ")
            )),
            Self::Dtype(error) => error.hint(),
        }
    }
}

/// Everything in which the native families differ.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the architecture, under its own name")]
pub struct DecoderConfig {
    /// `model_type`.
    pub family: String,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width between `up_proj` and `down_proj`.
    pub mlp: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; a divisor of `heads`.
    pub kv_heads: usize,
    /// Width of one head; `heads · head_dim` need not be `hidden`.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// ε of the norms.
    pub norm_eps: f64,
    /// Longest sequence that the model was made for.
    pub max_positions: usize,
    /// Base θ of the rotary embedding.
    pub rope_theta: f64,
    /// How rotary frequencies are stretched.
    pub rope_scaling: RopeScaling,
    /// Bias on q, k and v (Qwen2 always, Llama by `attention_bias`).
    pub qkv_bias: bool,
    /// Bias on `o_proj`.
    pub output_bias: bool,
    /// Bias on the three MLP projections.
    pub mlp_bias: bool,
    /// A norm on each head of q and k before the rotary embedding (Qwen3).
    pub qk_norm: bool,
    /// Per layer: how many tokens back attention reaches, itself included; everything if `None`.
    pub window: Vec<Option<usize>>,
    /// Whether `lm_head` is the embedding.
    pub tied: bool,
    /// Type of the checkpoint.
    pub dtype: Option<FloatType>,
}

/// The keys as they are spelled; everything optional, so that a missing one can be named.
#[derive(Deserialize)]
struct Raw {
    model_type: Option<String>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: Option<usize>,
    rms_norm_eps: Option<f64>,
    max_position_embeddings: Option<usize>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    tie_word_embeddings: Option<bool>,
    torch_dtype: Option<String>,
    dtype: Option<String>,
    quantization_config: Option<Value>,
}

impl DecoderConfig {
    /// Reads `config.json` of a model directory.
    ///
    /// # Errors
    /// When it cannot be read, is of another family, or says something the decoder does not do.
    pub fn read(directory: &Path) -> Result<Self, ConfigError> {
        let path = directory.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(FileError::of("read", &path))?;
        Self::parse(&text, &path)
    }

    /// Parses the text of a `config.json`; `path` is for messages.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let invalid = |reason: String| ConfigError::Invalid { path: path.to_path_buf(), reason };
        let missing = |key: &str| invalid(format!("{key} is missing"));
        // The family first: another architecture may spell the same keys with other types.
        let value: Value = serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
        let family = value.get("model_type").and_then(Value::as_str).unwrap_or("(none)").to_owned();
        if !NATIVE_FAMILIES.contains(&family.as_str()) {
            return Err(ConfigError::Family { path: path.to_path_buf(), family });
        }
        let raw: Raw = serde_json::from_value(value).map_err(|error| invalid(error.to_string()))?;
        debug_assert_eq!(raw.model_type.as_deref(), Some(family.as_str()));

        let hidden = raw.hidden_size.ok_or_else(|| missing("hidden_size"))?;
        let heads = raw.num_attention_heads.ok_or_else(|| missing("num_attention_heads"))?;
        let layers = raw.num_hidden_layers.ok_or_else(|| missing("num_hidden_layers"))?;
        if !(1..=MOST_LAYERS).contains(&layers) {
            return Err(invalid(format!("{layers} layers are not between 1 and {MOST_LAYERS}")));
        }
        let default_kv = if family == "mistral" { 8 } else { heads };
        let kv_heads = raw.num_key_value_heads.unwrap_or(default_kv);
        if heads == 0 || kv_heads == 0 || heads % kv_heads != 0 {
            return Err(invalid(format!("{heads} heads cannot share {kv_heads} key/value heads")));
        }
        let default_head_dim = if family == "qwen3" { 128 } else { hidden / heads };
        let head_dim = raw.head_dim.unwrap_or(default_head_dim);
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(invalid(format!("head_dim {head_dim} is not an even number")));
        }
        match raw.hidden_act.as_deref() {
            None | Some("silu" | "swish") => {}
            Some(other) => return Err(invalid(format!("hidden_act {other:?} is not known, only silu"))),
        }
        if raw.quantization_config.as_ref().is_some_and(|value| !value.is_null()) {
            return Err(invalid("the weights are quantized; only float32, bfloat16 and float16 are read".to_owned()));
        }
        let max_positions = raw.max_position_embeddings.ok_or_else(|| missing("max_position_embeddings"))?;
        // transformers 5 writes `rope_parameters`; earlier files have `rope_theta` beside `rope_scaling`.
        let rope = raw.rope_parameters.or(raw.rope_scaling).unwrap_or_default();
        let rope_theta = rope.get("rope_theta").and_then(Value::as_f64).or(raw.rope_theta).unwrap_or(10_000.0);
        let rope_scaling = RopeScaling::parse(&rope, max_positions).map_err(&invalid)?;
        let attention_bias = raw.attention_bias.unwrap_or(false);
        let (qkv_bias, output_bias) = match family.as_str() {
            "qwen2" => (true, false),
            "mistral" => (false, false),
            _ => (attention_bias, attention_bias),
        };
        let window = windows(
            &family,
            layers,
            raw.sliding_window,
            raw.use_sliding_window.unwrap_or(false),
            raw.max_window_layers.unwrap_or(28),
            raw.layer_types.as_deref(),
        )
        .map_err(&invalid)?;
        let dtype = raw.dtype.or(raw.torch_dtype).map(|name| FloatType::parse(&name)).transpose()?;
        Ok(Self {
            hidden,
            mlp: raw.intermediate_size.ok_or_else(|| missing("intermediate_size"))?,
            layers,
            heads,
            kv_heads,
            head_dim,
            vocab: raw.vocab_size.ok_or_else(|| missing("vocab_size"))?,
            norm_eps: raw.rms_norm_eps.unwrap_or(1e-6),
            max_positions,
            rope_theta,
            rope_scaling,
            qkv_bias,
            output_bias,
            mlp_bias: family == "llama" && raw.mlp_bias.unwrap_or(false),
            qk_norm: family == "qwen3",
            window,
            tied: raw.tie_word_embeddings.unwrap_or(false),
            dtype,
            family,
        })
    }
}

/// Sliding windows by layer.
fn windows(
    family: &str,
    layers: usize,
    window: Option<usize>,
    used: bool,
    full_layers: usize,
    layer_types: Option<&[String]>,
) -> Result<Vec<Option<usize>>, String> {
    match family {
        "mistral" => Ok(vec![window; layers]),
        "qwen2" | "qwen3" if used => {
            let window = window.ok_or("use_sliding_window is set, sliding_window is not")?;
            let Some(types) = layer_types else {
                return Ok((0..layers).map(|layer| (layer >= full_layers).then_some(window)).collect());
            };
            if types.len() != layers {
                return Err(format!("layer_types has {} entries for {layers} layers", types.len()));
            }
            types
                .iter()
                .map(|kind| match kind.as_str() {
                    "full_attention" => Ok(None),
                    "sliding_attention" => Ok(Some(window)),
                    other => Err(format!("layer type {other:?} is not known")),
                })
                .collect()
        }
        _ => Ok(vec![None; layers]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA: &str = r#"{"model_type":"llama","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,
        "num_attention_heads":4,"num_key_value_heads":2,"vocab_size":100,"max_position_embeddings":256,"rms_norm_eps":1e-5"#;

    fn parse(tail: &str) -> Result<DecoderConfig, ConfigError> {
        DecoderConfig::parse(&format!("{LLAMA}{tail}}}"), Path::new("m/config.json"))
    }

    #[test]
    fn rope_parameters_are_read_in_the_old_and_the_new_spelling() {
        let old = parse(
            r#","rope_theta":500000.0,"rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,
            "high_freq_factor":4.0,"original_max_position_embeddings":64}"#,
        )
        .unwrap();
        let new = parse(
            r#","rope_parameters":{"rope_theta":500000.0,"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,
            "high_freq_factor":4.0,"original_max_position_embeddings":64}"#,
        )
        .unwrap();
        assert_eq!(old, new);
        assert!((old.rope_theta - 500_000.0).abs() < f64::EPSILON);
        assert_ne!(old.rope_scaling, RopeScaling::None);
    }

    #[test]
    fn another_architecture_is_named_with_the_families_there_are() {
        let error = DecoderConfig::parse(r#"{"model_type":"gpt2"}"#, Path::new("m/config.json")).unwrap_err();
        assert_eq!(error.to_string(), "m/config.json: no native forward pass for model_type \"gpt2\"");
        assert!(error.hint().unwrap().contains("llama, mistral, qwen2, qwen3"));
    }

    #[test]
    fn a_missing_key_is_named() {
        let error = DecoderConfig::parse(r#"{"model_type":"llama"}"#, Path::new("m/config.json")).unwrap_err();
        assert_eq!(error.to_string(), "m/config.json: hidden_size is missing");
    }

    #[test]
    fn an_unknown_rope_type_is_an_error_and_not_ignored() {
        let error = parse(r#","rope_scaling":{"rope_type":"longrope"}"#).unwrap_err();
        assert!(error.to_string().contains("longrope"), "{error}");
    }

    #[test]
    fn qwen_layers_slide_only_where_they_say_so() {
        let types = ["full_attention".to_owned(), "sliding_attention".to_owned()];
        assert_eq!(windows("qwen3", 2, Some(8), true, 28, Some(&types)).unwrap(), [None, Some(8)]);
        assert_eq!(windows("qwen3", 2, Some(8), false, 28, Some(&types)).unwrap(), [None, None]);
        assert_eq!(windows("qwen2", 3, Some(8), true, 2, None).unwrap(), [None, None, Some(8)]);
    }
}
