//! Which figures a column means: task, metric and filter by name.

use std::collections::{BTreeMap, HashMap};

use indexmap::{IndexMap, IndexSet};

use super::Errors;
use super::measurement::Measurement;

/// Why measured figures do not fit together.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FiguresError {
    /// Two figures for one cell.
    #[error(
        "`{metric}` (filter `{filter}`) of task `{task}` was measured twice on model `{model}`; \
         give one of the two tasks a `name:` of its own"
    )]
    Twice {
        /// Model.
        model: String,
        /// Task.
        task: String,
        /// Metric.
        metric: String,
        /// Filter; empty if there is none.
        filter: String,
    },
    /// A number that no table can show.
    #[error("`{metric}` of task `{task}` on model `{model}` is {value}, not a finite number")]
    NotFinite {
        /// Model.
        model: String,
        /// Task.
        task: String,
        /// Metric.
        metric: String,
        /// What it is.
        value: f64,
    },
    /// Evaluations that contradict each other on which way is better.
    #[error("`{metric}` of task `{task}`: more is better on model `{higher}`, less is better on model `{lower}`")]
    Direction {
        /// Task.
        task: String,
        /// Metric.
        metric: String,
        /// A model whose evaluation says that more is better.
        higher: String,
        /// A model whose evaluation says that less is better.
        lower: String,
    },
}

/// Filters of one metric of a task, `None` for "no filter", in order of first appearance.
pub(super) type Filters<'a> = IndexSet<Option<&'a str>>;

/// Figures by what a table asks for.
pub(super) struct Index<'a> {
    cells: HashMap<(&'a str, &'a str, &'a str), Vec<&'a Measurement>>,
    tasks: HashMap<&'a str, IndexMap<&'a str, Filters<'a>>>,
}

impl<'a> Index<'a> {
    pub(super) fn new(figures: impl IntoIterator<Item = &'a Measurement>) -> Self {
        let mut index = Self { cells: HashMap::new(), tasks: HashMap::new() };
        for figure in figures {
            let key = (figure.model.as_str(), figure.task.as_str(), figure.metric.as_str());
            index.cells.entry(key).or_default().push(figure);
            let metrics = index.tasks.entry(&figure.task).or_default();
            metrics.entry(&figure.metric).or_default().insert(figure.filter.as_deref());
        }
        index
    }

    /// What there is for a task, by metric; `None` if nothing was measured (or published) for it.
    pub(super) fn task(&self, task: &str) -> Option<&IndexMap<&'a str, Filters<'a>>> {
        self.tasks.get(task)
    }

    /// The figure with exactly this filter.
    pub(super) fn get(&self, model: &str, task: &str, metric: &str, filter: Option<&str>) -> Option<&'a Measurement> {
        let figures = self.cells.get(&(model, task, metric))?;
        figures.iter().copied().find(|figure| figure.filter.as_deref() == filter)
    }

    /// Whether anything of this task is there for this model.
    pub(super) fn has(&self, model: &str, task: &str) -> bool {
        self.tasks
            .get(task)
            .is_some_and(|metrics| metrics.keys().any(|metric| self.cells.contains_key(&(model, task, *metric))))
    }
}

/// Holds measured figures against each other and against what a table can show.
///
/// # Errors
/// All contradictions.
pub(super) fn check<'a>(measured: impl IntoIterator<Item = &'a Measurement>) -> Result<(), Errors<FiguresError>> {
    let mut errors = Vec::new();
    let mut seen = IndexSet::new();
    let mut directions: BTreeMap<(&str, &str), [Option<&str>; 2]> = BTreeMap::new();
    for figure in measured {
        let (model, task, metric) = (figure.model.clone(), figure.task.clone(), figure.metric.clone());
        if let Some(value) = [Some(figure.value), figure.stderr].into_iter().flatten().find(|x| !x.is_finite()) {
            errors.push(FiguresError::NotFinite {
                model: model.clone(),
                task: task.clone(),
                metric: metric.clone(),
                value,
            });
        }
        if !seen.insert((&figure.model, &figure.task, &figure.metric, &figure.filter)) {
            let filter = figure.filter.clone().unwrap_or_default();
            errors.push(FiguresError::Twice { model, task, metric, filter });
        }
        if let Some(higher) = figure.higher_is_better {
            let says = directions.entry((&figure.task, &figure.metric)).or_default();
            says[usize::from(higher)].get_or_insert(&figure.model);
        }
    }
    for ((task, metric), says) in directions {
        if let [Some(lower), Some(higher)] = says.map(|model| model.map(str::to_owned)) {
            errors.push(FiguresError::Direction { task: task.to_owned(), metric: metric.to_owned(), higher, lower });
        }
    }
    Errors::unless_any(errors, ())
}
