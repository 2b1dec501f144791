//! `mergelab samples --against`: two evaluations on the same documents.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::evaluated::Evaluated;
use super::session::Session;
use super::{CliError, output};
use crate::plan::StageId;
use crate::samples::{self, Choice, Comparison, Pair, PairError, Pairs, Scored, Test, Width, pair, side_by_side};
use crate::stats::{Bootstrap, RESAMPLES, SEED};

/// What is shown, and how.
pub(super) struct Show {
    /// At most so many of the items that differ.
    pub(super) limit: usize,
    /// How much of their texts.
    pub(super) width: Width,
    /// As one JSON object, with all items that differ.
    pub(super) json: bool,
}

/// The evaluation that somebody means by another one's side: a stage, or a model of the same suite.
pub(super) fn find(session: &Session, id: StageId, wanted: &str) -> Result<StageId, CliError> {
    let stage = session.graph.stage(id);
    let Some((_, task)) = stage.spec.evaluated() else {
        return Err(CliError::Usage(format!("{} is no evaluation: it has no answers", stage.name)));
    };
    let evaluations: Vec<StageId> = session.find(wanted).unwrap_or_default();
    let suite = &stage.entry.1;
    let task_of = |id: &StageId| session.graph.stage(*id).spec.evaluated().map(|(_, task)| task);
    let found: Vec<StageId> = match evaluations.as_slice() {
        [one] if task_of(one).is_some() => vec![*one],
        // Of a suite, or of a model in it, that on the same task.
        several => several.iter().copied().filter(|other| task_of(other) == Some(task)).collect(),
    };
    let model = ["models.", "merges."].iter().find_map(|section| wanted.strip_prefix(section)).unwrap_or(wanted);
    let found = match found.as_slice() {
        [] => session.graph.find(&format!("evals.{suite}/{model}/{task}")).unwrap_or_default(),
        _ => found,
    };
    match found.as_slice() {
        [one] if *one == id => Err(CliError::Usage(format!("{} stands on both sides", stage.name))),
        [one] => Ok(*one),
        [] => Err(CliError::Usage(format!(
            "--against {wanted:?} is no evaluation and no model of evals.{suite}, which has {}",
            session.graph.experiments[stage.experiment].evals[suite].models.join(", ")
        ))),
        several => {
            let names: Vec<_> = several.iter().map(|id| session.graph.stage(*id).name.as_str()).collect();
            Err(CliError::Usage(format!("--against {wanted:?} is more than one evaluation: {}", names.join(", "))))
        }
    }
}

/// Prints what two evaluations have in common, and whether what they have not is a finding.
pub(super) fn compare(
    session: &Session,
    sides: [&Evaluated<'_>; 2],
    choice: &Choice,
    show: &Show,
) -> Result<(), CliError> {
    let [first, second] = [sides[0].samples()?, sides[1].samples()?];
    let pairs = Scored::of(first, choice, 0)
        .and_then(|first| pair(&first, &Scored::of(second, choice, 1)?, choice))
        .map_err(|error| refuse(sides, error))?;
    let unscored = || refuse(sides, PairError::Unscored { metric: choice.to_string() });
    let all = Comparison::of(&pairs.pairs, choice).ok_or_else(unscored)?;
    note(sides, choice, &pairs);
    // One model in two suites is told apart by its stages.
    let names =
        if sides[0].model == sides[1].model { sides.map(|side| side.stage) } else { sides.map(|side| side.model) };
    note_weights(sides, choice, &pairs, &all);
    let differing: Vec<&Pair> = pairs.pairs.iter().filter(|pair| pair.differs()).collect();
    if show.json {
        let side = |side: &Evaluated<'_>| json!({ "stage": side.stage, "key": side.key, "model": side.model });
        let mut object = json!({
            "experiment": session.loaded[0].experiment.name,
            "metric": choice.metric,
            "filter": choice.filter,
            "higher_is_better": choice.higher_is_better,
            "sides": sides.map(side),
        });
        merge(&mut object, figures(&all, names, choice));
        let tasks = pairs.by_task().into_iter().filter_map(|(task, pairs)| {
            let mut object = json!({ "task": task });
            merge(&mut object, figures(&Comparison::of(pairs, choice)?, names, choice));
            Some(object)
        });
        object["tasks"] = tasks.collect();
        object["alone"] = json!(pairs.alone);
        object["unscored"] = pairs.unscored.into();
        object["items"] = differing
            .iter()
            .map(|pair| json!({ "task": pair.task, "doc_id": pair.doc_id, "scores": pair.scores() }))
            .collect();
        output::print_json(&object);
        return Ok(());
    }
    let mut text = format!("{choice}: {} against {}\n", names[0], names[1]);
    let by_task = pairs.by_task();
    if by_task.len() > 1 {
        for (task, pairs) in by_task {
            if let Some(comparison) = Comparison::of(pairs, choice) {
                let _ = write!(text, "\n{task}\n{}", table(&comparison, names, choice));
            }
        }
        text += "\nall tasks, every document counting once\n";
    }
    text += &table(&all, names, choice);
    output::print(&text);
    items(sides, &differing, names, choice, show)
}

/// Says what is not compared, and what speaks against comparing.
fn note(sides: [&Evaluated<'_>; 2], choice: &Choice, pairs: &Pairs) {
    for (side, alone) in sides.iter().zip(pairs.alone) {
        if alone > 0 {
            say!("note: {alone} documents are only in {}, and left out (another `limit`?)", side.stage);
        }
    }
    if pairs.unscored > 0 {
        say!("note: {} documents have no score by {choice} on one side, and are left out", pairs.unscored);
    }
    let other = sides[1].metrics.iter().find(|entry| entry.metric == choice.metric && entry.filter == choice.filter);
    if let Some((first, second)) = choice.n_shot.zip(other.and_then(|entry| entry.n_shot))
        && first != second
    {
        say!("note: {} was asked with {first} examples, {} with {second}", sides[0].stage, sides[1].stage);
    }
}

/// Says where the mean over documents is not the figure that the evaluation reports, which may count tasks alike.
fn note_weights(sides: [&Evaluated<'_>; 2], choice: &Choice, pairs: &Pairs, all: &Comparison) {
    if pairs.alone != [0, 0] || pairs.unscored > 0 {
        return;
    }
    for (side, mean) in sides.iter().zip(all.difference.means) {
        let entry = side.metrics.iter().find(|entry| entry.metric == choice.metric && entry.filter == choice.filter);
        if let Some(entry) = entry.filter(|entry| (entry.value - mean).abs() > 1e-6 * entry.value.abs().max(1.0)) {
            say!(
                "note: {} has {choice} {:.4}, which is not the mean of its documents, {mean:.4}",
                side.stage,
                entry.value
            );
        }
    }
}

fn refuse(sides: [&Evaluated<'_>; 2], error: PairError) -> CliError {
    let between = format!("{} and {}", sides[0].stage, sides[1].stage);
    let source = |hint: &str| CliError::Source { message: format!("{between}: {error}"), hint: Some(hint.to_owned()) };
    match error {
        PairError::Samples { side, source } => sides[side].refuse(source),
        PairError::Differs { .. } => source(
            "scores are compared document by document: evaluate both on the same version of the task and the same `data:`",
        ),
        PairError::Disjoint { .. } => source("name two evaluations of the same task"),
        PairError::Unscored { .. } => source("--metric and --filter choose another one"),
        PairError::Twice { .. } => CliError::Damaged {
            message: format!("{between}: {error}"),
            hint: "`mergelab verify` finds what is damaged; a task that numbers two documents alike cannot be compared"
                .to_owned(),
        },
    }
}

fn merge(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}

/// All figures of a comparison.
fn figures(comparison: &Comparison, names: [&str; 2], choice: &Choice) -> Value {
    let difference = &comparison.difference;
    let mut figures = json!({
        "n": difference.n,
        "differing": comparison.differing,
        "means": difference.means,
        "difference": difference.value,
        "stderr": difference.stderr,
    });
    let test = match comparison.test {
        Test::McNemar { both_right, only, both_wrong, p } => json!({
            "test": "mcnemar-exact",
            "p": p,
            "both_right": both_right,
            "only": only,
            "both_wrong": both_wrong,
        }),
        Test::Bootstrap(Bootstrap { interval, p }) => json!({
            "test": "paired-bootstrap",
            "p": p,
            "interval": interval,
            "resamples": RESAMPLES,
            "seed": SEED,
        }),
    };
    merge(&mut figures, test);
    figures["finding"] = comparison.is_finding().into();
    figures["sentence"] = comparison.sentence(names, choice).into();
    figures
}

/// The same for people.
fn table(comparison: &Comparison, names: [&str; 2], choice: &Choice) -> String {
    let difference = &comparison.difference;
    let labels = [names[0].to_owned(), names[1].to_owned(), "difference".to_owned()];
    let only = names.map(|name| format!("only {name}"));
    let width = labels.iter().chain(&only).map(|label| label.chars().count()).max().unwrap_or(0).max(10);
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "  {label:width$}  {value}");
    };
    line(&labels[0], format!("{:.4}", difference.means[0]));
    line(&labels[1], format!("{:.4}", difference.means[1]));
    let stderr = difference.stderr.map(|stderr| format!(" ± {stderr:.4}")).unwrap_or_default();
    line(&labels[2], format!("{:+.4}{stderr}, over {} documents", difference.value, difference.n));
    match comparison.test {
        Test::McNemar { both_right, only: counts, both_wrong, .. } => {
            line("both right", both_right.to_string());
            line(&only[0], counts[0].to_string());
            line(&only[1], counts[1].to_string());
            line("both wrong", both_wrong.to_string());
            line("test", "McNemar's, exact, two-sided".to_owned());
        }
        Test::Bootstrap(Bootstrap { interval: [low, high], .. }) => {
            line("95 %", format!("{low:+.4} to {high:+.4}"));
            line("test", format!("paired bootstrap, two-sided, {RESAMPLES} resamples, seed {SEED}"));
        }
    }
    text + &comparison.sentence(names, choice) + "\n"
}

/// The first of the items that differ, with both answers.
fn items(
    sides: [&Evaluated<'_>; 2],
    differing: &[&Pair],
    names: [&str; 2],
    choice: &Choice,
    show: &Show,
) -> Result<(), CliError> {
    let wanted = &differing[..differing.len().min(show.limit)];
    let found = |side: &Evaluated<'_>| samples::find(side.samples()?, wanted).map_err(|error| side.refuse(error));
    let [first, second] = [found(sides[0])?, found(sides[1])?];
    for pair in wanted {
        if let (Some(first), Some(second)) = (first.get(&pair.document()), second.get(&pair.document())) {
            output::print(&format!("\n{}", side_by_side(pair, [first, second], names, choice, show.width)));
        }
    }
    if wanted.len() < differing.len() {
        say!("{} of {} items that differ; --limit {} shows all", wanted.len(), differing.len(), differing.len());
    }
    Ok(())
}
