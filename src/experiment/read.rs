//! Reading typed values from the tree; what does not fit is reported at its place and read as nothing.

use std::cell::RefCell;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::diagnostics::{Diagnostic, Report, Span};
use super::keys::{Key, Words, words};
use super::scalar;
use super::tree::{Field, Map, Node, Value};

/// Most valid names that an error lists.
const LISTED: usize = 12;

/// A mapping whose keys have been checked.
pub(super) struct Fields<'a> {
    pub(super) map: &'a Map,
    /// Where the mapping's own name stands, for what is missing in it.
    pub(super) place: Span,
    /// What it is, for messages: `a Gram capture`.
    pub(super) what: &'static str,
    report: &'a Report,
    /// Keys that misspelled ones were most likely meant to be; they do not count as missing.
    meant: RefCell<Vec<&'static str>>,
}

impl<'a> Fields<'a> {
    /// Opens a mapping; reports what is no mapping, unknown keys and missing ones.
    pub(super) fn open(
        report: &'a Report,
        node: &'a Node,
        place: Span,
        what: &'static str,
        keys: &[&[Key]],
    ) -> Option<Self> {
        let fields = Self::unchecked(report, node, place, what)?;
        let names: Vec<_> = keys.iter().copied().flatten().map(|key| key.name).collect();
        for (name, field) in fields.map {
            if !names.contains(&name.as_str()) {
                fields.unknown(name, field.key, &names);
            }
        }
        let required: Vec<_> = keys.iter().copied().flatten().filter(|key| key.required).map(|key| key.name).collect();
        fields.require(&required);
        Some(fields)
    }

    /// Opens a mapping whose keys the caller looks at.
    pub(super) fn unchecked(report: &'a Report, node: &'a Node, place: Span, what: &'static str) -> Option<Self> {
        let Some(map) = node.as_map() else {
            if !node.is_unread() {
                let hint = node.is_null().then(|| "give it its keys, or remove it".into());
                report.add(wrong_type(node, what, "a mapping").maybe_hint(hint));
            }
            return None;
        };
        Some(Self { map, place, what, report, meant: RefCell::default() })
    }

    /// Reports a key that is none of `known`.
    pub(super) fn unknown(&self, name: &str, span: Span, known: &[&'static str]) {
        let near = nearest(name, known.iter().copied());
        self.meant.borrow_mut().extend(near);
        let hint = near.map(|near| format!("did you mean `{near}`?")).or_else(|| listed(known, "keys"));
        let message = format!("{} has no key `{name}`", self.what);
        self.report.add(Diagnostic::new(span, message).label("unknown key").maybe_hint(hint));
    }

    /// Reports each of the keys that is not there.
    pub(super) fn require(&self, keys: &[&str]) {
        for key in keys.iter().filter(|key| !self.has(key)) {
            let message = format!("{} needs `{key}`", self.what);
            self.report.add(Diagnostic::new(self.place, message).label(format!("no `{key}` here")));
        }
    }

    pub(super) fn field(&self, key: &str) -> Option<&'a Field> {
        self.map.get(key)
    }

    pub(super) fn node(&self, key: &str) -> Option<&'a Arc<Node>> {
        self.map.get(key).map(|field| &field.value)
    }

    /// Whether a key is there, or was most likely meant by one that is misspelled.
    pub(super) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key) || self.meant.borrow().contains(&key)
    }

    /// The value of a key by `read`; `None` when it is absent, or wrong and reported.
    pub(super) fn get<T>(&self, key: &str, read: impl FnOnce(Reading<'a>) -> Option<T>) -> Option<T> {
        let (_, key, field) = self.map.get_full(key)?;
        read(Reading { report: self.report, node: &field.value, key })
    }

    /// As [`Self::get`], but an absent key is the default.
    pub(super) fn get_or<T>(&self, key: &str, default: T, read: impl FnOnce(Reading<'a>) -> Option<T>) -> Option<T> {
        if self.has(key) { self.get(key, read) } else { Some(default) }
    }

    /// The one of `allowed` that is there; reports when there is none, or more than one.
    pub(super) fn exactly_one(&self, allowed: &[&'static str]) -> Option<&'static str> {
        let mut there = allowed.iter().copied().filter(|key| self.has(key));
        let all = format!("`{}`", allowed.join("`, `"));
        let Some(first) = there.next() else {
            self.report.add(Diagnostic::new(self.place, format!("{} needs one of {all}", self.what)));
            return None;
        };
        if let (Some(first), Some(second)) = (self.field(first), there.next().and_then(|key| self.field(key))) {
            let message = format!("{} takes only one of {all}", self.what);
            self.report.add(Diagnostic::new(second.key, message).other(first.key, "and this"));
            return None;
        }
        Some(first)
    }

    /// Reports each of `keys` that is there though it has no meaning, and why.
    pub(super) fn refuse(&self, keys: &[&str], why: &str) {
        for (key, field) in keys.iter().filter_map(|key| Some((key, self.field(key)?))) {
            self.report.add(Diagnostic::new(field.key, format!("`{key}` has no meaning {why}")).hint("remove it"));
        }
    }
}

/// A value under a key, ready to be read as something.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) report: &'a Report,
    pub(super) node: &'a Arc<Node>,
    /// The key it stands under, for messages.
    pub(super) key: &'a str,
}

impl<'a> Reading<'a> {
    pub(super) fn item(self, node: &'a Arc<Node>) -> Self {
        Self { node, ..self }
    }

    /// Reports what is wrong with the value, unless that was done before.
    pub(super) fn fail<T>(self, diagnostic: Diagnostic) -> Option<T> {
        if !self.node.is_unread() {
            self.report.add(diagnostic);
        }
        None
    }

    fn wrong<T>(self, expected: &str) -> Option<T> {
        self.fail(wrong_type(self.node, &format!("`{}`", self.key), expected))
    }

    /// Text: quoted, or plain and neither empty nor a boolean; numbers are taken as spelled.
    pub(super) fn text(self) -> Option<String> {
        match &self.node.value {
            Value::Scalar { text, plain: false } => Some(text.clone()),
            Value::Scalar { text, .. } if !self.node.is_null() && scalar::flag(text).is_none() => Some(text.clone()),
            Value::Scalar { text, .. } if !self.node.is_null() => self
                .fail(wrong_type(self.node, &format!("`{}`", self.key), "text").hint(format!("quote it: \"{text}\""))),
            _ => self.wrong("text"),
        }
    }

    /// The spelling of any scalar but the empty value.
    pub(super) fn spelling(self) -> Option<String> {
        match self.node.as_scalar() {
            Some(text) if !self.node.is_null() => Some(text.to_owned()),
            _ => self.wrong("one value"),
        }
    }

    /// Text that is not empty.
    pub(super) fn word(self) -> Option<String> {
        let text = self.text()?;
        if text.trim().is_empty() {
            return self.fail(Diagnostic::new(self.node.span, format!("`{}` is empty", self.key)));
        }
        Some(text)
    }

    pub(super) fn path(self) -> Option<PathBuf> {
        self.word().map(PathBuf::from)
    }

    /// A path that stays inside the directory it is relative to.
    pub(super) fn inner_path(self) -> Option<PathBuf> {
        let path = self.path()?;
        if stays_inside(&path) {
            return Some(path);
        }
        let message = format!("`{}` leaves the output it is a part of", path.display());
        self.fail(Diagnostic::new(self.node.span, message).hint("give a relative path without `..`"))
    }

    pub(super) fn flag(self) -> Option<bool> {
        match scalar::plain(self.node).and_then(scalar::flag) {
            Some(flag) => Some(flag),
            None => self.fail(
                wrong_type(self.node, &format!("`{}`", self.key), "true or false").maybe_hint(flag_hint(self.node)),
            ),
        }
    }

    pub(super) fn whole(self, min: u64, max: u64) -> Option<u64> {
        let Some(found) = scalar::plain(self.node).and_then(scalar::whole) else { return self.wrong("a whole number") };
        if let Some(found) = u64::try_from(found).ok().filter(|found| (min..=max).contains(found)) {
            return Some(found);
        }
        let range = if max == u64::MAX { format!("at least {min}") } else { format!("from {min} to {max}") };
        self.fail(Diagnostic::new(self.node.span, format!("`{}` must be {range}, not {found}", self.key)))
    }

    pub(super) fn number(self, min: f64, max: f64) -> Option<f64> {
        let Some(found) = scalar::plain(self.node).and_then(scalar::number) else { return self.wrong("a number") };
        if found.is_finite() && (min..=max).contains(&found) {
            return Some(found);
        }
        let range = match (min > f64::MIN, max < f64::MAX) {
            (true, true) => format!("from {min} to {max}"),
            (true, false) => format!("a finite number of at least {min}"),
            _ => "a finite number".to_owned(),
        };
        let spelled = self.node.as_scalar().unwrap_or_default();
        self.fail(Diagnostic::new(self.node.span, format!("`{}` must be {range}, not {spelled}", self.key)))
    }

    /// A number above zero.
    pub(super) fn positive(self) -> Option<f64> {
        let found = self.number(0.0, f64::MAX)?;
        if found > 0.0 {
            return Some(found);
        }
        self.fail(Diagnostic::new(self.node.span, format!("`{}` must be above 0", self.key)))
    }

    /// One of the words of a table.
    pub(super) fn choice<T: Clone>(self, table: &Words<T>) -> Option<T> {
        let word = self.node.as_scalar().unwrap_or_default();
        if let Some((_, meaning)) = table.iter().find(|(name, _)| *name == word) {
            return Some(meaning.clone());
        }
        let names = words(table);
        let listed = names.join(", ");
        if self.node.as_scalar().is_none() || self.node.is_null() {
            return self.wrong(&format!("one of {listed}"));
        }
        let diagnostic = Diagnostic::new(self.node.span, format!("`{}` cannot be `{word}`", self.key));
        self.fail(
            diagnostic.label(format!("expected one of {listed}")).maybe_hint(did_you_mean(word, names.iter().copied())),
        )
    }

    /// A list that is not empty, each item read by `read`; those that are wrong are left out.
    pub(super) fn list<T>(self, read: impl FnMut(Self) -> Option<T>) -> Option<Vec<T>> {
        let Some(items) = self.node.as_list() else {
            let hint = self.node.as_scalar().filter(|_| !self.node.is_null()).map(|text| format!("write [{text}]"));
            return self.fail(wrong_type(self.node, &format!("`{}`", self.key), "a list").maybe_hint(hint));
        };
        if items.is_empty() {
            return self.fail(Diagnostic::new(self.node.span, format!("`{}` is an empty list", self.key)));
        }
        Some(items.iter().map(|item| self.item(item)).filter_map(read).collect())
    }

    pub(super) fn map(self) -> Option<&'a Map> {
        match self.node.as_map() {
            Some(map) => Some(map),
            None => self.wrong("a mapping"),
        }
    }

    /// Any value, as JSON.
    pub(super) fn json(self) -> Option<serde_json::Value> {
        match scalar::json(self.node) {
            Some(json) => Some(json),
            None => {
                self.fail(Diagnostic::new(self.node.span, format!("`{}` holds a number that is not finite", self.key)))
            }
        }
    }

    /// A glob, as it is spelled.
    pub(super) fn glob(self) -> Option<String> {
        let text = self.word()?;
        match globset::Glob::new(&text) {
            Ok(_) => Some(text),
            Err(error) => {
                self.fail(Diagnostic::new(self.node.span, format!("`{text}` is not a glob: {}", error.kind())))
            }
        }
    }

    /// A hub repository, `org/name`.
    pub(super) fn repo(self) -> Option<String> {
        let text = self.word()?;
        let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_name_byte);
        if text.split('/').count() <= 2 && text.split('/').all(part) {
            return Some(text);
        }
        let message = format!("`{text}` is not a hub repository");
        self.fail(Diagnostic::new(self.node.span, message).hint("write it as org/name; a directory goes under `path`"))
    }

    /// A name as entries have.
    pub(super) fn name(self) -> Option<String> {
        let name = self.spelling()?;
        check_name(self.report, &name, self.node.span).then_some(name)
    }
}

fn flag_hint(node: &Node) -> Option<String> {
    match node.as_scalar()?.to_ascii_lowercase().as_str() {
        "yes" | "on" | "true" | "y" => Some("write true (without quotes)".into()),
        "no" | "off" | "false" | "n" => Some("write false (without quotes)".into()),
        _ => None,
    }
}

/// Whether a path, joined to a directory, cannot leave it.
pub(super) fn stays_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// Whether a word has the form of a name.
pub fn is_name(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_alphanumeric()) && word.bytes().all(is_name_byte)
}

/// Whether a byte may stand in a name.
pub(super) fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

pub(super) fn check_name(report: &Report, name: &str, span: Span) -> bool {
    if !is_name(name) {
        let diagnostic = Diagnostic::new(span, format!("`{name}` is not a name"));
        report.add(
            diagnostic.hint("names start with a letter or digit and go on with letters, digits, `.`, `_` and `-`"),
        );
        return false;
    }
    true
}

/// `… must be a list, not text`, and so on.
pub(super) fn wrong_type(node: &Node, what: &str, expected: &str) -> Diagnostic {
    let found = match &node.value {
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
        Value::Scalar { .. } if node.is_null() => "empty",
        Value::Scalar { plain: false, .. } => "text",
        Value::Scalar { text, .. } if scalar::flag(text).is_some() => "a boolean",
        Value::Scalar { text, .. } if scalar::number(text).is_some() => "a number",
        Value::Scalar { .. } | Value::Unread => "text",
    };
    Diagnostic::new(node.span, format!("{what} must be {expected}, not {found}")).label(format!("expected {expected}"))
}

/// `the keys are a, b, c`, where they are few.
pub(super) fn listed(names: &[&str], what: &str) -> Option<String> {
    (!names.is_empty() && names.len() <= LISTED).then(|| format!("the {what} here are {}", names.join(", ")))
}

/// `did you mean …?`, when a name is near enough.
pub(crate) fn did_you_mean<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<String> {
    nearest(word, names).map(|name| format!("did you mean `{name}`?"))
}

/// The nearest of the names, if it is near enough to be what was meant.
pub(super) fn nearest<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let length = word.chars().count();
    let allowed = (length / 3).max(1);
    names
        .filter(|name| name.len().abs_diff(word.len()) <= 2 * allowed)
        .map(|name| {
            // A wrong case or a `-` for a `_` is nearer than any other slip.
            let same =
                name.eq_ignore_ascii_case(word) || name.replace('_', "-").eq_ignore_ascii_case(&word.replace('_', "-"));
            (if same { 0 } else { strsim::damerau_levenshtein(word, name) }, name)
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
