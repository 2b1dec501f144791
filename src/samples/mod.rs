//! Answers of an evaluation, document by document: read, judged by one metric, and held against another model's.
//!
//! An evaluation keeps `samples.jsonl.gz`, one JSON object a line and document:
//!
//! | field | what |
//! |---|---|
//! | `task`, `doc_id` | which document; a group of tasks has several with the same number |
//! | `doc`, `target` | the row of the data set, and the answer that is right |
//! | `arguments` | per request what the model was asked: a prompt with generation arguments, or a prompt with a continuation |
//! | `responses` | per request a list, one entry a repeat: the text, or `[log-likelihood, is greedy]` |
//! | `filtered` | by filter, per request: what it made of the responses |
//! | `metrics` | by filter and metric: the document's score; null where it is no finite number |
//!
//! Files are read as streams: of a whole one no more than scores is ever held.

mod choice;
mod comparison;
mod paired;
mod pairs;
mod question;
mod text;

use std::f64::consts::LN_2;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub use choice::{Choice, ChoiceError};
pub use comparison::{Comparison, Test};
pub use paired::{TestError, held_against, scored, test};
pub use pairs::{Pair, PairError, Pairs, Scored, find, pair};
pub(crate) use text::number;
pub use text::{Both, Width, answer, side_by_side};

use crate::stage::rows::Rows;
use crate::stats::Part;

/// The file in an evaluation's artifact.
pub const FILE: &str = "samples.jsonl.gz";

/// One document, and what a model answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The task, under `lm_eval`'s name.
    pub task: String,
    /// The document's number in its data set.
    pub doc_id: u64,
    /// The whole record.
    pub record: Map<String, Value>,
}

impl Sample {
    /// From a record; `None` if that does not say which document it is.
    fn of(record: Map<String, Value>) -> Option<Self> {
        let task = record.get("task")?.as_str()?.to_owned();
        let doc_id = record.get("doc_id")?.as_u64()?;
        Some(Self { task, doc_id, record })
    }

    /// A field; null if the record does not have it.
    pub fn field(&self, name: &str) -> &Value {
        self.record.get(name).unwrap_or(&Value::Null)
    }

    /// The document's own score, if it has one that is a number. Of metrics that only a whole data set has (a
    /// perplexity per word), a record holds what they are made of.
    pub fn score(&self, metric: &str, filter: Option<&str>) -> Option<f64> {
        let score = self.of_filter("metrics", filter)?.get(metric)?;
        score.as_f64().or_else(|| score.as_bool().map(f64::from))
    }

    /// What the document adds to the figure over all: its own score, of which that is the mean; but of a loss, whose
    /// figures are ratios of sums over rows, the row's sum and size.
    ///
    /// A row is one of a loss if it says its `nll`, `tokens` and `bytes`. One without any text has no bits per byte of its
    /// own; its bits count.
    pub fn part(&self, metric: &str, filter: Option<&str>) -> Option<Part> {
        self.of_filter("metrics", filter)?;
        let [nll, tokens, bytes] = ["nll", "tokens", "bytes"].map(|name| self.field(name).as_f64());
        match (metric, nll.zip(tokens).zip(bytes)) {
            ("bits_per_byte", Some(((nll, _), bytes))) => Some(Part { sum: nll / LN_2, size: bytes }),
            ("nll", Some(((nll, tokens), _))) => Some(Part { sum: nll, size: tokens }),
            (_, Some(((_, tokens), _))) if metric.starts_with("kl/") => {
                self.score(metric, filter).map(|score| Part { sum: score * tokens, size: tokens })
            }
            _ => self.score(metric, filter).map(Part::score),
        }
    }

    /// What a field holds for a filter. A metric without a filter stands under `lm_eval`'s name for that.
    fn of_filter(&self, field: &str, filter: Option<&str>) -> Option<&Value> {
        let by_filter = self.field(field);
        match filter {
            Some(name) => by_filter.get(name),
            None => by_filter.get("none").or_else(|| by_filter.get("")),
        }
    }
}

/// Why samples cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SamplesError {
    /// The file cannot be read, for reasons that are not its own.
    #[error("{message}")]
    Read {
        /// The file and what went wrong.
        message: String,
    },
    /// The file is not what an evaluation writes.
    #[error("{message}")]
    Damaged {
        /// The file, the place and what is wrong there.
        message: String,
    },
}

/// The samples of a file, one at a time.
pub struct Samples {
    path: PathBuf,
    rows: Rows,
    seen: u64,
}

impl Samples {
    /// Opens `samples.jsonl.gz` in the directory of an artifact.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(artifact: &Path) -> Result<Self, SamplesError> {
        let path = artifact.join(FILE);
        let rows = Rows::open(&path).map_err(of_rows)?;
        Ok(Self { path, rows, seen: 0 })
    }
}

impl Iterator for Samples {
    type Item = Result<Sample, SamplesError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.rows.next()?;
        self.seen += 1;
        Some(row.map_err(of_rows).and_then(|record| {
            Sample::of(record).ok_or_else(|| SamplesError::Damaged {
                message: format!("{}: record {} has no `task` and `doc_id`", self.path.display(), self.seen),
            })
        }))
    }
}

fn of_rows(failure: crate::stage::Failure) -> SamplesError {
    match failure.fault {
        mergelab_wire::Fault::Experiment => SamplesError::Damaged { message: failure.message },
        mergelab_wire::Fault::Stage => SamplesError::Read { message: failure.message },
    }
}

#[cfg(all(test, feature = "fetch"))]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;
    use serde_json::json;

    use super::*;

    /// A sample with these fields beside its task and number.
    pub(super) fn sample(fields: Value) -> Sample {
        let Value::Object(mut record) = fields else { panic!("{fields} is no object") };
        record.entry("task").or_insert_with(|| "t".into());
        record.entry("doc_id").or_insert_with(|| 0.into());
        Sample::of(record).unwrap()
    }

    pub(super) fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Vec<Sample>, String> {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(FILE), bytes).unwrap();
        let samples = Samples::open(home.path()).and_then(Iterator::collect);
        samples.map_err(|error| error.to_string().replace(&*home.path().to_string_lossy(), "DIR"))
    }

    #[test]
    fn a_score_is_a_number_or_a_truth_and_nothing_else() {
        let metrics = json!({"none": {"acc": 1.0, "mcc": [1, 0], "nan": null}, "strict": {"acc": false}});
        let sample = sample(json!({ "metrics": metrics }));
        let scores = [("acc", None), ("acc", Some("none")), ("acc", Some("strict")), ("mcc", None), ("nan", None)];
        let scores = scores.map(|(metric, filter)| sample.score(metric, filter));
        assert_eq!(scores, [Some(1.0), Some(1.0), Some(0.0), None, None]);
        assert_eq!(sample.score("acc", Some("other")), None);
    }

    #[test]
    fn a_row_of_a_loss_adds_its_sums_and_any_other_document_its_score() {
        let row = json!({
            "nll": 3.0, "tokens": 4, "bytes": 0, "metrics": { "none": { "nll": 0.75, "kl/a": 0.5, "acc": 1.0 } },
        });
        let row = sample(row);
        assert_eq!(row.part("bits_per_byte", Some("none")), Some(Part { sum: 3.0 / LN_2, size: 0.0 }));
        assert_eq!(row.part("nll", None), Some(Part { sum: 3.0, size: 4.0 }));
        assert_eq!(row.part("kl/a", None), Some(Part { sum: 2.0, size: 4.0 }));
        assert_eq!((row.part("kl/b", None), row.part("nll", Some("strict"))), (None, None));
        assert_eq!(row.part("acc", None), Some(Part::score(1.0)));
        let other = sample(json!({ "metrics": { "none": { "nll": 0.75 } } }));
        assert_eq!((other.part("nll", None), other.part("bits_per_byte", None)), (Some(Part::score(0.75)), None));
    }

    #[test]
    fn a_file_that_is_cut_off_is_named_with_its_place() {
        let line = "{\"task\":\"t\",\"doc_id\":0}\n";
        let whole = gzip(&line.repeat(3));
        assert_eq!(read(&whole).unwrap().len(), 3);
        let message = read(&whole[..whole.len() - 5]).unwrap_err();
        assert_eq!(message, "DIR/samples.jsonl.gz:4: the gzip stream ends early: the file is cut off");
        assert!(read(line.as_bytes()).unwrap_err().starts_with("DIR/samples.jsonl.gz:1: not a gzip stream: "));
    }

    #[test]
    fn a_record_that_names_no_document_is_named() {
        let message = read(&gzip("{\"task\":\"t\",\"doc_id\":0}\n{\"task\":\"t\"}\n")).unwrap_err();
        assert_eq!(message, "DIR/samples.jsonl.gz: record 2 has no `task` and `doc_id`");
    }
}
