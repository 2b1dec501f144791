//! Two sets of results, figure by figure.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::number::columns;
use crate::report::results::{self, shortest};
use crate::report::{FiguresError, Finding, Measurement, PairedTest, plain};

/// A difference of more standard errors than this is marked.
const BEYOND: f64 = 2.0;

/// One figure of both results, or of one of them.
#[derive(Clone, Debug)]
pub struct Score<'a> {
    /// The figure in A and in B.
    pub sides: [Option<&'a Measurement>; 2],
    /// What a test on the documents of both found.
    pub pairing: Pairing,
}

/// What is known of a difference beyond the two figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pairing {
    /// Nothing.
    None,
    /// Both figures are of one evaluation.
    Same,
    /// Both models answered the same documents.
    Found(Finding),
}

/// What figures are matched by.
type Name<'a> = (&'a str, &'a str, &'a str, Option<&'a str>, &'static str);

fn name(figure: &Measurement) -> Name<'_> {
    (&figure.model, &figure.task, &figure.metric, figure.filter.as_deref(), figure.source.word())
}

/// Matches the figures of two results by model, task, metric, filter and source: those of both in the order of A, then those of
/// A alone, then those of B alone.
///
/// # Errors
/// When one has a figure twice: 0 for A, 1 for B.
pub fn match_up<'a>(sides: [&'a [Measurement]; 2]) -> Result<Vec<Score<'a>>, (usize, FiguresError)> {
    let mut indices: Vec<HashMap<Name<'a>, &'a Measurement>> = Vec::new();
    for (side, figures) in sides.into_iter().enumerate() {
        let mut index = HashMap::new();
        for figure in figures {
            if index.insert(name(figure), figure).is_some() {
                let Measurement { model, task, metric, filter, .. } = figure.clone();
                return Err((side, FiguresError::Twice { model, task, metric, filter: filter.unwrap_or_default() }));
            }
        }
        indices.push(index);
    }
    let score = |sides| Score { sides, pairing: Pairing::None };
    let [a, b] = sides;
    let both = a.iter().filter_map(|figure| Some(score([Some(figure), Some(*indices[1].get(&name(figure))?)])));
    let lone = |figures: &'a [Measurement], other: usize| {
        let indices = &indices;
        figures.iter().filter(move |figure| !indices[other].contains_key(&name(figure)))
    };
    let only_a = lone(a, 1).map(|figure| score([Some(figure), None]));
    let only_b = lone(b, 0).map(|figure| score([None, Some(figure)]));
    Ok(both.chain(only_a).chain(only_b).collect())
}

impl<'a> Score<'a> {
    /// Both figures.
    pub fn both(&self) -> Option<[&'a Measurement; 2]> {
        match self.sides {
            [Some(a), Some(b)] => Some([a, b]),
            _ => None,
        }
    }

    fn either(&self) -> &'a Measurement {
        self.sides[0].or(self.sides[1]).expect("a score has a side")
    }

    /// B minus A.
    pub fn difference(&self) -> Option<f64> {
        self.both().map(|[a, b]| b.value - a.value)
    }

    /// The test, where what it compared is what the figures say: of a figure that is no mean over its documents, as that of a
    /// group whose tasks count alike, a test on documents says something else.
    fn finding(&self) -> Option<&Finding> {
        let (Pairing::Found(finding), Some([a, b])) = (&self.pairing, self.both()) else { return None };
        let size = a.value.abs().max(b.value.abs()).max(1.0);
        ((finding.difference - (b.value - a.value)).abs() <= 1e-6 * size).then_some(finding)
    }

    /// The standard error of the difference: over the documents of both, or else that of two figures that have nothing to do
    /// with each other. Nothing where a figure has none.
    pub fn stderr(&self) -> Option<f64> {
        if self.pairing == Pairing::Same {
            return None;
        }
        if let Some(finding) = self.finding() {
            return finding.stderr;
        }
        let [a, b] = self.both()?;
        Some(a.stderr?.hypot(b.stderr?))
    }

    /// How many standard errors the figures are apart.
    pub fn stderrs_apart(&self) -> Option<f64> {
        let apart = self.difference()? / self.stderr()?;
        apart.is_finite().then_some(apart)
    }

    /// Whether that is more than two.
    pub fn is_beyond(&self) -> bool {
        self.stderrs_apart().is_some_and(|apart| apart.abs() > BEYOND)
    }

    /// Whether anything differs: the number, how it was measured, or that it is there.
    pub fn differs(&self) -> bool {
        let told = |figure: &Measurement| (figure.value, figure.n_samples, figure.n_shot);
        self.both().is_none_or(|[a, b]| told(a) != told(b))
    }

    fn json(&self) -> Value {
        let either = self.either();
        let each = |of: fn(&Measurement) -> Value| self.sides.map(|side| side.map_or(Value::Null, of));
        let paired = self.finding().map(|finding| {
            json!({
                "n": finding.n,
                "difference": finding.difference,
                "stderr": finding.stderr,
                "test": test(finding.test),
                "p": finding.p,
            })
        });
        json!({
            "model": either.model,
            "task": either.task,
            "metric": either.metric,
            "filter": either.filter,
            "source": either.source.word(),
            "values": each(|side| side.value.into()),
            "stderrs": each(|side| side.stderr.into()),
            "n_samples": each(|side| side.n_samples.into()),
            "n_shot": each(|side| side.n_shot.into()),
            "keys": each(|side| side.key.clone().into()),
            "difference": self.difference(),
            "stderr": self.stderr(),
            "stderrs_apart": self.stderrs_apart(),
            "beyond": self.is_beyond(),
            "same_evaluation": self.pairing == Pairing::Same,
            "paired": paired,
        })
    }
}

fn test(test: PairedTest) -> &'static str {
    match test {
        PairedTest::McNemar => "mcnemar-exact",
        PairedTest::Bootstrap => "paired-bootstrap",
    }
}

/// Two sets of results.
#[derive(Clone, Debug)]
pub struct Scores<'a>(pub Vec<Score<'a>>);

impl Scores<'_> {
    /// Whether anything differs.
    pub fn differ(&self) -> bool {
        self.0.iter().any(Score::differs)
    }

    /// Every figure.
    pub fn json(&self) -> Value {
        self.0.iter().map(Score::json).collect()
    }

    /// For people: figures side by side, those that differ or with `all` every one.
    pub fn text(&self, all: bool) -> String {
        if self.0.is_empty() {
            return "no scores on either side\n".to_owned();
        }
        let both: Vec<&Score<'_>> = self.0.iter().filter(|score| score.both().is_some()).collect();
        let same = both.iter().filter(|score| !score.differs()).count();
        let shown: Vec<&Score<'_>> = both.iter().filter(|score| all || score.differs()).copied().collect();
        let mut text = String::new();
        if !shown.is_empty() {
            let tested = shown.iter().any(|score| score.finding().is_some());
            let mut rows = vec![["model", "task", "metric", "A", "B", "B - A", ""].map(str::to_owned).to_vec()];
            if tested {
                rows[0].push("p".to_owned());
            }
            rows.extend(shown.iter().map(|score| score.row(tested)));
            text += &columns(&rows, &[1, 2, 6]);
            if shown.iter().any(|score| score.is_beyond()) {
                text += "* more than two standard errors apart\n";
            }
            if tested {
                text += "p: a paired test on the documents of both, whose standard error the difference has\n";
            }
            let shots = |score: &&&Score<'_>| score.both().is_some_and(|[a, b]| a.n_shot != b.n_shot);
            for score in shown.iter().filter(shots) {
                let shots = score.sides.map(|side| side.and_then(|side| side.n_shot));
                let [a, b] = shots.map(|shots| shots.map_or_else(|| "unknown".to_owned(), |shots| shots.to_string()));
                let Measurement { model, task, .. } = score.either();
                text += &format!("note: examples shown to {} on {}: {a} in A, {b} in B\n", plain(model), plain(task));
            }
        }
        for (side, letter) in [(0, "A"), (1, "B")] {
            let lone = self.0.iter().filter(|score| score.both().is_none()).filter_map(|score| score.sides[side]);
            let rows: Vec<Vec<String>> =
                lone.map(|figure| [named(figure).to_vec(), vec![value(figure)]].concat()).collect();
            if !rows.is_empty() {
                let figures = if rows.len() == 1 { "figure" } else { "figures" };
                text += &format!("only in {letter}, {} {figures}:\n", rows.len());
                columns(&rows, &[1, 2]).lines().for_each(|line| text += &format!("  {line}\n"));
            }
        }
        if same > 0 && !all {
            let figures = if same == 1 { "1 figure is" } else { &format!("{same} figures are") };
            text += &format!("{figures} the same\n");
        }
        text
    }

    /// Every figure as CSV.
    pub fn csv(&self) -> String {
        const HEADER: [&str; 15] = [
            "model",
            "task",
            "metric",
            "filter",
            "source",
            "value_a",
            "value_b",
            "stderr_a",
            "stderr_b",
            "difference",
            "stderr",
            "stderrs_apart",
            "beyond",
            "test",
            "p",
        ];
        let number = |value: Option<f64>| value.map(shortest).unwrap_or_default();
        let row = |score: &Score<'_>| {
            let (either, finding) = (score.either(), score.finding());
            let [a, b] = score.sides;
            [
                either.model.clone(),
                either.task.clone(),
                either.metric.clone(),
                either.filter.clone().unwrap_or_default(),
                either.source.word().to_owned(),
                number(a.map(|a| a.value)),
                number(b.map(|b| b.value)),
                number(a.and_then(|a| a.stderr)),
                number(b.and_then(|b| b.stderr)),
                number(score.difference()),
                number(score.stderr()),
                number(score.stderrs_apart()),
                score.both().map(|_| score.is_beyond().to_string()).unwrap_or_default(),
                finding.map(|finding| test(finding.test).to_owned()).unwrap_or_default(),
                number(finding.map(|finding| finding.p)),
            ]
        };
        results::write(HEADER, self.0.iter().map(row))
    }
}

impl Score<'_> {
    fn row(&self, tested: bool) -> Vec<String> {
        let [a, b] = self.sides.map(|side| side.map(value).unwrap_or_default());
        let stderr = self.stderr().map(|stderr| format!(" ± {stderr:.4}")).unwrap_or_default();
        let difference = self.difference().map(|difference| format!("{:+.4}{stderr}", difference + 0.0));
        let mark = if self.is_beyond() { "*" } else { "" };
        let mut row = named(self.either()).to_vec();
        row.extend([a, b, difference.unwrap_or_default(), mark.to_owned()]);
        if tested {
            row.push(self.finding().map(|finding| p_value(finding.p)).unwrap_or_default());
        }
        row
    }
}

/// Model, task and metric.
fn named(figure: &Measurement) -> [String; 3] {
    let filter = figure.filter.as_deref().filter(|filter| *filter != "none");
    let filter = filter.map(|filter| format!(" ({})", plain(filter))).unwrap_or_default();
    let source = if figure.source == crate::report::Source::Published { ", published" } else { "" };
    [plain(&figure.model), plain(&figure.task), format!("{}{filter}{source}", plain(&figure.metric))]
}

fn value(figure: &Measurement) -> String {
    let stderr = figure.stderr.map(|stderr| format!(" ± {stderr:.4}")).unwrap_or_default();
    format!("{:.4}{stderr}", figure.value)
}

fn p_value(p: f64) -> String {
    if p < 1e-3 { format!("{p:.1e}") } else { format!("{p:.3}") }
}
