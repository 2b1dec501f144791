//! YAML as a tree in which everything knows its place.
//!
//! Scalars keep their spelling and whether they were quoted: a sweep names its expansions by the spelling, and whether
//! `1.0` is a number is for the key to say that it stands under. Aliases share their node. What a file can cost is
//! bounded: nesting, and the nodes that aliases add.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;
use indexmap::map::Entry;
use serde_yaml::granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span as Marks, StructureStyle};

use super::diagnostics::{Diagnostic, Span};

/// Deepest nesting, aliases followed.
const MAX_DEPTH: usize = 64;
/// Most nodes that aliases may add to those that stand in the file.
const MAX_ALIASED: usize = 100_000;

/// A node of the tree.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
    /// Nodes at and under this one, aliases followed.
    size: usize,
    /// Levels at and under this one, aliases followed.
    height: usize,
}

/// What a node holds.
#[derive(Debug)]
pub(super) enum Value {
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Arc<Node>>),
    Map(Map),
    /// Something that is wrong and was reported: it is there, and whoever reads it finds nothing and reports nothing.
    Unread,
}

/// A mapping in file order.
pub(super) type Map = IndexMap<String, Field>;

/// A key's place and its value.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) key: Span,
    pub(super) value: Arc<Node>,
}

impl Node {
    /// A node over parts that are already in the tree.
    pub(super) fn new(span: Span, value: Value) -> Self {
        let (size, height) = match &value {
            Value::Scalar { .. } | Value::Unread => (0, 0),
            Value::List(items) => measure(items.iter()),
            Value::Map(map) => measure(map.values().map(|field| &field.value)),
        };
        Self { span, value, size: size + 1, height: height + 1 }
    }

    /// A node in place of one that is wrong and was reported.
    pub(super) fn unread(span: Span) -> Arc<Self> {
        Arc::new(Self::new(span, Value::Unread))
    }

    pub(super) fn is_unread(&self) -> bool {
        matches!(self.value, Value::Unread)
    }

    pub(super) fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(super) fn as_list(&self) -> Option<&[Arc<Self>]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The text of a scalar, as spelled, quotes taken off.
    pub(super) fn as_scalar(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// What it holds as it is spelled: every scalar is text, an empty one null.
    pub(super) fn spelled(&self) -> serde_json::Value {
        match &self.value {
            Value::Unread => serde_json::Value::Null,
            Value::Scalar { .. } if self.is_null() => serde_json::Value::Null,
            Value::Scalar { text, .. } => text.as_str().into(),
            Value::List(items) => items.iter().map(|item| item.spelled()).collect(),
            Value::Map(map) => map.iter().map(|(key, field)| (key.clone(), field.value.spelled())).collect(),
        }
    }

    /// Whether this is the empty value: nothing, `~` or `null`, not quoted.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }
}

fn measure<'a>(nodes: impl Iterator<Item = &'a Arc<Node>>) -> (usize, usize) {
    nodes.fold((0, 0), |(size, height), node| (size.saturating_add(node.size), height.max(node.height)))
}

/// The one document of a text, and the keys in it that stand twice.
pub(super) type Document = (Option<Arc<Node>>, Vec<Diagnostic>);

/// Reads the one document of a text; an empty one gives `None`. A key that stands twice counts where it stands first; the
/// others are given as errors, so that the rest of the file is still looked at.
pub(super) fn read(text: &str) -> Result<Document, Box<Diagnostic>> {
    if let Some(at) = text.find('\0') {
        return Err(Diagnostic::new(Span { start: at, end: at + 1 }, "a NUL byte: this is not a YAML file").into());
    }
    let mut builder =
        Builder { text, open: Vec::new(), anchors: HashMap::new(), aliased: 0, root: None, repeated: Vec::new() };
    for event in Parser::new_from_str(text) {
        let (event, marks) = event.map_err(|error| scan_error(text, &error, builder.open.last()))?;
        builder.event(event, span_of(marks))?;
    }
    Ok((builder.root, builder.repeated))
}

fn offset(marker: Marker) -> usize {
    marker.byte_offset().unwrap_or_default()
}

fn span_of(marks: Marks) -> Span {
    Span { start: offset(marks.start), end: offset(marks.end).max(offset(marks.start)) }
}

fn scan_error(text: &str, error: &ScanError, open: Option<&Open>) -> Diagnostic {
    let start = offset(*error.marker()).min(text.len());
    let line_start = text.get(..start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    let line = text.get(line_start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let end = text.get(start..).and_then(|rest| rest.chars().next()).map_or(start, |char| start + char.len_utf8());
    let mut diagnostic = Diagnostic::new(Span { start, end }, format!("not valid YAML: {}", error.info()));
    if let Some(open) = open.filter(|open| open.flow && open.span.start != start) {
        let bracket = Span { start: open.span.start, end: open.span.start + 1 };
        diagnostic = diagnostic.other(bracket, "this is still open");
    }
    if line.trim_start_matches(' ').starts_with('\t') {
        diagnostic = diagnostic.hint("YAML does not take tabs as indentation; use spaces");
    }
    diagnostic
}

/// A collection whose end has not come yet.
struct Open {
    span: Span,
    /// Whether it is written with brackets.
    flow: bool,
    anchor: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Arc<Node>>),
    Map { map: Map, key: Option<(String, Span)>, merged: Vec<Arc<Node>> },
}

struct Builder<'a> {
    text: &'a str,
    open: Vec<Open>,
    /// Finished anchors; one that is missing here is still open, so it holds its own alias.
    anchors: HashMap<usize, Arc<Node>>,
    aliased: usize,
    root: Option<Arc<Node>>,
    /// Keys that stand twice.
    repeated: Vec<Diagnostic>,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Box<Diagnostic>> {
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                Err(Diagnostic::new(span, "a second document starts here")
                    .hint("one file holds one experiment: make it two files")
                    .into())
            }
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id).cloned() else {
                    return Err(Diagnostic::new(span, "this alias stands inside what it names").into());
                };
                self.aliased = self.aliased.saturating_add(node.size);
                if self.aliased > MAX_ALIASED {
                    let message = format!("aliases blow this file up to more than {MAX_ALIASED} values");
                    return Err(Diagnostic::new(span, message).hint("write it out, or use a sweep").into());
                }
                self.check_depth(span, node.height)?;
                self.place(node, span)
            }
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(tag.is_some(), span)?;
                self.check_depth(span, 1)?;
                let plain = style == ScalarStyle::Plain;
                let node = Arc::new(Node::new(span, Value::Scalar { text: text.into_owned(), plain }));
                self.anchor(anchor, &node);
                self.place(node, span)
            }
            Event::SequenceStart(style, anchor, tag) => {
                refuse_tag(tag.is_some(), span)?;
                self.check_depth(span, 1)?;
                self.open.push(Open {
                    span,
                    flow: style == StructureStyle::Flow,
                    anchor,
                    kind: OpenKind::List(Vec::new()),
                });
                Ok(())
            }
            Event::MappingStart(style, anchor, tag) => {
                refuse_tag(tag.is_some(), span)?;
                self.check_depth(span, 1)?;
                let kind = OpenKind::Map { map: Map::new(), key: None, merged: Vec::new() };
                self.open.push(Open { span, flow: style == StructureStyle::Flow, anchor, kind });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            _ => Ok(()),
        }
    }

    fn check_depth(&self, span: Span, height: usize) -> Result<(), Box<Diagnostic>> {
        if self.open.len() + height > MAX_DEPTH {
            return Err(Diagnostic::new(span, format!("nested deeper than {MAX_DEPTH} levels")).into());
        }
        Ok(())
    }

    fn anchor(&mut self, anchor: usize, node: &Arc<Node>) {
        if anchor != 0 {
            self.anchors.insert(anchor, Arc::clone(node));
        }
    }

    fn close(&mut self, end: Span) -> Result<(), Box<Diagnostic>> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        // A block collection ends where the next token starts; its last line is what belongs to it.
        let text = self.text.get(open.span.start..end.end).unwrap_or_default().trim_end();
        let span = Span { start: open.span.start, end: open.span.start + text.len() };
        let value = match open.kind {
            OpenKind::List(items) => Value::List(items),
            OpenKind::Map { mut map, merged, .. } => {
                // `<<`: what the mapping says itself wins, then the first of a list.
                for (key, field) in merged.iter().filter_map(|node| node.as_map()).flatten() {
                    map.entry(key.clone()).or_insert_with(|| field.clone());
                }
                Value::Map(map)
            }
        };
        let node = Arc::new(Node::new(span, value));
        self.anchor(open.anchor, &node);
        self.place(node, span)
    }

    /// Puts a finished node where it belongs; `span` is where it stands, which for an alias is not where it is written.
    fn place(&mut self, node: Arc<Node>, span: Span) -> Result<(), Box<Diagnostic>> {
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(OpenKind::List(items)) => items.push(node),
            Some(OpenKind::Map { map, key, merged }) => match key.take() {
                None => {
                    let Some(text) = node.as_scalar() else {
                        return Err(Diagnostic::new(span, "a key must be a single word").into());
                    };
                    *key = Some((text.to_owned(), span));
                }
                Some((name, at)) if name == "<<" => merged.extend(merge_sources(&node, at)?),
                Some((name, at)) => match map.entry(name) {
                    Entry::Vacant(vacant) => {
                        vacant.insert(Field { key: at, value: node });
                    }
                    Entry::Occupied(first) => {
                        let message = format!("`{}` stands twice in this mapping", first.key());
                        let diagnostic = Diagnostic::new(at, message).label("again here");
                        self.repeated.push(diagnostic.other(first.get().key, "first here"));
                    }
                },
            },
        }
        Ok(())
    }
}

fn refuse_tag(tagged: bool, span: Span) -> Result<(), Box<Diagnostic>> {
    if tagged {
        return Err(Diagnostic::new(span, "YAML tags (`!…`) have no meaning in an experiment")
            .hint("quote a value to make it text")
            .into());
    }
    Ok(())
}

fn merge_sources(node: &Arc<Node>, key: Span) -> Result<Vec<Arc<Node>>, Box<Diagnostic>> {
    let sources = match &node.value {
        Value::Map(_) => vec![Arc::clone(node)],
        Value::List(items) => items.clone(),
        Value::Scalar { .. } | Value::Unread => Vec::new(),
    };
    if sources.is_empty() || sources.iter().any(|source| source.as_map().is_none()) {
        return Err(Diagnostic::new(key, "`<<` takes a mapping or a list of mappings")
            .hint("as in `<<: *defaults`")
            .into());
    }
    Ok(sources)
}
