//! What a person, or a program, sees of a run.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use mergelab_wire::Event;
use serde_json::json;

use super::error::colour_on_stderr;
use super::output;
use super::rate::{self, Pace, Rate};
use crate::exec::{Outcome, Watcher};
use crate::plan::{Graph, StageId};
use crate::stage::Failure;

/// The unit of what is fetched.
const BYTES: &str = "bytes";

/// How often a line says how a transfer goes, where there are no bars.
const SILENCE: Duration = Duration::from_secs(30);

/// Reports a run: bars on a terminal, lines elsewhere, JSON Lines on standard output where asked for.
pub(super) struct Progress {
    bars: Option<MultiProgress>,
    running: HashMap<StageId, ProgressBar>,
    /// Of stages that fetch.
    rates: HashMap<StageId, Rate>,
    /// When a line was last printed of one, where there are no bars.
    told: HashMap<StageId, Instant>,
    json: bool,
}

impl Progress {
    /// `json` also prints JSON Lines.
    pub(super) fn new(json: bool) -> Self {
        // Bars draw themselves on a terminal only; colour follows the same rule and NO_COLOR.
        let bars = colour_on_stderr().then(MultiProgress::new);
        Self { bars, running: HashMap::new(), rates: HashMap::new(), told: HashMap::new(), json }
    }

    fn line(&self, text: &str) {
        match &self.bars {
            Some(bars) => {
                let _ = bars.println(text);
            }
            None => say!("{text}"),
        }
    }
}

/// A stage's name with its experiment's where there are several.
pub(super) fn full_name(graph: &Graph, id: StageId) -> String {
    let name = &graph.stage(id).name;
    if graph.experiments.len() > 1 { format!("{} {name}", graph.experiment_name(id)) } else { name.clone() }
}

/// The word for an outcome in JSON.
pub(super) fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Hit(_) => "hit",
        Outcome::Ran(_) => "ran",
        Outcome::Failed(_) => "failed",
        Outcome::Blocked(_) => "blocked",
    }
}

/// A failure in full: message, hint, log.
pub(super) fn describe(failure: &Failure) -> String {
    let mut text = failure.message.clone();
    if let Some(hint) = &failure.hint {
        text += &format!("\n  hint: {hint}");
    }
    if let Some(log) = &failure.log {
        text += &format!("\n  log: {}", log.display());
    }
    text
}

impl Watcher for Progress {
    fn started(&mut self, graph: &Graph, id: StageId) {
        let name = full_name(graph, id);
        if self.json {
            let (experiment, stage) = (graph.experiment_name(id), &graph.stage(id).name);
            output::print_json_line(&json!({ "event": "started", "experiment": experiment, "stage": stage }));
        }
        match &self.bars {
            None => say!("run     {name}"),
            Some(bars) => {
                let bar = bars.add(ProgressBar::new_spinner());
                let style = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {msg}");
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
                bar.set_prefix(name);
                bar.enable_steady_tick(Duration::from_millis(120));
                self.running.insert(id, bar);
            }
        }
    }

    fn event(&mut self, graph: &Graph, id: StageId, event: &Event) {
        let pace = match event {
            Event::Progress { done, total, unit } if unit == BYTES => {
                self.rates.entry(id).or_default().at(Instant::now(), *done, *total)
            }
            _ => None,
        };
        if self.json && matches!(event, Event::Progress { .. } | Event::Note { .. }) {
            let mut line = serde_json::to_value(event).expect("an event becomes JSON");
            if let Some(Pace { bytes_per_second, seconds_left }) = pace {
                line["bytes_per_second"] = bytes_per_second.round().into();
                line["seconds_left"] = seconds_left.round().into();
            }
            line["experiment"] = graph.experiment_name(id).into();
            line["stage"] = graph.stage(id).name.as_str().into();
            output::print_json_line(&line);
        }
        match event {
            Event::Progress { done, total, unit } => {
                if let Some(bar) = self.running.get(&id) {
                    bar.set_message(if unit == BYTES {
                        rate::in_words(*done, *total, pace)
                    } else if *total > 0 {
                        format!("{done}/{total} {unit}")
                    } else {
                        format!("{done} {unit}")
                    });
                } else if unit == BYTES && self.told.get(&id).is_none_or(|told| told.elapsed() >= SILENCE) {
                    // A line now and then where there are no bars: nothing else shows that a long transfer goes on.
                    if self.told.insert(id, Instant::now()).is_some() {
                        self.line(&format!(
                            "fetch   {}: {}",
                            full_name(graph, id),
                            rate::in_words(*done, *total, pace)
                        ));
                    }
                }
            }
            Event::Note { message } => self.line(&format!("note    {}: {message}", full_name(graph, id))),
            _ => {}
        }
    }

    fn finished(&mut self, graph: &Graph, id: StageId, outcome: &Outcome, seconds: f64) {
        self.rates.remove(&id);
        self.told.remove(&id);
        if let Some(bar) = self.running.remove(&id) {
            bar.finish_and_clear();
        }
        let name = full_name(graph, id);
        if self.json && !matches!(outcome, Outcome::Hit(_)) {
            let (experiment, stage) = (graph.experiment_name(id), &graph.stage(id).name);
            let state = word(outcome);
            output::print_json_line(&json!({
                "event": "finished", "experiment": experiment, "stage": stage, "state": state, "seconds": seconds,
            }));
        }
        match outcome {
            Outcome::Hit(_) | Outcome::Blocked(_) => {}
            Outcome::Ran(_) => self.line(&format!("done    {name} ({seconds:.1} s)")),
            Outcome::Failed(failure) => self.line(&format!("failed  {name}: {}", describe(failure))),
        }
    }

    fn note(&mut self, message: &str) {
        self.line(&format!("note    {message}"));
    }
}
