//! What a merge names once per model: Gram entries, Fisher entries.

use std::collections::HashSet;

use mergelab_wire::Engine;

use super::depth::Depths;
use super::diagnostics::{Diagnostic, Span};
use super::merge::Reader;
use super::methods::Need;
use super::read::{Reading, listed};
use super::tree::Map;
use super::types::{Calibration, Data, Fisher, Gram, Section, Weighted};

/// Entries that a merge may name, those that could be read, and what is known of its models.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) grams: &'a Section<Gram>,
    pub(super) fishers: &'a Section<Fisher>,
    pub(super) data: &'a Section<Data>,
    pub(super) depths: &'a Depths<'a>,
}

impl<'a> Known<'a> {
    /// The model that an entry of `grams` or `fishers` was captured from.
    fn captured_from(self, section: &str, name: &str) -> Option<&'a str> {
        let capture = match section {
            "fishers" => &self.fishers.get(name)?.capture,
            _ => match self.grams.get(name)? {
                Gram::Capture(capture) => capture,
                Gram::PickleHub { .. } | Gram::PicklePath(_) | Gram::Hub { .. } | Gram::Path(_) => return None,
            },
        };
        Some(&capture.model)
    }
}

/// A name in the merge and where it stands.
type Placed = (String, Span);

impl Reader<'_> {
    /// The entries of `grams` or `fishers` under a key, one per model; an absent key is an empty list.
    pub(super) fn one_per_model(
        &self,
        key: &str,
        section: &'static str,
        models: Option<&[(Weighted, Span)]>,
        known: Known<'_>,
    ) -> Option<Vec<String>> {
        let Some(field) = self.fields.field(key) else { return Some(Vec::new()) };
        let placed: Vec<Option<Placed>> = self.fields.get(key, |list| {
            let name = |item: Reading<'_>| self.context.estimate(self.item, section, item);
            list.list(|item| Some(name(item).map(|name| (name, item.node.span))))
        })?;
        let Some(models) = models else { return placed.into_iter().map(|gram| Some(gram?.0)).collect() };
        if placed.len() != models.len() {
            let message =
                format!("{} models and {} entries in `{key}`: there must be one per model", models.len(), placed.len());
            let names: Vec<_> = models.iter().map(|(weighted, _)| weighted.model.as_str()).collect();
            let hint = listed(&names, "models").map(|hint| format!("{hint}, in this order"));
            self.context.report.add(Diagnostic::new(field.value.span, message).maybe_hint(hint));
            return None;
        }
        for ((weighted, place), (name, span)) in
            models.iter().zip(&placed).filter_map(|(model, gram)| Some((model, gram.as_ref()?)))
        {
            let Some(model) = known.captured_from(section, name) else { continue };
            if model != weighted.model {
                let message = format!("`{name}` was captured from `{model}` and stands for `{}` here", weighted.model);
                let diagnostic = Diagnostic::new(*span, message).other(*place, "the model in this position");
                self.context.report.add(diagnostic.hint(format!("`{key}` goes in the order of `models`")));
            }
        }
        placed.into_iter().map(|gram| Some(gram?.0)).collect()
    }

    /// What a method that captures by itself captures on: what its Gram entries say.
    pub(super) fn captures(&self, names: &[String], known: Known<'_>) -> Option<Vec<Calibration>> {
        let (method, field) = (self.method?.name, self.fields.field("grams")?);
        self.fields.refuse(&["held_out"], &format!("for `{method}`, whose Grams are of the merged model's making"));
        let fail = |message: String, hint: &str| {
            self.context.report.add(Diagnostic::new(field.value.span, message).hint(hint));
        };
        let mut captures = Vec::new();
        for name in names {
            match known.grams.get(name)? {
                Gram::Capture(capture) if capture.engine == Engine::Transformers => {
                    fail(
                        format!("`{method}` runs the models by itself, and `{name}` asks for `engine: transformers`"),
                        "it has a forward pass for llama, mistral, qwen2 and qwen3; leave `engine` out",
                    );
                    return None;
                }
                Gram::Capture(capture) => {
                    let data = known.data.get(&capture.data)?;
                    let (rows, strict) = (data.format.clone(), data.strict);
                    captures.push(Calibration { capture: capture.clone(), rows, strict });
                }
                Gram::PickleHub { .. } | Gram::PicklePath(_) | Gram::Hub { .. } | Gram::Path(_) => {
                    fail(
                        format!("`{method}` captures by itself, and `{name}` is imported"),
                        "name an entry with `model` and `data`",
                    );
                    return None;
                }
            }
        }
        Some(captures)
    }

    pub(super) fn check_grams(&self, regmean_rule: bool) {
        let Some(method) = self.method else { return };
        let place = self.fields.field("method").map_or(self.item.place, |field| field.value.span);
        if !self.fields.has("grams") && (method.grams == Need::Must || regmean_rule) {
            let who = if method.grams == Need::Must {
                format!("`{}`", method.name)
            } else {
                "a rule that uses `regmean`".to_owned()
            };
            let diagnostic =
                Diagnostic::new(place, format!("{who} needs `grams`, one per model")).label("no `grams` in this merge");
            self.context.report.add(diagnostic.hint("add `grams: [NAME, …]`, in the order of `models`"));
        }
        if method.grams == Need::No && !regmean_rule {
            self.fields.refuse(&["grams", "held_out"], &format!("for `{}`, which uses no Gram matrices", method.name));
        }
    }

    pub(super) fn check_fishers(&self) {
        let Some(method) = self.method else { return };
        if !method.takes_fishers() {
            self.fields.refuse(&["fishers"], &format!("for `{}`, which uses no Fisher information", method.name));
        } else if !self.fields.has("fishers") {
            let place = self.fields.field("method").map_or(self.item.place, |field| field.value.span);
            let message = format!("`{}` needs `fishers`, one per model", method.name);
            let diagnostic = Diagnostic::new(place, message).label("no `fishers` in this merge");
            self.context.report.add(diagnostic.hint("add `fishers: [NAME, …]`, in the order of `models`"));
        }
    }
}

/// Names of entries that a merge's mapping mentions under some keys, for those that multiply it.
pub(super) fn mentioned<'m>(map: &'m Map, keys: &[&str]) -> impl Iterator<Item = &'m str> {
    let mut seen = HashSet::new();
    keys.iter()
        .filter_map(|key| map.get(*key)?.value.as_list())
        .flatten()
        .filter_map(|node| node.as_scalar())
        .filter(move |name| seen.insert(*name))
}
