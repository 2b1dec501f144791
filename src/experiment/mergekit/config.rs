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
const SOURCE: &[Key] =
    &[required("model", Shape::Any, ""), required("layer_range", Shape::Any, ""), key("parameters", Shape::Any, "")];

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
    /// The models in their order, the base among them where the file has it there.
    pub(super) inputs: Vec<Input>,
    /// Whether they are whole models, to which mergekit adds the base.
    pub(super) whole: bool,
    pub(super) base: Option<Placed>,
    /// Parameters of the slice, the module and the whole file.
    pub(super) scopes: Vec<Map>,
    /// `out_dtype`, else `dtype`.
    pub(super) dtype: Option<Field>,
    pub(super) tokenizer: Option<Tokenizer>,
    /// The layers that its models have, where it says so.
    pub(super) layers: Option<u64>,
}

/// A model with its parameters.
pub(super) struct Input {
    pub(super) model: Placed,
    pub(super) params: Map,
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
        let mut parts = match fields.exactly_one(&["models", "slices", "modules"])? {
            "modules" => reader.modules(fields.field("modules")?),
            form => reader.parts(&fields, form),
        }?;
        parts.scopes.push(global);
        let dtype = present(&fields, "out_dtype").or(present(&fields, "dtype")).cloned();
        let tokenizer = Tokenizer::read(report, &fields, files);
        let (method, base) = (method?, parts.base.or(base));
        let is_base = |input: &Input| base.as_ref().is_some_and(|(base, _)| *base == input.model.0);
        for input in parts.inputs.iter().filter(|input| !(method.leaves_the_base_out() && is_base(input))) {
            parameters::check(report, method, &input.params, true);
        }
        for scope in &parts.scopes {
            parameters::check(report, method, scope, false);
        }
        let Parts { inputs, whole, scopes, layers, .. } = parts;
        Some(Self { method, method_place, inputs, whole, base, scopes, dtype, tokenizer, layers })
    }

    /// The models that it names, with their places.
    pub(super) fn references(&self) -> impl Iterator<Item = (&Reference, Span)> {
        let inputs = self.inputs.iter().map(|input| &input.model);
        let named = inputs.chain(&self.base).map(|(reference, span)| (reference, *span));
        named.chain(self.tokenizer.iter().flat_map(Tokenizer::references))
    }
}

/// What is merged.
struct Parts {
    inputs: Vec<Input>,
    whole: bool,
    base: Option<Placed>,
    scopes: Vec<Map>,
    layers: Option<u64>,
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

    fn modules(&self, field: &Field) -> Option<Parts> {
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
        let mut parts = self.parts(&fields, fields.exactly_one(&["models", "slices"])?)?;
        parts.scopes.push(params);
        Some(parts)
    }

    /// What stands under `models` or `slices`.
    fn parts(&self, fields: &Fields<'_>, form: &str) -> Option<Parts> {
        if form == "slices" {
            return self.slices(fields);
        }
        let inputs = fields.get(form, |models| models.list(|item| Some(self.input(item))))?;
        let inputs = inputs.into_iter().collect::<Option<_>>()?;
        Some(Parts { inputs, whole: true, base: None, scopes: Vec::new(), layers: None })
    }

    fn input(&self, item: Reading<'_>) -> Option<Input> {
        let fields = Fields::open(self.report, item.node, item.node.span, "a model", &[MODEL])?;
        let params = parameters::stated(self.report, fields.field("parameters"));
        Some(Input { model: self.reference(&fields, "model")?, params })
    }

    /// One slice of whole models; others are refused.
    fn slices(&self, fields: &Fields<'_>) -> Option<Parts> {
        let slices = fields.get("slices", |slices| slices.list(|item| Some(item.node)))?;
        if let Some(second) = slices.get(1) {
            cuts(self.report, second.span);
            return None;
        }
        let slice = slices.first()?;
        let fields = Fields::open(self.report, slice, slice.span, "a slice", &[SLICE])?;
        self.refuse(&fields, "residual_weight", "it has no effect but in slices that stack layers");
        let base = self.reference(&fields, "base_model");
        let params = parameters::stated(self.report, fields.field("parameters"));
        let sources = fields.get("sources", |sources| sources.list(|item| Some(self.source(item))))?;
        let sources: Vec<(Input, u64, Span)> = sources.into_iter().collect::<Option<_>>()?;
        let layers = sources.first().map(|(_, layers, _)| *layers);
        if let Some((.., span)) = sources.iter().find(|(_, other, _)| Some(*other) != layers) {
            cuts(self.report, *span);
            return None;
        }
        let inputs = sources.into_iter().map(|(input, ..)| input).collect();
        Some(Parts { inputs, whole: false, base, scopes: vec![params], layers })
    }

    /// A source of a slice, with its layers and where they are stated.
    fn source(&self, item: Reading<'_>) -> Option<(Input, u64, Span)> {
        let fields = Fields::open(self.report, item.node, item.node.span, "a source of a slice", &[SOURCE])?;
        let params = parameters::stated(self.report, fields.field("parameters"));
        let model = self.reference(&fields, "model");
        let span = fields.field("layer_range")?.value.span;
        let range = fields.get("layer_range", |range| range.list(|end| end.whole(0, u64::MAX)))?;
        let [start, end] = range.as_slice() else {
            let diagnostic = Diagnostic::new(span, "`layer_range` must be the first layer and one past the last");
            self.report.add(diagnostic.hint("as in `layer_range: [0, 32]`"));
            return None;
        };
        if *start > 0 {
            cuts(self.report, span);
            return None;
        }
        Some((Input { model: model?, params }, *end, span))
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

fn cuts(report: &Report, place: Span) {
    let hint = "one slice over all layers of each source, `layer_range: [0, N]`, merges whole models";
    refuse(report, place, "slices that cut or stack layers are", hint);
}
