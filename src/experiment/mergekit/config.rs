//! What a configuration says: method, models, base, parameters by scope; and what this version has not.

use super::super::diagnostics::{Diagnostic, Report, Span};
use super::super::keys::{Key, Shape, key, required};
use super::super::loaded::Files;
use super::super::methods::{Method, method};
use super::super::read::{Fields, Reading, did_you_mean};
use super::super::tree::{Field, Map, Node};
use super::parameters;
use super::reference::Reference;
use super::tokenizer::Tokenizer;

const CONFIG: &[Key] = &[
    required("merge_method", Shape::Any, ""),
    key("models", Shape::Any, ""),
    key("slices", Shape::Any, ""),
    key("modules", Shape::Any, ""),
    key("base_model", Shape::Any, ""),
    key("parameters", Shape::Any, ""),
    key("dtype", Shape::Any, ""),
    key("out_dtype", Shape::Any, ""),
    key("tokenizer_source", Shape::Any, ""),
    key("tokenizer", Shape::Any, ""),
    key("chat_template", Shape::Any, ""),
];
const MODULE: &[Key] =
    &[key("models", Shape::Any, ""), key("slices", Shape::Any, ""), key("parameters", Shape::Any, "")];
const MODEL: &[Key] = &[required("model", Shape::Any, ""), key("parameters", Shape::Any, "")];
const SLICE: &[Key] = &[
    required("sources", Shape::Any, ""),
    key("base_model", Shape::Any, ""),
    key("residual_weight", Shape::Any, ""),
    key("parameters", Shape::Any, ""),
];
const RANGE: &[Key] = &[required("layer_range", Shape::Any, "")];

/// mergekit's methods by its names.
const METHODS: &[&str] = &[
    "linear",
    "slerp",
    "nuslerp",
    "multislerp",
    "karcher",
    "passthrough",
    "model_stock",
    "arcee_fusion",
    "nearswap",
    "sce",
    "ram",
    "ramplus_tl",
    "task_arithmetic",
    "ties",
    "dare_ties",
    "dare_linear",
    "breadcrumbs",
    "breadcrumbs_ties",
    "della",
    "della_linear",
];

/// A model and where it is named.
pub(super) type Placed = (Reference, Span);

/// One configuration.
pub(super) struct Config {
    pub(super) method: &'static Method,
    pub(super) method_place: Span,
    /// What is merged: whole models, to which mergekit adds the base, or slices one after the other.
    pub(super) parts: Parts,
    pub(super) base: Option<Placed>,
    /// Parameters of the module and the whole file.
    pub(super) scopes: Vec<Map>,
    /// `out_dtype`, else `dtype`.
    pub(super) dtype: Option<Field>,
    pub(super) tokenizer: Option<Tokenizer>,
}

/// What is merged.
pub(super) enum Parts {
    /// Models, the base among them where the file has it there.
    Models(Vec<Input>),
    /// Slices, and where they are.
    Slices(Vec<Slice>, Span),
}

/// Some layers of the output.
pub(super) struct Slice {
    pub(super) place: Span,
    pub(super) sources: Vec<Input>,
    pub(super) base: Option<Placed>,
    pub(super) params: Map,
}

/// A model with its parameters.
pub(super) struct Input {
    pub(super) model: Placed,
    pub(super) params: Map,
    /// `layer_range`, of a source of a slice.
    pub(super) layers: Option<Field>,
}

impl Config {
    /// Reads a configuration.
    pub(super) fn read(report: &Report, files: &dyn Files, root: &Node) -> Option<Self> {
        let start = Span { start: root.span.start, end: root.span.start };
        let fields = Fields::unchecked(report, root, start, "a mergekit configuration")?;
        if let Some(field) = fields.field("experts").filter(|_| !fields.has("merge_method")) {
            refuse(
                report,
                field.key,
                "a configuration of mergekit-moe is",
                "merges here are of the shape of their models",
            );
            return None;
        }
        let fields = Fields::open(report, root, start, "a mergekit configuration", &[CONFIG])?;
        let reader = Reader { report, files };
        reader.refuse(&fields, "chat_template", "the model that gives the tokenizer gives its template");
        let method_place = fields.field("merge_method")?.value.span;
        let method = fields.get("merge_method", method_of);
        let global = parameters::stated(report, fields.field("parameters"));
        let base = reader.reference(&fields, "base_model");
        let (parts, mut scopes) = match fields.exactly_one(&["models", "slices", "modules"])? {
            "modules" => reader.modules(fields.field("modules")?),
            form => reader.parts(&fields, form).map(|parts| (parts, Vec::new())),
        }?;
        scopes.push(global);
        let dtype = present(&fields, "out_dtype").or(present(&fields, "dtype")).cloned();
        let tokenizer = Tokenizer::read(report, &fields, files);
        let config = Self { method: method?, method_place, parts, base, scopes, dtype, tokenizer };
        config.check(report);
        Some(config)
    }

    /// Reports parameters that do not belong where they are.
    fn check(&self, report: &Report) {
        let of_models = |inputs: &[Input], base: Option<&Placed>| {
            let is_base = |input: &Input| base.is_some_and(|(base, _)| *base == input.model.0);
            for input in inputs.iter().filter(|input| !(self.method.leaves_the_base_out() && is_base(input))) {
                parameters::check(report, self.method, &input.params, true);
            }
        };
        match &self.parts {
            Parts::Models(inputs) => of_models(inputs, self.base.as_ref()),
            Parts::Slices(slices, _) => {
                for slice in slices {
                    of_models(&slice.sources, slice.base.as_ref().or(self.base.as_ref()));
                    parameters::check(report, self.method, &slice.params, false);
                }
            }
        }
        for scope in &self.scopes {
            parameters::check(report, self.method, scope, false);
        }
    }

    /// The models that it names, with their places.
    pub(super) fn references(&self) -> impl Iterator<Item = (&Reference, Span)> {
        let (inputs, slices) = match &self.parts {
            Parts::Models(inputs) => (inputs.as_slice(), [].as_slice()),
            Parts::Slices(slices, _) => ([].as_slice(), slices.as_slice()),
        };
        let sources = slices.iter().flat_map(|slice| slice.sources.iter());
        let bases = slices.iter().filter_map(|slice| slice.base.as_ref()).chain(&self.base);
        let models = inputs.iter().chain(sources).map(|input| &input.model).chain(bases);
        let named = models.map(|(reference, span)| (reference, *span));
        named.chain(self.tokenizer.iter().flat_map(Tokenizer::references))
    }
}

struct Reader<'a> {
    report: &'a Report,
    files: &'a dyn Files,
}

impl Reader<'_> {
    fn refuse(&self, fields: &Fields<'_>, key: &str, hint: &str) {
        if let Some(field) = present(fields, key) {
            refuse(self.report, field.key, &format!("`{key}` of a mergekit configuration is"), hint);
        }
    }

    fn reference(&self, fields: &Fields<'_>, key: &str) -> Option<Placed> {
        let span = present(fields, key)?.value.span;
        fields.get(key, |reading| Some((Reference::read(reading, self.files)?, span)))
    }

    /// The one module, with its parameters.
    fn modules(&self, field: &Field) -> Option<(Parts, Vec<Map>)> {
        let module = Reading { report: self.report, node: &field.value, key: "modules" };
        let map = module.map()?;
        let mut modules = map.values();
        let (first, second) = (modules.next(), modules.next());
        let (Some(first), None) = (first, second) else {
            let place = second.map_or(field.value.span, |second| second.key);
            refuse(self.report, place, "more than one module is", "merge models that have one, `default`");
            return None;
        };
        let fields = Fields::open(self.report, &first.value, first.key, "a module", &[MODULE])?;
        let params = parameters::stated(self.report, fields.field("parameters"));
        let parts = self.parts(&fields, fields.exactly_one(&["models", "slices"])?)?;
        Some((parts, vec![params]))
    }

    /// What stands under `models` or `slices`.
    fn parts(&self, fields: &Fields<'_>, form: &str) -> Option<Parts> {
        if form == "models" {
            return self.inputs(fields, form, &[MODEL]).map(Parts::Models);
        }
        let slices = fields.get(form, |slices| slices.list(|item| Some(self.slice(item))))?;
        let place = fields.field(form)?.key;
        Some(Parts::Slices(slices.into_iter().collect::<Option<_>>()?, place))
    }

    /// Models of a list.
    fn inputs(&self, fields: &Fields<'_>, key: &str, keys: &[&[Key]]) -> Option<Vec<Input>> {
        fields.get(key, |list| list.list(|item| Some(self.input(item, keys))))?.into_iter().collect()
    }

    fn input(&self, item: Reading<'_>, keys: &[&[Key]]) -> Option<Input> {
        let fields = Fields::open(self.report, item.node, item.node.span, "a model", keys)?;
        let params = parameters::stated(self.report, fields.field("parameters"));
        let model = self.reference(&fields, "model");
        let layers = fields.field("layer_range").cloned();
        Some(Input { model: model?, params, layers })
    }

    fn slice(&self, item: Reading<'_>) -> Option<Slice> {
        let fields = Fields::open(self.report, item.node, item.node.span, "a slice", &[SLICE])?;
        let base = self.reference(&fields, "base_model");
        let params = parameters::stated(self.report, fields.field("parameters"));
        let sources = self.inputs(&fields, "sources", &[MODEL, RANGE])?;
        let ranges: Vec<_> = sources.iter().map(|source| self.range(source)).collect();
        let counts: Vec<_> = ranges.into_iter().collect::<Option<_>>()?;
        let (first, others) = counts.split_first()?;
        if let Some(other) = others.iter().find(|other| other.0 != first.0) {
            let message = format!("{} layers in a slice of {}", other.0, first.0);
            let diagnostic = Diagnostic::new(other.1, message).other(first.1, "as many as these");
            self.report.add(diagnostic.hint("each source gives a slice as many layers as the others"));
            return None;
        }
        Some(Slice { place: item.node.span, sources, base, params })
    }

    /// How many layers a source gives, and where that stands.
    fn range(&self, source: &Input) -> Option<(u64, Span)> {
        let field = source.layers.as_ref()?;
        let reading = Reading { report: self.report, node: &field.value, key: "layer_range" };
        let span = field.value.span;
        let fail = |message: String, hint: String| reading.fail(Diagnostic::new(span, message).hint(hint));
        match reading.list(|end| end.whole(0, u64::from(u32::MAX)))?.as_slice() {
            [first, end] if first < end => match self.depth(&source.model.0) {
                Some(depth) if *end > depth => fail(
                    format!("layers {first} to {end} of a model that has {depth}"),
                    format!("layers are counted from 0; the last of them end at {depth}"),
                ),
                _ => Some((end - first, span)),
            },
            [first, end] => fail(
                format!("layers {first} to {end} are none"),
                "the second is one past the last, as in `layer_range: [0, 32]`".to_owned(),
            ),
            _ => fail(
                "`layer_range` must be the first layer and one past the last".to_owned(),
                "as in `layer_range: [0, 32]`".to_owned(),
            ),
        }
    }

    /// How many layers a model has, where it is on disk and says so; of others that is found when they are there.
    fn depth(&self, model: &Reference) -> Option<u64> {
        let config = self.files.read(&model.directory()?.join("config.json")).ok()?;
        let config: serde_json::Value = serde_json::from_slice(&config).ok()?;
        ["num_hidden_layers", "n_layer"].iter().find_map(|key| config.get(*key)?.as_u64())
    }
}

fn method_of(reading: Reading<'_>) -> Option<&'static Method> {
    let name = reading.word()?;
    if METHODS.contains(&name.as_str()) {
        return method(&name);
    }
    let hint = did_you_mean(&name, METHODS.iter().copied())
        .unwrap_or_else(|| format!("its methods are {}", METHODS.join(", ")));
    reading.fail(Diagnostic::new(reading.node.span, format!("mergekit has no method `{name}`")).hint(hint))
}

/// A key that says something; mergekit takes an empty one as absent.
pub(super) fn present<'a>(fields: &Fields<'a>, key: &str) -> Option<&'a Field> {
    fields.field(key).filter(|field| !field.value.is_null())
}

fn refuse(report: &Report, place: Span, what: &str, hint: &str) {
    report.add(Diagnostic::new(place, format!("{what} not in this version")).hint(hint));
}
