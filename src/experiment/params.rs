//! Values of method parameters: one number, a gradient over depth, or either by tensor name.

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
            let filtered = reading.node.as_list().is_some_and(|items| items.iter().any(|item| item.as_map().is_some()));
            if filtered {
                let items = reading.list(|item| self::filtered(item, min, max))?;
                return Some(Json::Array(items));
            }
            number(reading, min, max)
        }
    }
}

fn number(reading: Reading<'_>, min: f64, max: f64) -> Option<Json> {
    if reading.node.as_list().is_some() {
        return gradient(reading, min, max).map(Json::from);
    }
    reading.number(min, max).map(Json::from)
}

fn filtered(reading: Reading<'_>, min: f64, max: f64) -> Option<Json> {
    let fields = Fields::open(reading.report, reading.node, reading.node.span, "a filtered value", &[FILTERED])?;
    let filter = match fields.node("filter") {
        Some(node) if !node.is_null() => Some(fields.get("filter", Reading::word)?),
        _ => None,
    };
    let value = fields.get("value", |value| number(value, min, max))?;
    Some(json!({ "filter": filter, "value": value }))
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
