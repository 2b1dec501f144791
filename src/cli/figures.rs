//! What `show` says of an evaluation: its figures with all that belongs to them, and what speaks against them.

use std::path::Path;

use serde_json::Value;

use crate::report::{higher_is_better, plain};
use crate::store::Manifest;

/// The lines of an evaluation's artifact. Files that are not there, as of programs of others, have no lines.
pub(super) fn lines(artifact: &Path, manifest: &Manifest, metrics: &Value) -> String {
    let mut text = String::new();
    if let Some(seconds) = manifest.seconds() {
        text += &format!("  took    {seconds:.1} s\n");
    }
    let versions = json(artifact, "task.json")["versions"].take();
    for (task, version) in versions.as_object().into_iter().flatten().filter(|(_, version)| !version.is_null()) {
        text += &format!("  task    {} version {}\n", plain(task), number(version));
    }
    for metric in metrics.as_array().into_iter().flatten() {
        text += &format!("  metric  {}\n", line(metric));
    }
    text.extend(warnings(artifact).iter().map(|warning| format!("  warning {warning}\n")));
    text
}

/// What speaks against the figures of an evaluation, a sentence each.
pub(super) fn warnings(artifact: &Path) -> Vec<String> {
    json(artifact, "warnings.json").as_array().into_iter().flatten().map(sentence).collect()
}

/// `exact_match (flexible-extract) 0.704 ± 0.0126, higher is better, 5-shot, 1319 samples`.
fn line(metric: &Value) -> String {
    let name = |field: &str| plain(metric[field].as_str().unwrap_or_default());
    let filter = if name("filter").is_empty() { String::new() } else { format!(" ({})", name("filter")) };
    let stderr = metric["stderr"].as_f64().map(|stderr| format!(" ± {stderr:.4}")).unwrap_or_default();
    let mut line = format!("{}{filter} {}{stderr}", name("metric"), metric["value"]);
    let direction = metric["higher_is_better"].as_bool().or_else(|| higher_is_better(&name("metric")));
    if let Some(higher) = direction {
        line += if higher { ", higher is better" } else { ", lower is better" };
    }
    if let Some(shots) = metric["n_shot"].as_u64() {
        line += &format!(", {shots}-shot");
    }
    if let Some(samples) = metric["n_samples"].as_u64() {
        line += &format!(", {samples} samples");
    }
    line
}

/// A tripwire that was tripped: what the driver says of it, or its counts, and where to look.
fn sentence(warning: &Value) -> String {
    let count = |field: &str| warning[field].as_u64().unwrap_or_default();
    let told = warning["message"].as_str().map(plain);
    let mut text = told.unwrap_or_else(|| {
        let name = plain(warning["tripwire"].as_str().unwrap_or("unnamed"));
        format!("{name}: {} of {}", count("count"), count("of"))
    });
    let example = |example: &Value| match (example["task"].as_str(), example["doc_id"].as_u64()) {
        (Some(task), Some(doc_id)) => Some(format!("{} {doc_id}", plain(task))),
        _ => example.as_u64().map(|doc_id| doc_id.to_string()),
    };
    let examples: Vec<_> = warning["examples"].as_array().into_iter().flatten().filter_map(example).collect();
    if !examples.is_empty() {
        text += &format!(", such as {}", examples.join(", "));
    }
    text
}

/// A number or text without quotes.
fn number(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), plain)
}

fn json(artifact: &Path, file: &str) -> Value {
    let text = std::fs::read(artifact.join(file)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_metric_has_its_error_direction_shots_and_count() {
        let full = json!({"metric": "exact_match", "filter": "strict-match", "value": 0.704, "stderr": 0.012_58,
                          "n_shot": 5, "n_samples": 1319, "higher_is_better": true});
        assert_eq!(line(&full), "exact_match (strict-match) 0.704 ± 0.0126, higher is better, 5-shot, 1319 samples");
        assert_eq!(line(&json!({"metric": "kl", "value": 0.5})), "kl 0.5, lower is better");
        assert_eq!(line(&json!({"metric": "latency", "filter": "", "value": 2})), "latency 2");
    }

    #[test]
    fn a_warning_is_the_drivers_sentence_or_its_counts() {
        let examples =
            json!([{"task": "gsm8k", "doc_id": 3}, {"task": "gsm8k", "doc_id": null}, {"task": "x", "doc_id": 8}]);
        let told = json!({"tripwire": "empty", "count": 12, "of": 164, "message": "12 of 164 answers are empty", "examples": examples});
        assert_eq!(sentence(&told), "12 of 164 answers are empty, such as gsm8k 3, x 8");
        assert_eq!(
            sentence(&json!({"tripwire": "nan", "count": 1, "of": 2, "examples": [4]})),
            "nan: 1 of 2, such as 4"
        );
    }
}
