//! `settings:`.

use super::diagnostics::{Diagnostic, Report};
use super::keys::{KEEP, REQUIRES, SETTINGS};
use super::read::{Fields, Reading, did_you_mean};
use super::scalar;
use super::tree::Field;
use super::types::{Requires, Settings};

/// Reads `settings:`.
pub(super) fn settings(report: &Report, field: &Field) -> Option<Settings> {
    let fields = Fields::open(report, &field.value, field.key, "`settings`", &[SETTINGS])?;
    let requires = fields
        .field("requires")
        .and_then(|requires| Fields::open(report, &requires.value, requires.key, "`requires`", &[REQUIRES]));
    let size = |key: &str| requires.as_ref().and_then(|requires| requires.get(key, bytes));
    Some(Settings {
        seed: fields.get("seed", |seed| seed.whole(0, u64::MAX)).unwrap_or_default(),
        device: fields.get("device", device),
        keep: fields.get("keep", |keep| keep.choice(KEEP)),
        requires: Requires { gpu_memory: size("gpu_memory"), memory: size("memory"), disk: size("disk") },
    })
}

pub(super) fn bytes(reading: Reading<'_>) -> Option<u64> {
    let text = reading.spelling()?;
    match scalar::size(&text) {
        Some(bytes) => Some(bytes),
        None => reading.fail(
            Diagnostic::new(reading.node.span, format!("`{text}` is not a size"))
                .hint("write a number and a unit: 40GiB, 500MB"),
        ),
    }
}

fn device(reading: Reading<'_>) -> Option<String> {
    let text = reading.word()?;
    let index = text.strip_prefix("cuda:").is_some_and(|index| index.parse::<u32>().is_ok());
    if index || ["auto", "cpu", "cuda"].contains(&text.as_str()) {
        return Some(text);
    }
    let hint = did_you_mean(&text, ["auto", "cpu", "cuda"].into_iter());
    let diagnostic = Diagnostic::new(reading.node.span, format!("`{text}` is not a device"));
    reading.fail(diagnostic.label("expected auto, cpu, cuda or cuda:N").maybe_hint(hint))
}
