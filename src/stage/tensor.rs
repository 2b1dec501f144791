//! What Gram, Fisher and merge stages have in common: a stage file, and `mergelab-tensor` to do it.

use std::ffi::OsString;
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
    let Some(tensor) = &context.tensor else {
        return Err(Failure::stage("mergelab-tensor is not beside mergelab, nor in MERGELAB_TENSOR, nor on the path")
            .hint("build it with `make build`"));
    };
    let (path, events) = (scratch.join("stage.json"), scratch.join("events.jsonl"));
    let file = StageFile {
        wire: VERSION,
        stage: job.stage.name.clone(),
        out: out.to_path_buf(),
        partial: job.partial.clone(),
        events: events.clone(),
        device: device.to_owned(),
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
        environment: job.visible_gpus().into_iter().collect(),
        unset: TOKENS.map(OsString::from).to_vec(),
        locks: vec![job.lock],
        log: job.log.clone(),
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
