//! `merges:`.

use indexmap::IndexMap;
use mergelab_wire::{Alpha, Normalize, Rule, RuleUse};

use super::context::{Context, Item};
use super::diagnostics::{Diagnostic, Report, Span};
use super::keys::{ALPHAS, DTYPES, KEEP, MERGE, NORMALIZE, SOLVERS};
use super::mergekit::Mergekit;
use super::methods::{METHODS, Method, Need, method, spellings};
use super::params;
use super::per_model::Known;
use super::read::{Fields, Reading, did_you_mean};
use super::settings::bytes;
use super::tokenizer;
use super::types::{Merge, Weighted};

/// Reads one merge.
pub(super) fn merge(context: &Context<'_>, item: Item<'_>, known: Known<'_>, mergekit: &Mergekit) -> Option<Merge> {
    let fields = Fields::unchecked(context.report, &item.member.view, item.place, "a merge")?;
    let method = fields.get("method", known_method);
    check_keys(context, &fields, method);
    fields.require(&["method"]);
    let reader = Reader { context, item, fields, method };
    if method.is_some_and(|method| method.name == "mergekit") {
        return reader.mergekit(known, mergekit);
    }
    reader.read(known)
}

fn known_method(reading: Reading<'_>) -> Option<&'static Method> {
    let name = reading.word()?;
    if let Some(method) = method(&name) {
        return Some(method);
    }
    let names = spellings();
    let hint =
        did_you_mean(&name, names.iter().copied()).unwrap_or_else(|| format!("the methods are {}", names.join(", ")));
    reading.fail(
        Diagnostic::new(reading.node.span, format!("there is no method `{name}`")).label("unknown method").hint(hint),
    )
}

/// Reports keys that no merge has, and parameters that this method has not.
fn check_keys(context: &Context<'_>, fields: &Fields<'_>, method: Option<&Method>) {
    let mut known: Vec<_> = MERGE.iter().map(|key| key.name).collect();
    known.extend(method.iter().flat_map(|method| method.params).map(|param| param.name));
    for (key, field) in fields.map.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
        match method {
            _ if having(key).is_empty() => fields.unknown(key, field.key, &known),
            // Without its method, nobody knows which parameters a merge has.
            None => {}
            Some(method) => context.report.add(has_not(method, key, field.key)),
        }
    }
}

/// The methods that have a parameter.
fn having(param: &str) -> Vec<&'static str> {
    METHODS.iter().filter(|method| method.param(param).is_some()).map(|method| method.name).collect()
}

/// The error for a parameter that only other methods have.
pub(super) fn has_not(method: &Method, key: &str, place: Span) -> Diagnostic {
    let of: Vec<_> = method.params.iter().map(|param| param.name).collect();
    let having = having(key);
    let verb = if having.len() == 1 { "has" } else { "have" };
    let others = (!having.is_empty()).then(|| format!("{} {verb} it", having.join(", ")));
    let message = format!("`{}` has no parameter `{key}`", method.name);
    Diagnostic::new(place, message).maybe_hint(did_you_mean(key, of.iter().copied()).or(others))
}

/// Reads one merge.
pub(super) struct Reader<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) item: Item<'a>,
    pub(super) fields: Fields<'a>,
    pub(super) method: Option<&'static Method>,
}

impl Reader<'_> {
    /// A merge that a configuration of mergekit says.
    fn mergekit(&self, known: Known<'_>, mergekit: &Mergekit) -> Option<Merge> {
        let own = ["method", "config", "keep", "dtype", "shard_size", "sweep"];
        let others: Vec<_> = MERGE.iter().map(|key| key.name).filter(|key| !own.contains(key)).collect();
        self.fields.refuse(&others, "for `method: mergekit`, whose configuration says it");
        self.fields.require(&["config"]);
        let config = self.fields.get("config", |config| match mergekit.get(&config.path()?)? {
            Ok(read) => Some(read),
            Err(reason) => {
                let diagnostic = Diagnostic::new(config.node.span, reason);
                config.fail(diagnostic.hint("paths are relative to the project's root"))
            }
        });
        let (dtype, shard_size, keep) = (self.dtype(), self.shard_size(), self.keep());
        let config = config?;
        self.context.report.add_of(&config.source, config.wrong.iter().cloned());
        let node = config.merge.as_ref()?;
        let report = Report::default();
        let context = self.context.of(&report);
        let fields = Fields::unchecked(&report, node, node.span, "a merge")?;
        let method = fields.get("method", known_method);
        let item = Item { place: node.span, ..self.item };
        let merge = Reader { context: &context, item, fields, method }.read(known);
        self.context.report.add_of(&config.source, report.into_list());
        let merge = merge.filter(|_| config.wrong.is_empty())?;
        Some(Merge { dtype: dtype.or(merge.dtype), shard_size, keep, ..merge })
    }

    fn read(&self, known: Known<'_>) -> Option<Merge> {
        let fields = &self.fields;
        if self.method.is_some() {
            fields.refuse(&["config"], "but for `method: mergekit`");
        }
        if fields.has("slices") {
            return self.sliced(known);
        }
        fields.require(&["models"]);
        let base = fields.get("base", |base| self.context.model(self.item, base));
        // Which models there are may be known where something else that is said of them is wrong.
        let (named, is_whole) = fields.get("models", |models| Some(self.models(models))).unwrap_or_default();
        let named = named.and_then(|models| self.without_base(models, base.as_deref()));
        let named = named.as_deref();
        let rules = fields.get("rules", |rules| rules.list(|rule| self.rule(rule, named))).unwrap_or_default();
        let regmean_rule = rules.iter().any(|rule| rule.action == Some(RuleUse::Regmean));
        self.check_base(&rules);
        let gram_list = self.one_per_model("grams", "grams", named, known);
        let held_out = self.one_per_model("held_out", "grams", named, known);
        let fishers = self.one_per_model("fishers", "fishers", named, known);
        self.check_grams(regmean_rule);
        self.check_fishers();
        let captures = match self.method {
            Some(method) if method.captures() => gram_list.as_deref().and_then(|grams| self.captures(grams, known)),
            _ => Some(Vec::new()),
        };
        let with_grams = self.method.is_none_or(|method| method.grams != Need::No) || regmean_rule;
        let alpha = self.alpha(with_grams);
        let (normalize, mut params) = self.normalize(with_grams);
        params.extend(self.named_params());
        self.require_params(&params, None, fields.field("method").map_or(self.item.place, |field| field.value.span));
        self.add_seed(&mut params);
        let models = named.filter(|_| is_whole);
        if let (Some(models), Some(method)) = (models, self.method) {
            self.count_models(models, method, &params);
        }
        let mut names = named.into_iter().flatten().map(|(weighted, _)| weighted.model.as_str());
        self.check_densities(None, || names.find_map(|name| known.depths.of(name)));
        if !with_grams {
            fields.refuse(&["solver"], "without Gram matrices");
        } else if self.method.is_some_and(|method| method.name == "mats") {
            fields.refuse(&["solver"], "for `mats`, which goes by conjugate gradient");
        }
        let solver = fields.get("solver", |solver| solver.choice(SOLVERS)).unwrap_or_default();
        let of = tokenizer::Of { models: named, base: base.as_deref() };
        let (tokenizer, alignment) = fields.get("tokenizer", |tokenizer| self.tokenizer(tokenizer, of)).unzip();
        let (dtype, shard_size, keep) = (self.dtype(), self.shard_size(), self.keep());
        Some(Merge {
            method: self.method?.name.to_owned(),
            models: models?.iter().map(|(weighted, _)| weighted.clone()).collect(),
            grams: gram_list?,
            fishers: fishers?,
            captures: captures?,
            base,
            alpha,
            held_out: held_out?,
            params,
            rules,
            normalize,
            solver,
            dtype,
            shard_size,
            tokenizer,
            alignment: alignment.flatten(),
            keep,
            slices: Vec::new(),
        })
    }

    pub(super) fn dtype(&self) -> Option<String> {
        self.fields.get("dtype", |dtype| dtype.choice(DTYPES)).map(str::to_owned)
    }

    pub(super) fn shard_size(&self) -> Option<u64> {
        self.fields.get("shard_size", |size| match bytes(size)? {
            0 => size.fail(Diagnostic::new(size.node.span, "a file has room for something").hint("5GB is the default")),
            bytes => Some(bytes),
        })
    }

    pub(super) fn keep(&self) -> super::types::Keep {
        self.fields.get("keep", |keep| keep.choice(KEEP)).or(self.context.settings.keep).unwrap_or_default()
    }

    /// Checks how many models there are, and their weights.
    pub(super) fn count_models(
        &self,
        models: &[(Weighted, Span)],
        method: &Method,
        params: &IndexMap<String, serde_json::Value>,
    ) {
        self.check_weights(models, method, params);
        let (min, max) = method.models;
        if (min..=max).contains(&models.len()) {
            return;
        }
        let Some(field) = self.fields.field("models") else { return };
        let wanted = match (min, max) {
            (min, max) if min == max => min.to_string(),
            (min, usize::MAX) => format!("at least {min}"),
            (min, max) => format!("{min} to {max}"),
        };
        let plural = if wanted == "1" { "model" } else { "models" };
        let beside = if method.base == Need::Must { " beside its base" } else { "" };
        let message = format!("`{}` merges {wanted} {plural}{beside}, not {}", method.name, models.len());
        self.context.report.add(Diagnostic::new(field.value.span, message));
    }

    fn check_base(&self, rules: &[Rule]) {
        if self.fields.has("base") {
            if let Some(method) = self.method.filter(|method| method.base == Need::No) {
                self.fields.refuse(&["base"], &format!("for `{}`", method.name));
            }
            return;
        }
        let place = self.fields.field("method").map_or(self.item.place, |field| field.value.span);
        if let Some(method) = self.method.filter(|method| method.base == Need::Must) {
            let diagnostic = Diagnostic::new(place, format!("`{}` needs a `base` model", method.name))
                .label("no `base` in this merge");
            self.context.report.add(diagnostic.hint("add `base: NAME`, the model that the others were trained from"));
        } else if rules.iter().any(|rule| rule.action == Some(RuleUse::Base)) {
            let span = self.fields.field("rules").map_or(place, |field| field.key);
            self.context
                .report
                .add(Diagnostic::new(span, "a rule uses `base`, and this merge has none").hint("add `base: NAME`"));
        } else if let Some(start) = self.fields.node("x0").filter(|start| start.as_scalar() == Some("base")) {
            let diagnostic = Diagnostic::new(start.span, "`x0: base`, and this merge has no `base`");
            self.context.report.add(diagnostic.hint("add `base: NAME`"));
        }
    }

    /// α; for methods with Grams 0.1 where the file says nothing, for `mats` 1.
    fn alpha(&self, with_grams: bool) -> Option<Alpha> {
        let method = self.method?;
        if method.param("alpha").is_some() {
            return None;
        }
        if !with_grams {
            self.fields.refuse(&["alpha"], &format!("for `{}`, which uses no Gram matrices", method.name));
            return None;
        }
        let Some(field) = self.fields.field("alpha") else {
            return Some(Alpha::Number(if method.name == "mats" { MATS_ALPHA } else { DEFAULT_ALPHA }));
        };
        let alpha = self.fields.get("alpha", |alpha| {
            if alpha.node.as_list().is_some() {
                return params::gradient(alpha, 0.0, 1.0).map(Alpha::Gradient);
            }
            let number = super::scalar::plain(alpha.node).and_then(super::scalar::number);
            if number.is_some() { alpha.number(0.0, 1.0).map(Alpha::Number) } else { alpha.choice(ALPHAS) }
        })?;
        if let (Alpha::Auto | Alpha::AutoLayer, true) = (&alpha, method.captures() || method.name == "mats") {
            let diagnostic = Diagnostic::new(field.value.span, format!("`{}` does not pick its α", method.name));
            self.context.report.add(diagnostic.hint("state a number from 0 to 1; a `sweep` tries several"));
        } else if matches!(alpha, Alpha::Auto | Alpha::AutoLayer) && !self.fields.has("held_out") {
            let diagnostic =
                Diagnostic::new(field.value.span, "α is picked on held-out Grams, and this merge has none");
            self.context.report.add(diagnostic.hint("add `held_out: [NAME, …]`, one Gram entry per model"));
        }
        Some(alpha)
    }

    /// `normalize` has two meanings: of Grams, and mergekit's, of weights.
    fn normalize(&self, with_grams: bool) -> (Normalize, IndexMap<String, serde_json::Value>) {
        let mut params = IndexMap::new();
        let Some(method) = self.method else { return (Normalize::default(), params) };
        let word = self
            .fields
            .node("normalize")
            .is_some_and(|node| NORMALIZE.iter().any(|(word, _)| node.as_scalar() == Some(*word)));
        let of_grams = with_grams && (word || method.param("normalize").is_none());
        if of_grams {
            return (self.fields.get("normalize", |normalize| normalize.choice(NORMALIZE)).unwrap_or_default(), params);
        }
        match method.param("normalize") {
            Some(_) => {
                if let Some(flag) = self.fields.get("normalize", Reading::flag) {
                    params.insert("normalize".to_owned(), flag.into());
                }
            }
            None => self.fields.refuse(&["normalize"], &format!("for `{}`", method.name)),
        }
        (Normalize::default(), params)
    }

    /// All parameters that are stated, of a method without Gram matrices.
    pub(super) fn stated_params(&self) -> IndexMap<String, serde_json::Value> {
        let (_, mut params) = self.normalize(false);
        params.extend(self.named_params());
        params
    }

    /// The parameters that are stated, but for `normalize`.
    fn named_params(&self) -> IndexMap<String, serde_json::Value> {
        let of_method = self.method.iter().flat_map(|method| method.params).filter(|param| param.name != "normalize");
        let stated = of_method.filter_map(|param| {
            let value = self.fields.get(param.name, |value| params::value(value, param.kind))?;
            Some((param.name.to_owned(), value))
        });
        stated.collect()
    }

    /// Reports the parameters without a default that are not there, nor in what it is a part of.
    pub(super) fn require_params(
        &self,
        found: &IndexMap<String, serde_json::Value>,
        whole: Option<&Fields<'_>>,
        place: Span,
    ) {
        let Some(method) = self.method else { return };
        let is_there = |name: &str| self.fields.has(name) || whole.is_some_and(|whole| whole.has(name));
        let is_absent = |name: &str| !found.contains_key(name) && !is_there(name);
        for param in method.params.iter().filter(|param| param.default.is_none() && is_absent(param.name)) {
            let message = format!("`{}` needs the parameter `{}`", method.name, param.name);
            self.context.report.add(Diagnostic::new(place, message));
        }
        // Filters that fit some tensors leave the others without a value.
        let fits_all = |item: &serde_json::Value| {
            let filter = item.as_object().map(|item| item.get("filter").and_then(serde_json::Value::as_str));
            filter.is_none_or(|filter| filter.is_none_or(|filter| filter == "*"))
        };
        let is_partial = |value: &serde_json::Value| value.as_array().is_some_and(|items| !items.iter().any(fits_all));
        for param in method.params.iter().filter(|param| param.default.is_none()) {
            if found.get(param.name).is_some_and(is_partial) {
                let place = self.fields.field(param.name).map_or(place, |field| field.key);
                let message =
                    format!("`{}` needs `{}` for all tensors, and no filter fits the others", method.name, param.name);
                self.context
                    .report
                    .add(Diagnostic::new(place, message).hint("add an item without `filter`: `{ value: … }`"));
            }
        }
    }

    /// Adds the experiment's seed for a method that draws, where the merge has none of its own.
    pub(super) fn add_seed(&self, params: &mut IndexMap<String, serde_json::Value>) {
        if self.method.is_some_and(|method| method.param("seed").is_some()) && !self.fields.has("seed") {
            params.insert("seed".to_owned(), self.context.settings.seed.into());
        }
    }
}

/// What the papers and the published experiments use for language models.
const DEFAULT_ALPHA: f64 = 0.1;

/// Conjugate gradient needs no shrinking to be stable; its number of steps does as much.
const MATS_ALPHA: f64 = 1.0;
