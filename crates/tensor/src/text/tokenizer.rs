//! The model's tokenizer, with what `transformers` does around `tokenizer.json`.
//!
//! The regular expressions of pre-tokenizers run on Oniguruma (feature `onig` of the tokenizers crate), the engine that
//! the `tokenizers` Python package is built with, so that splits are the same to the last character.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde_json::Value;
use tokenizers::{
    AddedToken, PostProcessor, Tokenizer as HfTokenizer, TruncationDirection, TruncationParams, TruncationStrategy,
};

use super::class::TokenizerClass;
use super::error::TextError;
use crate::failure::FileError;

/// The special tokens that `transformers` names, in its order.
const SPECIAL_NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// `tokenizer_config.json`, with what stands beside it.
#[derive(Debug, Default)]
pub struct TokenizerConfig {
    values: IndexMap<String, Value>,
    class: TokenizerClass,
}

/// A special token is a string, or an object with `content`.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content").and_then(Value::as_str))
}

/// A special token with what it says of the spaces around it.
fn added_token(value: &Value) -> Option<AddedToken> {
    let flag = |name: &str| value.get(name).and_then(Value::as_bool).unwrap_or(false);
    let token = AddedToken::from(token_text(value)?, true);
    Some(
        token
            .lstrip(flag("lstrip"))
            .rstrip(flag("rstrip"))
            .single_word(flag("single_word"))
            .normalized(flag("normalized")),
    )
}

/// A JSON object in a file of the model's directory; nothing where there is no such file.
fn object(model: &Path, name: &str) -> Result<IndexMap<String, Value>, TextError> {
    let path = model.join(name);
    if !path.exists() {
        return Ok(IndexMap::new());
    }
    let text = std::fs::read_to_string(&path).map_err(FileError::of("read", &path))?;
    serde_json::from_str(&text).map_err(|error| TextError::Tokenizer { path, reason: error.to_string() })
}

impl TokenizerConfig {
    /// Reads the files of a model directory; missing ones are empty.
    ///
    /// `special_tokens_map.json` is older and counts only where the configuration does not list its added tokens.
    ///
    /// # Errors
    /// When one cannot be read or is not a JSON object.
    pub fn read(model: &Path) -> Result<Self, TextError> {
        let mut values = object(model, "tokenizer_config.json")?;
        if !values.contains_key("added_tokens_decoder") {
            values.extend(object(model, "special_tokens_map.json")?);
        }
        let config = object(model, "config.json")?;
        let word = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let named = word(values.get("tokenizer_class")).or_else(|| word(config.get("tokenizer_class")));
        let class = TokenizerClass::of(word(config.get("model_type")).as_deref(), named.as_deref());
        for (name, token) in class.special_tokens() {
            values.entry((*name).to_owned()).or_insert_with(|| Value::from(*token));
        }
        values.retain(|_, value| !value.is_null());
        Ok(Self { values, class })
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

    /// Names of its chat templates, where it has several.
    pub fn template_names(&self) -> Vec<String> {
        let list = self.values.get("chat_template").and_then(Value::as_array).into_iter().flatten();
        list.filter_map(|item| item.get("name")?.as_str().map(str::to_owned)).collect()
    }

    /// The special tokens by name (`bos_token`, …), as a chat template sees them.
    pub fn special_tokens(&self) -> Vec<(String, String)> {
        SPECIAL_NAMES
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), token_text(self.values.get(*name)?)?.to_owned())))
            .collect()
    }

    /// Every token that must be a token of its own: listed ones by number, named ones, and more.
    fn own_tokens(&self) -> Vec<AddedToken> {
        let mut listed: Vec<(u32, &Value)> = self
            .values
            .get("added_tokens_decoder")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(id, token)| Some((id.parse().ok()?, token)))
            .collect();
        listed.sort_by_key(|(id, _)| *id);
        let listed = listed.into_iter().filter_map(|(_, token)| {
            let special = token.get("special").and_then(Value::as_bool).unwrap_or(false);
            added_token(token).map(|added| AddedToken { special, ..added })
        });
        let named = SPECIAL_NAMES.iter().filter_map(|name| added_token(self.values.get(*name)?));
        let more = self.values.get("extra_special_tokens").or_else(|| self.values.get("additional_special_tokens"));
        let more: Vec<&Value> = match more {
            Some(Value::Array(list)) => list.iter().collect(),
            Some(Value::Object(map)) => map.values().collect(),
            _ => Vec::new(),
        };
        listed.chain(named).chain(more.into_iter().filter_map(added_token)).collect()
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.values.get(name).and_then(Value::as_bool)
    }
}

/// Adds the tokens that the configuration names and the file lacks.
fn add_own_tokens(tokenizer: &mut HfTokenizer, config: &TokenizerConfig) -> Result<(), String> {
    let known: HashSet<String> =
        tokenizer.get_added_tokens_decoder().into_values().map(|token| token.content).collect();
    let lacking = config.own_tokens().into_iter().filter(|token| !known.contains(&token.content));
    tokenizer.add_tokens(lacking).map_err(|error| error.to_string())?;
    Ok(())
}

/// A tokenizer file with more tokens in it.
#[derive(Debug)]
pub struct Extended {
    /// The file.
    pub json: String,
    /// Every token with its id.
    pub ids: HashMap<String, u32>,
}

/// The tokenizer file of a model directory with its own tokens, as [`Tokenizer::read`] has them, and some more after them.
///
/// # Errors
/// When it is missing or not a tokenizer.
pub fn extended(model: &Path, config: &TokenizerConfig, more: &[AddedToken]) -> Result<Extended, TextError> {
    let path = model.join("tokenizer.json");
    let fail = |reason: String| TextError::Tokenizer { path: path.clone(), reason };
    let mut tokenizer = HfTokenizer::from_file(&path).map_err(|error| fail(error.to_string()))?;
    add_own_tokens(&mut tokenizer, config).map_err(fail)?;
    tokenizer.add_tokens(more.iter().cloned()).map_err(|error| fail(error.to_string()))?;
    let json = tokenizer.to_string(true).map_err(|error| fail(error.to_string()))?;
    Ok(Extended { json, ids: tokenizer.get_vocab(true) })
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
    /// As in `transformers`: padding and truncation stored in the file are replaced by what is asked for; some classes make
    /// parts of it anew ([`super::class`]); tokens that the configuration names and the file lacks are added. Which special
    /// tokens a text gets is for the file's post-processor alone to say: `add_bos_token` and `add_eos_token` in the
    /// configuration count nothing where there is a file.
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
        let mut inner = match config.class {
            TokenizerClass::AsStored => HfTokenizer::from_file(&path),
            class => {
                let text = std::fs::read_to_string(&path).map_err(FileError::of("read", &path))?;
                let mut file: Value = serde_json::from_str(&text).map_err(|error| fail(error.to_string()))?;
                if file.get("model").is_some_and(|model| model.get("merges").is_some()) {
                    class.rebuild(&mut file, config.flag("add_prefix_space"), config.flag("legacy").unwrap_or(false));
                }
                HfTokenizer::from_bytes(file.to_string())
            }
        }
        .map_err(|error| fail(error.to_string()))?;
        inner.with_padding(None);
        add_own_tokens(&mut inner, config).map_err(fail)?;
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

    /// Every token with its id.
    pub fn vocabulary(&self) -> HashMap<String, u32> {
        self.inner.get_vocab(true)
    }

    /// The tokens that are found in a text before it is cut up, by id.
    pub fn added_tokens(&self) -> BTreeMap<u32, AddedToken> {
        self.inner.get_added_tokens_decoder().into_iter().collect()
    }

    /// How it spells what is no letter of a token: the decoder and the pre-tokenizer in JSON.
    pub fn spelling(&self) -> String {
        serde_json::json!([self.inner.get_decoder(), self.inner.get_pre_tokenizer()]).to_string()
    }

    /// The token of an id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }
}
