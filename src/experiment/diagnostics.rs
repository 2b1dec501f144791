//! Errors in an experiment file: what is wrong, where, and the way out; shown with the source line.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// A range of bytes of the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl From<Span> for Range<usize> {
    fn from(span: Span) -> Self {
        span.start..span.end
    }
}

/// The text of an experiment file, without a byte order mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file, as it was named.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
}

/// One error and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, where it is another than the one that was read.
    pub source: Option<Arc<Source>>,
    /// The place.
    pub span: Span,
    /// What is wrong.
    pub message: String,
    /// What stands at the caret; may be empty.
    pub label: String,
    /// Another place that belongs to it, with what stands there.
    pub other: Option<(Span, String)>,
    /// The way out.
    pub hint: Option<String>,
}

impl Diagnostic {
    pub(super) fn new(span: Span, message: impl Into<String>) -> Self {
        Self { source: None, span, message: message.into(), label: String::new(), other: None, hint: None }
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub(super) fn other(mut self, span: Span, label: impl Into<String>) -> Self {
        self.other = Some((span, label.into()));
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }
}

/// All errors of one file and of those that are read with it, in the order of their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    source: Arc<Source>,
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    pub(super) fn new(source: Arc<Source>, mut list: Vec<Diagnostic>) -> Self {
        let file = |diagnostic: &Diagnostic| diagnostic.source.as_ref().map(|source| source.file.clone());
        list.sort_by_key(|diagnostic| (file(diagnostic), diagnostic.span));
        Self { source, list }
    }

    /// The file that is wrong.
    pub fn file(&self) -> &Path {
        &self.source.file
    }

    /// The errors.
    pub fn list(&self) -> &[Diagnostic] {
        &self.list
    }

    /// Line and column of a place, both from 1, the column in characters.
    pub fn line_column(&self, span: Span) -> (usize, usize) {
        let before = &self.source.text[..boundary(&self.source.text, span.start)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The errors as rustc would show them, with the source lines.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut lines: HashMap<&Path, LineIndex> = HashMap::new();
        let shown = self.list.iter().map(|diagnostic| {
            let source = diagnostic.source.as_ref().unwrap_or(&self.source);
            let lines = lines.entry(&source.file).or_insert_with(|| LineIndex::of(&source.text));
            Self::render_one(&renderer, source, lines, diagnostic)
        });
        shown.collect::<Vec<_>>().join("\n\n")
    }

    fn render_one(renderer: &Renderer, source: &Source, lines: &LineIndex, diagnostic: &Diagnostic) -> String {
        let text = &source.text;
        let primary = first_line(text, diagnostic.span);
        let other = diagnostic.other.as_ref().map(|(span, label)| (first_line(text, *span), label));
        // Only the lines between the places are handed over: a renderer that looks at the whole text for each error
        // would make a long list of errors quadratic.
        let from = other.as_ref().map_or(primary.start, |(span, _)| span.start.min(primary.start));
        let to = other.as_ref().map_or(primary.end, |(span, _)| span.end.max(primary.end));
        let (first, window) = lines.window(text, from, to);
        let start = window.start;
        let mut annotation = AnnotationKind::Primary.span(primary.start - start..primary.end - start);
        if !diagnostic.label.is_empty() {
            annotation = annotation.label(diagnostic.label.as_str());
        }
        let path = source.file.display().to_string();
        let mut snippet = Snippet::source(&text[window]).line_start(first).path(path).annotation(annotation);
        if let Some((span, label)) = other {
            let context = AnnotationKind::Context.span(span.start - start..span.end - start);
            snippet = snippet.annotation(context.label(label.as_str()));
        }
        let mut group = Level::ERROR.primary_title(diagnostic.message.as_str()).element(snippet);
        if let Some(hint) = &diagnostic.hint {
            group = group.element(Level::HELP.message(hint.as_str()));
        }
        renderer.render(&[group])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// Starts of the lines of a text.
struct LineIndex(Vec<usize>);

impl LineIndex {
    fn of(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    /// The whole lines that hold `from..to`, with the number of the first.
    fn window(&self, text: &str, from: usize, to: usize) -> (usize, Range<usize>) {
        let first = self.0.partition_point(|&start| start <= from);
        let last = self.0.partition_point(|&start| start <= to.max(from));
        (first, self.0[first - 1]..self.0.get(last).copied().unwrap_or(text.len()))
    }
}

/// A place cut to its first line and to whole characters; block mappings would underline half the file otherwise.
fn first_line(text: &str, span: Span) -> Range<usize> {
    let start = boundary(text, span.start);
    let end = boundary(text, span.end).max(start);
    let line = &text[start..end];
    let line = line.split('\n').next().unwrap_or(line).trim_end();
    start..start + line.len()
}

/// The nearest character boundary at or before `at`.
fn boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Collects errors while a file is read.
///
/// An entry with a sweep is read once for each of its expansions, so the same error comes many times and is kept once.
#[derive(Default)]
pub(super) struct Report {
    list: RefCell<Vec<Diagnostic>>,
    seen: RefCell<HashSet<(Option<PathBuf>, Span, String)>>,
    attempts: Cell<usize>,
}

impl Report {
    pub(super) fn add(&self, diagnostic: Diagnostic) {
        self.attempts.set(self.attempts.get() + 1);
        let file = diagnostic.source.as_ref().map(|source| source.file.clone());
        if self.seen.borrow_mut().insert((file, diagnostic.span, diagnostic.message.clone())) {
            self.list.borrow_mut().push(diagnostic);
        }
    }

    /// Adds what is wrong with another file.
    pub(super) fn add_of(&self, source: &Arc<Source>, list: impl IntoIterator<Item = Diagnostic>) {
        for diagnostic in list {
            self.add(Diagnostic { source: Some(Arc::clone(source)), ..diagnostic });
        }
    }

    /// How often something was wrong, repeated errors too: whether a part was read well shows by this not changing.
    pub(super) fn count(&self) -> usize {
        self.attempts.get()
    }

    pub(super) fn into_list(self) -> Vec<Diagnostic> {
        self.list.into_inner()
    }
}
