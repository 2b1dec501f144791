//! One figure: a metric of a task, measured on a model or published by somebody.
//!
//! An evaluation writes `metrics.json`, a JSON list of
//! `{metric, filter, value, stderr, n_samples, n_shot, higher_is_better}`, of which only `metric` and `value` must be
//! there. [`parse_metrics`] reads it; [`Metric::of`] adds what the file does not know.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Errors;

/// Where a figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// An evaluation of this experiment.
    Measured,
    /// Somebody else's words, taken over with a citation.
    Published,
}

impl Source {
    /// The word for it in `results.csv`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Published => "published",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One figure, on the metric's own scale (0.704, not 70.4).
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// Name of a model or merge of the experiment.
    pub model: String,
    /// Name of the task, as the experiment has it.
    pub task: String,
    /// Metric, under the task's own name for it.
    pub metric: String,
    /// Filter of the answers; `None` if there is none or it is not stated, which a published figure may leave open.
    pub filter: Option<String>,
    /// Examples in the prompt.
    pub n_shot: Option<u64>,
    /// The figure.
    pub value: f64,
    /// Its standard error.
    pub stderr: Option<f64>,
    /// Documents that it rests on.
    pub n_samples: Option<u64>,
    /// Whether more is better, where the evaluation says so.
    pub higher_is_better: Option<bool>,
    /// Measured or published.
    pub source: Source,
    /// Key of the evaluation's stage, for a measured figure.
    pub key: Option<String>,
    /// Who published it and where, for a published figure.
    pub citation: Option<String>,
    /// Remark on it.
    pub note: Option<String>,
}

/// One entry of `metrics.json`. Values are finite, the standard error is not negative, the filter is not empty.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Metric {
    /// Metric, under the task's own name for it.
    pub metric: String,
    /// Filter of the answers.
    #[serde(default)]
    pub filter: Option<String>,
    /// The figure, on the metric's own scale.
    pub value: f64,
    /// Its standard error.
    #[serde(default)]
    pub stderr: Option<f64>,
    /// Documents that it rests on.
    #[serde(default)]
    pub n_samples: Option<u64>,
    /// Examples in the prompt.
    #[serde(default)]
    pub n_shot: Option<u64>,
    /// Whether more is better.
    #[serde(default)]
    pub higher_is_better: Option<bool>,
}

impl Metric {
    /// The measurement that this entry is, of one model on one task, by the stage with `key`.
    pub fn of(self, model: &str, task: &str, key: &str) -> Measurement {
        Measurement {
            model: model.to_owned(),
            task: task.to_owned(),
            metric: self.metric,
            filter: self.filter,
            n_shot: self.n_shot,
            value: self.value,
            stderr: self.stderr,
            n_samples: self.n_samples,
            higher_is_better: self.higher_is_better,
            source: Source::Measured,
            key: Some(key.to_owned()),
            citation: None,
            note: None,
        }
    }
}

/// Why a `metrics.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// Not JSON, or not a list of entries with the fields above.
    #[error(
        "{}: not a list of {{metric, filter, value, stderr, n_samples, n_shot, higher_is_better}}: {source}",
        file.display()
    )]
    Json {
        /// The file.
        file: PathBuf,
        /// What the parser says, with line and column.
        source: serde_json::Error,
    },
    /// An entry that says something impossible.
    #[error("{}: entry {entry} (`{metric}`): {problem}", file.display())]
    Entry {
        /// The file.
        file: PathBuf,
        /// Which entry, from 1.
        entry: usize,
        /// Its metric.
        metric: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Reads the text of a `metrics.json`; `file` is for the errors.
///
/// # Errors
/// All that is wrong with it: broken JSON (the literals `NaN` and `Infinity` are not JSON), numbers that are not
/// finite, a negative standard error, an empty name, a metric given twice under one filter.
pub fn parse_metrics(text: &str, file: &Path) -> Result<Vec<Metric>, Errors<MetricsError>> {
    let mut metrics: Vec<Metric> =
        serde_json::from_str(text).map_err(|source| MetricsError::Json { file: file.to_owned(), source })?;
    let mut problems = Vec::new();
    let mut seen = HashSet::new();
    for (i, metric) in metrics.iter_mut().enumerate() {
        metric.filter = metric.filter.take().filter(|name| !name.is_empty());
        let mut refuse = |problem: String| {
            let (file, metric) = (file.to_owned(), metric.metric.clone());
            problems.push(MetricsError::Entry { file, entry: i + 1, metric, problem });
        };
        if metric.metric.is_empty() {
            refuse("`metric` is empty".to_owned());
        }
        if !metric.value.is_finite() {
            refuse(format!("`value` is {}, not a finite number", metric.value));
        }
        if let Some(stderr) = metric.stderr.filter(|stderr| !stderr.is_finite() || *stderr < 0.0) {
            refuse(format!("`stderr` is {stderr}; it must be a finite number of at least 0, or null"));
        }
        if !seen.insert((metric.metric.clone(), metric.filter.clone())) {
            refuse(format!("given twice under the filter `{}`", metric.filter.as_deref().unwrap_or("")));
        }
    }
    Errors::unless_any(problems, metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        parse_metrics(text, Path::new("out/metrics.json")).unwrap_err().to_string()
    }

    #[test]
    fn an_entry_needs_a_metric_and_a_value_only() {
        let metrics = parse_metrics(r#"[{"metric":"acc","filter":"","value":0.5,"seen":1}]"#, Path::new("m")).unwrap();
        let measured = metrics[0].clone().of("math", "gsm8k", "ab12");
        assert_eq!((measured.value, measured.filter, measured.stderr), (0.5, None, None));
        assert_eq!((measured.source, measured.key.as_deref()), (Source::Measured, Some("ab12")));
    }

    #[test]
    fn every_field_of_an_entry_arrives() {
        let text = r#"[{"metric":"word_perplexity","filter":"none","value":11.5,"stderr":0.25,"n_samples":40,"n_shot":3,
                        "higher_is_better":false}]"#;
        let measured = parse_metrics(text, Path::new("m")).unwrap().remove(0).of("m", "t", "k");
        assert_eq!(
            (measured.filter.as_deref(), measured.stderr, measured.n_samples),
            (Some("none"), Some(0.25), Some(40))
        );
        assert_eq!((measured.n_shot, measured.higher_is_better), (Some(3), Some(false)));
    }

    #[test]
    fn all_wrong_entries_are_named_with_the_file_at_once() {
        let text =
            r#"[{"metric":"acc","value":0.5,"stderr":-1.0},{"metric":"acc","value":0.5},{"metric":"","value":1}]"#;
        insta::assert_snapshot!(problems(text), @r"
        out/metrics.json: entry 1 (`acc`): `stderr` is -1; it must be a finite number of at least 0, or null
        out/metrics.json: entry 2 (`acc`): given twice under the filter ``
        out/metrics.json: entry 3 (``): `metric` is empty
        ");
    }

    #[test]
    fn nan_infinity_and_other_shapes_are_refused_with_the_place() {
        for text in
            [r#"[{"metric":"acc","value":NaN}]"#, r#"[{"metric":"acc","value":1e999}]"#, r#"[{"value":1}]"#, "{}", ""]
        {
            let said = problems(text);
            assert!(said.starts_with("out/metrics.json: ") && said.contains(" at line 1 column "), "{said}");
        }
    }
}
