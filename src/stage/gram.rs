//! Gram capture: the model's directory and the rows go to the program of the engine.

use std::path::PathBuf;

use mergelab_wire::{Engine, Event, GramJob, Job as Work, RowRange, Rows};

use super::{Context, Failure, Job, Product, capture, shards, tensor};
use crate::experiment::{Capture, DataSource};
use crate::plan::{Spec, StageId};

/// The file that a data set's rows come from, as the experiment names it.
fn source_of(context: &Context<'_>, data: StageId) -> Option<PathBuf> {
    let Spec::Data(data) = &context.graph.stage(data).spec else { return None };
    match &data.source {
        DataSource::Path(path) => Some(path.clone()),
        DataSource::From(output) => {
            let command = PathBuf::from(format!("commands.{}", output.command));
            Some(output.path.as_ref().map_or(command.clone(), |path| command.join(path)))
        }
        DataSource::Hub { repo, .. } => Some(repo.into()),
    }
}

/// What the program is told to run on which of the stage's inputs: the model and the data of these roles.
pub(super) fn work(
    context: &Context<'_>,
    (capture, rows, strict): (&Capture, &Rows, bool),
    job: &Job<'_>,
    (model, data): (&str, &str),
) -> GramJob {
    GramJob {
        model: job.input(model).location.clone(),
        data: job.input(data).location.join("rows.jsonl"),
        shown: job.stage.need(data).and_then(|id| source_of(context, id)),
        rows: rows.clone(),
        range: None,
        strict,
        max_length: capture.max_length,
        add_special_tokens: capture.add_special_tokens,
        tokens: capture.tokens,
        skip_first: capture.skip_first,
        chat_template: capture.chat_template.as_ref().map(|path| context.project.resolve(path)),
        exclude: capture.exclude.clone(),
        dtype: capture.dtype.clone(),
        engine: Engine::Native,
    }
}

/// Captures the Grams of one model on one data set, or on a range of its rows.
pub(super) fn run(
    context: &Context<'_>,
    (capture, rows, strict): (&Capture, &Rows, bool),
    range: Option<RowRange>,
    job: &Job<'_>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    if range.is_some_and(|range| range.count == 0) {
        return shards::of_no_rows(job, on_event);
    }
    let family = job.input("model").family.as_deref();
    let engine = capture.engine.resolve(family);
    let work = GramJob { range, engine, ..work(context, (capture, rows, strict), job, ("model", "data")) };
    if engine != Engine::Transformers {
        return tensor::run(context, job, Work::Gram(work), on_event);
    }
    if capture.engine == Engine::Auto {
        let family = family.unwrap_or("(none)");
        let message = format!("no native forward pass for model_type {family:?}: captured by `engine: transformers`");
        on_event(Event::Note { message });
    }
    capture::run(context, job, work, on_event)
}
