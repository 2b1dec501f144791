//! Values of method parameters: one number, a gradient over depth, or either by tensor name.

use mergelab_wire::{NamedWeight, Weight};
use serde_json::{Value as Json, json};

use super::keys::FILTERED;
use super::methods::Kind;
use super::read::{Fields, Reading};

/// Reads a parameter's value and gives it as it goes to the method.
///
/// A number stays a number; a gradient is an array of numbers; by tensor name it is an array of
/// `{"filter": text or null, "value": number or array}`, in the order in which they are tried.
pub(super) fn value(reading: Reading<'_>, kind: Kind) -> Option<Json> {
    match kind {
        Kind::Flag => reading.flag().map(Json::from),
        Kind::Whole(min, max) => reading.whole(min, max).map(Json::from),
        Kind::Word(words) => reading.choice(words).map(Json::from),
        Kind::Number(min, max) => {
            if goes_by_name(reading) {
                let named = by_name(reading, |value| number(value, min, max))?;
                let named = named.into_iter().map(|(filter, value)| json!({ "filter": filter, "value": value }));
                return Some(named.collect());
            }
            number(reading, min, max)
        }
    }
}

/// Reads the weight of a model, which takes what a number among the parameters takes.
pub(super) fn weight(reading: Reading<'_>) -> Option<Weight> {
    let numbers = |reading| gradient(reading, f64::MIN, f64::MAX);
    if goes_by_name(reading) {
        let named = by_name(reading, numbers)?.into_iter();
        return Some(Weight::ByName(named.map(|(filter, value)| NamedWeight { filter, value }).collect()));
    }
    numbers(reading).map(Weight::from)
}

fn goes_by_name(reading: Reading<'_>) -> bool {
    reading.node.as_list().is_some_and(|items| items.iter().any(|item| item.as_map().is_some()))
}

/// Values with what is part of the names of the tensors that they are for; `None` when one is wrong.
fn by_name<'a, T>(
    reading: Reading<'a>,
    read: impl Fn(Reading<'a>) -> Option<T> + Copy,
) -> Option<Vec<(Option<String>, T)>> {
    reading.list(|item| Some(filtered(item, read)))?.into_iter().collect()
}

fn number(reading: Reading<'_>, min: f64, max: f64) -> Option<Json> {
    if reading.node.as_list().is_some() {
        return gradient(reading, min, max).map(Json::from);
    }
    reading.number(min, max).map(Json::from)
}

fn filtered<'a, T>(reading: Reading<'a>, read: impl FnOnce(Reading<'a>) -> Option<T>) -> Option<(Option<String>, T)> {
    let fields = Fields::open(reading.report, reading.node, reading.node.span, "a filtered value", &[FILTERED])?;
    let filter = match fields.node("filter") {
        Some(node) if !node.is_null() => Some(fields.get("filter", Reading::word)?),
        _ => None,
    };
    fields.get("value", read).map(|value| (filter, value))
}

/// One number or a list of them, as a list.
pub(super) fn gradient(reading: Reading<'_>, min: f64, max: f64) -> Option<Vec<f64>> {
    if reading.node.as_list().is_none() {
        return reading.number(min, max).map(|number| vec![number]);
    }
    let before = reading.report.count();
    let numbers = reading.list(|item| item.number(min, max))?;
    (reading.report.count() == before && !numbers.is_empty()).then_some(numbers)
}
