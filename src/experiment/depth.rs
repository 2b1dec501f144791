//! How many layers models have, as far as their files are at hand while an experiment is read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::loaded::Files;
use super::mergekit::Mergekit;
use super::types::{Model, Section};

/// Under which names configurations of transformers say it.
const KEYS: &[&str] = &["num_hidden_layers", "n_layer"];

/// The depths of an experiment's models.
pub(super) struct Depths<'a> {
    files: &'a dyn Files,
    models: &'a Section<Model>,
    mergekit: &'a Mergekit,
    seen: RefCell<HashMap<PathBuf, Option<u64>>>,
}

impl<'a> Depths<'a> {
    /// Those of the experiment's own models and of those that its mergekit configurations add.
    pub(super) fn new(files: &'a dyn Files, models: &'a Section<Model>, mergekit: &'a Mergekit) -> Self {
        Self { files, models, mergekit, seen: RefCell::default() }
    }

    /// How many layers the model of a name has: `None` where it is no directory, is not there yet or does not say.
    pub(super) fn of(&self, name: &str) -> Option<u64> {
        let mut model = self.models.get(name).or_else(|| self.mergekit.added_model(name))?;
        while let Model::Lora(lora) = model {
            model = &lora.base;
        }
        let Model::Path(directory) = model else { return None };
        *self.seen.borrow_mut().entry(directory.clone()).or_insert_with(|| self.read(directory))
    }

    fn read(&self, directory: &Path) -> Option<u64> {
        layers(&self.files.read(&directory.join("config.json")).ok()?)
    }
}

/// How many layers a model has by its `config.json`, where that says so.
pub fn layers(config: &[u8]) -> Option<u64> {
    let config: Value = serde_json::from_slice(config).ok()?;
    let said = |of: &Value| KEYS.iter().find_map(|key| of.get(*key)?.as_u64());
    said(&config).or_else(|| said(config.get("text_config")?))
}
