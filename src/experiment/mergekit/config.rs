//! What a configuration says: method, models, base, parameters by scope; and what this version has not.

use std::collections::HashSet;
use std::path::Path;

use super::super::diagnostics::{Diagnostic, Report, Span};
use super::super::keys::{Key, Shape, key, required};
use super::super::loaded::Files;
use super::super::methods::{Method, method};
use super::super::read::{Fields, Reading, did_you_mean};
use super::super::tree::{Field, Node};
use super::parameters::{self, Stated};
use super::reference::{Place, Reference};
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

/// A model and where it is named; `None` where that is wrong, which was reported.
pub(super) type Placed = (Option<Reference>, Span);

/// Whether two name one model.
pub(super) fn is_same(one: &Placed, other: &Placed) -> bool {
    one.0.is_some() && one.0 == other.0
}

/// One configuration, as far as it could be read: what is wrong with the rest was reported.
pub(super) struct Config {
    pub(super) method: Option<&'static Method>,
    pub(super) method_place: Span,
    /// What is merged: whole models, to which mergekit adds the base, or slices one after the other.
    pub(super) parts: Option<Parts>,
    pub(super) base: Option<Placed>,
    /// Parameters of the module and the whole file.
    pub(super) scopes: Vec<Stated>,
    /// `out_dtype`, else `dtype`.
    pub(super) dtype: Option<Field>,
    pub(super) tokenizer: Option<Tokenizer>,
}

/// What is merged, and where it stands.
pub(super) enum Parts {
    /// Models, the base among them where the file has it there.
    Models(Vec<Input>, Span),
    /// Slices.
    Slices(Vec<Slice>, Span),
}

/// Some layers of the output.
pub(super) struct Slice {
    pub(super) place: Span,
    pub(super) sources: Option<Vec<Input>>,
    pub(super) base: Option<Placed>,
    pub(super) params: Stated,
}

/// A model with its parameters.
pub(super) struct Input {
    pub(super) model: Placed,
    pub(super) params: Stated,
    /// `layer_range`, of a source of a slice.
    pub(super) layers: Option<Field>,
}

impl Config {
    /// Reads a configuration; `None` where it is none at all.
    pub(super) fn read(report: &Report, files: &dyn Files, root: &Node, folder: &Path) -> Option<Self> {
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
        let place = Place { files, folder };
        let reader = Reader { report, place };
        reader.refuse(&fields, "chat_template", "the model that gives the tokenizer gives its template");
        let method_place = fields.field("merge_method").map_or(start, |field| field.value.span);
        let method = fields.get("merge_method", method_of);
        let base = reader.reference(&fields, "base_model");
        let (parts, of_module) = match fields.exactly_one(&["models", "slices", "modules"]) {
            Some("modules") => reader.modules(&fields).unwrap_or_default(),
            Some(form) => (reader.parts(&fields, form), None),
            None => (None, None),
        };
        let scopes = of_module.into_iter().chain([Stated::read(report, &fields)]).collect();
        let dtype = present(&fields, "out_dtype").or(present(&fields, "dtype")).cloned();
        let mut config = Self { method, method_place, parts, base, scopes, dtype, tokenizer: None };
        let models: HashSet<&Reference> = config.references().map(|(reference, _)| reference).collect();
        let tokenizer = Tokenizer::read(report, &fields, place, &models);
        config.tokenizer = tokenizer;
        config.check(report);
        Some(config)
    }

    /// Reports parameters that do not belong where they are.
    fn check(&self, report: &Report) {
        let Some(method) = self.method else { return };
        let of_models = |inputs: &[Input], base: Option<&Placed>| {
            let is_base = |input: &Input| base.is_some_and(|base| is_same(base, &input.model));
            for input in inputs.iter().filter(|input| !(method.leaves_the_base_out() && is_base(input))) {
                parameters::check(report, method, &input.params, true);
            }
        };
        match &self.parts {
            Some(Parts::Models(inputs, _)) => of_models(inputs, self.base.as_ref()),
            Some(Parts::Slices(slices, _)) => {
                for slice in slices {
                    of_models(slice.sources.as_deref().unwrap_or_default(), slice.base.as_ref().or(self.base.as_ref()));
                    parameters::check(report, method, &slice.params, false);
                }
            }
            None => {}
        }
        for scope in &self.scopes {
            parameters::check(report, method, scope, false);
        }
    }

    /// The models that it names, with their places.
    pub(super) fn references(&self) -> impl Iterator<Item = (&Reference, Span)> {
        let (inputs, slices) = match &self.parts {
            Some(Parts::Models(inputs, _)) => (inputs.as_slice(), [].as_slice()),
            Some(Parts::Slices(slices, _)) => ([].as_slice(), slices.as_slice()),
            None => ([].as_slice(), [].as_slice()),
        };
        let sources = slices.iter().flat_map(|slice| slice.sources.iter().flatten());
        let bases = slices.iter().filter_map(|slice| slice.base.as_ref()).chain(&self.base);
        let models = inputs.iter().chain(sources).map(|input| &input.model).chain(bases);
        let of_tokenizer = self.tokenizer.iter().flat_map(Tokenizer::references);
        models.chain(of_tokenizer).filter_map(|(reference, span)| Some((reference.as_ref()?, *span)))
    }
}

struct Reader<'a> {
    report: &'a Report,
    place: Place<'a>,
}

impl Reader<'_> {
    fn refuse(&self, fields: &Fields<'_>, key: &str, hint: &str) {
        if let Some(field) = present(fields, key) {
            refuse(self.report, field.key, &format!("`{key}` of a mergekit configuration is"), hint);
        }
    }

    /// A model under a key, which may be misspelled.
    fn reference(&self, fields: &Fields<'_>, key: &str) -> Option<Placed> {
        let Some(field) = present(fields, key) else {
            let is_misspelled = fields.field(key).is_none() && fields.has(key);
            return is_misspelled.then_some((None, fields.place));
        };
        Some((fields.get(key, |reading| Reference::read(reading, self.place)), field.value.span))
    }

    /// The one module, with its parameters.
    fn modules(&self, fields: &Fields<'_>) -> Option<(Option<Parts>, Option<Stated>)> {
        let modules = fields.get("modules", Reading::map)?;
        let mut all = modules.values();
        let (first, second) = (all.next(), all.next());
        let (Some(first), None) = (first, second) else {
            let place = second.or(fields.field("modules")).map_or(fields.place, |field| field.key);
            refuse(self.report, place, "more than one module is", "merge models that have one, `default`");
            return None;
        };
        let fields = Fields::open(self.report, &first.value, first.key, "a module", &[MODULE])?;
        let params = Stated::read(self.report, &fields);
        let parts = fields.exactly_one(&["models", "slices"]).and_then(|form| self.parts(&fields, form));
        Some((parts, Some(params)))
    }

    /// What stands under `models` or `slices`.
    fn parts(&self, fields: &Fields<'_>, form: &str) -> Option<Parts> {
        let place = fields.field(form)?.key;
        if form == "models" {
            return self.inputs(fields, form, &[MODEL]).map(|inputs| Parts::Models(inputs, place));
        }
        let slices = fields.get(form, |slices| slices.list(|item| Some(self.slice(item))))?;
        Some(Parts::Slices(slices, place))
    }

    /// Models of a list.
    fn inputs(&self, fields: &Fields<'_>, key: &str, keys: &[&[Key]]) -> Option<Vec<Input>> {
        fields.get(key, |list| list.list(|item| Some(self.input(item, keys))))
    }

    fn input(&self, item: Reading<'_>, keys: &[&[Key]]) -> Input {
        let unread = (None, item.node.span);
        let Some(fields) = Fields::open(self.report, item.node, item.node.span, "a model", keys) else {
            return Input { model: unread, params: Stated::unread(), layers: None };
        };
        let params = Stated::read(self.report, &fields);
        let model = self.reference(&fields, "model").unwrap_or(unread);
        let layers = fields.field("layer_range").cloned();
        Input { model, params, layers }
    }

    fn slice(&self, item: Reading<'_>) -> Slice {
        let place = item.node.span;
        let Some(fields) = Fields::open(self.report, item.node, place, "a slice", &[SLICE]) else {
            return Slice { place, sources: None, base: None, params: Stated::unread() };
        };
        let base = self.reference(&fields, "base_model");
        let params = Stated::read(self.report, &fields);
        let mut sources = self.inputs(&fields, "sources", &[MODEL, RANGE]);
        self.check_ranges(sources.as_deref_mut().unwrap_or_default());
        Slice { place, sources, base, params }
    }

    /// Reports ranges of layers that are none, and those of another length than the first; they count as unread.
    fn check_ranges(&self, sources: &mut [Input]) {
        let mut first: Option<(u64, Span)> = None;
        for source in sources {
            let counted = self.range(source);
            let is_fit = match (counted, first) {
                (Some(counted), None) => {
                    first = Some(counted);
                    true
                }
                (Some((count, span)), Some((of_first, place))) if count != of_first => {
                    let message = format!("{count} layers in a slice of {of_first}");
                    let diagnostic = Diagnostic::new(span, message).other(place, "as many as these");
                    self.report.add(diagnostic.hint("each source gives a slice as many layers as the others"));
                    false
                }
                (counted, _) => counted.is_some(),
            };
            if !is_fit {
                let place = source.layers.as_ref().map_or(source.model.1, |field| field.value.span);
                source.layers = Some(Field { key: place, value: Node::unread(place) });
            }
        }
    }

    /// How many layers a source gives, and where that stands.
    fn range(&self, source: &Input) -> Option<(u64, Span)> {
        let field = source.layers.as_ref()?;
        let reading = Reading { report: self.report, node: &field.value, key: "layer_range" };
        let span = field.value.span;
        let fail = |message: String| {
            let hint = "the first layer and one past the last, as in `layer_range: [0, 32]`";
            reading.fail(Diagnostic::new(span, message).hint(hint))
        };
        let before = self.report.count();
        let ends = reading.list(|end| end.whole(0, u64::from(u32::MAX)))?;
        match ends.as_slice() {
            _ if self.report.count() > before => None,
            [first, end] if first < end => Some((end - first, span)),
            [first, end] => fail(format!("layers {first} to {end} are none")),
            _ => fail("`layer_range` must be two numbers".to_owned()),
        }
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
