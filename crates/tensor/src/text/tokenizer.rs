//! The model's tokenizer, with what `transformers` does around `tokenizer.json`.
//!
//! The regular expressions of pre-tokenizers run on Oniguruma (feature `onig` of the tokenizers crate), the engine that
//! the `tokenizers` Python package is built with, so that splits are the same to the last character.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde_json::Value;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, PostProcessor, Tokenizer as HfTokenizer, TruncationDirection, TruncationParams, TruncationStrategy,
};

use super::error::TextError;
use crate::failure::FileError;

/// The special tokens that `transformers` names, in its order.
const SPECIAL_NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// `tokenizer_config.json`, over `special_tokens_map.json`.
#[derive(Debug, Default)]
pub struct TokenizerConfig {
    values: IndexMap<String, Value>,
}

/// A special token is a string, or an object with `content`.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content").and_then(Value::as_str))
}

impl TokenizerConfig {
    /// Reads the files of a model directory; missing ones are empty.
    ///
    /// # Errors
    /// When one cannot be read or is not a JSON object.
    pub fn read(model: &Path) -> Result<Self, TextError> {
        let mut values = IndexMap::new();
        for name in ["special_tokens_map.json", "tokenizer_config.json"] {
            let path = model.join(name);
            if path.exists() {
                let text = std::fs::read_to_string(&path).map_err(FileError::of("read", &path))?;
                let read: IndexMap<String, Value> = serde_json::from_str(&text)
                    .map_err(|error| TextError::Tokenizer { path, reason: error.to_string() })?;
                values.extend(read.into_iter().filter(|(_, value)| !value.is_null()));
            }
        }
        Ok(Self { values })
    }

    /// The chat template: a string, or the one named `default` of a list.
    pub fn chat_template(&self) -> Option<String> {
        match self.values.get("chat_template")? {
            Value::String(text) => Some(text.clone()),
            Value::Array(list) => {
                let default = list.iter().find(|item| item.get("name").and_then(Value::as_str) == Some("default"))?;
                default.get("template")?.as_str().map(str::to_owned)
            }
            _ => None,
        }
    }

    /// The special tokens by name (`bos_token`, …), as a chat template sees them.
    pub fn special_tokens(&self) -> Vec<(String, String)> {
        SPECIAL_NAMES
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), token_text(self.values.get(*name)?)?.to_owned())))
            .collect()
    }

    fn special(&self, name: &str) -> Option<&str> {
        self.values.get(name).and_then(token_text)
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.values.get(name).and_then(Value::as_bool)
    }
}

/// Token ids of one text, with the characters each came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Ids.
    pub ids: Vec<u32>,
    /// Per token, the range of characters; empty for tokens that were added.
    pub characters: Vec<(usize, usize)>,
}

/// A model's tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    inner: HfTokenizer,
    path: PathBuf,
    add_special_tokens: bool,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a model directory.
    ///
    /// As in `transformers`: padding and truncation stored in the file are replaced by what is asked for; special tokens that
    /// the configuration names and the file lacks are added; `add_bos_token` and `add_eos_token`, where they are stated,
    /// decide which special tokens a text gets.
    ///
    /// # Errors
    /// When it is missing, not a tokenizer, or `max_length` leaves no room beside the special tokens.
    pub fn read(
        model: &Path,
        config: &TokenizerConfig,
        add_special_tokens: bool,
        max_length: Option<usize>,
    ) -> Result<Self, TextError> {
        let path = model.join("tokenizer.json");
        let fail = |reason: String| TextError::Tokenizer { path: path.clone(), reason };
        if !path.exists() {
            return Err(fail(
                "no tokenizer.json; save the tokenizer once with `transformers` (AutoTokenizer … save_pretrained)"
                    .to_owned(),
            ));
        }
        let mut inner = HfTokenizer::from_file(&path).map_err(|error| fail(error.to_string()))?;
        inner.with_padding(None);
        let lacking: Vec<AddedToken> = config
            .special_tokens()
            .into_iter()
            .filter(|(_, token)| inner.token_to_id(token).is_none())
            .map(|(_, token)| AddedToken::from(token, true))
            .collect();
        inner.add_special_tokens(lacking).map_err(|error| fail(error.to_string()))?;
        if let Some(processor) = begin_and_end(&inner, config).map_err(&fail)? {
            inner.with_post_processor(Some(processor));
        }
        let truncation = match max_length {
            None => None,
            Some(max_length) => {
                let added = if add_special_tokens {
                    inner.get_post_processor().map_or(0, |p| p.added_tokens(false))
                } else {
                    0
                };
                if max_length <= added {
                    return Err(fail(format!(
                        "max_length {max_length} leaves no room beside {added} special token(s)"
                    )));
                }
                let left = config.values.get("truncation_side").and_then(Value::as_str) == Some("left");
                let direction = if left { TruncationDirection::Left } else { TruncationDirection::Right };
                Some(TruncationParams { direction, max_length, strategy: TruncationStrategy::LongestFirst, stride: 0 })
            }
        };
        inner.with_truncation(truncation).map_err(|error| fail(error.to_string()))?;
        Ok(Self { inner, path, add_special_tokens })
    }

    /// Tokenises one text.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Tokens, TextError> {
        let encoding = self
            .inner
            .encode_char_offsets(text, self.add_special_tokens)
            .map_err(|error| TextError::Tokenizer { path: self.path.clone(), reason: error.to_string() })?;
        // A token that was added stands for no character.
        let characters = encoding
            .get_offsets()
            .iter()
            .zip(encoding.get_special_tokens_mask())
            .map(|(range, special)| if *special == 1 && range.0 == range.1 { (0, 0) } else { *range })
            .collect();
        Ok(Tokens { ids: encoding.get_ids().to_vec(), characters })
    }

    /// Id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }
}

/// The post-processor that `add_bos_token` and `add_eos_token` ask for, where the configuration states one of them.
fn begin_and_end(inner: &HfTokenizer, config: &TokenizerConfig) -> Result<Option<TemplateProcessing>, String> {
    let (bos, eos) = (config.flag("add_bos_token"), config.flag("add_eos_token"));
    if bos.is_none() && eos.is_none() {
        return Ok(None);
    }
    let used =
        |wanted: Option<bool>, name: &str| config.special(name).filter(|_| wanted == Some(true)).map(str::to_owned);
    let (bos, eos) = (used(bos, "bos_token"), used(eos, "eos_token"));
    let pieces: Vec<String> = [
        bos.as_ref().map(|token| format!("{token}:0")),
        Some("$A:0".to_owned()),
        eos.as_ref().map(|token| format!("{token}:0")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let tokens: Vec<(String, u32)> = bos
        .into_iter()
        .chain(eos)
        .map(|token| match inner.token_to_id(&token) {
            Some(id) => Ok((token, id)),
            None => Err(format!("no token {token:?}")),
        })
        .collect::<Result<_, _>>()?;
    TemplateProcessing::builder()
        .try_single(pieces)?
        .special_tokens(tokens)
        .build()
        .map(Some)
        .map_err(|error| error.to_string())
}
