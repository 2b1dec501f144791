//! Tokenizer classes of `transformers` that do not take `tokenizer.json` as it is.
//!
//! Since version 5, a class with a constructor of its own keeps vocabulary, merges, added tokens and post-processor of the
//! file and makes the rest itself: a Llama 2 whose file prepends a space after every special token gets one only at the
//! start, and digits that a file splits for `GPT2Tokenizer` stay together. Models are evaluated with those token ids, so
//! they are captured with them. Here are the classes that the natively run families name; with any other, the file is taken
//! as it is.
//!
//! Followed: `transformers` 5.14, `AutoTokenizer.from_pretrained` and the three classes' own files.

use serde_json::{Value, json};

/// How a text is cut up before the vocabulary comes into play.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum TokenizerClass {
    /// As `tokenizer.json` has it.
    #[default]
    AsStored,
    /// `LlamaTokenizer`.
    Llama,
    /// `GPT2Tokenizer`.
    Gpt2,
    /// `Qwen2Tokenizer`.
    Qwen2,
}

const QWEN2_PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl TokenizerClass {
    /// The class that `AutoTokenizer` takes for `model_type` of `config.json` and `tokenizer_class` of the tokenizer's.
    pub(super) fn of(model_type: Option<&str>, tokenizer_class: Option<&str>) -> Self {
        let named = match tokenizer_class.map(|class| class.strip_suffix("Fast").unwrap_or(class)) {
            Some("LlamaTokenizer") => Self::Llama,
            Some("GPT2Tokenizer") => Self::Gpt2,
            Some("Qwen2Tokenizer") => Self::Qwen2,
            _ => Self::AsStored,
        };
        match (model_type, tokenizer_class) {
            // What these say of themselves is known to be wrong.
            (Some("qwen2"), _) | (Some("qwen3"), None) => Self::Qwen2,
            (Some("mistral"), _) => Self::AsStored,
            _ => named,
        }
    }

    /// Special tokens of a configuration that says nothing of them.
    pub(super) fn special_tokens(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::AsStored => &[],
            Self::Llama => &[("unk_token", "<unk>"), ("bos_token", "<s>"), ("eos_token", "</s>")],
            Self::Gpt2 => {
                &[("unk_token", "<|endoftext|>"), ("bos_token", "<|endoftext|>"), ("eos_token", "<|endoftext|>")]
            }
            Self::Qwen2 => {
                &[("unk_token", "<|endoftext|>"), ("eos_token", "<|endoftext|>"), ("pad_token", "<|endoftext|>")]
            }
        }
    }

    /// Puts the class's own parts into the contents of a `tokenizer.json`. `prefix_space` and `legacy` are what the
    /// configuration says of `add_prefix_space` and `legacy`.
    pub(super) fn rebuild(self, file: &mut Value, prefix_space: Option<bool>, legacy: bool) {
        let byte_level = |use_regex: bool| {
            let add_prefix_space = prefix_space.unwrap_or(false);
            json!({ "type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": use_regex })
        };
        let (normalizer, pre_tokenizer) = match self {
            Self::AsStored => return,
            Self::Llama => {
                let scheme = match (prefix_space.unwrap_or(true), legacy) {
                    (false, _) => "never",
                    (true, true) => "always",
                    (true, false) => "first",
                };
                let pre = json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false });
                (Value::Null, pre)
            }
            Self::Gpt2 => (Value::Null, byte_level(true)),
            Self::Qwen2 => {
                let pattern = json!({ "Regex": QWEN2_PATTERN });
                let split = json!({ "type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false });
                let both = json!({ "type": "Sequence", "pretokenizers": [split, byte_level(false)] });
                (json!({ "type": "NFC" }), both)
            }
        };
        let bytes = self == Self::Llama;
        file["normalizer"] = normalizer;
        file["pre_tokenizer"] = pre_tokenizer;
        let model = &mut file["model"];
        for key in ["unk_token", "dropout", "continuing_subword_prefix", "end_of_word_suffix"] {
            model[key] = Value::Null;
        }
        model["fuse_unk"] = bytes.into();
        model["byte_fallback"] = bytes.into();
        model["ignore_merges"] = false.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_is_the_one_that_transformers_takes() {
        let of = |model, class| TokenizerClass::of(Some(model), class);
        assert_eq!(of("llama", Some("LlamaTokenizerFast")), TokenizerClass::Llama);
        assert_eq!(of("llama", Some("PreTrainedTokenizerFast")), TokenizerClass::AsStored);
        assert_eq!(of("llama", None), TokenizerClass::AsStored);
        assert_eq!(of("llama", Some("GPT2Tokenizer")), TokenizerClass::Gpt2);
        assert_eq!(of("mistral", Some("LlamaTokenizer")), TokenizerClass::AsStored);
        assert_eq!(of("qwen2", Some("PreTrainedTokenizerFast")), TokenizerClass::Qwen2);
        assert_eq!(of("qwen3", Some("PreTrainedTokenizerFast")), TokenizerClass::AsStored);
        assert_eq!(of("qwen3", Some("Qwen2Tokenizer")), TokenizerClass::Qwen2);
    }
}
