//! Names: what is declared in a file, and what a reference means.

use std::cell::Cell;
use std::collections::HashMap;

use super::diagnostics::{Diagnostic, Report, Span};
use super::read::{Reading, nearest};
use super::sweep::{Family, Picks};

/// Most names that all lists of a file may expand to.
const MAX_LISTED: usize = 1_000_000;

/// Most unknown names of a scope that get a suggestion.
const MAX_SUGGESTIONS: usize = 100;

/// What may be referred to in one place: models and merges, data sets, commands, or Grams.
pub(super) struct Scope<'a> {
    /// What an entry is called: `model or merge`.
    what: &'static str,
    names: HashMap<&'a str, Target<'a>>,
    /// Whether a whole section is unreadable, so that an unknown name may well be in it.
    open: bool,
    broken: Vec<&'a str>,
    /// How many errors may still look for a near name.
    suggestions: Cell<usize>,
}

/// One thing that a name means, with what it is swept over: key and value.
pub(super) struct Expanded {
    pub(super) model: String,
    pub(super) coordinates: Vec<(String, String)>,
}

#[derive(Clone, Copy)]
struct Target<'a> {
    family: &'a Family,
    section: &'static str,
    /// Whether the name is an expansion's, and not the entry's own.
    expansion: bool,
}

impl<'a> Scope<'a> {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, names: HashMap::new(), open: false, broken: Vec::new(), suggestions: Cell::new(MAX_SUGGESTIONS) }
    }

    /// Says that a section could not be read.
    pub(super) fn unreadable(&mut self) {
        self.open = true;
    }

    /// Adds a section; names that are taken are reported.
    pub(super) fn declare(&mut self, report: &Report, section: &'static str, families: &'a [Family]) {
        for family in families {
            if family.broken {
                self.broken.push(&family.entry);
            }
            self.add(report, &family.entry, Target { family, section, expansion: false });
            for member in family.members.iter().filter(|_| family.swept) {
                self.add(report, &member.name, Target { family, section, expansion: true });
            }
        }
    }

    /// Adds models that stand in no entry, under names that are free.
    pub(super) fn add_models(&mut self, report: &Report, families: impl Iterator<Item = &'a Family>) {
        for family in families {
            self.add(report, &family.entry, Target { family, section: "models", expansion: false });
        }
    }

    fn add(&mut self, report: &Report, name: &'a str, target: Target<'a>) {
        let Some(&first) = self.names.get(name) else {
            self.names.insert(name, target);
            return;
        };
        let message = match (first.expansion, target.expansion) {
            (false, false) => format!("`{name}` names a thing in `{}` and one in `{}`", first.section, target.section),
            _ => format!("two entries expand to the name `{name}`"),
        };
        let says = |target: Target| {
            if target.expansion {
                format!("the sweep of `{}` makes one", target.family.entry)
            } else {
                "one is here".to_owned()
            }
        };
        let diagnostic = Diagnostic::new(target.family.key, message).label(says(target));
        report.add(diagnostic.other(first.family.key, says(first)).hint("rename one of them"));
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// The section that a name is in.
    pub(super) fn section(&self, name: &str) -> Option<&'static str> {
        self.names.get(name).map(|target| target.section)
    }

    /// The one thing that a name means. A swept entry is many things: which of them `picks` says, else it is an error.
    pub(super) fn one(&self, reading: Reading<'_>, name: &str, picks: &Picks) -> Option<String> {
        let target = self.find(reading, name)?;
        if !target.family.swept || target.expansion {
            return Some(name.to_owned());
        }
        if let Some(pick) = picks.get(&(target.section, name.to_owned())) {
            return Some(pick.clone());
        }
        if target.family.broken {
            return None;
        }
        let members: Vec<_> = target.family.members.iter().map(|member| member.name.as_str()).collect();
        let message =
            format!("`{name}` is swept and stands for {} entries; `{}` takes one", members.len(), reading.key);
        let shown = members[..members.len().min(4)].join(", ");
        let more = if members.len() > 4 { ", …" } else { "" };
        reading.fail(Diagnostic::new(reading.node.span, message).hint(format!("name one of them: {shown}{more}")))
    }

    /// All things that a name means: the expansions of a swept entry, with the values in their names.
    pub(super) fn all(&self, reading: Reading<'_>, name: &str, budget: &Budget) -> Option<Vec<(String, String)>> {
        let target = self.find(reading, name)?;
        if !target.family.swept || target.expansion {
            return budget.take(reading, 1).then(|| vec![(name.to_owned(), String::new())]);
        }
        let members = &target.family.members;
        (!target.family.broken && budget.take(reading, members.len()))
            .then(|| members.iter().map(|member| (member.name.clone(), Family::suffix(member))).collect())
    }

    /// As [`Self::all`], each with what it is swept over: nothing where the name is that of one thing.
    pub(super) fn expanded(&self, reading: Reading<'_>, name: &str, budget: &Budget) -> Option<Vec<Expanded>> {
        let all = self.all(reading, name, budget)?;
        let target = self.find(reading, name)?;
        if !target.family.swept || target.expansion {
            return Some(all.into_iter().map(|(model, _)| Expanded { model, coordinates: Vec::new() }).collect());
        }
        let members = target.family.members.iter();
        Some(
            members
                .map(|member| Expanded { model: member.name.clone(), coordinates: member.coordinates.clone() })
                .collect(),
        )
    }

    /// The keys that a name's entry is swept over.
    pub(super) fn swept_over(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let members = self.names.get(name).map_or(&[][..], |target| &target.family.members);
        members.iter().flat_map(|member| member.coordinates.iter().map(|(key, _)| key.as_str()))
    }

    fn find(&self, reading: Reading<'_>, name: &str) -> Option<Target<'a>> {
        if let Some(target) = self.names.get(name) {
            return Some(*target);
        }
        let of_broken = |entry: &&str| name.strip_prefix(*entry).is_some_and(|rest| rest.starts_with('-'));
        if self.open || self.broken.iter().any(of_broken) {
            return None;
        }
        reading.fail(self.unknown(reading.node.span, name))
    }

    /// The error for a name that is not there.
    pub(super) fn unknown(&self, span: Span, name: &str) -> Diagnostic {
        let diagnostic =
            Diagnostic::new(span, format!("there is no {} called `{name}`", self.what)).label("unknown name");
        diagnostic.maybe_hint(self.suggest(name))
    }

    fn suggest(&self, name: &str) -> Option<String> {
        // Looking through all names for each of thousands that are wrong would take minutes.
        self.suggestions.set(self.suggestions.get().checked_sub(1)?);
        let mut names: Vec<&str> = self.names.keys().copied().collect();
        names.sort_unstable();
        if let Some(near) = nearest(name, names.iter().copied()) {
            return Some(format!("did you mean `{near}`?"));
        }
        match names.len() {
            0 => Some(format!("this file has no {} yet", self.what)),
            1..=12 => Some(format!("there is {}", names.join(", "))),
            _ => None,
        }
    }
}

/// How many names the lists of a file may still expand to; a thousand lists of a swept entry each are as good as a bomb.
pub(super) struct Budget {
    left: Cell<usize>,
    reported: Cell<bool>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: Cell::new(MAX_LISTED), reported: Cell::new(false) }
    }
}

impl Budget {
    fn take(&self, reading: Reading<'_>, count: usize) -> bool {
        if let Some(left) = self.left.get().checked_sub(count) {
            self.left.set(left);
            return true;
        }
        if self.reported.replace(true) {
            return false;
        }
        let message = format!("the lists of this file expand to more than {MAX_LISTED} names");
        reading.report.add(Diagnostic::new(reading.node.span, message).hint("name fewer swept entries"));
        false
    }
}
