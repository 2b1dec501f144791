//! `results/<experiment>/paired.csv`: what tests of two models on the same documents found, for tables that mark values.
//!
//! It is there where a table has a `baseline` or `bold: not_worse`, so that tables can be rendered without a store. The
//! form is that of `results.csv`: UTF-8, comma, LF, the header [`COLUMNS`]. A line is a comparison that a table asks for,
//! in the order of tables, columns and rows. `difference` is the model's figure minus the baseline's over the `n`
//! documents of both. `test` is `mcnemar-exact` or `paired-bootstrap`; or says why there is none, and then what
//! it would have found is empty. `key` and `baseline_key` are those of the two evaluations in `results.csv`: a line
//! that belongs to others is not used.

use std::collections::HashMap;
use std::path::Path;

use super::Errors;
use super::columns::{self, CsvError, CsvProblem};
use super::results::{self, shortest};
use crate::stats::SIGNIFICANCE;

/// The columns of `paired.csv`.
pub const COLUMNS: [&str; 12] =
    ["task", "metric", "filter", "baseline", "model", "n", "difference", "stderr", "test", "p", "baseline_key", "key"];

/// Two evaluations that a table wants held against each other by one metric.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Comparison {
    /// The task.
    pub task: String,
    /// The metric.
    pub metric: String,
    /// Filter of the answers.
    pub filter: Option<String>,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// What the model is held against.
    pub baseline: Side,
    /// The model.
    pub model: Side,
}

/// One of two evaluations on a task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Side {
    /// The model.
    pub model: String,
    /// Key of the evaluation's stage.
    pub key: String,
}

/// What came of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Paired {
    /// The task.
    pub task: String,
    /// The metric.
    pub metric: String,
    /// Filter of the answers.
    pub filter: Option<String>,
    /// What the model is held against.
    pub baseline: Side,
    /// The model.
    pub model: Side,
    /// What was found, or why nothing was.
    pub result: Result<Finding, Untested>,
}

/// What a test found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    /// Documents.
    pub n: u64,
    /// The model's figure on them minus the baseline's.
    pub difference: f64,
    /// Its standard error; not there for one document.
    pub stderr: Option<f64>,
    /// The test.
    pub test: PairedTest,
    /// Its p-value, two-sided, in (0, 1].
    pub p: f64,
}

/// A test of two models on the same documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairedTest {
    /// McNemar's exact test.
    McNemar,
    /// The paired bootstrap.
    Bootstrap,
}

/// Why two models cannot be tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untested {
    /// An evaluation that keeps no answers.
    NoAnswers,
    /// Answers without a score by the metric.
    NoScores,
    /// Other documents, or documents that cannot be told apart.
    OtherDocuments,
}

impl Finding {
    /// Whether chance hardly explains it.
    pub fn is_significant(&self) -> bool {
        self.p < SIGNIFICANCE
    }
}

impl Untested {
    /// For a remark under a table.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::NoAnswers => "no answers are kept",
            Self::NoScores => "single documents have no score",
            Self::OtherDocuments => "not the same documents",
        }
    }
}

/// What `test` says, by its word.
const RESULTS: [(&str, Result<PairedTest, Untested>); 5] = [
    ("mcnemar-exact", Ok(PairedTest::McNemar)),
    ("paired-bootstrap", Ok(PairedTest::Bootstrap)),
    ("no-answers", Err(Untested::NoAnswers)),
    ("no-scores", Err(Untested::NoScores)),
    ("other-documents", Err(Untested::OtherDocuments)),
];

impl Comparison {
    /// With what came of it.
    pub fn with(&self, result: Result<Finding, Untested>) -> Paired {
        let Self { task, metric, filter, higher_is_better: _, baseline, model } = self.clone();
        Paired { task, metric, filter, baseline, model, result }
    }
}

/// Why what was found cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PairedError {
    /// Nothing is known of a comparison.
    #[error("no {comparison}")]
    Missing {
        /// What a table asks for.
        comparison: Box<Comparison>,
    },
    /// What is known is of other evaluations than the figures are.
    #[error(
        "the {comparison} is of another evaluation of `{}` than the figure in results.csv: its key is {found}, not {}",
        expected.model, expected.key
    )]
    Stale {
        /// What a table asks for.
        comparison: Box<Comparison>,
        /// The evaluation that the figure is of.
        expected: Side,
        /// Key of the one that was tested.
        found: String,
    },
}

impl std::fmt::Display for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { task, metric, baseline, model, .. } = self;
        write!(f, "test of model `{}` against `{}` on `{metric}` of task `{task}`", model.model, baseline.model)
    }
}

/// What was found, by what a table asks for.
pub(super) struct Index<'a>(HashMap<[&'a str; 5], &'a Paired>);

fn place<'a>(
    task: &'a str,
    metric: &'a str,
    filter: Option<&'a str>,
    baseline: &'a str,
    model: &'a str,
) -> [&'a str; 5] {
    [task, metric, filter.unwrap_or_default(), baseline, model]
}

impl<'a> Index<'a> {
    pub(super) fn new(paired: &'a [Paired]) -> Self {
        let of = |one: &'a Paired| {
            place(&one.task, &one.metric, one.filter.as_deref(), &one.baseline.model, &one.model.model)
        };
        Self(paired.iter().map(|one| (of(one), one)).collect())
    }

    /// What came of a comparison.
    ///
    /// # Errors
    /// When nothing is known of it, or only of other evaluations.
    pub(super) fn get(&self, wanted: &Comparison) -> Result<&'a Paired, PairedError> {
        let Comparison { task, metric, filter, baseline, model, .. } = wanted;
        let found = self.0.get(&place(task, metric, filter.as_deref(), &baseline.model, &model.model));
        let comparison = || Box::new(wanted.clone());
        let found = found.ok_or_else(|| PairedError::Missing { comparison: comparison() })?;
        for (found, expected) in [(&found.baseline, baseline), (&found.model, model)] {
            if found.key != expected.key {
                let (expected, found) = (expected.clone(), found.key.clone());
                return Err(PairedError::Stale { comparison: comparison(), expected, found });
            }
        }
        Ok(found)
    }
}

/// Tests that tables ask for, parted into what came of those that are among `found`, of the same evaluations whatever keys
/// stand there, and those that have to be made.
pub fn known(wanted: Vec<Comparison>, found: &[Paired]) -> (Vec<Paired>, Vec<Comparison>) {
    let index = Index::new(found);
    let (mut there, mut rest) = (Vec::new(), Vec::new());
    for comparison in wanted {
        let Comparison { task, metric, filter, baseline, model, .. } = &comparison;
        match index.0.get(&place(task, metric, filter.as_deref(), &baseline.model, &model.model)) {
            Some(found) => there.push(comparison.with(found.result)),
            None => rest.push(comparison),
        }
    }
    (there, rest)
}

/// The text of `paired.csv`, lines in the order given.
pub fn to_csv<'a>(paired: impl IntoIterator<Item = &'a Paired>) -> String {
    let lines = paired.into_iter().map(|one| {
        let finding = one.result.ok();
        let number = |of: fn(Finding) -> Option<f64>| finding.and_then(of).map(shortest).unwrap_or_default();
        let is_this = |result: &Result<PairedTest, Untested>| *result == one.result.map(|finding| finding.test);
        let word = RESULTS.iter().find(|(_, result)| is_this(result)).map_or("", |(word, _)| word);
        [
            one.task.clone(),
            one.metric.clone(),
            one.filter.clone().unwrap_or_default(),
            one.baseline.model.clone(),
            one.model.model.clone(),
            finding.map(|finding| finding.n.to_string()).unwrap_or_default(),
            number(|finding| Some(finding.difference)),
            number(|finding| finding.stderr),
            word.to_owned(),
            number(|finding| Some(finding.p)),
            one.baseline.key.clone(),
            one.model.key.clone(),
        ]
    });
    results::write(COLUMNS, lines)
}

/// Reads what [`to_csv`] wrote.
///
/// # Errors
/// All wrong places of the file; what a test found where there was none, or the other way round; two lines for one
/// comparison.
pub fn from_csv(text: &str, file: &Path) -> Result<Vec<Paired>, Errors<CsvError>> {
    let mut seen = HashMap::new();
    columns::read(text, file, &COLUMNS, |fields| {
        let (task, metric, filter) = (fields.text("task"), fields.text("metric"), fields.optional("filter"));
        let (baseline, model) = (fields.text("baseline"), fields.text("model"));
        let (baseline_key, key) = (fields.text("baseline_key"), fields.text("key"));
        let result = match fields.word("test", &RESULTS) {
            Ok(Ok(test)) => {
                let (n, difference, stderr) = (fields.text("n"), fields.number("difference"), fields.stderr("stderr"));
                let (count, p) = (fields.count("n"), fields.number("p"));
                let n = n.and(count).map(Option::unwrap_or_default);
                match (n, difference, stderr, p) {
                    (Ok(n), Ok(difference), Ok(stderr), Ok(p)) => {
                        if p > 0.0 && p <= 1.0 {
                            Ok(Ok(Finding { n, difference, stderr, test, p }))
                        } else {
                            Err(fields.refuse(Some("p"), CsvProblem::NotAProbability(p)))
                        }
                    }
                    _ => Err(columns::Noted),
                }
            }
            Ok(Err(untested)) => {
                let found = ["n", "difference", "stderr", "p"].into_iter().find(|name| fields.optional(name).is_some());
                match found {
                    Some(name) => Err(fields.refuse(Some(name), CsvProblem::NoTest)),
                    None => Ok(Err(untested)),
                }
            }
            Err(noted) => Err(noted),
        };
        let (task, metric, baseline, model) = (task?, metric?, baseline?, model?);
        let place = (task.clone(), metric.clone(), filter.clone(), baseline.clone(), model.clone());
        let line = fields.line;
        let first = *seen.entry(place).or_insert(line);
        if first != line {
            return Err(fields.refuse(None, CsvProblem::DoubledComparison(first)));
        }
        let baseline = Side { model: baseline, key: baseline_key? };
        let model = Side { model, key: key? };
        Ok(Paired { task, metric, filter, baseline, model, result: result? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(model: &str, key: &str) -> Side {
        Side { model: model.to_owned(), key: key.to_owned() }
    }

    fn wanted(key: &str) -> Comparison {
        let (task, metric, filter) = ("gsm8k".to_owned(), "exact_match".to_owned(), Some("strict".to_owned()));
        let (baseline, model) = (side("avg", "k0"), side("math", key));
        Comparison { task, metric, filter, higher_is_better: true, baseline, model }
    }

    fn found() -> [Paired; 3] {
        let finding =
            Finding { n: 1319, difference: 0.1, stderr: Some(0.0125), test: PairedTest::McNemar, p: 1.705_143e-8 };
        let one = Finding { n: 1, stderr: None, test: PairedTest::Bootstrap, p: 1.0, ..finding };
        let other = |model: &str| Comparison { model: side(model, "k2"), filter: None, ..wanted("k1") };
        [wanted("k1").with(Ok(finding)), other("a,b").with(Ok(one)), other("c").with(Err(Untested::NoScores))]
    }

    fn refused(lines: &str) -> String {
        from_csv(&format!("{}\n{lines}", COLUMNS.join(",")), Path::new("paired.csv")).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let text = to_csv(&found());
        insta::assert_snapshot!(text, @r#"
        task,metric,filter,baseline,model,n,difference,stderr,test,p,baseline_key,key
        gsm8k,exact_match,strict,avg,math,1319,0.1,0.0125,mcnemar-exact,1.705143e-8,k0,k1
        gsm8k,exact_match,,avg,"a,b",1,0.1,,paired-bootstrap,1.0,k0,k2
        gsm8k,exact_match,,avg,c,,,,no-scores,,k0,k2
        "#);
        assert_eq!(from_csv(&text, Path::new("paired.csv")).unwrap(), found());
    }

    #[test]
    fn a_test_of_another_evaluation_is_not_used() {
        let found = found();
        let index = Index::new(&found);
        assert_eq!(index.get(&wanted("k1")), Ok(&found[0]));
        let said = index.get(&wanted("k9")).unwrap_err().to_string();
        assert!(
            said.ends_with("of another evaluation of `math` than the figure in results.csv: its key is k1, not k9"),
            "{said}"
        );
        let nobody = Comparison { model: side("nobody", "k1"), ..wanted("k1") };
        assert!(matches!(index.get(&nobody), Err(PairedError::Missing { .. })));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_place() {
        insta::assert_snapshot!(refused(
            "t,m,,a,b,3,0.5,,mcnemar-exact,0.0,k,k
t,m,,a,c,,0.5,,mcnemar-exact,0.5,k,k
t,m,,a,d,3,,,no-scores,,k,k
t,m,,a,e,3,0.5,,t-test,0.5,k,
t,m,,a,f,,,,no-answers,,k,k
t,m,,a,f,,,,no-answers,,k,k
"
        ));
    }
}
