//! Two experiment files: their entries, and their scores.

use std::io::IsTerminal;
use std::path::PathBuf;

use serde_json::json;

use super::results::{Results, compare};
use super::{CliError, Form, heads};
use crate::cli::output;
use crate::cli::session::Session;
use crate::diff::{Change, Entries};

/// Compares two experiments and says whether they differ.
pub(super) fn run(files: &[PathBuf; 2], form: Form) -> Result<bool, CliError> {
    if let Form::Csv = form {
        return Err(CliError::Usage(
            "experiments are compared as text or as JSON, their results as CSV too\n\
             hint: name results/NAME/results.csv of both"
                .to_owned(),
        ));
    }
    // One by one: two files of one name are two states of one experiment.
    let [a, b] = [0, 1].map(|side| Session::open(std::slice::from_ref(&files[side])));
    let sessions = [a?, b?];
    let [spelled_a, spelled_b] = sessions.each_ref().map(|session| session.loaded[0].spelled());
    let entries = Entries::of(&spelled_a, &spelled_b);
    let [a, b] = [0, 1].map(|side| Results::of_experiment(&sessions[side], &files[side]));
    let results = [a?, b?];
    let scores = compare(&results)?;
    let differ = entries.differ() || scores.differ();
    let name = |side: usize| &sessions[side].loaded[0].experiment.name;
    match form {
        Form::Text { all } => {
            let named = |side: usize| format!("{} (experiment {})", files[side].display(), name(side));
            let heads = heads(&[named(0), named(1)]);
            output::print(&format!("{heads}\n{}\n{}", entries.text(painter()), scores.text(all)));
        }
        Form::Json | Form::Csv => {
            let sides = [0, 1].map(|side| json!({ "file": files[side], "experiment": name(side) }));
            let mut object = json!({ "kind": "experiments", "sides": sides, "differ": differ });
            object["file"] = json!(entries.file);
            object["entries"] = json!(entries.entries);
            object["scores"] = scores.json();
            output::print_json(&object);
        }
    }
    Ok(differ)
}

/// Colours of what was added, removed and changed, as git has them; none where nobody looks at a terminal.
fn painter() -> impl Fn(Change, &str) -> String {
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    move |change, line| {
        let colour = match change {
            Change::Added => 32,
            Change::Removed => 31,
            Change::Changed => 33,
        };
        if colours { format!("\u{1b}[{colour}m{line}\u{1b}[0m") } else { line.to_owned() }
    }
}
