//! `slices:` of a merge: layers of the result that are merged from any layers of the models.

use std::collections::HashMap;

use indexmap::IndexMap;
use mergelab_wire::{MergeSlice, Normalize, SliceSource, Solver};
use serde_json::{Value as Json, json};

use super::diagnostics::{Diagnostic, Span};
use super::keys::{LAYERS, SLICE, WEIGHTED};
use super::merge::Reader;
use super::methods::{Method, Need};
use super::per_model::Known;
use super::read::{Fields, Reading};
use super::tokenizer;
use super::types::{Merge, Weighted};

/// Values of a method's parameters, by name.
type Params = IndexMap<String, Json>;

/// What a model gives to a slice.
struct Part {
    weighted: Weighted,
    first: u64,
    count: u64,
    /// Where the model is named, and where its layers.
    places: (Span, Span),
}

impl Reader<'_> {
    /// Reads a merge that has `slices` in place of `models`.
    pub(super) fn sliced(&self, known: Known<'_>) -> Option<Merge> {
        let method = self.method?;
        let base = self.fields.get("base", |base| self.context.model(self.item, base));
        let estimates = ["grams", "held_out", "fishers", "rules", "solver"];
        self.fields.refuse(&estimates, "for slices, which are merged by what models are and nothing else");
        self.fields.refuse(&["models"], "beside `slices`, which name the models of each");
        if method.param("alpha").is_none() {
            self.fields.refuse(&["alpha"], "for slices, which have no Gram matrices");
        }
        if base.is_some() && !method.leaves_the_base_out() {
            self.fields.refuse(&["base"], &format!("for slices of `{}`, whose models are all alike", method.name));
        }
        if method.grams == Need::Must || method.takes_fishers() {
            let diagnostic =
                Diagnostic::new(self.fields.field("slices")?.key, format!("`{}` merges no slices", method.name));
            let hint = "it goes by what models do on data, and layers that are stacked anew do something else";
            self.context.report.add(diagnostic.hint(hint));
            return None;
        }
        let mut params = self.stated_params();
        self.add_seed(&mut params);
        let before = self.context.report.count();
        let base = base.as_deref();
        let slices =
            self.fields.get("slices", |slices| slices.list(|slice| Some(self.slice(slice, (base, &params), known))));
        let slices = slices.and_then(|slices| slices.into_iter().collect::<Option<Vec<_>>>());
        let slices = slices.filter(|_| self.context.report.count() == before);
        let mut models: IndexMap<String, Span> = IndexMap::new();
        for (slice, spans) in slices.iter().flatten() {
            let of_base = slice.base.iter().map(|source| &source.name).filter(|name| base != Some(name.as_str()));
            let names = slice.models.iter().map(|source| &source.name);
            for (name, span) in names.zip(spans).chain(of_base.zip(spans)) {
                models.entry(name.clone()).or_insert(*span);
            }
        }
        let plain = |model| Weighted { model, weight: 1.0.into(), params: Params::new() };
        let models: Vec<_> = models.into_iter().map(|(name, span)| (plain(name), span)).collect();
        let named = if slices.is_some() { Some(models.clone()) } else { self.named_in_slices() };
        let of = tokenizer::Of { models: named.as_deref(), base };
        let (tokenizer, alignment) = self.fields.get("tokenizer", |tokenizer| self.tokenizer(tokenizer, of)).unzip();
        let (dtype, shard_size, keep) = (self.dtype(), self.shard_size(), self.keep());
        Some(Merge {
            method: method.name.to_owned(),
            models: models.into_iter().map(|(weighted, _)| weighted).collect(),
            slices: slices?.into_iter().map(|(slice, _)| slice).collect(),
            grams: Vec::new(),
            fishers: Vec::new(),
            captures: Vec::new(),
            base: base.map(str::to_owned),
            alpha: None,
            held_out: Vec::new(),
            params,
            rules: Vec::new(),
            normalize: Normalize::default(),
            solver: Solver::default(),
            dtype,
            shard_size,
            tokenizer,
            alignment: alignment.flatten(),
            keep,
        })
    }

    /// The models that slices name, which may be known where something else is wrong with them.
    fn named_in_slices(&self) -> Option<Vec<(Weighted, Span)>> {
        let slices = self.fields.node("slices")?.as_list()?;
        let lists = slices.iter().map(|slice| slice.as_map()?.get("models")?.value.as_list());
        let items = lists.collect::<Option<Vec<_>>>()?;
        let names = items.into_iter().flatten().map(|item| {
            let model = &item.as_map()?.get("model")?.value;
            let name = model.as_scalar().filter(|name| self.context.names.models.contains(name))?;
            Some((Weighted { model: name.to_owned(), weight: 1.0.into(), params: Params::new() }, model.span))
        });
        names.collect()
    }

    /// One slice, with the places of its models.
    fn slice(
        &self,
        reading: Reading<'_>,
        (base, shared): (Option<&str>, &Params),
        known: Known<'_>,
    ) -> Option<(MergeSlice, Vec<Span>)> {
        let method = self.method?;
        let fields = Fields::unchecked(self.context.report, reading.node, reading.node.span, "a slice")?;
        let mut keys: Vec<_> = SLICE.iter().map(|key| key.name).collect();
        keys.extend(method.params.iter().map(|param| param.name).filter(|name| *name != "seed"));
        for (key, field) in fields.map.iter().filter(|(key, _)| !keys.contains(&key.as_str())) {
            fields.unknown(key, field.key, &keys);
        }
        fields.require(&["models"]);
        let slice = Reader { context: self.context, item: self.item, fields, method: self.method };
        let mut params = shared.clone();
        params.extend(slice.stated_params().into_iter().map(|(name, value)| {
            let value = before(value, shared.get(&name));
            (name, value)
        }));
        slice.require_params(&params, Some(&self.fields), slice.fields.place);
        // Some, where it is known whether there is one.
        let base = match base {
            _ if slice.fields.has("base") => {
                slice.fields.get("base", |base| self.context.model(self.item, base)).map(Some)
            }
            None if self.fields.has("base") => None,
            base => Some(base.map(str::to_owned)),
        };
        let parts = slice.fields.get("models", |models| models.list(|item| Some(slice.part(item, known))))?;
        let parts = parts.into_iter().collect::<Option<Vec<_>>>().filter(|parts| slice.check(parts).is_some());
        // Of how many layers it is not known, only what holds for any number of them is.
        let layers = parts.as_ref().and_then(|parts| Some(parts.first()?.count));
        slice.check_densities(Some(&self.fields), || layers.or(Some(1)));
        let (parts, layers) = (parts?, layers?);
        let (mut models, of_base) = slice.split(parts, base?.as_deref(), method)?;
        let weighted: Vec<_> = models.iter().map(|part| (part.weighted.clone(), part.places.0)).collect();
        slice.count_models(&weighted, method, &params);
        let spans = models.iter().map(|part| part.places.0).collect();
        let source = |part: Part| {
            let Weighted { model: name, weight, params } = part.weighted;
            SliceSource { name, first: part.first as usize, weight, params }
        };
        let models = models.drain(..).map(source).collect();
        Some((MergeSlice { layers: layers as usize, models, base: of_base.map(source), params }, spans))
    }

    /// What one model gives.
    fn part(&self, reading: Reading<'_>, known: Known<'_>) -> Option<Part> {
        let keys: &[_] = &[WEIGHTED, LAYERS];
        let fields = Fields::open(self.context.report, reading.node, reading.node.span, "a model of a slice", keys)?;
        let name = fields.get("model", |model| self.context.model(self.item, model));
        let (weight, params) = self.said_of_a_model(&fields)?;
        let place = fields.field("layers")?.value.span;
        let ends = fields.get("layers", |layers| layers.list(|end| end.whole(0, u64::from(u32::MAX))))?;
        let (first, count) = match ends.as_slice() {
            [first, end] if first < end => (*first, end - first),
            [first, end] => {
                let message = format!("layers {first} to {end} are none");
                return reading.fail(Diagnostic::new(place, message).hint(HINT));
            }
            _ => {
                let message = "layers are the first of them and one past the last";
                return reading.fail(Diagnostic::new(place, message).hint(HINT));
            }
        };
        let (name, end) = (name?, first + count);
        if let Some(depth) = known.depths.of(&name).filter(|depth| end > *depth) {
            let message = format!("layers {first} to {end} of a model that has {depth}");
            let hint = format!("layers are counted from 0; the last of them end at {depth}");
            return reading.fail(Diagnostic::new(place, message).hint(hint));
        }
        let weighted = Weighted { model: name, weight, params };
        Some(Part { weighted, first, count, places: (fields.field("model")?.value.span, place) })
    }

    /// Refuses models that stand in a slice twice, and layers of different number.
    fn check(&self, parts: &[Part]) -> Option<()> {
        let report = self.context.report;
        let mut seen: HashMap<&str, Span> = HashMap::new();
        for part in parts {
            if let Some(other) = seen.insert(&part.weighted.model, part.places.0) {
                let message = format!("`{}` is in this slice twice", part.weighted.model);
                report.add(Diagnostic::new(part.places.0, message).other(other, "first here"));
                return None;
            }
        }
        let first = parts.first()?;
        if let Some(part) = parts.iter().find(|part| part.count != first.count) {
            let message = format!("{} layers of `{}` in a slice of {}", part.count, part.weighted.model, first.count);
            let diagnostic = Diagnostic::new(part.places.1, message).other(first.places.1, "as many as these");
            report.add(diagnostic.hint("each model gives a slice as many layers as the others"));
            return None;
        }
        Some(())
    }

    /// The models of a slice, and its base where the method has one.
    fn split(&self, mut parts: Vec<Part>, base: Option<&str>, method: &Method) -> Option<(Vec<Part>, Option<Part>)> {
        let fail = |place: Span, message: String, hint: &str| {
            self.context.report.add(Diagnostic::new(place, message).hint(hint));
            None
        };
        let Some(base) = base.filter(|_| method.leaves_the_base_out()) else {
            if method.base == Need::Must {
                let message = format!("`{}` needs a `base` model", method.name);
                return fail(self.fields.place, message, "add `base: NAME` to the merge or to each of its slices");
            }
            return Some((parts, None));
        };
        let Some(at) = parts.iter().position(|part| part.weighted.model == base) else {
            let message = format!("this slice has no layers of `{base}`, the base");
            return fail(self.fields.place, message, "name the base among its models, with the layers that it gives");
        };
        let part = parts.remove(at);
        if part.weighted.weight != 1.0.into() || !part.weighted.params.is_empty() {
            let message = format!("`{base}` is the base of this slice: it has no weight and no parameters");
            return fail(part.places.0, message, "take them away");
        }
        Some((parts, Some(part)))
    }
}

const HINT: &str = "as in `layers: [0, 12]`, which are the first twelve";

/// What is stated for a slice, before what the merge states: where none of its filters fits, that counts.
fn before(own: Json, next: Option<&Json>) -> Json {
    let is_named = |value: &Json| value.as_array().is_some_and(|items| items.iter().any(Json::is_object));
    let fits_all = |item: &Json| item["filter"].is_null() || item["filter"] == "*";
    let Some(next) = next.filter(|_| is_named(&own)) else { return own };
    let Json::Array(mut items) = own else { return own };
    if !items.iter().any(fits_all) {
        match next {
            Json::Array(more) if is_named(next) => items.extend(more.iter().cloned()),
            other => items.push(json!({ "filter": null, "value": other })),
        }
    }
    Json::Array(items)
}
