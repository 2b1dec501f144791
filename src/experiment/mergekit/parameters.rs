//! Parameters of a configuration: which there are, and which of several statements counts.
//!
//! For a tensor counts what its model states, then its slice, its module, the whole file. Where the filters of one fit
//! no name, the next counts; so statements are laid into one list of filters.

use std::sync::Arc;

use super::super::diagnostics::{Diagnostic, Report, Span};
use super::super::merge::has_not;
use super::super::methods::{Kind, Method, Param};
use super::super::read::{Fields, did_you_mean, nearest, wrong_type};
use super::super::scalar::number;
use super::super::tree::{Field, Map, Node, Value};
use super::config::present;

/// Whether mergekit takes a parameter and makes nothing of it: it says how masks are held, or what task arithmetic keeps, which is
/// all.
fn is_without_effect(method: &Method, name: &str) -> bool {
    name == "int8_mask" || method.name == "task_arithmetic" && ["density", "rescale"].contains(&name)
}

/// Parameters that are stated at one place.
#[derive(Default)]
pub(super) struct Stated {
    map: Map,
    /// Whether something is meant for parameters, and could not be read as such.
    is_unread: bool,
}

impl Stated {
    /// What `parameters` of a mapping says, if anything.
    pub(super) fn read(report: &Report, fields: &Fields<'_>) -> Self {
        let Some(field) = present(fields, "parameters") else {
            let is_unread = fields.field("parameters").is_none() && fields.has("parameters");
            return Self { is_unread, ..Self::default() };
        };
        if let Some(map) = field.value.as_map() {
            return Self { map: map.clone(), is_unread: false };
        }
        report.add(wrong_type(&field.value, "`parameters`", "a mapping"));
        Self::unread()
    }

    /// Those of a place that could not be read.
    pub(super) fn unread() -> Self {
        Self { map: Map::new(), is_unread: true }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Field> {
        self.map.get(name)
    }

    /// Whether a parameter may be meant that is not there under its name.
    pub(super) fn may_mean(&self, method: Option<&Method>, name: &str) -> bool {
        let is_known = |key: &str| {
            let of = |method: &Method| method.param(key).is_some() || is_without_effect(method, key);
            key == "weight" || method.is_none_or(of)
        };
        self.is_unread || self.map.keys().any(|key| !is_known(key) && nearest(key, std::iter::once(name)).is_some())
    }
}

/// Checks what is stated at one place; `of_a_model` when it is for one model.
pub(super) fn check(report: &Report, method: &Method, stated: &Stated, of_a_model: bool) {
    for (name, field) in stated.map.iter().filter(|(name, _)| !is_without_effect(method, name)) {
        // mergekit takes its seed from the command line.
        let param = method.param(name).filter(|_| name != "seed");
        match param {
            Some(param) if of_a_model && !param.per_model => {
                let message = format!("`{name}` is no parameter of one model, and mergekit does not look at it here");
                report.add(Diagnostic::new(field.key, message).hint("move it to the `parameters` of the file"));
            }
            Some(_) => {}
            None if name == "weight" && method.weighs() => {}
            None => {
                let weight = did_you_mean(name, ["weight"].into_iter().filter(|_| method.weighs()));
                report.add(has_not(method, name, field.key).maybe_hint(weight));
            }
        }
    }
}

/// What counts of a parameter, by what states it: the first before the others.
pub(super) fn resolve(stated: &[&Field]) -> Option<Field> {
    let (first, others) = stated.split_first()?;
    let Some(mut items) = conditions(&first.value) else { return Some((*first).clone()) };
    if !items.iter().any(|item| fits_all(item)) {
        let next = resolve(others);
        items.extend(
            next.into_iter().flat_map(|next| conditions(&next.value).unwrap_or_else(|| vec![otherwise(&next)])),
        );
    }
    Some(Field { key: first.key, value: Arc::new(Node::new(first.value.span, Value::List(items))) })
}

/// A value's conditions, where it has some; mergekit takes one without a list around it.
fn conditions(value: &Arc<Node>) -> Option<Vec<Arc<Node>>> {
    match &value.value {
        Value::Map(_) => Some(vec![Arc::clone(value)]),
        Value::List(items) if items.iter().any(|item| item.as_map().is_some()) => Some(items.clone()),
        Value::List(_) | Value::Scalar { .. } | Value::Unread => None,
    }
}

/// A value for what no filter before it fits.
fn otherwise(field: &Field) -> Arc<Node> {
    let map = Map::from_iter([("value".to_owned(), field.clone())]);
    Arc::new(Node::new(field.value.span, Value::Map(map)))
}

fn fits_all(condition: &Node) -> bool {
    let filter = condition.as_map().and_then(|map| map.get("filter")).map(|field| &field.value);
    filter.is_none_or(|filter| filter.is_null() || filter.as_scalar() == Some("*"))
}

/// Whether a statement has a value for every tensor.
pub(super) fn is_for_all(field: &Field) -> bool {
    conditions(&field.value).is_none_or(|items| items.iter().any(|item| fits_all(item)))
}

/// A parameter without a default, which mergekit needs too. Reports one that has no value, or none for some tensors; what is not
/// there then counts as unread.
pub(super) fn require(report: &Report, name: &str, found: Option<Field>, of: Option<&str>, place: Span) -> Field {
    let of = of.map(|model| format!(" of `{model}`")).unwrap_or_default();
    match found {
        Some(field) if is_for_all(&field) => field,
        Some(field) => {
            let message = format!("mergekit needs the `{name}`{of} of all tensors, and no filter here fits the others");
            report.add(Diagnostic::new(field.key, message).hint("add an item without `filter`, as in `- value: 1`"));
            Field { value: Node::unread(field.value.span), ..field }
        }
        None => {
            let diagnostic = Diagnostic::new(place, format!("mergekit needs the `{name}`{of}"));
            report.add(diagnostic.hint(format!("add `{name}` to `parameters`")));
            Field { key: place, value: Node::unread(place) }
        }
    }
}

/// A value in the spelling of this language: mergekit's flags may be numbers, and words of YAML 1.1.
pub(super) fn spelled(param: &Param, field: Field) -> Field {
    let Value::Scalar { text, plain: true } = &field.value.value else { return field };
    let flag = match text.to_ascii_lowercase().as_str() {
        _ if param.kind != Kind::Flag => None,
        "yes" | "on" => Some("true"),
        "no" | "off" => Some("false"),
        other => number(other).and_then(|number| match number {
            1.0 => Some("true"),
            0.0 => Some("false"),
            _ => None,
        }),
    };
    match flag {
        Some(flag) => Field { value: scalar(flag, field.value.span), ..field },
        None => field,
    }
}

/// A word at a place.
pub(super) fn scalar(text: &str, span: Span) -> Arc<Node> {
    Arc::new(Node::new(span, Value::Scalar { text: text.to_owned(), plain: true }))
}
