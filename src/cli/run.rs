//! `mergelab run`.

use std::mem::ManuallyDrop;
use std::time::Instant;

use mergelab_wire::{Fault, exit};
use serde_json::json;

use super::interrupts::Interrupts;
use super::progress::{self, Progress, describe, full_name};
use super::results::{self, Results};
use super::session::Session;
use super::status::{self, look};
use super::{CliError, Files, commands, depths, elsewhere, output, revisions, vocabularies};
use crate::exec::{self, Ground, Machine, Options, Outcome, Report, Supervisor, Surveyor, shortfalls, unsupported};
use crate::experiment;
use crate::plan::{self, Facts, Graph, Kind, Open, Spec, StageId};
use crate::report::{self, Change, State};
use crate::stage::Context;
use crate::store::Store;

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Arguments {
    #[command(flatten)]
    files: Files,
    /// Run nothing: say what would run, and why
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Run this stage and what it needs, and nothing else; may be given several times
    #[arg(long, value_name = "STAGE")]
    only: Vec<String>,
    /// Run this stage again although its result is there; may be given several times
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
    /// After a failure, go on with what does not depend on it
    #[arg(short, long)]
    keep_going: bool,
    /// Programs side by side [default: one for each core, 4 at most]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Memory budget for all programs together, such as 8GiB [default: nine tenths of the machine's]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<u64>,
    /// Refuse to run where the lock file lacks a commit that is needed
    #[arg(long, conflicts_with = "update")]
    locked: bool,
    /// Ask the hub again which commits branches and tags name, and take them down in the lock file
    #[arg(long, conflicts_with = "dry_run")]
    update: bool,
    /// Print JSON Lines; the last one is a summary
    #[arg(long)]
    json: bool,
}

fn parse_size(text: &str) -> Result<u64, String> {
    let size = experiment::size(text).filter(|size| *size > 0);
    size.ok_or_else(|| "a size is a number and a unit, such as 8GiB or 500MB".to_owned())
}

/// Runs what is not up to date.
pub(super) fn run(arguments: &Arguments, interrupts: &Interrupts) -> Result<u8, CliError> {
    let started = Instant::now();
    // What lives until the end is not taken apart: the program's end frees it at once.
    let session = ManuallyDrop::new(Session::open(&arguments.files.files)?);
    let machine = Machine::look(&session.project.store_path());
    let mut wanted = wanted(&session, &arguments.only)?;
    if arguments.locked {
        revisions::check_locked(&session, &wanted)?;
    }
    let mut blocked = obstacles(&session, &machine, &wanted)?;
    let force = forced(&session, &arguments.force, &wanted)?;
    if arguments.dry_run {
        return dry_run(&session, &blocked, &wanted, &force, arguments.json);
    }
    let mut facts = session.facts();
    revisions::resolve(&session, &wanted, arguments.update, &mut facts, &mut blocked)?;
    for (id, stage) in session.graph.iter() {
        wanted[id.0] &= blocked[stage.experiment].is_empty();
    }
    let open: Vec<usize> = (0..blocked.len()).filter(|&experiment| blocked[experiment].is_empty()).collect();
    say_blocked(&session.graph, &blocked);
    results::check_places(&session, &open)?;
    elsewhere::check_wanted(&session, &wanted)?;

    let store = Store::open(&session.project.store_path())?;
    let _shared = store.lock_shared(|lock| {
        say!("something is being deleted from the store; waiting for {}", lock.display());
    })?;
    // What a killed run left of a stage that it had committed is nobody's work any more. What cannot be removed takes
    // space only.
    let _ = store.sweep();
    let surveyor = Surveyor::new(&session.project, session.python.as_ref(), &store);
    session.look_at_sources(&surveyor, &wanted, &mut facts)?;
    vocabularies::check(&session, &wanted, &facts)?;
    depths::check(&session, &wanted, &facts)?;
    if !arguments.keep_going {
        check_tools(&session, &wanted, &facts)?;
    }
    let supervisor =
        Supervisor::new().map_err(|error| CliError::Failed(format!("cannot supervise programs: {error}")))?;
    let context = Context {
        project: &session.project,
        python: session.python.as_ref(),
        tensor: session.project.tensor_program(),
        launcher: &supervisor,
        graph: &session.graph,
        threads: machine.cores,
        memory: arguments.memory,
    };
    let options = Options {
        jobs: arguments.jobs.map_or(machine.cores.min(4), usize::from),
        memory: arguments.memory.unwrap_or(machine.memory / 10 * 9),
        keep_going: arguments.keep_going,
        force,
        wanted: wanted.clone(),
    };
    let ground = Ground { context, store: &store, surveyor: &surveyor, supervisor: &supervisor, machine: &machine };
    let mut watcher = Progress::new(arguments.json);
    let result = exec::run(ground, &options, facts, &mut watcher, &|handler| interrupts.give_to(handler));
    interrupts.take_back();
    // Losing it costs hashing only.
    let _ = store.save_stats();
    let ended = ManuallyDrop::new(result?);
    let (report, facts) = &*ended;
    if report.interrupted {
        // What cannot be removed takes space only.
        let _ = store.sweep();
    }
    let failure = write_results(&session, &open, report, facts, arguments.only.is_empty());
    summarize(&session.graph, report, &blocked, started.elapsed().as_secs_f64(), arguments.json);
    failure?;
    Ok(exit_code(report, &blocked))
}

/// What stands between each experiment and this machine. What an experiment requires counts only while one of its
/// wanted stages that compute is not up to date: its own results must not block it by the space that they take.
fn obstacles(session: &Session, machine: &Machine, wanted: &[bool]) -> Result<Vec<Vec<String>>, CliError> {
    let graph = &session.graph;
    let mut blocked = Vec::new();
    let mut outlooks = None;
    for (index, experiment) in graph.experiments.iter().enumerate() {
        let mut reasons = shortfalls(experiment, machine);
        if !reasons.is_empty() {
            let outlooks = match &mut outlooks {
                Some(outlooks) => outlooks,
                none => none.insert(look(session)?.0),
            };
            let computes = graph.iter().any(|(id, stage)| {
                let kind = stage.spec.kind();
                let computes = matches!(kind, Kind::Gram | Kind::Fisher | Kind::Merge | Kind::Eval | Kind::Command);
                stage.experiment == index
                    && wanted[id.0]
                    && (computes || matches!(stage.spec, Spec::Lora(_)))
                    && outlooks[id.0].state != exec::State::UpToDate
            });
            if !computes {
                reasons.clear();
            }
        }
        reasons.extend(unsupported(graph, index, wanted));
        blocked.push(reasons);
    }
    Ok(blocked)
}

/// Refuses, before hours of work, what only shows when an evaluation starts: its harness is not there, or too old.
fn check_tools(session: &Session, wanted: &[bool], facts: &Facts) -> Result<(), CliError> {
    for (id, stage) in session.graph.iter().filter(|(id, _)| wanted[id.0]) {
        let name = full_name(&session.graph, id);
        let python = match &session.python {
            Some(python) => python.executable.display().to_string(),
            None => "any Python that mergelab finds".to_owned(),
        };
        let message = match plan::tools(stage, facts) {
            Err(Open::NoTool(tool)) => {
                format!("{name} needs {}, which is not installed in {python}", tool.replace('_', "-"))
            }
            Err(Open::OldTool { name: tool, found, wanted }) => {
                format!("{name} needs {} {wanted} or later; {found} is installed in {python}", tool.replace('_', "-"))
            }
            _ => continue,
        };
        return Err(CliError::Missing { message });
    }
    Ok(())
}

/// Which stages are wanted at all.
fn wanted(session: &Session, only: &[String]) -> Result<Vec<bool>, CliError> {
    if only.is_empty() {
        return Ok(vec![true; session.graph.stages.len()]);
    }
    let mut stages = Vec::new();
    for name in only {
        stages.extend(session.find(name)?);
    }
    Ok(session.graph.closure(&stages))
}

fn forced(session: &Session, names: &[String], wanted: &[bool]) -> Result<Vec<StageId>, CliError> {
    let mut stages = Vec::new();
    for name in names {
        let found = session.find(name)?;
        if let Some(id) = found.iter().find(|id| !wanted[id.0]) {
            let name = &session.graph.stage(*id).name;
            return Err(CliError::Usage(format!("--force {name}: not among what --only runs")));
        }
        stages.extend(found);
    }
    Ok(stages)
}

fn dry_run(
    session: &Session,
    blocked: &[Vec<String>],
    wanted: &[bool],
    force: &[StageId],
    json: bool,
) -> Result<u8, CliError> {
    say_blocked(&session.graph, blocked);
    let (mut outlooks, facts) = look(session)?;
    vocabularies::check(session, wanted, &facts)?;
    depths::check(session, wanted, &facts)?;
    for id in force {
        let outlook = &mut outlooks[id.0];
        (outlook.state, outlook.reason) = (exec::State::Run, "forced".to_owned());
    }
    exec::made_again(&session.graph, &mut outlooks, wanted);
    let commands: Vec<_> = session
        .graph
        .iter()
        .filter(|(id, _)| wanted[id.0] && outlooks[id.0].state != exec::State::UpToDate)
        .filter_map(|(id, _)| Some((id, commands::equivalent(session, &facts, id)?)))
        .collect();
    if json {
        let mut stages = status::as_json(&session.graph, &outlooks, wanted);
        for stage in stages.as_array_mut().into_iter().flatten() {
            let is_of = |id: StageId| {
                session.graph.experiment_name(id) == stage["experiment"]
                    && session.graph.stage(id).name == stage["stage"]
            };
            if let Some((_, equivalent)) = commands.iter().find(|(id, _)| is_of(*id)) {
                stage["command"] = equivalent.command.as_str().into();
            }
        }
        output::print_json(&stages);
    } else {
        status::print(&session.graph, &outlooks, wanted, false);
        output::print(&commands::as_text(session, &commands));
    }
    Ok(exit::DONE)
}

fn say_blocked(graph: &Graph, blocked: &[Vec<String>]) {
    for (experiment, reasons) in graph.experiments.iter().zip(blocked) {
        if !reasons.is_empty() {
            say!("blocked {} ({}):", experiment.name, experiment.file.display());
            for reason in reasons {
                say!("  {reason}");
            }
        }
    }
}

/// Writes the results of the experiments that are complete.
fn write_results(
    session: &Session,
    open: &[usize],
    report: &Report,
    facts: &Facts,
    is_whole: bool,
) -> Result<(), CliError> {
    let is_done = |id: &StageId| matches!(report.outcomes.get(id), Some(Outcome::Hit(_) | Outcome::Ran(_)));
    let complete: Vec<usize> = open
        .iter()
        .copied()
        .filter(|&experiment| {
            let mut stages = session.graph.iter().filter(|(_, stage)| stage.experiment == experiment);
            is_whole && stages.all(|(id, _)| is_done(&id))
        })
        .filter(|&experiment| !session.graph.experiments[experiment].evals.is_empty())
        .collect();
    let results: Results<'_> = report
        .outcomes
        .iter()
        .filter_map(|(id, outcome)| match outcome {
            Outcome::Hit(manifest) | Outcome::Ran(manifest) => Some((*id, (&**facts.results.get(id)?, manifest.key))),
            _ => None,
        })
        .collect();
    let changes = results::changes(session, &complete, &results)?;
    write(session, &changes)?;

    let ran = |experiment: usize| {
        let mut outcomes = report.outcomes.iter().filter(|(id, _)| session.graph.stage(**id).experiment == experiment);
        outcomes.any(|(_, outcome)| matches!(outcome, Outcome::Ran(_)))
    };
    let has_page = |experiment: usize| session.project.root.join(super::report::place(session, experiment)).exists();
    let new: Vec<usize> = complete.into_iter().filter(|&experiment| ran(experiment) || !has_page(experiment)).collect();
    if new.is_empty() {
        return Ok(());
    }
    let (outlooks, facts) = look(session)?;
    write(session, &super::report::changes(session, &new, (&outlooks, &facts))?)
}

fn write(session: &Session, changes: &[Change]) -> Result<(), CliError> {
    for change in changes.iter().filter(|change| change.state != State::Same) {
        say!("wrote   {}", change.path.display());
    }
    Ok(report::files::write(&session.project.root, changes)?)
}

fn summarize(graph: &Graph, report: &Report, blocked: &[Vec<String>], seconds: f64, json: bool) {
    let count = |wanted: &str| report.outcomes.values().filter(|outcome| progress::word(outcome) == wanted).count();
    let (ran, hit, failed, stopped) = (count("ran"), count("hit"), count("failed"), count("blocked"));
    // Each was shown when it came; where there are several they stand together at the end. What was interrupted is nothing to mend.
    let is_to_mend = |outcome: &Outcome| matches!(outcome, Outcome::Failed(failure) if !failure.interrupted);
    let are_several = report.outcomes.values().filter(|outcome| is_to_mend(outcome)).count() > 1;
    for (id, outcome) in &report.outcomes {
        match outcome {
            Outcome::Failed(failure) if are_several && is_to_mend(outcome) => {
                say!("failed  {}: {}", full_name(graph, *id), describe(failure));
            }
            Outcome::Blocked(reason) => say!("skipped {}: {reason}", full_name(graph, *id)),
            _ => {}
        }
    }
    let mut line = format!("{ran} ran, {hit} up to date, {failed} failed");
    if stopped > 0 {
        line += &format!(", {stopped} not tried");
    }
    let blocked_files = blocked.iter().filter(|reasons| !reasons.is_empty()).count();
    if blocked_files > 0 {
        line += &format!(", {blocked_files} of {} experiments blocked", blocked.len());
    }
    say!("{line} in {seconds:.1} s");
    if json {
        let mut stages: Vec<_> = report
            .outcomes
            .iter()
            .map(|(id, outcome)| {
                json!({
                    "experiment": graph.experiment_name(*id),
                    "stage": graph.stage(*id).name,
                    "state": progress::word(outcome),
                    "seconds": report.seconds.get(id).copied().unwrap_or(0.0),
                })
            })
            .collect();
        for (id, stage) in graph.iter().filter(|(_, stage)| !blocked[stage.experiment].is_empty()) {
            let (experiment, stage) = (graph.experiment_name(id), &stage.name);
            stages.push(json!({ "experiment": experiment, "stage": stage, "state": "blocked", "seconds": 0.0 }));
        }
        output::print_json_line(&json!({
            "event": "summary", "ran": ran, "hit": hit, "failed": failed, "seconds": seconds, "stages": stages,
        }));
    }
}

fn exit_code(report: &Report, blocked: &[Vec<String>]) -> u8 {
    let failures = || {
        report.outcomes.values().filter_map(|outcome| match outcome {
            Outcome::Failed(failure) if !failure.interrupted => Some(failure.fault),
            _ => None,
        })
    };
    if report.interrupted {
        exit::INTERRUPTED
    } else if failures().any(|fault| fault == Fault::Experiment) {
        exit::EXPERIMENT
    } else if failures().next().is_some() || blocked.iter().any(|reasons| !reasons.is_empty()) {
        exit::FAILED
    } else {
        exit::DONE
    }
}
