//! Which values of a table are tested against which, and what the tests say of a cell.
//!
//! Models are held against a table's `baseline`, and with `bold: not_worse` against the best of a column. What a test found
//! comes from outside ([`super::paired`]): nothing here sees an answer.

use std::collections::HashMap;

use super::filled::{Figures, Filled};
use super::grid::{Against, Verdict};
use super::measurement::Measurement;
use super::paired::{Comparison, Finding, Index, Paired, PairedError, Side, Untested};
use super::text::plain;
use crate::experiment::{Bold, Row, Table};

/// What is to be tested in a column.
pub(super) struct Wanted {
    /// Models against the baseline.
    pub(super) baseline: Vec<Comparison>,
    /// Models against the best one.
    pub(super) best: Vec<Comparison>,
}

impl Wanted {
    pub(super) fn of(table: &Table, filled: &Filled<'_>, figures: &Figures<'_>) -> Self {
        let baseline = table.baseline.as_deref().and_then(|model| filled.measured_of(model, figures));
        let best = (table.bold == Bold::NotWorse).then(|| filled.best_figure()).flatten();
        let against = |baseline: Option<&Measurement>| {
            baseline.map_or_else(Vec::new, |baseline| against(baseline, &table.rows, filled))
        };
        Self { baseline: against(baseline), best: against(best) }
    }

    pub(super) fn into_all(self) -> impl Iterator<Item = Comparison> {
        self.baseline.into_iter().chain(self.best)
    }
}

/// All measured rows but the model itself, each once; none where nobody says which way is better.
fn against(baseline: &Measurement, rows: &[Row], filled: &Filled<'_>) -> Vec<Comparison> {
    let Some(higher_is_better) = filled.higher else { return Vec::new() };
    let side = |figure: &Measurement| Side { model: figure.model.clone(), key: figure.key.clone().unwrap_or_default() };
    let mut all: Vec<Comparison> = Vec::new();
    for figure in (0..rows.len()).filter_map(|row| filled.measured(row)) {
        let (baseline, model) = (side(baseline), side(figure));
        if model.model != baseline.model && all.iter().all(|known| known.model != model) {
            let (task, metric, filter) = (figure.task.clone(), figure.metric.clone(), figure.filter.clone());
            all.push(Comparison { task, metric, filter, higher_is_better, baseline, model });
        }
    }
    all
}

/// What tests say of a column, by model.
#[derive(Default)]
pub(super) struct Tests<'a> {
    baseline: HashMap<&'a str, Result<Finding, Untested>>,
    best: HashMap<&'a str, Result<Finding, Untested>>,
    higher: bool,
}

impl<'a> Tests<'a> {
    /// What was found of what is wanted.
    ///
    /// # Errors
    /// All that is not known.
    pub(super) fn of(wanted: &Wanted, paired: &Index<'a>) -> Result<Self, Vec<PairedError>> {
        let mut errors = Vec::new();
        let mut found = |comparisons: &[Comparison]| {
            let mut by_model = HashMap::new();
            for comparison in comparisons {
                match paired.get(comparison) {
                    Ok(Paired { model, result, .. }) => {
                        by_model.insert(model.model.as_str(), *result);
                    }
                    Err(error) => errors.push(error),
                }
            }
            by_model
        };
        let (baseline, best) = (found(&wanted.baseline), found(&wanted.best));
        let higher = wanted.baseline.first().is_none_or(|comparison| comparison.higher_is_better);
        if errors.is_empty() { Ok(Self { baseline, best, higher }) } else { Err(errors) }
    }

    /// How many tests against the baseline were made.
    pub(super) fn count(&self) -> usize {
        self.baseline.values().filter(|result| result.is_ok()).count()
    }

    /// What a model is beside the baseline.
    pub(super) fn against(&self, model: &str) -> Option<Against> {
        let finding = self.baseline.get(model)?.ok()?;
        let verdict = match (finding.is_significant(), (finding.difference > 0.0) == self.higher) {
            (false, _) => Verdict::Even,
            (true, true) => Verdict::Better,
            (true, false) => Verdict::Worse,
        };
        Some(Against { p: super::results::shortest(finding.p), verdict })
    }

    /// Whether a test does not tell a model from the best.
    pub(super) fn is_not_worse(&self, model: &str) -> bool {
        self.best.get(model).is_some_and(|result| result.is_ok_and(|finding| !finding.is_significant()))
    }

    /// What a column's tests lack, for a remark: the column, of which rows where it is not all, and why.
    pub(super) fn untested(&self, table: &Table, filled: &Filled<'_>, figures: &Figures<'_>) -> Vec<String> {
        let label = filled.label();
        if !filled.is_measured() {
            return Vec::new();
        }
        if filled.higher.is_none() {
            return vec![format!("{label} (nobody says which way is better)")];
        }
        if let Some(baseline) = &table.baseline
            && filled.measured_of(baseline, figures).is_none()
        {
            return vec![format!("{label} ({} was not measured)", name(table, baseline))];
        }
        let results = |model: &str| [self.baseline.get(model), self.best.get(model)].into_iter().flatten();
        let mut rows: Vec<(&str, Option<Untested>)> = Vec::new();
        let (mut replicates, mut others) = (Vec::new(), Vec::new());
        for (place, row) in table.rows.iter().enumerate() {
            let model = filled.measured(place).map_or(row.model.as_str(), |figure| figure.model.as_str());
            if filled.replicates(place).is_some() {
                replicates.push(name(table, &row.model));
            } else if row.elsewhere.is_some() {
                others.extend(filled.conditions(place).map(|_| name(table, &row.model)));
            } else if results(model).next().is_some() && rows.iter().all(|(known, _)| *known != model) {
                rows.push((model, results(model).find_map(|result| result.err())));
            }
        }
        let of = |reason: Untested| {
            let without: Vec<_> =
                rows.iter().filter(|(_, why)| *why == Some(reason)).map(|(model, _)| *model).collect();
            if without.is_empty() {
                return None;
            }
            let names: Vec<_> = without.iter().map(|model| name(table, model)).collect();
            let of = if without.len() == rows.len() { String::new() } else { format!(" of {}", names.join(", ")) };
            Some(format!("{label}{of} ({})", reason.reason()))
        };
        let reasons = [Untested::NoAnswers, Untested::NoScores, Untested::OtherDocuments];
        let mut untested: Vec<String> = reasons.into_iter().filter_map(of).collect();
        for (names, why) in [(replicates, "a mean over replicates"), (others, "of another experiment")] {
            if !names.is_empty() {
                untested.push(format!("{label} of {} ({why})", names.join(", ")));
            }
        }
        untested
    }
}

/// What a table calls a model.
pub(super) fn name(table: &Table, model: &str) -> String {
    let row = table.rows.iter().find(|row| row.model == model);
    plain(row.and_then(|row| row.label.as_deref()).unwrap_or(model))
}
