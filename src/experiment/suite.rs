//! `evals:`.

use std::collections::HashMap;

use indexmap::IndexMap;

use super::command::{argument, environment};
use super::context::{Context, Item};
use super::diagnostics::{Diagnostic, Report, Span};
use super::keys::{ACCEPT, BACKENDS, LOSS, OPTIONS, SUITE, TASK, TRIPWIRES, UNSAFE_CODE};
use super::loss;
use super::read::{Fields, Reading};
use super::types::{Backend, Data, LossOptions, Section, Suite, Task, TaskOptions};

/// The most that the harness lets a program take, in seconds.
const MAX_CODE_TIMEOUT: f64 = 3600.0;

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
        inputs: Vec::new(),
        env: IndexMap::new(),
        version: None,
        timeout: None,
        stalled_after: fields.get("stalled_after", Reading::positive),
        task_dirs: fields.get("task_dirs", |dirs| dirs.list(Reading::path)).unwrap_or_default(),
        unsafe_code: fields.get("unsafe_code", |code| code.choice(UNSAFE_CODE)).unwrap_or_default(),
    };
    if backend.is_some_and(|backend| backend != Backend::Loss) {
        fields.refuse(&loss::keys(), "but for `backend: loss`");
    }
    let measures = match backend? {
        Backend::Vllm | Backend::Hf => tasks(context, &fields, &options, &mut suite),
        Backend::Loss => loss(context, &fields, known, &mut suite),
        Backend::Command => command(context, &fields, &mut suite).then(|| {
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
    fields.refuse(&OF_COMMAND, "but for `backend: command`");
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
        chat_template_args: if fields.has("chat_template_args") {
            own.chat_template_args
        } else {
            suite.chat_template_args.clone()
        },
        system_instruction: own.system_instruction.or_else(|| suite.system_instruction.clone()),
        fewshot_as_multiturn: own.fewshot_as_multiturn.or(suite.fewshot_as_multiturn),
        batch_size: own.batch_size.or_else(|| suite.batch_size.clone()),
        seed: own.seed.or(suite.seed),
        code_timeout: own.code_timeout.or(suite.code_timeout),
        tripwires: suite.tripwires.clone().into_iter().chain(own.tripwires).collect(),
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
        chat_template_args: fields.get("chat_template_args", json_map).unwrap_or_default(),
        system_instruction: fields.get("system_instruction", Reading::text),
        fewshot_as_multiturn: fields.get("fewshot_as_multiturn", Reading::flag),
        batch_size: fields.get("batch_size", batch_size),
        seed: fields.get("seed", |seed| seed.whole(0, u64::MAX)),
        code_timeout: fields.get("code_timeout", code_timeout),
        tripwires: fields.get("tripwires", tripwires).unwrap_or_default(),
    }
}

/// By name a share, or `accept`.
fn tripwires(reading: Reading<'_>) -> Option<indexmap::IndexMap<String, serde_json::Value>> {
    let fields = Fields::open(reading.report, reading.node, reading.node.span, "`tripwires`", &[TRIPWIRES])?;
    let allowed = |allowed: Reading<'_>| -> Option<serde_json::Value> {
        let text = super::scalar::plain(allowed.node).unwrap_or_default();
        if ACCEPT.contains(&text) {
            return Some(text.into());
        }
        if super::scalar::number(text).is_some() {
            return allowed.number(0.0, 1.0).map(Into::into);
        }
        let message = format!("`{}` must be a share from 0 to 1, or accept", allowed.key);
        allowed.fail(Diagnostic::new(allowed.node.span, message))
    };
    let names = TRIPWIRES.iter().map(|key| key.name);
    Some(names.filter_map(|name| Some((name.to_owned(), fields.get(name, allowed)?))).collect())
}

/// A number of documents, or a share of them below 1.
fn limit(reading: Reading<'_>) -> Option<f64> {
    let limit = reading.positive()?;
    if limit < 1.0 || limit.fract() == 0.0 {
        return Some(limit);
    }
    reading.fail(Diagnostic::new(reading.node.span, "`limit` is a whole number of documents, or a share below 1"))
}

fn code_timeout(reading: Reading<'_>) -> Option<f64> {
    let seconds = reading.positive()?;
    if seconds <= MAX_CODE_TIMEOUT {
        return Some(seconds);
    }
    let message = format!("`code_timeout` is at most {MAX_CODE_TIMEOUT} seconds");
    reading.fail(Diagnostic::new(reading.node.span, message))
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

/// Keys that only `backend: command` has.
const OF_COMMAND: [&str; 5] = ["run", "inputs", "env", "version", "timeout"];

/// Names of `lm_eval`'s options, none of which another backend has.
fn refuse_options(fields: &Fields<'_>, why: &str) {
    let names: Vec<_> = OPTIONS.iter().map(|key| key.name).chain(["tasks", "task_dirs", "stalled_after"]).collect();
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
    fields.refuse(&OF_COMMAND, "but for `backend: command`");
    loss::loss(context, fields, known, suite)
}

fn command(context: &Context<'_>, fields: &Fields<'_>, suite: &mut Suite) -> bool {
    let before = context.report.count();
    refuse_options(fields, "for `backend: command`");
    fields.refuse(&["data"], "but for `backend: loss`");
    fields.require(&["run"]);
    suite.inputs = fields.get("inputs", |inputs| inputs.list(Reading::path)).unwrap_or_default();
    suite.env = fields.get("env", environment).unwrap_or_default();
    suite.version = fields.get("version", Reading::word);
    suite.timeout = fields.get("timeout", Reading::positive);
    let known = ["model".to_owned(), "out".to_owned()];
    let mut used = Vec::new();
    let Some(run) = fields.get("run", |run| run.list(|item| argument(item, Some(&known), &mut used))) else {
        return false;
    };
    if !used.iter().any(|name| name == "out") && context.report.count() == before {
        let place = fields.node("run").map_or(fields.place, |node| node.span);
        let diagnostic = Diagnostic::new(place, "`run` does not name `{out}`");
        context.report.add(diagnostic.hint("the program finds the model in {model} and writes {out}/metrics.json"));
    }
    suite.run = run;
    true
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
