//! What stages of tensors have in common: a stage file, and `mergelab-tensor` to do it.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;

use mergelab_wire::{Event, Fault, Job as Work, StageFile, VERSION};

use super::launch::TOKENS;
use super::{Context, Ending, Failure, Job, Product, Program};

/// Writes the stage file and runs the tensor program on it.
pub(super) fn run(
    context: &Context<'_>,
    job: &Job<'_>,
    work: Work,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    run_in(context, job, (&job.scratch, &job.out, job.device(context)), work, on_event)
}

/// Runs the tensor program on a device with a scratch directory and an output directory of its own, for work that is only a
/// part of the stage's.
pub(super) fn run_in(
    context: &Context<'_>,
    job: &Job<'_>,
    (scratch, out, device): (&Path, &Path, &str),
    work: Work,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    let errand = Errand {
        name: &job.stage.name,
        scratch,
        out,
        partial: &job.partial,
        log: &job.log,
        device,
        environment: job.visible_gpus().into_iter().collect(),
        locks: vec![job.lock],
    };
    launch(context, errand, work, on_event)
}

/// Runs the tensor program for no stage: what it makes is not kept in the store. `scratch` holds its files, its log among
/// them.
pub(super) fn run_alone(
    context: &Context<'_>,
    name: &str,
    (scratch, out): (&Path, &Path),
    work: Work,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    let (partial, log) = (scratch.join("partial"), scratch.join("log"));
    let (environment, locks) = (Vec::new(), Vec::new());
    let errand = Errand { name, scratch, out, partial: &partial, log: &log, device: "cpu", environment, locks };
    launch(context, errand, work, on_event)
}

/// What the tensor program is started with, beside its work.
struct Errand<'e> {
    /// The stage, for messages.
    name: &'e str,
    scratch: &'e Path,
    out: &'e Path,
    partial: &'e Path,
    log: &'e Path,
    device: &'e str,
    environment: Vec<(OsString, OsString)>,
    locks: Vec<&'e File>,
}

fn launch(
    context: &Context<'_>,
    errand: Errand<'_>,
    work: Work,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    let Some(tensor) = &context.tensor else {
        return Err(Failure::stage("mergelab-tensor is not beside mergelab, nor in MERGELAB_TENSOR, nor on the path")
            .hint("build it with `make build`"));
    };
    let (path, events) = (errand.scratch.join("stage.json"), errand.scratch.join("events.jsonl"));
    let file = StageFile {
        wire: VERSION,
        stage: errand.name.to_owned(),
        out: errand.out.to_path_buf(),
        partial: errand.partial.to_path_buf(),
        events: events.clone(),
        device: errand.device.to_owned(),
        threads: context.threads,
        memory: context.memory,
        job: work,
    };
    let text = serde_json::to_vec_pretty(&file).expect("a stage file becomes JSON");
    std::fs::write(&path, text).map_err(|error| Failure::stage(format!("cannot write {}: {error}", path.display())))?;
    let program = Program {
        program: tensor.into(),
        arguments: vec![path.into()],
        directory: context.project.root.clone(),
        environment: errand.environment,
        unset: TOKENS.map(OsString::from).to_vec(),
        locks: errand.locks,
        log: errand.log.to_path_buf(),
        events: Some(events),
        timeout: None,
        stalled_after: None,
    };
    run_reporting("mergelab-tensor", context, &program, on_event)
}

/// Runs a program that reports by events; its own account of a failure is preferred to its last lines. Facts are kept
/// for the product and passed on too, for a batch has products before its program ends.
pub(super) fn run_reporting(
    name: &str,
    context: &Context<'_>,
    program: &Program<'_>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    follow(name, context, program, on_event).map_err(|(failure, _)| failure)
}

/// As [`run_reporting`], with how the program ended beside its failure, where it was started.
pub(super) fn follow(
    name: &str,
    context: &Context<'_>,
    program: &Program<'_>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, (Failure, Option<Ending>)> {
    let mut product = Product { logged: true, ..Product::default() };
    let mut failure: Option<(String, Option<String>, Fault)> = None;
    let ending = context.launcher.run(program, &mut |event| match event {
        Event::Facts { facts } => {
            product.facts.extend(facts.clone());
            on_event(Event::Facts { facts });
        }
        Event::Written { path, size, sha256 } => {
            if let Ok(digest) = sha256.parse() {
                product.hashed.insert(path, (size, digest));
            }
        }
        Event::Error { message, hint, fault } => failure = Some((message, hint, fault)),
        other => on_event(other),
    });
    match (ending, failure) {
        (Ok(Ending::Code(0)), _) => Ok(product),
        (Ok(ending @ Ending::Code(code)), Some((message, hint, fault))) if !(129..=192).contains(&code) => {
            let log = Some(program.log.clone());
            Err((Failure { message, hint, fault, log, interrupted: false }, Some(ending)))
        }
        (Ok(ending), _) => Err((Failure::of_program(name, ending, &program.log), Some(ending))),
        (Err(error), _) => Err((Failure::stage(format!("cannot start {name}: {error}")), None)),
    }
}
