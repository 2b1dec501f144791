//! Where models differ: for each task the best merge against what it is measured by, with the test and some of the
//! documents that only one of them gets right.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use indexmap::{IndexMap, IndexSet};
use serde::Serialize;

use super::Inputs;
use crate::plan::{Artifact, StageId};
use crate::report::{self, Metric, plain, tame};
use crate::samples::{self, Both, Choice, Comparison, FILE, Pair, Samples, Scored, Test, number};

/// Pairs of models on a task, and in all. Each costs a reading of two files.
const PAIRS_OF_TASK: usize = 3;
const PAIRS: usize = 30;

/// Documents that are shown of a pair, of each side half of them.
const DOCUMENTS: usize = 6;

/// Characters of a text that are shown.
const CHARACTERS: usize = 700;

/// Two models on a task.
#[derive(Debug, Serialize)]
pub(super) struct Difference {
    task: String,
    /// The metric with its filter.
    metric: String,
    names: [String; 2],
    /// `mergelab samples` with what shows all of it.
    command: String,
    /// What the test says, in a sentence.
    sentence: String,
    means: [String; 2],
    apart: String,
    /// Documents that both get right, only the first, only the second, neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<Counts>,
    documents: Vec<Document>,
    /// How many differ.
    differing: usize,
}

#[derive(Debug, Serialize)]
struct Counts {
    both: usize,
    only: [usize; 2],
    neither: usize,
}

#[derive(Debug, Serialize)]
struct Document {
    task: String,
    id: u64,
    question: String,
    answers: [Answer; 2],
    target: String,
}

#[derive(Debug, Serialize)]
struct Answer {
    text: String,
    score: String,
    /// Which of the two is better.
    better: bool,
}

/// What was found, and why there is nothing where something could be.
#[derive(Debug, Default, Serialize)]
pub(super) struct Differences {
    pub(super) pairs: Vec<Difference>,
    pub(super) problems: Vec<String>,
}

/// An evaluation with answers.
struct Answered<'a> {
    id: StageId,
    model: &'a str,
    artifact: &'a Artifact,
    metrics: Vec<Metric>,
}

/// The differences of an experiment.
pub(super) fn differences(inputs: &Inputs<'_>) -> Differences {
    let mut tasks: IndexMap<&str, Vec<Answered<'_>>> = IndexMap::new();
    for (id, stage) in inputs.graph.iter().filter(|(_, stage)| stage.experiment == inputs.experiment) {
        let Some((model, task)) = stage.spec.evaluated() else { continue };
        let Some(artifact) = inputs.facts.results.get(&id) else { continue };
        if !artifact.outputs.iter().any(|file| file.path == FILE && !file.dropped) {
            continue;
        }
        // Figures that cannot be read are an error of the tables, which say so.
        let metrics = report::files::metrics(&artifact.location.join("metrics.json")).unwrap_or_default();
        tasks.entry(task).or_default().push(Answered { id, model, artifact, metrics });
    }
    let mut found = Differences::default();
    for (task, answered) in tasks {
        let room = PAIRS.saturating_sub(found.pairs.len()).min(PAIRS_OF_TASK);
        if room == 0 {
            break;
        }
        if let Err(problem) = of_task(inputs, task, &answered, room, &mut found.pairs) {
            found.problems.push(format!("{task}: {}", inputs.relative(&problem)));
        }
    }
    found
}

/// The pairs of one task.
fn of_task(
    inputs: &Inputs<'_>,
    task: &str,
    answered: &[Answered<'_>],
    room: usize,
    found: &mut Vec<Difference>,
) -> Result<(), String> {
    let experiment = &inputs.graph.experiments[inputs.experiment];
    let mut columns = experiment.tables.values().flat_map(|table| table.metrics().map(move |column| (table, column)));
    let shown = columns.find(|(_, column)| column.task == task);
    let Some(first) = answered.first() else { return Ok(()) };
    let open = |answered: &Answered<'_>| Samples::open(&answered.artifact.location).map_err(|error| error.to_string());
    let choose = |metric: Option<&str>, filter: Option<&str>| {
        Choice::of(&first.metrics, metric, filter, open(first)?).map_err(|error| error.to_string())
    };
    let (metric, filter) = shown.map_or((None, None), |(_, column)| (Some(&*column.metric), column.filter.as_deref()));
    // What a table shows may be a figure of all documents together.
    let choice = choose(metric, filter).or_else(|_| choose(None, None))?;

    let value = |answered: &&Answered<'_>| {
        let of = answered.metrics.iter().find(|of| of.metric == choice.metric && of.filter == choice.filter);
        of.map_or(f64::NAN, |of| if choice.higher_is_better { -of.value } else { of.value })
    };
    let mut ranked: Vec<&Answered<'_>> = answered.iter().collect();
    ranked.sort_by(|a, b| value(a).total_cmp(&value(b)));
    let is_merge = |answered: &&&Answered<'_>| experiment.merges.contains_key(answered.model);
    let Some(best) = ranked.iter().find(is_merge).or(ranked.first()).copied() else { return Ok(()) };
    let baseline = shown.and_then(|(table, _)| table.baseline.as_deref());
    let mut others: IndexSet<usize> = IndexSet::new();
    let mut take = |wanted: &dyn Fn(&&&Answered<'_>) -> bool| {
        others.extend(ranked.iter().position(|other| other.id != best.id && wanted(&other)));
    };
    take(&|other| Some(other.model) == baseline);
    take(&|other| !is_merge(other));
    take(&|other| is_merge(other));

    let mut read: HashMap<StageId, Scored> = HashMap::new();
    for other in others.into_iter().take(room).map(|place| ranked[place]) {
        for side in [best, other] {
            if let Entry::Vacant(free) = read.entry(side.id) {
                free.insert(Scored::of(open(side)?, &choice, 0).map_err(|error| error.to_string())?);
            }
        }
        let pairs = samples::pair(&read[&best.id], &read[&other.id], &choice).map_err(|error| error.to_string())?;
        if let Some(comparison) = Comparison::of(&pairs.pairs, &choice) {
            found.push(compared(inputs, task, [best, other], &choice, &comparison, &pairs.pairs)?);
        }
    }
    Ok(())
}

fn compared(
    inputs: &Inputs<'_>,
    task: &str,
    sides: [&Answered<'_>; 2],
    choice: &Choice,
    comparison: &Comparison,
    pairs: &[Pair],
) -> Result<Difference, String> {
    let wanted = some(pairs, choice);
    let find = |side: &Answered<'_>| {
        let samples = Samples::open(&side.artifact.location).map_err(|error| error.to_string())?;
        samples::find(samples, &wanted).map_err(|error| error.to_string())
    };
    let [first, second] = [find(sides[0])?, find(sides[1])?];
    let documents = wanted.iter().filter_map(|pair| {
        let both = Both::of([first.get(&pair.document())?, second.get(&pair.document())?], choice);
        Some(document(pair, both, choice))
    });
    let names = sides.map(|side| side.model);
    let difference = &comparison.difference;
    let error = difference.stderr.map(|error| format!(" ± {error:.4}")).unwrap_or_default();
    let stage = &inputs.graph.stage(sides[0].id).name;
    let file = inputs.graph.experiments[inputs.experiment].file.display().to_string();
    Ok(Difference {
        task: plain(task),
        metric: plain(&choice.to_string()),
        names: names.map(plain),
        command: format!("mergelab samples {stage} {} --against {}", inputs.relative(&file), names[1]),
        sentence: comparison.sentence(names, choice),
        means: difference.means.map(|mean| format!("{mean:.4}")),
        apart: format!("{:+.4}{error}", difference.value),
        counts: match comparison.test {
            Test::McNemar { both_right, only, both_wrong, .. } => {
                Some(Counts { both: both_right, only, neither: both_wrong })
            }
            Test::Bootstrap(_) => None,
        },
        documents: documents.collect(),
        differing: comparison.differing,
    })
}

/// Some documents that differ: of each side's better ones those that differ most, the first of equals.
fn some<'p>(pairs: &'p [Pair], choice: &Choice) -> Vec<&'p Pair> {
    let gap = |pair: &Pair| match pair.scores() {
        [Some(first), Some(second)] if choice.higher_is_better => first - second,
        [Some(first), Some(second)] => second - first,
        _ => 0.0,
    };
    let mut sides: [Vec<&Pair>; 2] = [Vec::new(), Vec::new()];
    for pair in pairs.iter().filter(|pair| gap(pair) != 0.0) {
        sides[usize::from(gap(pair) < 0.0)].push(pair);
    }
    for side in &mut sides {
        side.sort_by(|a, b| gap(b).abs().total_cmp(&gap(a).abs()));
        side.truncate(DOCUMENTS / 2);
    }
    sides.concat()
}

fn document(pair: &Pair, both: Both, choice: &Choice) -> Document {
    let scores = pair.scores();
    let better = |one: Option<f64>, other: Option<f64>| {
        one.zip(other).is_some_and(|(one, other)| if choice.higher_is_better { one > other } else { one < other })
    };
    let [first, second] = both.answers;
    let answer = |text: String, score: Option<f64>, other: Option<f64>| Answer {
        text: cut(&text),
        score: score.map_or_else(|| "—".to_owned(), number),
        better: better(score, other),
    };
    Document {
        task: plain(&pair.task),
        id: pair.doc_id,
        question: cut(&both.question),
        answers: [answer(first, scores[0], scores[1]), answer(second, scores[1], scores[0])],
        target: cut(&both.target),
    }
}

/// The beginning of a text, without what could rearrange the page around it.
fn cut(text: &str) -> String {
    let text = text.trim();
    let keep = |c: char| if matches!(c, '\n' | '\t') { c } else { tame(c) };
    let mut short: String = text.chars().take(CHARACTERS).map(keep).collect();
    if text.chars().nth(CHARACTERS).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Part;

    fn pair(doc_id: u64, scores: [f64; 2]) -> Pair {
        Pair { task: "t".to_owned(), doc_id, parts: scores.map(Part::score) }
    }

    #[test]
    fn documents_are_of_both_sides_and_those_that_differ_most() {
        let choice = |higher_is_better| Choice { metric: "m".to_owned(), filter: None, higher_is_better, n_shot: None };
        let scores = [[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.9, 0.0], [0.5, 0.0], [0.0, 0.1], [0.8, 0.0]];
        let pairs: Vec<Pair> = (0..).zip(scores).map(|(id, scores)| pair(id, scores)).collect();
        let ids = |higher| some(&pairs, &choice(higher)).iter().map(|pair| pair.doc_id).collect::<Vec<_>>();
        assert_eq!(ids(true), [2, 3, 6, 1, 5]);
        assert_eq!(ids(false), [1, 5, 2, 3, 6]);
    }

    #[test]
    fn texts_are_cut_and_cannot_rearrange_the_page() {
        assert_eq!(cut(" a\r\n\u{202e}b\u{1b}\tc "), "a\u{fffd}\n\u{fffd}b\u{fffd}\tc");
        let long = cut(&"é".repeat(CHARACTERS + 1));
        assert_eq!((long.chars().count(), long.ends_with('…')), (CHARACTERS + 1, true));
        assert_eq!(cut(&"é".repeat(CHARACTERS)).chars().count(), CHARACTERS);
    }
}
