//! Sweeps: one entry of the file becomes many, each with a name of its own and a mapping without `sweep`.
//!
//! An entry is multiplied by its own `sweep:` and by swept entries that it names where one is asked for (Grams in a
//! merge, data in a Gram, a command in a model or in data). Of those, entries swept over the same keys and values go
//! together; others multiply.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use super::diagnostics::{Diagnostic, Report, Span};
use super::read::{did_you_mean, is_name_byte, wrong_type};
use super::tree::{Field, Map, Node, Value};

/// Most expansions of one file.
pub(super) const MAX_EXPANSIONS: usize = 10_000;

/// An entry and what it expands to.
#[derive(Debug)]
pub(super) struct Family {
    /// The section that the entry stands in.
    pub(super) section: &'static str,
    /// The entry's name in the file.
    pub(super) entry: String,
    /// Where the name stands.
    pub(super) key: Span,
    /// Whether it is swept: its own name then stands for all of its members.
    pub(super) swept: bool,
    /// Whether its sweep is wrong, so that nobody knows what its members would be called.
    pub(super) broken: bool,
    pub(super) members: Vec<Member>,
}

/// One expansion; an entry without a sweep has one, under its own name.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    /// The entry with the swept values in place.
    pub(super) view: Arc<Node>,
    /// What it is swept over: key and spelling.
    pub(super) coordinates: Vec<(String, String)>,
    /// Which expansion of each swept entry belongs to this one.
    pub(super) picks: Picks,
}

/// The expansions that belong together, by section and entry.
pub(super) type Picks = HashMap<(&'static str, String), String>;

impl Family {
    /// An entry of a section that knows no sweeps.
    pub(super) fn single(section: &'static str, entry: &str, field: &Field) -> Self {
        let member = Member {
            name: entry.to_owned(),
            view: Arc::clone(&field.value),
            coordinates: Vec::new(),
            picks: HashMap::new(),
        };
        let (entry, key) = (entry.to_owned(), field.key);
        Self { section, entry, key, swept: false, broken: false, members: vec![member] }
    }

    /// The values in a member's name.
    pub(super) fn suffix(member: &Member) -> String {
        member.coordinates.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join("-")
    }

    fn coordinates(&self) -> impl Iterator<Item = &[(String, String)]> {
        self.members.iter().map(|member| member.coordinates.as_slice())
    }
}

/// Expands the entries of one section; keeps the count for the whole file.
pub(super) struct Expander<'a> {
    pub(super) report: &'a Report,
    /// How many expansions the file may still have.
    pub(super) left: &'a Cell<usize>,
    /// Whether a swept key that the section does not know is a placeholder, and stays out of the mapping.
    pub(super) placeholders: Option<&'a [&'static str]>,
    /// Swept keys that belong inside of a mapping, each with the key of that mapping.
    pub(super) inner: &'a [(&'static str, &'static str)],
}

/// A key and the values it takes.
struct Axis<'a> {
    key: &'a str,
    place: Span,
    values: Vec<(&'a str, &'a Arc<Node>)>,
}

impl Expander<'_> {
    /// Expands one entry; `multipliers` gives the swept entries that a mapping names.
    pub(super) fn expand<'f>(
        &self,
        section: &'static str,
        entry: &str,
        field: &Field,
        multipliers: impl Fn(&Map) -> Vec<&'f Family>,
    ) -> Family {
        let (entry, key) = (entry.to_owned(), field.key);
        let mut family = Family { section, entry, key, swept: false, broken: false, members: Vec::new() };
        let Some(axes) = self.axes(&field.value) else {
            return Family { swept: true, broken: true, ..family };
        };
        family.swept = !axes.is_empty();
        if !axes.is_empty() && !self.fits(&axes, field) {
            return Family { broken: true, ..family };
        }
        let mut at = vec![0; axes.len()];
        loop {
            let view = self.view(field, &axes, &at);
            let own: Vec<_> =
                axes.iter().zip(&at).map(|(axis, &at)| (axis.key.to_owned(), axis.values[at].0.to_owned())).collect();
            let multiply = view.as_map().map(&multipliers).unwrap_or_default();
            if multiply.iter().any(|family| family.broken) {
                return Family { swept: true, broken: true, ..family };
            }
            family.swept |= !multiply.is_empty();
            if !self.members(&mut family, field, &view, &own, &multiply) {
                return Family { broken: true, ..family };
            }
            if !advance(&mut at, |index| axes[index].values.len()) {
                return family;
            }
        }
    }

    /// The entry's own sweep, or `None` when it is wrong; no sweep is no axes.
    fn axes<'n>(&self, node: &'n Arc<Node>) -> Option<Vec<Axis<'n>>> {
        let Some((map, field)) = node.as_map().and_then(|map| Some((map, map.get("sweep")?))) else {
            return Some(Vec::new());
        };
        let before = self.report.count();
        let Some(sweep) = field.value.as_map().filter(|sweep| !sweep.is_empty()) else {
            let diagnostic = wrong_type(&field.value, "`sweep`", "a mapping from keys to lists of values");
            self.report.add(diagnostic.hint("as in `sweep: { alpha: [0.1, 0.5] }`"));
            return None;
        };
        let axes = sweep
            .iter()
            .filter_map(|(key, swept)| {
                if let Some(direct) = map.get(key) {
                    let diagnostic = Diagnostic::new(swept.key, format!("`{key}` is swept and also set directly"));
                    self.report.add(diagnostic.other(direct.key, "set here").hint("keep one of the two"));
                }
                self.axis(key, swept)
            })
            .collect();
        // The report drops what it has already seen, so a broken axis also shows as one that is missing.
        (self.report.count() == before).then_some(axes).filter(|axes: &Vec<_>| axes.len() == sweep.len())
    }

    fn axis<'n>(&self, key: &'n str, field: &'n Field) -> Option<Axis<'n>> {
        let Some(items) = field.value.as_list() else {
            self.report.add(wrong_type(&field.value, &format!("the sweep of `{key}`"), "a list of values"));
            return None;
        };
        if items.is_empty() {
            self.report.add(
                Diagnostic::new(field.value.span, format!("the sweep of `{key}` is empty"))
                    .hint("give it values, or remove it"),
            );
            return None;
        }
        let mut first: HashMap<&str, Span> = HashMap::new();
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            let Some(text) = item.as_scalar().filter(|_| !item.is_null()) else {
                let diagnostic = wrong_type(item, &format!("a value of the sweep of `{key}`"), "one word or number");
                self.report
                    .add(diagnostic.hint("it becomes a part of names; give lists and mappings entries of their own"));
                continue;
            };
            if text.is_empty() || !text.bytes().all(is_name_byte) {
                let message = format!("`{text}` cannot be a part of a name, and swept values are");
                let hint = "use letters, digits, `.`, `_` and `-`, or write entries of their own with names you choose";
                self.report.add(Diagnostic::new(item.span, message).hint(hint));
                continue;
            }
            if let Some(place) = first.insert(text, item.span) {
                let message =
                    format!("`{text}` stands twice in the sweep of `{key}`: two expansions would have one name");
                self.report.add(Diagnostic::new(item.span, message).other(place, "first here"));
                continue;
            }
            values.push((text, item));
        }
        Some(Axis { key, place: field.key, values })
    }

    /// Whether the product of the axes is within what the file may have; reports when not.
    fn fits(&self, axes: &[Axis<'_>], field: &Field) -> bool {
        let product = axes.iter().try_fold(1_usize, |product, axis| product.checked_mul(axis.values.len()));
        product.is_some_and(|product| product <= self.left.get()) || self.too_many(field)
    }

    fn too_many(&self, field: &Field) -> bool {
        let message = format!("with this sweep the file has more than {MAX_EXPANSIONS} expansions");
        self.report.add(Diagnostic::new(field.key, message).hint("sweep over fewer values, or split the experiment"));
        false
    }

    /// The entry's mapping with `sweep` taken out and the values of one combination put in.
    fn view(&self, field: &Field, axes: &[Axis<'_>], at: &[usize]) -> Arc<Node> {
        let Some(map) = field.value.as_map().filter(|_| !axes.is_empty()) else { return Arc::clone(&field.value) };
        let mut view: Map =
            map.iter().filter(|(key, _)| *key != "sweep").map(|(key, field)| (key.clone(), field.clone())).collect();
        for (axis, &at) in axes.iter().zip(at) {
            let value = Field { key: axis.place, value: Arc::clone(axis.values[at].1) };
            if let Some((_, outer)) = self.inner.iter().find(|(key, _)| *key == axis.key) {
                self.put_inside(&mut view, outer, axis.key, value);
            } else if self.placeholders.is_none_or(|known| known.contains(&axis.key)) {
                view.insert(axis.key.to_owned(), value);
            }
        }
        Arc::new(Node::new(field.value.span, Value::Map(view)))
    }

    /// Puts a value into the mapping under `outer`, in the place of the one that may be there.
    fn put_inside(&self, view: &mut Map, outer: &str, key: &str, value: Field) {
        let (place, span, mut inside) = match view.get(outer) {
            None => (value.key, value.key, Map::new()),
            Some(field) => match field.value.as_map() {
                Some(map) => (field.key, field.value.span, map.clone()),
                None => {
                    let message = format!("`{key}` is swept, and `{outer}` is no mapping that has one");
                    let diagnostic = Diagnostic::new(value.key, message).other(field.value.span, "here");
                    self.report.add(diagnostic.hint(format!("write `{outer}: {{ sample: N }}`")));
                    return;
                }
            },
        };
        inside.insert(key.to_owned(), value);
        view.insert(outer.to_owned(), Field { key: place, value: Arc::new(Node::new(span, Value::Map(inside))) });
    }

    /// Adds the members of one combination of the entry's own sweep; false when they are too many.
    fn members(
        &self,
        family: &mut Family,
        field: &Field,
        view: &Arc<Node>,
        own: &[(String, String)],
        multiply: &[&Family],
    ) -> bool {
        let groups = groups(multiply);
        let mut at = vec![0; groups.len()];
        loop {
            if family.swept {
                match self.left.get().checked_sub(1) {
                    Some(left) => self.left.set(left),
                    None => return self.too_many(field),
                }
            }
            let mut coordinates = own.to_vec();
            let mut picks = HashMap::new();
            for (group, &at) in groups.iter().zip(&at) {
                coordinates.extend(group[0].members[at].coordinates.iter().cloned());
                let pick = |family: &&Family| ((family.section, family.entry.clone()), family.members[at].name.clone());
                picks.extend(group.iter().map(pick));
            }
            let name = std::iter::once(family.entry.as_str())
                .chain(coordinates.iter().map(|(_, value)| value.as_str()))
                .collect::<Vec<_>>()
                .join("-");
            family.members.push(Member { name, view: Arc::clone(view), coordinates, picks });
            if !advance(&mut at, |index| groups[index][0].members.len()) {
                return true;
            }
        }
    }
}

/// Swept entries that go together: same keys, same values.
fn groups<'f>(families: &[&'f Family]) -> Vec<Vec<&'f Family>> {
    let mut groups: Vec<Vec<&Family>> = Vec::new();
    for &family in families {
        if groups.iter().flatten().any(|known| std::ptr::eq(*known, family)) {
            continue;
        }
        match groups.iter_mut().find(|group| group[0].coordinates().eq(family.coordinates())) {
            Some(group) => group.push(family),
            None => groups.push(vec![family]),
        }
    }
    groups
}

/// Counts `at` up, the last place fastest; false when it has gone through all.
fn advance(at: &mut [usize], len: impl Fn(usize) -> usize) -> bool {
    for index in (0..at.len()).rev() {
        at[index] += 1;
        if at[index] < len(index) {
            return true;
        }
        at[index] = 0;
    }
    false
}

/// Reports swept placeholders of a command that nothing uses; they would make the same stage many times.
pub(super) fn unused_placeholder(report: &Report, field: &Field, key: &str, used: &[String]) {
    let Some(place) = field.value.as_map().and_then(|map| map.get("sweep")?.value.as_map()?.get(key)) else { return };
    let diagnostic = Diagnostic::new(place.key, format!("the sweep over `{key}` changes nothing"));
    let hint =
        did_you_mean(key, used.iter().map(String::as_str)).unwrap_or_else(|| format!("use `{{{key}}}` in `run`"));
    report.add(diagnostic.hint(hint));
}
