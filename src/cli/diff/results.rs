//! Two sets of results: files, or what an experiment measured.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};

use super::{CliError, Form, Side, heads};
use crate::cli::results::{figures, up_to_date};
use crate::cli::session::Session;
use crate::cli::status::look;
use crate::cli::{evaluated, output};
use crate::diff::{Pairing, Scores, match_up};
use crate::digest::Key;
use crate::project::Project;
use crate::report::{self, Measurement, Untested, higher_is_better};
use crate::samples::{Choice, Scored, held_against, scored};
use crate::store::{Inspection, Store};

/// Figures, and the store that may have the answers behind them.
pub(super) struct Results {
    /// As the command line says it.
    name: String,
    pub(super) figures: Vec<Measurement>,
    store: Option<Store>,
}

impl Results {
    /// Of a file of figures.
    fn of_file(file: &Path) -> Result<Self, CliError> {
        let folder = file.parent().unwrap_or(Path::new(""));
        let store = Store::open_existing(&Project::find(folder)?.store_path())?;
        Ok(Self { name: file.display().to_string(), figures: report::files::results(file)?, store })
    }

    /// Of an experiment.
    pub(super) fn of_experiment(session: &Session, file: &Path) -> Result<Self, CliError> {
        let (outlooks, facts) = look(session)?;
        let figures = figures(session, 0, &up_to_date(&outlooks, &facts))?;
        Ok(Self { name: file.display().to_string(), figures, store: session.existing_store()? })
    }

    fn open(side: &Side) -> Result<Self, CliError> {
        match side {
            Side::Experiment(file) => Self::of_experiment(&Session::open(std::slice::from_ref(file))?, file),
            Side::Results(file) | Side::Directory(file) | Side::Stage(_, file) => Self::of_file(file),
        }
    }

    /// The scores by a metric of the answers behind a figure.
    fn scored(&self, figure: &Measurement, choice: &Choice) -> Result<Result<Scored, Untested>, CliError> {
        let nothing = Ok(Err(Untested::NoAnswers));
        let (Some(store), Some(key)) = (&self.store, figure.key.as_deref().and_then(|key| key.parse().ok())) else {
            return nothing;
        };
        let Inspection::Hit(manifest) = store.inspect(&Key(key))? else { return nothing };
        let location = store.object_dir(&manifest.digest);
        scored(Some((&manifest.outputs, &location)), choice).map_err(|error| evaluated::refuse(&manifest.stage, error))
    }
}

/// Compares two sets of results and says whether they differ.
pub(super) fn run(sides: [Side; 2], form: Form) -> Result<bool, CliError> {
    let [first, second] = sides;
    let results = [Results::open(&first)?, Results::open(&second)?];
    let scores = compare(&results)?;
    match form {
        Form::Json => {
            let mut object = json!({ "kind": "results", "sides": names(&results), "differ": scores.differ() });
            object["scores"] = scores.json();
            output::print_json(&object);
        }
        Form::Csv => output::print(&scores.csv()),
        Form::Text { all } => {
            let names = results.each_ref().map(|results| results.name.clone());
            output::print(&format!("{}\n{}", heads(&names), scores.text(all)));
        }
    }
    Ok(scores.differ())
}

/// The sides as JSON has them.
pub(super) fn names(results: &[Results; 2]) -> Value {
    results.iter().map(|results| json!({ "file": results.name })).collect()
}

/// Matches the figures of two results, and tests those whose answers are in a store on the documents of both.
pub(super) fn compare(results: &[Results; 2]) -> Result<Scores<'_>, CliError> {
    let [a, b] = results;
    let mut scores = match_up([&a.figures, &b.figures]).map_err(|(side, error)| CliError::Source {
        message: format!("{}: {error}", results[side].name),
        hint: Some("figures are matched by model, task, metric, filter and source".to_owned()),
    })?;
    // The answers of a side are read once for each metric.
    let mut read: HashMap<(usize, String, String), Result<Scored, Untested>> = HashMap::new();
    for score in &mut scores {
        let Some(both) = score.both() else { continue };
        let [Some(key_a), Some(key_b)] = both.map(|figure| figure.key.as_deref()) else { continue };
        if key_a == key_b {
            score.pairing = Pairing::Same;
            continue;
        }
        let [figure, _] = both;
        let choice = Choice {
            metric: figure.metric.clone(),
            filter: figure.filter.clone(),
            // The test is two-sided: which way is better decides nothing of it.
            higher_is_better: figure.higher_is_better.or_else(|| higher_is_better(&figure.metric)).unwrap_or(true),
            n_shot: None,
        };
        let places = [0, 1].map(|side| (side, both[side].key.clone().unwrap_or_default(), choice.to_string()));
        for (side, place) in places.iter().enumerate() {
            if !read.contains_key(place) {
                read.insert(place.clone(), results[side].scored(both[side], &choice)?);
            }
        }
        if let [Ok(baseline), Ok(model)] = places.each_ref().map(|place| read[place].as_ref())
            && let Ok(finding) = held_against(model, baseline, &choice)
        {
            score.pairing = Pairing::Found(finding);
        }
    }
    Ok(Scores(scores))
}
