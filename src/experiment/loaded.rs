//! An experiment together with its text, so that what turns out wrong later can be shown at its place.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostics::{Diagnostic, Diagnostics, Source, Span};
use super::mergekit::Place;
use super::parse::{Origins, parse_with};
use super::tree::{Node, Value};
use super::types::{Expansion, Experiment};

/// A valid experiment and the text it was read from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the file means.
    pub experiment: Experiment,
    source: Arc<Source>,
    tree: Arc<Node>,
    origins: Arc<Origins>,
    /// Models that stand in no entry, and where they are named.
    elsewhere: Arc<HashMap<String, Place>>,
}

/// What is known of where entries come from.
pub(super) struct Made {
    pub(super) origins: Origins,
    pub(super) elsewhere: HashMap<String, Place>,
}

/// Why a file gave no experiment.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It could not be read: a matter of usage.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It was read, and is wrong.
    #[error(transparent)]
    Invalid(#[from] Diagnostics),
}

impl LoadError {
    /// The exit code that stands for it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Read { .. } => mergelab_wire::exit::USAGE,
            Self::Invalid(_) => mergelab_wire::exit::EXPERIMENT,
        }
    }
}

/// What is looked at while an experiment is read: mergekit configurations, whether their models are directories, and how many layers
/// models on disk have that give some of them to slices.
pub trait Files {
    /// The contents of a file of the project.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Whether a path of the project is a directory.
    fn is_directory(&self, path: &Path) -> bool;

    /// Whether the experiment is read for another one, so that nobody asks for its tables.
    fn of_another(&self) -> bool {
        false
    }
}

/// The files of the project with this root.
pub struct Root<'a>(pub &'a Path);

impl Files for Root<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(self.0.join(path))
    }

    fn is_directory(&self, path: &Path) -> bool {
        self.0.join(path).is_dir()
    }
}

/// Nothing is there.
pub(super) struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn is_directory(&self, _: &Path) -> bool {
        false
    }
}

/// Reads an experiment from a file, in a project with this root.
///
/// # Errors
/// When the file cannot be read, or is wrong.
pub fn load(path: &Path, root: &Path) -> Result<Loaded, LoadError> {
    let bytes = std::fs::read(path).map_err(|source| LoadError::Read { path: path.to_path_buf(), source })?;
    match text_of(&bytes) {
        Ok(text) => Ok(parse_with(path, text, &Root(root))?),
        Err(wrong) => {
            let (text, diagnostic) = *wrong;
            let source = Arc::new(Source { file: path.to_path_buf(), text });
            Err(Diagnostics::new(source, vec![diagnostic]).into())
        }
    }
}

/// The text of a file; where it is none, what can be shown of it, and the error.
pub(super) fn text_of(bytes: &[u8]) -> Result<&str, Box<(String, Diagnostic)>> {
    std::str::from_utf8(bytes).map_err(|error| {
        // Up to the first bad byte the text is the same, so the place is too.
        let text = String::from_utf8_lossy(bytes).into_owned();
        let at = error.valid_up_to();
        let span = Span { start: at, end: at + '\u{fffd}'.len_utf8() };
        let diagnostic = Diagnostic::new(span, "this is not UTF-8 text").label("the first byte that is not");
        Box::new((text, diagnostic.hint("save the file as UTF-8")))
    })
}

impl Loaded {
    pub(super) fn new(experiment: Experiment, source: Arc<Source>, tree: Arc<Node>, made: Made) -> Self {
        let (origins, elsewhere) = (Arc::new(made.origins), Arc::new(made.elsewhere));
        Self { experiment, source, tree, origins, elsewhere }
    }

    /// The text, without a byte order mark.
    pub fn source(&self) -> &str {
        &self.source.text
    }

    /// What stands in the file, as it is spelled: every scalar is text, an empty one null; aliases are what they name.
    pub fn spelled(&self) -> serde_json::Value {
        self.tree.spelled()
    }

    /// Where something stands in the text, in bytes: `["models", "base", "path"]`, `["merges", "alphas-0.1", "alpha"]`,
    /// `["evals", "suite", "models", "0"]`.
    ///
    /// An expansion is found at the entry it came from, a swept key at its sweep. A single value is its own place; a
    /// list or a mapping is found at its key. What is not in the file is found at the nearest thing around it that is;
    /// `None` when that is the file itself.
    pub fn locate(&self, path: &[&str]) -> Option<Range<usize>> {
        self.find(path).0.map(Into::into)
    }

    /// Whether something stands in the text itself, and not only around it; `path` as for [`Self::locate`].
    pub fn states(&self, path: &[&str]) -> bool {
        self.find(path).1
    }

    /// The nearest place, and whether it is that of the whole path.
    fn find(&self, path: &[&str]) -> (Option<Span>, bool) {
        let mut node = &self.tree;
        let mut place = None;
        for (depth, part) in path.iter().enumerate() {
            let origin = (depth == 1).then(|| self.origins.get(&format!("{}.{part}", path[0]))).flatten();
            let part = origin.map_or(*part, |origin| origin.entry.as_str());
            let step = match &node.value {
                Value::Map(map) => map
                    .get(part)
                    .or_else(|| map.get("sweep")?.value.as_map()?.get(part))
                    .map(|field| (Some(field.key), &field.value)),
                Value::List(items) => {
                    part.parse::<usize>().ok().and_then(|index| items.get(index)).map(|item| (None, item))
                }
                Value::Scalar { .. } | Value::Unread => None,
            };
            let Some((key, next)) = step else { return (place, false) };
            let single = next.as_scalar().is_some() && !next.is_null();
            place = Some(key.filter(|_| !single).unwrap_or(next.span));
            node = next;
        }
        (place, true)
    }

    /// The text of the file.
    pub fn text(&self) -> &str {
        &self.source.text
    }

    /// Names of the stages that a swept entry became: `merges.alphas-0.1`, … for `merges.alphas`; none for others.
    pub fn expansions(&self, entry: &str) -> impl Iterator<Item = &str> {
        let (section, entry) = entry.split_once('.').unwrap_or_default();
        let of_entry = move |(full, origin): &(&String, &Expansion)| {
            origin.entry == entry && full.split_once('.').is_some_and(|(of, _)| of == section)
        };
        self.origins.iter().filter(of_entry).map(|(full, _)| full.as_str())
    }

    /// What an expansion came from, by its full name, such as `merges.alphas-0.1`; `None` for what is not swept.
    pub fn expansion(&self, stage: &str) -> Option<&Expansion> {
        self.origins.get(stage)
    }

    /// An error about something in the file that only shows later, such as a directory that is not there; `path` as
    /// for [`Self::locate`].
    pub fn error_at(&self, path: &[&str], message: impl Into<String>, hint: Option<String>) -> Diagnostics {
        let elsewhere = match path {
            ["models", name, ..] => self.elsewhere.get(*name),
            _ => None,
        };
        let place = || (Arc::clone(&self.source), self.find(path).0.unwrap_or_default());
        let (source, span) = elsewhere.cloned().unwrap_or_else(place);
        Diagnostics::new(source, vec![Diagnostic::new(span, message).maybe_hint(hint)])
    }
}

/// Checks that the experiments of one run have different names; results of both would go into one folder.
///
/// # Errors
/// For each name that stands in a second file, at its place in that file.
pub fn check_names(experiments: &[Loaded]) -> Result<(), Vec<Diagnostics>> {
    let mut first: HashMap<&str, &Path> = HashMap::new();
    let mut errors = Vec::new();
    for loaded in experiments {
        let name = loaded.experiment.name.as_str();
        let Some(other) = first.get(name) else {
            first.insert(name, &loaded.experiment.file);
            continue;
        };
        let message = format!("{} is called `{name}` too", other.display());
        let hint = "two experiments of one run need different names: both would write results/NAME";
        errors.push(loaded.error_at(&["name"], message, Some(hint.to_owned())));
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}
