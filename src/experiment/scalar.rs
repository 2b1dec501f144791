//! What a plain scalar means, where a key asks for something other than text.
//!
//! YAML 1.2's core schema: only `true` and `false` are booleans (`yes`, `on` and the like are text), and `1_000` is no
//! number.

use serde_json::{Number, Value as Json};

use super::tree::{Node, Value};

/// The text of a scalar that is not quoted.
pub(super) fn plain(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar { text, plain: true } => Some(text),
        _ => None,
    }
}

/// `true` or `false`.
pub(super) fn flag(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// A whole number: decimal, `0x…` or `0o…`.
pub(super) fn whole(text: &str) -> Option<i128> {
    if let Some(digits) = text.strip_prefix("0x") {
        return no_sign(digits).and_then(|digits| i128::from_str_radix(digits, 16).ok());
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return no_sign(digits).and_then(|digits| i128::from_str_radix(digits, 8).ok());
    }
    text.parse().ok()
}

fn no_sign(digits: &str) -> Option<&str> {
    (!digits.starts_with(['+', '-'])).then_some(digits)
}

/// A number; `.inf` and `.nan` are numbers too, so that a range can refuse them by their name.
pub(super) fn number(text: &str) -> Option<f64> {
    if let Some(whole) = whole(text) {
        return Some(whole as f64);
    }
    match text.trim_start_matches(['+', '-']) {
        ".inf" | ".Inf" | ".INF" => return Some(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY }),
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        _ => {}
    }
    // Rust also reads `inf`, `nan` and `infinity`, which are words in YAML.
    let digits = text.bytes().any(|byte| byte.is_ascii_digit());
    let allowed = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    (digits && allowed).then(|| text.parse().ok()).flatten()
}

/// Bytes of a size such as `40GiB`, `500 MB` or `1024`.
pub fn size(text: &str) -> Option<u64> {
    let split = text.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    if let Ok(count) = digits.parse::<u64>() {
        return count.checked_mul(factor);
    }
    let bytes = digits.parse::<f64>().ok()? * factor as f64;
    (bytes.is_finite() && bytes < u64::MAX as f64).then_some(bytes as u64)
}

/// The value as JSON, plain scalars by the core schema. Infinities and NaN have no JSON and give `None`.
pub(super) fn json(node: &Node) -> Option<Json> {
    Some(match &node.value {
        Value::Unread => return None,
        Value::Scalar { text, plain: false } => Json::String(text.clone()),
        Value::Scalar { text, .. } => {
            if node.is_null() {
                Json::Null
            } else if let Some(flag) = flag(text) {
                Json::Bool(flag)
            } else if let Some(whole) = whole(text) {
                Json::Number(Number::from_i128(whole).or_else(|| Number::from_f64(whole as f64))?)
            } else if let Some(number) = number(text) {
                Json::Number(Number::from_f64(number)?)
            } else {
                Json::String(text.clone())
            }
        }
        Value::List(items) => Json::Array(items.iter().map(|item| json(item)).collect::<Option<_>>()?),
        Value::Map(map) => Json::Object(
            map.iter().map(|(key, field)| Some((key.clone(), json(&field.value)?))).collect::<Option<_>>()?,
        ),
    })
}
