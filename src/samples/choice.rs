//! Which of an evaluation's metrics answers are judged by.

use super::{Samples, SamplesError};
use crate::report::{self, Metric};

/// A metric under a filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Metric, under the task's own name for it.
    pub metric: String,
    /// Filter of the answers.
    pub filter: Option<String>,
    /// Whether more is better: as the evaluation says, else as the name does, else so.
    pub higher_is_better: bool,
    /// Examples in the prompt.
    pub n_shot: Option<u64>,
}

/// Why answers cannot be judged as asked.
#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    /// No metric of that name, or not under that filter.
    #[error("no {wanted}; there is {available}")]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: String,
    },
    /// The metric is one of the whole data set.
    #[error("{metric} is a figure of all documents together: a single one has no score by it")]
    NotPerDocument {
        /// What was asked for, or all that there is.
        metric: String,
    },
    /// The samples cannot be read.
    #[error(transparent)]
    Samples(#[from] SamplesError),
}

impl Choice {
    /// The first entry of `metrics.json` with the name and the filter that are given, by which the first document that
    /// has a score by any such entry has one.
    ///
    /// # Errors
    /// When there is none, or the samples cannot be read.
    pub fn of(
        metrics: &[Metric],
        metric: Option<&str>,
        filter: Option<&str>,
        samples: Samples,
    ) -> Result<Self, ChoiceError> {
        let fits = |entry: &&Metric| {
            let entry_filter = entry.filter.as_deref();
            metric.is_none_or(|name| name == entry.metric)
                && filter.is_none_or(|name| entry_filter.unwrap_or("none") == name)
        };
        let candidates: Vec<&Metric> = metrics.iter().filter(fits).collect();
        if candidates.is_empty() {
            let wanted = match (metric, filter) {
                (Some(metric), Some(filter)) => format!("metric `{metric}` under the filter `{filter}`"),
                (Some(metric), None) => format!("metric `{metric}`"),
                (None, Some(filter)) => format!("filter `{filter}`"),
                (None, None) => "metric".to_owned(),
            };
            return Err(ChoiceError::Unknown { wanted, available: listed(metrics.iter()) });
        }
        for sample in samples {
            let sample = sample?;
            let scored = candidates.iter().find(|entry| sample.score(&entry.metric, entry.filter.as_deref()).is_some());
            if let Some(entry) = scored {
                let known = entry.higher_is_better.or_else(|| report::higher_is_better(&entry.metric));
                return Ok(Self {
                    metric: entry.metric.clone(),
                    filter: entry.filter.clone(),
                    higher_is_better: known.unwrap_or(true),
                    n_shot: entry.n_shot,
                });
            }
        }
        Err(ChoiceError::NotPerDocument { metric: listed(candidates.into_iter()) })
    }

    /// Whether no score is better: 1, or 0 where less is better. What goes beyond counts as well.
    pub fn is_best(&self, score: f64) -> bool {
        if self.higher_is_better { score >= 1.0 } else { score <= 0.0 }
    }
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&named(&self.metric, self.filter.as_deref()))
    }
}

/// `exact_match (strict-match)`.
pub(super) fn named(metric: &str, filter: Option<&str>) -> String {
    filter.map_or_else(|| metric.to_owned(), |filter| format!("{metric} ({filter})"))
}

fn listed<'a>(metrics: impl Iterator<Item = &'a Metric>) -> String {
    let names: Vec<_> = metrics.map(|entry| named(&entry.metric, entry.filter.as_deref())).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(all(test, feature = "fetch"))]
mod tests {
    use std::path::Path;

    use super::super::FILE;
    use super::super::tests::gzip;
    use super::*;

    const METRICS: &str = r#"[{"metric":"word_perplexity","filter":"none","value":9.5,"higher_is_better":false},
        {"metric":"acc","filter":"flexible","value":0.5,"n_shot":5},{"metric":"acc","filter":"strict","value":0.25},
        {"metric":"kl","value":0.5}]"#;

    const SAMPLES: &str = r#"{"task":"t","doc_id":0,"metrics":{"none":{"word_perplexity":[-3.0,2]}}}
{"task":"t","doc_id":1,"metrics":{"none":{"word_perplexity":[-3.0,2],"kl":0.1},"flexible":{"acc":1},"strict":{"acc":0}}}
"#;

    fn choose(metric: Option<&str>, filter: Option<&str>) -> Result<Choice, String> {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(FILE), gzip(SAMPLES)).unwrap();
        let metrics = report::parse_metrics(METRICS, Path::new("m")).unwrap();
        Choice::of(&metrics, metric, filter, Samples::open(home.path()).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_word_it_is_the_first_metric_that_a_document_has_a_score_by() {
        let choice = choose(None, None).unwrap();
        assert_eq!((choice.to_string().as_str(), choice.n_shot), ("acc (flexible)", Some(5)));
    }

    #[test]
    fn a_metric_or_a_filter_alone_takes_the_first_that_fits() {
        assert_eq!(choose(Some("acc"), None).unwrap().to_string(), "acc (flexible)");
        assert_eq!(choose(None, Some("strict")).unwrap().to_string(), "acc (strict)");
        assert_eq!(choose(Some("acc"), Some("strict")).unwrap().filter.as_deref(), Some("strict"));
        assert_eq!(choose(Some("kl"), None).unwrap().to_string(), "kl");
    }

    #[test]
    fn which_way_is_better_comes_from_the_evaluation_or_the_name() {
        let (acc, kl) = (choose(Some("acc"), None).unwrap(), choose(Some("kl"), None).unwrap());
        assert_eq!((acc.is_best(1.0), acc.is_best(0.5)), (true, false));
        assert_eq!((kl.is_best(0.0), kl.is_best(0.5)), (true, false));
    }

    #[test]
    fn what_there_is_not_and_what_no_document_has_is_said() {
        let all = "word_perplexity (none), acc (flexible), acc (strict), kl";
        assert_eq!(choose(Some("f1"), None).unwrap_err(), format!("no metric `f1`; there is {all}"));
        assert_eq!(choose(None, Some("x")).unwrap_err(), format!("no filter `x`; there is {all}"));
        assert_eq!(
            choose(Some("word_perplexity"), None).unwrap_err(),
            "word_perplexity (none) is a figure of all documents together: a single one has no score by it"
        );
    }
}
