//! The documents that two models were both asked, with both scores.

use std::collections::{HashMap, HashSet};

use indexmap::{IndexMap, IndexSet};
use serde_json::Value;

use super::{Choice, Sample, Samples, SamplesError};
use crate::digest::Digest;
use crate::stats::Part;

/// One document on two models.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The task.
    pub task: String,
    /// The document's number in its data set.
    pub doc_id: u64,
    /// What it adds to the figure of each model.
    pub parts: [Part; 2],
}

impl Pair {
    /// Its own score on each model; `None` where it adds to a figure and has none of its own.
    pub fn scores(&self) -> [Option<f64>; 2] {
        self.parts.map(Part::value)
    }

    /// Which document it is: its task and number.
    pub fn document(&self) -> (String, u64) {
        (self.task.clone(), self.doc_id)
    }

    /// Whether the scores are two.
    pub fn differs(&self) -> bool {
        match self.scores() {
            [Some(first), Some(second)] => first - second != 0.0,
            _ => self.parts[0] != self.parts[1],
        }
    }
}

/// What two evaluations have in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pairs {
    /// Documents with a score on both, in the order of the first.
    pub pairs: Vec<Pair>,
    /// Documents that only one of them has: of the first, of the second.
    pub alone: [usize; 2],
    /// Documents of both that have no score on one of them.
    pub unscored: usize,
}

impl Pairs {
    /// The pairs of each task, in order of first appearance.
    pub fn by_task(&self) -> IndexMap<&str, Vec<&Pair>> {
        let mut tasks: IndexMap<&str, Vec<&Pair>> = IndexMap::new();
        for pair in &self.pairs {
            tasks.entry(&pair.task).or_default().push(pair);
        }
        tasks
    }
}

/// The answers of one evaluation to some documents, by task and number. The rest of them is not read.
///
/// # Errors
/// When they cannot be read.
pub fn find(mut samples: Samples, wanted: &[&Pair]) -> Result<HashMap<(String, u64), Sample>, SamplesError> {
    let mut open: HashSet<(String, u64)> = wanted.iter().map(|pair| pair.document()).collect();
    let mut found = HashMap::new();
    while !open.is_empty()
        && let Some(sample) = samples.next()
    {
        let sample = sample?;
        let document = (sample.task.clone(), sample.doc_id);
        if open.remove(&document) {
            found.insert(document, sample);
        }
    }
    Ok(found)
}

/// Why two evaluations cannot be held against each other.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// One of them cannot be read.
    #[error("{source}")]
    Samples {
        /// Which: 0 or 1.
        side: usize,
        /// What went wrong.
        source: SamplesError,
    },
    /// One number, two documents.
    #[error("document {doc_id} of {task} is not the same in both")]
    Differs {
        /// The task.
        task: String,
        /// The document's number.
        doc_id: u64,
    },
    /// One number twice.
    #[error("one of them has document {doc_id} of {task} twice")]
    Twice {
        /// The task.
        task: String,
        /// The document's number.
        doc_id: u64,
    },
    /// No document in common.
    #[error("they have no document in common; one is on {}, the other on {}", .tasks[0].join(", "), .tasks[1].join(", "))]
    Disjoint {
        /// The tasks of each.
        tasks: [Vec<String>; 2],
    },
    /// No document with two scores.
    #[error("no document has a score by {metric} in both")]
    Unscored {
        /// The metric.
        metric: String,
    },
}

/// What is kept of a document until its other half comes by.
struct Half {
    document: Digest,
    part: Option<Part>,
}

/// The documents of an evaluation by task and number, with what each adds to one of its figures.
pub struct Scored(IndexMap<(String, u64), Half>);

impl Scored {
    /// Reads samples; `side` is for the error.
    ///
    /// # Errors
    /// When they cannot be read, or have a document twice.
    pub fn of(samples: Samples, choice: &Choice, side: usize) -> Result<Self, PairError> {
        let mut halves: IndexMap<(String, u64), Half> = IndexMap::new();
        for sample in samples {
            let sample = sample.map_err(|source| PairError::Samples { side, source })?;
            let half = half(&sample, choice);
            let (task, doc_id) = (sample.task, sample.doc_id);
            if halves.insert((task.clone(), doc_id), half).is_some() {
                return Err(PairError::Twice { task, doc_id });
            }
        }
        Ok(Self(halves))
    }

    fn tasks(&self) -> Vec<String> {
        let tasks: IndexSet<&String> = self.0.keys().map(|(task, _)| task).collect();
        tasks.into_iter().cloned().collect()
    }
}

/// Pairs documents by task and number, and sees to it that they are the same: the row of the data set and the right
/// answer. Prompts may differ, as they do by a model's chat template.
///
/// # Errors
/// See [`PairError`].
pub fn pair(first: &Scored, second: &Scored, choice: &Choice) -> Result<Pairs, PairError> {
    let mut pairs = Pairs::default();
    let mut common = 0;
    for (place, half) in &first.0 {
        let Some(other) = second.0.get(place) else {
            pairs.alone[0] += 1;
            continue;
        };
        let (task, doc_id) = place.clone();
        if half.document != other.document {
            return Err(PairError::Differs { task, doc_id });
        }
        common += 1;
        match (half.part, other.part) {
            (Some(first), Some(second)) => pairs.pairs.push(Pair { task, doc_id, parts: [first, second] }),
            _ => pairs.unscored += 1,
        }
    }
    pairs.alone[1] = second.0.len() - common;
    if common == 0 {
        return Err(PairError::Disjoint { tasks: [first.tasks(), second.tasks()] });
    }
    if pairs.pairs.is_empty() {
        return Err(PairError::Unscored { metric: choice.to_string() });
    }
    Ok(pairs)
}

fn half(sample: &Sample, choice: &Choice) -> Half {
    let document = Value::Array(vec![sample.field("doc").clone(), sample.field("target").clone()]);
    Half { document: Digest::of_json(&document), part: sample.part(&choice.metric, choice.filter.as_deref()) }
}

#[cfg(all(test, feature = "fetch"))]
mod tests {
    use super::super::FILE;
    use super::super::tests::gzip;
    use super::*;

    fn choice() -> Choice {
        Choice { metric: "acc".to_owned(), filter: None, higher_is_better: true, n_shot: None }
    }

    fn line(task: &str, doc_id: u64, doc: &str, score: &str) -> String {
        format!(
            "{{\"task\":\"{task}\",\"doc_id\":{doc_id},\"doc\":\"{doc}\",\"metrics\":{{\"none\":{{\"acc\":{score}}}}}}}\n"
        )
    }

    fn paired(first: &[String], second: &[String]) -> Result<Pairs, String> {
        let homes = [first, second].map(|lines| {
            let home = tempfile::tempdir().unwrap();
            std::fs::write(home.path().join(FILE), gzip(&lines.concat())).unwrap();
            home
        });
        let [first, second] = homes.each_ref().map(|home| Samples::open(home.path()).unwrap());
        let scored = |samples, side| Scored::of(samples, &choice(), side);
        let paired = scored(first, 0).and_then(|first| pair(&first, &scored(second, 1)?, &choice()));
        paired.map_err(|error| error.to_string())
    }

    #[test]
    fn documents_are_paired_by_task_and_number_whatever_their_order() {
        let first = [line("t", 0, "a", "1"), line("t", 1, "b", "0"), line("u", 0, "c", "1")];
        let second = [line("u", 0, "c", "0"), line("t", 1, "b", "0"), line("t", 0, "a", "1")];
        let pairs = paired(&first, &second).unwrap();
        let found: Vec<_> =
            pairs.pairs.iter().map(|pair| (&*pair.task, pair.doc_id, pair.scores().map(Option::unwrap))).collect();
        assert_eq!(found, [("t", 0, [1.0, 1.0]), ("t", 1, [0.0, 0.0]), ("u", 0, [1.0, 0.0])]);
        assert_eq!((pairs.alone, pairs.unscored), ([0, 0], 0));
        assert_eq!(pairs.by_task().keys().copied().collect::<Vec<_>>(), ["t", "u"]);
    }

    #[test]
    fn what_only_one_has_and_what_has_no_score_is_counted_and_left_out() {
        let first = [line("t", 0, "a", "1"), line("t", 1, "b", "null"), line("t", 2, "c", "1"), line("t", 3, "d", "1")];
        let second = [line("t", 0, "a", "1"), line("t", 1, "b", "1"), line("t", 9, "z", "1")];
        let pairs = paired(&first, &second).unwrap();
        assert_eq!((pairs.pairs.len(), pairs.alone, pairs.unscored), (1, [2, 1], 1));
    }

    #[test]
    fn another_document_under_the_same_number_is_refused() {
        let message = paired(&[line("t", 3, "a", "1")], &[line("t", 3, "b", "1")]).unwrap_err();
        assert_eq!(message, "document 3 of t is not the same in both");
        let twice = [line("t", 3, "a", "1"), line("t", 3, "a", "1")];
        assert_eq!(paired(&twice, &twice[..1]).unwrap_err(), "one of them has document 3 of t twice");
        assert_eq!(paired(&twice[..1], &twice).unwrap_err(), "one of them has document 3 of t twice");
    }

    #[test]
    fn evaluations_without_common_ground_are_refused() {
        let message = paired(&[line("t", 0, "a", "1")], &[line("u", 0, "a", "1")]).unwrap_err();
        assert_eq!(message, "they have no document in common; one is on t, the other on u");
        let message = paired(&[line("t", 0, "a", "null")], &[line("t", 0, "a", "1")]).unwrap_err();
        assert_eq!(message, "no document has a score by acc in both");
    }
}
