//! `density` and `epsilon` of DELLA against each other.
//!
//! Elements stay with probabilities from `density - epsilon` to `density + epsilon`, which must lie between 0 and 1. What is
//! certain without the models' files is refused where it stands; the rest is found when they are merged.

use super::diagnostics::Diagnostic;
use super::filters::{Filtered, partner, reached};
use super::merge::Reader;
use super::read::Fields;
use super::tree::Map;

/// Most layers that are looked at one by one.
const MOST: u64 = 10_000;

impl Reader<'_> {
    /// Checks what is stated for each model of the merge, or of a slice that is part of `whole`; the result has so many layers,
    /// where that is known.
    pub(super) fn check_densities(&self, whole: Option<&Fields<'_>>, layers: impl FnOnce() -> Option<u64>) {
        let Some(method) = self.method.filter(|method| method.name.starts_with("della")) else { return };
        let items = self.fields.node("models").and_then(|models| models.as_list()).unwrap_or_default();
        let shares = shares(layers());
        let bases =
            [Some(&self.fields), whole].map(|fields| fields.and_then(|fields| fields.node("base")?.as_scalar()));
        for item in items {
            let own = item.as_map();
            let name = own.and_then(|own| own.get("model")).map_or(item, |model| &model.value).as_scalar();
            // Nothing of the base is dropped.
            if name.is_some() && bases.contains(&name) {
                continue;
            }
            let stated = |name: &str| {
                let default = method.param(name).and_then(|param| param.default?.parse().ok()).unwrap_or_default();
                let places = own.into_iter().chain([self.fields.map]).chain(whole.map(|whole| whole.map));
                all(places, name, default)
            };
            let (Some(densities), Some(epsilons)) = (stated("density"), stated("epsilon")) else { continue };
            let by_density = reached(&densities)
                .filter_map(|index| Some((&densities[index], partner(&densities, index, &epsilons)?)));
            let by_epsilon =
                reached(&epsilons).filter_map(|index| Some((partner(&epsilons, index, &densities)?, &epsilons[index])));
            for (density, epsilon) in by_density.chain(by_epsilon) {
                self.check_pair(density, epsilon, &shares);
            }
        }
    }

    fn check_pair(&self, density: &Filtered<'_>, epsilon: &Filtered<'_>, shares: &[f64]) {
        // A density that nothing states is 1, and drops nothing.
        let Some(place) = density.place else { return };
        let mut at = shares.iter().filter_map(|share| Some((density.at(*share)?, epsilon.at(*share)?)));
        let is_wrong = |(density, epsilon): &(f64, f64)| {
            *density > 0.0 && *density < 1.0 && (density + epsilon >= 1.0 || density - epsilon <= 0.0)
        };
        let Some((found, by)) = at.find(is_wrong) else { return };
        let room = found.min(1.0 - found);
        let (found, by, room) = (short(found), short(by), short(room));
        let message = format!("`density` {found} has no room for an `epsilon` of {by}");
        let diagnostic = Diagnostic::new(place, message);
        let diagnostic = match epsilon.place {
            Some(span) => diagnostic.other(span, "the epsilon"),
            None => diagnostic.label(format!("epsilon is {by} unless stated")),
        };
        let why = "density - epsilon and density + epsilon must lie between 0 and 1";
        self.context.report.add(diagnostic.hint(format!("{why}: state an `epsilon` below {room}")));
    }
}

/// What counts of a parameter, from the nearest place to the furthest, each by what it says of names; `None` where one is wrong.
fn all<'a>(places: impl Iterator<Item = &'a Map>, name: &str, default: f64) -> Option<Vec<Filtered<'a>>> {
    let stated = places.filter_map(|map| map.get(name)).map(|field| Filtered::of(&field.value));
    let mut all = stated.collect::<Option<Vec<_>>>()?.concat();
    all.push(Filtered::default(default));
    Some(all)
}

/// Parts of the way from the first layer to the last at which there is one. Of an unknown number of layers there are both ends.
fn shares(layers: Option<u64>) -> Vec<f64> {
    match layers {
        Some(1) => vec![1.0],
        Some(layers @ 2..=MOST) => (0..layers).map(|layer| layer as f64 / (layers - 1) as f64).collect(),
        _ => vec![0.0, 1.0],
    }
}

/// A number without what rounding left of others.
fn short(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}
