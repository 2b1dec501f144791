//! `evals:`.

use std::collections::HashMap;

use super::command::argument;
use super::context::{Context, Item};
use super::diagnostics::{Diagnostic, Report, Span};
use super::keys::{BACKENDS, LOSS, OPTIONS, SUITE, TASK, UNSAFE_CODE};
use super::loss;
use super::read::{Fields, Reading};
use super::types::{Backend, Data, LossOptions, Section, Suite, Task, TaskOptions};

/// A suite with the places of what it names.
pub(super) struct Placed {
    pub(super) suite: Suite,
    /// Where each model of the suite is named.
    pub(super) models: Vec<Span>,
    /// What it measures, by the name that results carry, and where that is said: its tasks, the data of a loss suite,
    /// or the suite itself.
    pub(super) measures: Vec<(String, Span)>,
}

/// Reads one suite; `None` when its models or tasks are not all known.
/// `known` are the data sets that could be read.
pub(super) fn suite(context: &Context<'_>, item: Item<'_>, known: &Section<Data>) -> Option<Placed> {
    let fields = Fields::open(context.report, &item.member.view, item.place, "a suite", &[SUITE, OPTIONS, LOSS])?;
    let models = fields.get("models", |models| {
        let before = context.report.count();
        let list = models.list(|model| {
            let names = context.names.models.all(model, &model.name()?, &context.budget)?;
            Some(names.into_iter().map(|(name, _)| (name, model.node.span)).collect::<Vec<_>>())
        })?;
        (context.report.count() == before).then(|| list.into_iter().flatten().collect::<Vec<_>>())
    });
    let backend = fields.get_or("backend", Backend::default(), |backend| backend.choice(BACKENDS));
    let options = options(&fields);
    let mut suite = Suite {
        models: Vec::new(),
        backend: backend.unwrap_or_default(),
        model_args: fields.get("model_args", json_map).unwrap_or_default(),
        tasks: Vec::new(),
        data: Vec::new(),
        loss: LossOptions::default(),
        run: Vec::new(),
        task_dirs: fields.get("task_dirs", |dirs| dirs.list(Reading::path)).unwrap_or_default(),
        unsafe_code: fields.get("unsafe_code", |code| code.choice(UNSAFE_CODE)).unwrap_or_default(),
    };
    if backend.is_some_and(|backend| backend != Backend::Loss) {
        fields.refuse(&loss::keys(), "but for `backend: loss`");
    }
    let measures = match backend? {
        Backend::Vllm | Backend::Hf => tasks(context, &fields, &options, &mut suite),
        Backend::Loss => loss(context, &fields, known, &mut suite),
        Backend::Command => command(&fields, &mut suite).then(|| {
            let name = item.stage.split_once('.').map_or(item.stage, |(_, name)| name);
            vec![(name.to_owned(), item.place)]
        }),
    };
    let (names, places): (Vec<_>, Vec<_>) = models?.into_iter().unzip();
    suite.models = names;
    Some(Placed { suite, models: places, measures: measures? })
}

fn tasks(
    context: &Context<'_>,
    fields: &Fields<'_>,
    options: &TaskOptions,
    suite: &mut Suite,
) -> Option<Vec<(String, Span)>> {
    fields.refuse(&["data"], "but for `backend: loss`");
    fields.refuse(&["run"], "but for `backend: command`");
    if !fields.has("tasks") {
        let diagnostic = Diagnostic::new(fields.place, "a suite needs `tasks`").label("no `tasks` here");
        context.report.add(diagnostic.hint("name lm_eval tasks, or set `backend: loss` or `backend: command`"));
        return None;
    }
    let before = context.report.count();
    let read = fields.get("tasks", |tasks| tasks.list(|task| self::task(context, task, options)))?;
    let measures = read.iter().map(|(task, span)| (task.name.clone(), *span)).collect();
    suite.tasks = read.into_iter().map(|(task, _)| task).collect();
    (context.report.count() == before).then_some(measures)
}

fn task(context: &Context<'_>, reading: Reading<'_>, suite: &TaskOptions) -> Option<(Task, Span)> {
    if reading.node.as_map().is_none() {
        let task = reading.word()?;
        return Some((Task { name: task.clone(), task, data: None, options: suite.clone() }, reading.node.span));
    }
    let fields = Fields::open(context.report, reading.node, reading.node.span, "a task", &[TASK, OPTIONS])?;
    let task = fields.get("task", Reading::word)?;
    let span = fields.node("name").or(fields.node("task")).map_or(reading.node.span, |node| node.span);
    let name = match fields.field("name") {
        None => task.clone(),
        Some(_) => fields.get("name", Reading::name)?,
    };
    let own = options(&fields);
    let options = TaskOptions {
        num_fewshot: own.num_fewshot.or(suite.num_fewshot),
        limit: own.limit.or(suite.limit),
        gen_kwargs: if fields.has("gen_kwargs") { own.gen_kwargs } else { suite.gen_kwargs.clone() },
        apply_chat_template: own.apply_chat_template.or_else(|| suite.apply_chat_template.clone()),
        system_instruction: own.system_instruction.or_else(|| suite.system_instruction.clone()),
        fewshot_as_multiturn: own.fewshot_as_multiturn.or(suite.fewshot_as_multiturn),
        batch_size: own.batch_size.or_else(|| suite.batch_size.clone()),
        seed: own.seed.or(suite.seed),
    };
    Some((Task { task, name, data: fields.get("data", Reading::path), options }, span))
}

fn options(fields: &Fields<'_>) -> TaskOptions {
    TaskOptions {
        num_fewshot: fields.get("num_fewshot", |shots| shots.whole(0, u64::MAX)),
        limit: fields.get("limit", limit),
        gen_kwargs: fields.get("gen_kwargs", json_map).unwrap_or_default(),
        apply_chat_template: fields.get("apply_chat_template", |template| {
            let flag = super::scalar::plain(template.node).and_then(super::scalar::flag);
            flag.map(Into::into).or_else(|| template.word().map(Into::into))
        }),
        system_instruction: fields.get("system_instruction", Reading::text),
        fewshot_as_multiturn: fields.get("fewshot_as_multiturn", Reading::flag),
        batch_size: fields.get("batch_size", batch_size),
        seed: fields.get("seed", |seed| seed.whole(0, u64::MAX)),
    }
}

/// A number of documents, or a share of them below 1.
fn limit(reading: Reading<'_>) -> Option<f64> {
    let limit = reading.positive()?;
    if limit < 1.0 || limit.fract() == 0.0 {
        return Some(limit);
    }
    reading.fail(Diagnostic::new(reading.node.span, "`limit` is a whole number of documents, or a share below 1"))
}

fn batch_size(reading: Reading<'_>) -> Option<serde_json::Value> {
    let text = reading.node.as_scalar().unwrap_or_default();
    let automatic = text == "auto" || text.strip_prefix("auto:").is_some_and(|times| times.parse::<u32>().is_ok());
    if automatic {
        return Some(text.into());
    }
    if super::scalar::number(text).is_some() {
        return reading.whole(1, u64::from(u32::MAX)).map(Into::into);
    }
    reading.fail(Diagnostic::new(reading.node.span, "`batch_size` must be a whole number, `auto` or `auto:N`"))
}

fn json_map(reading: Reading<'_>) -> Option<indexmap::IndexMap<String, serde_json::Value>> {
    let map = reading.map()?;
    Some(
        map.iter()
            .filter_map(|(key, field)| Some((key.clone(), Reading { node: &field.value, key, ..reading }.json()?)))
            .collect(),
    )
}

/// Names of `lm_eval`'s options, none of which another backend has.
fn refuse_options(fields: &Fields<'_>, why: &str) {
    let names: Vec<_> = OPTIONS.iter().map(|key| key.name).chain(["tasks", "task_dirs"]).collect();
    fields.refuse(&names, why);
}

fn loss(
    context: &Context<'_>,
    fields: &Fields<'_>,
    known: &Section<Data>,
    suite: &mut Suite,
) -> Option<Vec<(String, Span)>> {
    refuse_options(fields, "for `backend: loss`");
    fields.refuse(&["model_args", "unsafe_code"], "for `backend: loss`");
    fields.refuse(&["run"], "but for `backend: command`");
    loss::loss(context, fields, known, suite)
}

fn command(fields: &Fields<'_>, suite: &mut Suite) -> bool {
    refuse_options(fields, "for `backend: command`");
    fields.refuse(&["data"], "but for `backend: loss`");
    fields.require(&["run"]);
    let known = ["model".to_owned(), "out".to_owned()];
    let mut used = Vec::new();
    match fields.get("run", |run| run.list(|item| argument(item, Some(&known), &mut used))) {
        Some(run) => {
            suite.run = run;
            true
        }
        None => false,
    }
}

/// Reports what is evaluated twice under one name: results would stand in one place.
pub(super) fn check_twice<'s>(report: &Report, suites: impl Iterator<Item = &'s Placed>) {
    let mut first: HashMap<(&str, &str), (Span, Span)> = HashMap::new();
    for placed in suites {
        for (model, model_span) in placed.suite.models.iter().zip(&placed.models) {
            for (task, task_span) in &placed.measures {
                let Some((other_model, other_task)) = first.insert((model, task), (*model_span, *task_span)) else {
                    continue;
                };
                let message = |what: &str| format!("{what} is evaluated twice");
                if other_task == *task_span {
                    let diagnostic = Diagnostic::new(*model_span, message(&format!("`{model}`")));
                    report.add(diagnostic.other(other_model, "first here").hint("name it once"));
                } else {
                    let diagnostic = Diagnostic::new(*task_span, message(&format!("`{task}`")));
                    let diagnostic = diagnostic.label(format!("again for `{model}`")).other(other_task, "first here");
                    report.add(diagnostic.hint("give one of them a `name:` of its own"));
                }
            }
        }
    }
}
