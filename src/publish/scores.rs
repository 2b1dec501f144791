//! The scores of a merge, as the hub reads them (`model-index`) and as people do.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::text::quoted;
use crate::report::Measurement;

/// What a task's documents come from, where that is known to be a data set of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DataSet {
    /// `org/name`.
    pub(super) repo: String,
    /// Its configuration.
    pub(super) config: Option<String>,
}

impl DataSet {
    /// Of the `task.json` of an evaluation; `None` for a group, for local files, and where there is no such file.
    pub(super) fn of_evaluation(artifact: &Path) -> Option<Self> {
        let task: Value = serde_json::from_slice(&std::fs::read(artifact.join("task.json")).ok()?).ok()?;
        let configs = task["configs"].as_object()?;
        let config = configs.values().next().filter(|_| configs.len() == 1)?;
        let repo = config["dataset_path"].as_str()?;
        let is_part = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        let is_repo = repo.split('/').count() == 2 && repo.split('/').all(is_part);
        let name = config["dataset_name"].as_str().map(str::to_owned);
        is_repo.then(|| Self { repo: repo.to_owned(), config: name })
    }
}

/// One task's figures of one model, with what its documents come from.
struct Task<'a> {
    name: &'a str,
    figures: Vec<&'a Measurement>,
}

fn tasks<'a>(model: &str, figures: &'a [Measurement]) -> Vec<Task<'a>> {
    let mut tasks: Vec<Task<'a>> = Vec::new();
    for figure in figures.iter().filter(|figure| figure.model == model) {
        match tasks.iter_mut().find(|task| task.name == figure.task) {
            Some(task) => task.figures.push(figure),
            None => tasks.push(Task { name: &figure.task, figures: vec![figure] }),
        }
    }
    tasks
}

/// The lines of the front matter that say how a model scored; none where nothing was measured.
pub(super) fn model_index(
    name: &str,
    model: &str,
    figures: &[Measurement],
    data_set: &dyn Fn(&str) -> Option<DataSet>,
) -> String {
    let tasks = tasks(model, figures);
    if tasks.is_empty() {
        return String::new();
    }
    let mut text = format!("model-index:\n- name: {}\n  results:\n", quoted(name));
    for task in tasks {
        let of = data_set(task.name);
        let kind = of.as_ref().map_or(task.name, |of| &of.repo);
        text += "  - task:\n      type: text-generation\n";
        let _ = writeln!(text, "    dataset:\n      name: {}\n      type: {}", quoted(task.name), quoted(kind));
        if let Some(config) = of.and_then(|of| of.config) {
            let _ = writeln!(text, "      config: {}", quoted(&config));
        }
        text += "    metrics:\n";
        for figure in task.figures {
            let _ = writeln!(text, "    - type: {}", quoted(&figure.metric));
            let _ = writeln!(text, "      name: {}", quoted(&in_full(figure)));
            let _ = writeln!(text, "      value: {}", figure.value);
        }
    }
    text
}

/// A metric with its filter and shots.
fn in_full(figure: &Measurement) -> String {
    let mut name = figure.metric.clone();
    if let Some(filter) = figure.filter.as_deref().filter(|filter| *filter != "none") {
        let _ = write!(name, ", {filter}");
    }
    if let Some(shots) = figure.n_shot {
        let _ = write!(name, ", {shots}-shot");
    }
    name
}

/// A table of a model's scores and of those that others have by the same measure; empty where nothing was measured.
pub(super) fn table(model: &str, others: &[&str], figures: &[Measurement]) -> String {
    let measured = |name: &str| figures.iter().any(|figure| figure.model == name);
    if !measured(model) {
        return String::new();
    }
    let others: Vec<&str> = others.iter().copied().filter(|other| measured(other)).collect();
    let mut text = format!("| task | metric | {} |", [&[model], &others[..]].concat().join(" | "));
    let _ = write!(text, "\n| --- | --- |{}\n", " ---: |".repeat(1 + others.len()));
    for task in tasks(model, figures) {
        for figure in task.figures {
            let _ = write!(text, "| {} | {} | {} |", task.name, in_full(figure).replace('|', "\\|"), value(figure));
            for other in &others {
                let same = figures.iter().find(|other_figure| {
                    other_figure.model == *other
                        && other_figure.task == figure.task
                        && other_figure.metric == figure.metric
                        && other_figure.filter == figure.filter
                        && other_figure.n_shot == figure.n_shot
                });
                let _ = write!(text, " {} |", same.map(value).unwrap_or_default());
            }
            text.push('\n');
        }
    }
    text
}

/// A value with its standard error.
fn value(figure: &Measurement) -> String {
    match figure.stderr {
        Some(stderr) => format!("{:.4} ± {stderr:.4}", figure.value),
        None => format!("{:.4}", figure.value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::parse_metrics;

    fn figures() -> Vec<Measurement> {
        let of = |model: &str, task: &str, text: &str| {
            let metrics = parse_metrics(text, Path::new("m")).unwrap();
            metrics.into_iter().map(|metric| metric.of(model, task, "k")).collect::<Vec<_>>()
        };
        let gsm8k = |value: f64| {
            format!(
                r#"[{{"metric":"exact_match","filter":"flexible-extract","value":{value},"stderr":0.0125,"n_shot":5}},
                    {{"metric":"bypass","filter":"none","value":1}}]"#
            )
        };
        [
            of("math", "gsm8k", &gsm8k(0.75)),
            of("merge", "gsm8k", &gsm8k(0.704)),
            of("merge", "loss: \"x\"", r#"[{"metric":"bits_per_byte","value":1.5}]"#),
        ]
        .concat()
    }

    #[test]
    fn scores_stand_beside_those_of_the_sources() {
        let text = table("merge", &["math", "code"], &figures());
        insta::assert_snapshot!(text, @r#"
        | task | metric | merge | math |
        | --- | --- | ---: | ---: |
        | gsm8k | exact_match, flexible-extract, 5-shot | 0.7040 ± 0.0125 | 0.7500 ± 0.0125 |
        | gsm8k | bypass | 1.0000 | 1.0000 |
        | loss: "x" | bits_per_byte | 1.5000 |  |
        "#);
        assert_eq!(table("code", &["math"], &figures()), "");
    }

    #[test]
    fn the_index_has_the_hubs_name_of_the_data_where_it_is_known() {
        let data_set = |task: &str| {
            (task == "gsm8k").then(|| DataSet { repo: "openai/gsm8k".into(), config: Some("main".into()) })
        };
        insta::assert_snapshot!(model_index("x: merge", "merge", &figures(), &data_set), @r#"
        model-index:
        - name: "x: merge"
          results:
          - task:
              type: text-generation
            dataset:
              name: "gsm8k"
              type: "openai/gsm8k"
              config: "main"
            metrics:
            - type: "exact_match"
              name: "exact_match, flexible-extract, 5-shot"
              value: 0.704
            - type: "bypass"
              name: "bypass"
              value: 1
          - task:
              type: text-generation
            dataset:
              name: "loss: \"x\""
              type: "loss: \"x\""
            metrics:
            - type: "bits_per_byte"
              name: "bits_per_byte"
              value: 1.5
        "#);
        assert_eq!(model_index("x", "code", &figures(), &data_set), "");
    }

    #[test]
    fn a_data_set_is_known_by_a_name_of_the_hub_and_not_by_a_loader() {
        let of = |text: &str| {
            let home = tempfile::tempdir().unwrap();
            std::fs::write(home.path().join("task.json"), text).unwrap();
            DataSet::of_evaluation(home.path())
        };
        let known = of(r#"{"configs": {"gsm8k": {"dataset_path": "openai/gsm8k", "dataset_name": "main"}}}"#).unwrap();
        assert_eq!((&*known.repo, known.config.as_deref()), ("openai/gsm8k", Some("main")));
        for unknown in [
            r#"{"configs": {"x": {"dataset_path": "json"}}}"#,
            r#"{"configs": {"x": {"dataset_path": "/home/alice"}}}"#,
            r#"{"configs": {"x": {"dataset_path": "a/b"}, "y": {"dataset_path": "a/b"}}}"#,
            "{}",
            "",
        ] {
            assert_eq!(of(unknown), None, "{unknown}");
        }
    }
}
