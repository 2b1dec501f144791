//! mergekit's configuration files (those of version 0.1.5): `method: mergekit` and `mergelab import mergekit`.
//!
//! A configuration becomes a merge in the words of this language, each part of it with its place in the configuration,
//! and is read as any other. So what the configuration means shows in keys and jobs, and its bytes do not. Its models,
//! which are paths and hub ids, become entries of the experiment unless it has them already.

mod config;
mod import;
mod native;
mod parameters;
mod reference;
mod tokenizer;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;

use config::Config;
pub use import::import;
use reference::Reference;
pub use reference::as_name;

use super::diagnostics::{Diagnostic, Report, Source, Span};
use super::loaded::{Files, text_of};
use super::sweep::{Family, Member};
use super::tree::{self, Field, Map, Node, Value};
use super::types::{Model, Section};

/// The configurations that the merges of an experiment name, and the models that they add to it.
#[derive(Default)]
pub(super) struct Mergekit {
    configs: HashMap<PathBuf, Result<Read, String>>,
    added: IndexMap<String, Added>,
}

/// A configuration that was read.
pub(super) struct Read {
    pub(super) source: Arc<Source>,
    /// What is wrong with it by itself.
    pub(super) wrong: Vec<Diagnostic>,
    /// As a merge of this language, without what is wrong; `None` when it is no configuration at all.
    pub(super) merge: Option<Arc<Node>>,
}

/// A model that the experiment does not name.
struct Added {
    family: Family,
    model: Model,
    place: Place,
}

/// A place in another file than the experiment.
pub(super) type Place = (Arc<Source>, Span);

impl Mergekit {
    /// Reads the configuration of each of the merges that has one. `models` are the experiment's own.
    pub(super) fn read(files: &dyn Files, merges: &[Family], models: &[Family]) -> Self {
        let mut names = Names::of(merges, models);
        let mut all = Self::default();
        for path in merges.iter().flat_map(|family| &family.members).filter_map(config_of) {
            if !all.configs.contains_key(path) {
                let read = all.read_one(files, path, &mut names);
                all.configs.insert(path.to_path_buf(), read);
            }
        }
        all
    }

    fn read_one(&mut self, files: &dyn Files, path: &Path, names: &mut Names) -> Result<Read, String> {
        let bytes = files.read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let failed = |text, wrong| {
            let source = Arc::new(Source { file: path.to_path_buf(), text });
            Ok(Read { source, wrong: vec![wrong], merge: None })
        };
        let text = match text_of(&bytes) {
            Ok(text) => text.trim_start_matches('\u{feff}').to_owned(),
            Err(wrong) => {
                let (text, wrong) = *wrong;
                return failed(text, wrong);
            }
        };
        let (root, repeated) = match tree::read(&text) {
            Ok((Some(root), repeated)) => (root, repeated),
            Ok((None, _)) => {
                return failed(text, Diagnostic::new(Span::default(), "this mergekit configuration is empty"));
            }
            Err(wrong) => return failed(text, *wrong),
        };
        let source = Arc::new(Source { file: path.to_path_buf(), text });
        let report = Report::default();
        for diagnostic in repeated {
            report.add(diagnostic);
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let merge = Config::read(&report, files, &root, folder).map(|config| {
            let named: HashMap<_, _> = config
                .references()
                .map(|(reference, span)| (reference.clone(), self.name(names, reference, (&source, span))))
                .collect();
            config.merge(&report, root.span, native::Names(&named))
        });
        Ok(Read { source, wrong: report.into_list(), merge })
    }

    /// The entry that a model has, which is added if there is none.
    fn name(&mut self, names: &mut Names, reference: &Reference, (source, span): (&Arc<Source>, Span)) -> String {
        if let Some(name) = names.of.get(reference) {
            return name.clone();
        }
        let name = reference.name(|name| !names.taken.contains(name));
        names.taken.insert(name.clone());
        names.of.insert(reference.clone(), name.clone());
        let field = Field { key: span, value: Arc::new(Node::new(span, Value::Map(Map::new()))) };
        let family = Family::single("models", &name, &field);
        let place = (Arc::clone(source), span);
        self.added.insert(name.clone(), Added { family, model: reference.model(), place });
        name
    }

    /// A configuration, or why it could not be read; none of a path that no merge names.
    pub(super) fn get(&self, path: &Path) -> Option<&Result<Read, String>> {
        self.configs.get(path)
    }

    /// A model that is added, by its name.
    pub(super) fn added_model(&self, name: &str) -> Option<&Model> {
        self.added.get(name).map(|added| &added.model)
    }

    /// The models that are added, as they are declared.
    pub(super) fn families(&self) -> impl Iterator<Item = &Family> {
        self.added.values().map(|added| &added.family)
    }

    /// The models that are added, and where each is named first.
    pub(super) fn into_models(self) -> (Section<Model>, HashMap<String, Place>) {
        let added = self.added.into_iter();
        added.map(|(name, Added { model, place, .. })| ((name.clone(), model), (name, place))).unzip()
    }
}

/// Names of models.
struct Names {
    taken: HashSet<String>,
    of: HashMap<Reference, String>,
}

impl Names {
    /// Those of an experiment's own entries.
    fn of(merges: &[Family], models: &[Family]) -> Self {
        let mut names = Self { taken: HashSet::new(), of: HashMap::new() };
        for family in merges.iter().chain(models) {
            names.taken.insert(family.entry.clone());
            names.taken.extend(family.members.iter().map(|member| member.name.clone()));
        }
        for member in models.iter().flat_map(|family| &family.members) {
            if let Some(reference) = Reference::of(&member.view) {
                names.of.entry(reference).or_insert_with(|| member.name.clone());
            }
        }
        names
    }
}

/// The configuration that a merge names.
fn config_of(member: &Member) -> Option<&Path> {
    let map = member.view.as_map()?;
    let scalar = |key: &str| map.get(key)?.value.as_scalar();
    scalar("method").filter(|method| *method == "mergekit").and_then(|_| scalar("config")).map(Path::new)
}
