//! Evaluation: one driver process evaluates a batch of (model, task) pairs, and each pair is a stage of its own whose
//! result is kept as soon as the driver has it.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use mergelab_wire::{Event, Fault, VERSION};
use serde_json::{Map, Value, json};

use super::failure::{PROMPT, end_of};
use super::lm_eval_command::{self, Places};
use super::python::Script;
use super::{Context, Failure, Job, Product, Program, diagnosis, kept, tail, tensor};
use crate::experiment::{Backend, Suite, Table, Task};
use crate::plan::{Graph, Spec, Stage, model_arguments, untried};
use crate::project::{Project, Python};

/// The driver, over the harness's own Python API.
const DRIVER: Script = Script {
    purpose: "evaluations",
    files: &[
        ("driver.py", include_str!("../../lm-eval-harness/driver.py")),
        ("harness/__init__.py", include_str!("../../lm-eval-harness/harness/__init__.py")),
        ("harness/build.py", include_str!("../../lm-eval-harness/harness/build.py")),
        ("harness/catalogue.py", include_str!("../../lm-eval-harness/harness/catalogue.py")),
        ("harness/code_eval.py", include_str!("../../lm-eval-harness/harness/code_eval.py")),
        ("harness/engine.py", include_str!("../../lm-eval-harness/harness/engine.py")),
        ("harness/environment.py", include_str!("../../lm-eval-harness/harness/environment.py")),
        ("harness/errors.py", include_str!("../../lm-eval-harness/harness/errors.py")),
        ("harness/evaluate.py", include_str!("../../lm-eval-harness/harness/evaluate.py")),
        ("harness/events.py", include_str!("../../lm-eval-harness/harness/events.py")),
        ("harness/job.py", include_str!("../../lm-eval-harness/harness/job.py")),
        ("harness/models.py", include_str!("../../lm-eval-harness/harness/models.py")),
        ("harness/packages.py", include_str!("../../lm-eval-harness/harness/packages.py")),
        ("harness/program.py", include_str!("../../lm-eval-harness/harness/program.py")),
        ("harness/programs.py", include_str!("../../lm-eval-harness/harness/programs.py")),
        ("harness/progress.py", include_str!("../../lm-eval-harness/harness/progress.py")),
        ("harness/replay.py", include_str!("../../lm-eval-harness/harness/replay.py")),
        ("harness/responses.py", include_str!("../../lm-eval-harness/harness/responses.py")),
        ("harness/results.py", include_str!("../../lm-eval-harness/harness/results.py")),
        ("harness/run.py", include_str!("../../lm-eval-harness/harness/run.py")),
        ("harness/sandbox.py", include_str!("../../lm-eval-harness/harness/sandbox.py")),
        ("harness/scoring.py", include_str!("../../lm-eval-harness/harness/scoring.py")),
        ("harness/tripwires.py", include_str!("../../lm-eval-harness/harness/tripwires.py")),
        ("harness/watch.py", include_str!("../../lm-eval-harness/harness/watch.py")),
    ],
};

/// What evaluations have in common that may share a driver process. With vLLM a process serves one model, since a
/// second one would have to share the GPU's memory with the first.
pub fn group_of(stage: &Stage) -> Option<(usize, String, Option<String>)> {
    let Spec::Eval { suite, suite_name, model, .. } = &stage.spec else { return None };
    let model = match suite.backend {
        Backend::Hf => None,
        Backend::Vllm => Some(model.clone()),
        Backend::Loss | Backend::Command => return None,
    };
    Some((stage.experiment, suite_name.clone(), model))
}

/// Runs a batch of evaluations of one group. `on_done` is told once of each, by its index: of a complete one while the
/// driver goes on, with its result in that job's `out`; of those that a failing driver leaves, at the end.
pub fn run_batch(
    context: &Context<'_>,
    jobs: &[Job<'_>],
    on_event: &mut dyn FnMut(Event),
    on_done: &mut dyn FnMut(usize, Result<Product, Failure>),
) {
    let mut open: Vec<bool> = vec![true; jobs.len()];
    let rest = drive(context, jobs, on_event, &mut |item, result| {
        if open.get_mut(item).is_some_and(|open| std::mem::replace(open, false)) {
            on_done(item, result);
        }
    });
    let rest = rest.err().unwrap_or_else(|| Failure::stage("lm_eval ended without a result for this task"));
    for item in (0..jobs.len()).filter(|&item| open[item]) {
        let log = rest.log.clone().unwrap_or_else(|| jobs[0].log.clone());
        on_done(item, Err(rest.clone().with_log(&log)));
    }
}

/// How long the driver may say nothing where the suite does not say: loading weights over a slow network and one batch of
/// long answers on a CPU take long.
const STALLED_AFTER: Duration = Duration::from_hours(1);

/// Starts the driver and follows it.
fn drive(
    context: &Context<'_>,
    jobs: &[Job<'_>],
    on_event: &mut dyn FnMut(Event),
    on_done: &mut dyn FnMut(usize, Result<Product, Failure>),
) -> Result<(), Failure> {
    let first = &jobs[0];
    let (suite, ..) = parts(first);
    let results = first.scratch.join("results");
    std::fs::create_dir_all(&results)
        .map_err(|error| Failure::stage(format!("cannot write {}: {error}", first.scratch.display())))?;
    let commands: Vec<String> = jobs.iter().map(|job| command_of(context, job)).collect();
    let job = |events: &Path| job_value(context, suite, jobs, &results, events);
    let locks = jobs.iter().map(|job| job.lock).collect();
    let program = DRIVER.program(context, first, locks, job)?;
    let stalled_after = suite.stalled_after.map_or(STALLED_AFTER, Duration::from_secs_f64);
    let program = Program { stalled_after: Some(stalled_after), ..program };
    write_commands(jobs, &commands)?;
    let tools = context.python.map(Python::versions).unwrap_or_default();
    for message in untried(suite.backend, &tools) {
        on_event(Event::Note { message });
    }
    // What the driver has said of itself so far: its device, versions, peak memory.
    let mut facts = Map::new();
    tensor::follow("lm_eval", context, &program, &mut |event| match event {
        Event::Facts { facts: more } => facts.extend(more),
        Event::Item { item } => {
            if let Some(job) = jobs.get(item) {
                let moved = move_files(&results.join(item.to_string()), &job.out);
                let mut facts = kept::facts(job).unwrap_or_else(|| facts.clone());
                facts.insert("command".to_owned(), commands[item].as_str().into());
                let product = Product { facts, logged: true, ..Product::default() };
                on_done(item, moved.map(|()| product));
            }
        }
        Event::ItemFailed { item, message, fault } => {
            let hint = jobs.get(item).and_then(|job| kept::keep(job, &results.join(item.to_string()), &facts));
            let advice = || diagnosis::of_task(suite.backend, &message, || end_of(&first.log)).map(str::to_owned);
            let hint = hint.or_else(advice);
            on_done(item, Err(told(Failure { message, hint, fault, log: None, interrupted: false }, &first.log)));
        }
        other => on_event(other),
    })
    .map(|_| ())
    .map_err(|(failure, ending)| {
        let failure = if failure.message.contains(TAIL) { failure } else { told(failure, &first.log) };
        if failure.hint.is_some() || failure.interrupted {
            return failure;
        }
        let hint = diagnosis::of_driver(suite.backend, ending, &end_of(&first.log)).map(str::to_owned);
        Failure { hint, ..failure }
    })
}

/// Writes, at the head of the log, the `lm_eval` commands that do the same.
fn write_commands(jobs: &[Job<'_>], commands: &[String]) -> Result<(), Failure> {
    let log = &jobs[0].log;
    let lines = jobs.iter().zip(commands).map(|(job, command)| format!("{PROMPT}{command}  # {}\n", job.stage.name));
    let written = std::fs::OpenOptions::new().append(true).create(true).open(log);
    written
        .and_then(|mut file| file.write_all(lines.collect::<String>().as_bytes()))
        .map_err(|error| Failure::stage(format!("cannot write {}: {error}", log.display())))
}

/// Introduces the last lines of a log.
const TAIL: &str = "its last lines:";

/// The driver says in a sentence what was raised; where it was raised stands in the log. What is wrong with the
/// experiment needs no more than the sentence.
fn told(failure: Failure, log: &Path) -> Failure {
    let last = if failure.fault == Fault::Stage && !failure.interrupted { tail(log) } else { Vec::new() };
    let message = match last.as_slice() {
        [] => failure.message,
        last => format!("{}; {TAIL}\n{}", failure.message, last.join("\n")),
    };
    Failure { message, ..failure }.with_log(log)
}

fn parts<'a>(job: &'a Job<'_>) -> (&'a Suite, &'a Task, &'a str, u64) {
    match &job.stage.spec {
        Spec::Eval { suite, task, model, seed, .. } => (suite, task, model, *seed),
        _ => unreachable!("batches hold evaluations only"),
    }
}

/// The `lm_eval` command that does what an evaluation does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equivalent {
    /// To be run in the project's root.
    pub command: String,
    /// What it is without.
    pub differences: Vec<String>,
}

/// The command of an evaluation by the harness, with the paths of this machine as far as they are known: the model's
/// directory is `Err` with the name of the stage that makes it, where it is not there yet.
pub fn equivalent(
    project: &Project,
    python: Option<&Python>,
    graph: &Graph,
    stage: &Stage,
    model: Result<&Path, &str>,
) -> Option<Equivalent> {
    let Spec::Eval { suite, task, seed, .. } = &stage.spec else { return None };
    group_of(stage)?;
    let device = graph.experiments[stage.experiment].settings.device.as_deref();
    let places = Places::of(suite, |dir| project.resolve(dir), lm_eval_of(python), model, device);
    let command = lm_eval_command::command(suite, task, *seed, &places);
    Some(Equivalent { command, differences: lm_eval_command::differences(suite, task) })
}

fn command_of(context: &Context<'_>, job: &Job<'_>) -> String {
    let model = Ok(job.input("model").location.as_path());
    equivalent(context.project, context.python, context.graph, job.stage, model)
        .expect("batches hold evaluations by the harness")
        .command
}

/// How `lm_eval` of an environment is started.
fn lm_eval_of(python: Option<&Python>) -> Vec<String> {
    let Some(python) = python else { return vec!["lm_eval".to_owned()] };
    let script = python.executable.with_file_name("lm_eval");
    if script.is_file() {
        return vec![script.display().to_string()];
    }
    vec![python.executable.display().to_string(), "-m".to_owned(), "lm_eval".to_owned()]
}

/// The driver's job file: models in the order in which they come up, each with its tasks.
fn job_value(context: &Context<'_>, suite: &Suite, jobs: &[Job<'_>], results: &Path, events: &Path) -> Value {
    let (model_args, speed_args) = model_arguments(suite);
    // What the driver writes must not depend on where it runs.
    let nowhere = Places::nowhere(suite);
    let mut models: Vec<Value> = Vec::new();
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    for (item, job) in jobs.iter().enumerate() {
        let (_, task, model, seed) = parts(job);
        let index = *by_name.entry(model).or_insert_with(|| {
            let path = &job.input("model").location;
            models.push(json!({
                "name": model,
                "path": path,
                "model_args": model_args,
                "speed_args": speed_args,
                "tasks": [],
            }));
            models.len() - 1
        });
        let mut entry = serde_json::to_value(&task.options).expect("options become JSON");
        entry["item"] = item.into();
        entry["task"] = task.task.as_str().into();
        entry["name"] = task.name.as_str().into();
        entry["data"] = json!(task.data.as_ref().map(|path| context.project.resolve(path)));
        entry["seed"] = task.options.seed.unwrap_or(seed).into();
        entry["command"] = lm_eval_command::command(suite, task, seed, &nowhere).into();
        entry["kept"] = json!(kept::place(job));
        entry["wanted"] = wanted(context, job.stage, &task.name);
        models[index]["tasks"].as_array_mut().expect("made as a list above").push(entry);
    }
    let dirs: Vec<_> = suite.task_dirs.iter().map(|dir| context.project.resolve(dir)).collect();
    json!({
        "wire": VERSION,
        "events": events,
        "out": results,
        "backend": suite.backend,
        "device": jobs[0].device(context),
        "threads": context.threads,
        "task_dirs": dirs,
        "unsafe_code": suite.unsafe_code,
        "models": models,
    })
}

/// The figures that tables of the experiment ask of a task.
fn wanted(context: &Context<'_>, stage: &Stage, task: &str) -> Value {
    let tables = context.graph.experiments[stage.experiment].tables.values();
    let columns = tables.flat_map(Table::metrics).filter(|column| column.task == task);
    columns.map(|column| json!({ "metric": column.metric, "filter": column.filter })).collect()
}

fn move_files(from: &Path, to: &Path) -> Result<(), Failure> {
    let refuse =
        |error: std::io::Error| Failure::stage(format!("lm_eval left no result in {}: {error}", from.display()));
    for entry in std::fs::read_dir(from).map_err(refuse)? {
        let entry = entry.map_err(refuse)?;
        std::fs::rename(entry.path(), to.join(entry.file_name())).map_err(refuse)?;
    }
    Ok(())
}
