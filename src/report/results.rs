//! `results/<experiment>/results.csv`: every figure of an experiment, one a line.
//!
//! UTF-8, comma, LF, the header [`COLUMNS`]; values on the metric's own scale, as the shortest decimal that reads back as
//! the same number; an empty field where something is not there. The measured figures stand first, in the order of the
//! experiment (suites, then models, then tasks, then the evaluation's own order), then the published ones in the order
//! of their file. Nothing is sorted by name: a sweep keeps its order, and a diff shows what changed.
//!
//! Beside it lies `metrics.csv`, `task,metric,higher_is_better`: which way is better, where an evaluation says so. A
//! table's best values depend on it, so rendering without a store needs it too.

use std::path::Path;

use super::Errors;
use super::columns::{self, CsvError};
use super::measurement::{Measurement, Source};

/// The columns of `results.csv`.
pub const COLUMNS: [&str; 10] =
    ["model", "task", "metric", "filter", "n_shot", "value", "stderr", "n_samples", "source", "key"];

/// The columns of `metrics.csv`.
pub const METRIC_COLUMNS: [&str; 3] = ["task", "metric", "higher_is_better"];

/// The text of `results.csv`, lines in the order given.
pub fn to_csv<'a>(figures: impl IntoIterator<Item = &'a Measurement>) -> String {
    let lines = figures.into_iter().map(|figure| {
        let optional = |text: &Option<String>| text.clone().unwrap_or_default();
        [
            figure.model.clone(),
            figure.task.clone(),
            figure.metric.clone(),
            optional(&figure.filter),
            count(figure.n_shot),
            shortest(figure.value),
            figure.stderr.map(shortest).unwrap_or_default(),
            count(figure.n_samples),
            figure.source.word().to_owned(),
            optional(&figure.key),
        ]
    });
    write(COLUMNS, lines)
}

/// Reads what [`to_csv`] wrote. Citations and notes are not in it: published figures are read from their own file.
///
/// # Errors
/// All wrong places of the file.
pub fn from_csv(text: &str, file: &Path) -> Result<Vec<Measurement>, Errors<CsvError>> {
    let sources = [Source::Measured, Source::Published].map(|source| (source.word(), source));
    columns::read(text, file, &COLUMNS, |fields| {
        // Every field is read before any `?`, so that one pass finds all that is wrong.
        let (model, task, metric) = (fields.text("model"), fields.text("task"), fields.text("metric"));
        let (n_shot, value, stderr) = (fields.count("n_shot"), fields.number("value"), fields.stderr("stderr"));
        let (n_samples, source) = (fields.count("n_samples"), fields.word("source", &sources));
        Ok(Measurement {
            model: model?,
            task: task?,
            metric: metric?,
            filter: fields.optional("filter"),
            n_shot: n_shot?,
            value: value?,
            stderr: stderr?,
            n_samples: n_samples?,
            higher_is_better: None,
            source: source?,
            key: fields.optional("key"),
            citation: None,
            note: None,
        })
    })
}

/// The text of `metrics.csv`: each measured metric whose direction an evaluation gave, in order of first appearance.
pub fn directions_to_csv(measured: &[Measurement]) -> String {
    let mut lines: Vec<[String; 3]> = Vec::new();
    for figure in measured {
        let Some(higher) = figure.higher_is_better else { continue };
        if !lines.iter().any(|[task, metric, _]| (task, metric) == (&figure.task, &figure.metric)) {
            lines.push([figure.task.clone(), figure.metric.clone(), higher.to_string()]);
        }
    }
    write(METRIC_COLUMNS, lines)
}

/// Gives `figures` the directions that the text of a `metrics.csv` holds.
///
/// # Errors
/// All wrong places of the file.
pub fn add_directions(figures: &mut [Measurement], text: &str, file: &Path) -> Result<(), Errors<CsvError>> {
    let words = [("true", true), ("false", false)];
    let directions = columns::read(text, file, &METRIC_COLUMNS, |fields| {
        let (task, metric) = (fields.text("task"), fields.text("metric"));
        let higher = fields.word("higher_is_better", &words);
        Ok((task?, metric?, higher?))
    })?;
    for figure in figures.iter_mut().filter(|figure| figure.source == Source::Measured) {
        let known = directions.iter().find(|(task, metric, _)| (task, metric) == (&figure.task, &figure.metric));
        figure.higher_is_better = known.map(|(_, _, higher)| *higher);
    }
    Ok(())
}

fn count(count: Option<u64>) -> String {
    count.map(|count| count.to_string()).unwrap_or_default()
}

/// `{:?}` is the shortest decimal that reads back as the same number, with an exponent where that is shorter; `{}`
/// would write 1e-300 with 300 digits.
pub(crate) fn shortest(number: f64) -> String {
    format!("{number:?}")
}

/// CSV with LF, header first.
pub(crate) fn write<S: AsRef<str>, L: IntoIterator<Item = S>>(
    header: impl IntoIterator<Item = impl AsRef<str>>,
    lines: impl IntoIterator<Item = L>,
) -> String {
    const MEMORY: &str = "writing to memory does not fail, and lines are as wide as the header";
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::Any(b'\n')).from_writer(Vec::new());
    writer.write_record(header.into_iter().map(|name| name.as_ref().to_owned())).expect(MEMORY);
    for line in lines {
        writer.write_record(line.into_iter().map(|field| field.as_ref().to_owned())).expect(MEMORY);
    }
    String::from_utf8(writer.into_inner().expect(MEMORY)).expect("strings are UTF-8")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn figure() -> impl Strategy<Value = Measurement> {
        let finite = || any::<f64>().prop_filter("finite", |x| x.is_finite());
        let text = || any::<String>().prop_filter("not empty", |s| !s.is_empty());
        let names = (text(), text(), text(), proptest::option::of(text()), proptest::option::of(text()));
        let numbers =
            (finite(), proptest::option::of(finite().prop_map(f64::abs)), any::<Option<u64>>(), any::<Option<u64>>());
        (names, numbers, any::<bool>()).prop_map(
            |((model, task, metric, filter, key), (value, stderr, n_shot, n_samples), ours)| {
                let source = if ours { Source::Measured } else { Source::Published };
                let (higher_is_better, citation, note) = (None, None, None);
                Measurement {
                    model,
                    task,
                    metric,
                    filter,
                    n_shot,
                    value,
                    stderr,
                    n_samples,
                    higher_is_better,
                    source,
                    key,
                    citation,
                    note,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn whatever_is_written_reads_back_the_same(figures in proptest::collection::vec(figure(), 0..8)) {
            let text = to_csv(&figures);
            prop_assert_eq!(from_csv(&text, Path::new("results.csv")).unwrap(), figures);
        }
    }

    #[test]
    fn floats_are_the_shortest_that_round_trip() {
        assert_eq!([0.1 + 0.2, 0.704, 1.0, 1e-300].map(shortest), ["0.30000000000000004", "0.704", "1.0", "1e-300"]);
    }

    #[test]
    fn directions_survive_without_a_store() {
        let mut figures = from_csv(
            &format!("{}\nm,t,latency,,,3.5,,,measured,k\nm,t,acc,,,0.5,,,measured,k\n", COLUMNS.join(",")),
            Path::new("r"),
        )
        .unwrap();
        figures[0].higher_is_better = Some(false);
        let text = directions_to_csv(&figures);
        assert_eq!(text, "task,metric,higher_is_better\nt,latency,false\n");
        let mut read = from_csv(&to_csv(&figures), Path::new("r")).unwrap();
        add_directions(&mut read, &text, Path::new("metrics.csv")).unwrap();
        assert_eq!(read, figures);
    }

    #[test]
    fn a_wrong_source_and_a_wrong_direction_are_named_with_their_place() {
        let text = format!("{}\nm,t,acc,,,0.5,,,guessed,\n", COLUMNS.join(","));
        let said = from_csv(&text, Path::new("results.csv")).unwrap_err().to_string();
        assert_eq!(said, "results.csv:2: column 9 (`source`): `guessed` is none of `measured`, `published`");
        let said =
            add_directions(&mut [], "task,metric,higher_is_better\nt,acc,yes\n", Path::new("m.csv")).unwrap_err();
        assert_eq!(said.to_string(), "m.csv:2: column 3 (`higher_is_better`): `yes` is none of `true`, `false`");
    }
}
