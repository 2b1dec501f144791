//! Models as mergekit names them: a directory or a hub id, with an optional `@revision`, and behind a `+` a LoRA adapter.

use std::path::{Component, Path, PathBuf};

use super::super::diagnostics::Diagnostic;
use super::super::loaded::Files;
use super::super::read::{Reading, is_name, is_name_byte, wrong_type};
use super::super::tree::Node;
use super::super::types::{Lora, Model};

/// A model outside of the experiment; two that are the same model are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reference {
    /// A repository at a revision, `main` being none.
    Hub(String, Option<String>),
    /// A directory.
    Path(PathBuf),
    /// A model, and a LoRA adapter that is applied to it.
    Lora(Box<(Self, Self)>),
}

/// Where the models of a configuration are looked for.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) files: &'a dyn Files,
    /// The directory of the configuration.
    pub(super) folder: &'a Path,
}

impl Place<'_> {
    /// Of a path of two parts that is no directory: the way out, where the first part is one, so that it is no owner on the hub.
    fn is_missing(self, path: &Path) -> Option<String> {
        let parent = path.parent().filter(|parent| *parent != Path::new(""))?;
        let beside = self.folder.join(path);
        let on_hub = format!("a repository of that name on the hub is `{}@main`", path.display());
        if self.files.is_directory(&beside) {
            return Some(format!("paths are relative to the project's root: write {}; {on_hub}", beside.display()));
        }
        let is_there =
            [parent.to_path_buf(), self.folder.join(parent)].iter().any(|path| self.files.is_directory(path));
        is_there.then(|| format!("{} is a directory, and has no {}; {on_hub}", parent.display(), last(path)))
    }
}

fn last(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl Reference {
    /// Reads one. What is a directory is that; what is none and has the form of a hub id is a hub id, as in mergekit.
    pub(super) fn read(reading: Reading<'_>, place: Place<'_>) -> Option<Self> {
        let fail = |message: String, hint: &str| reading.fail(Diagnostic::new(reading.node.span, message).hint(hint));
        if reading.node.as_scalar().is_none() {
            let diagnostic = wrong_type(reading.node, &format!("`{}`", reading.key), "text");
            return reading.fail(diagnostic.hint("write a directory, or a hub id as org/name or org/name@revision"));
        }
        let text = reading.word()?;
        let one = |part: &str| Self::one(reading, part, place);
        match text.split('+').collect::<Vec<_>>().as_slice() {
            [model] => one(model),
            [model, adapter] if !model.is_empty() && !adapter.is_empty() => {
                Some(Self::Lora(Box::new((one(model)?, one(adapter)?))))
            }
            _ => fail(
                format!("`{text}` is no model with a LoRA adapter"),
                "write MODEL+ADAPTER; adapters are not stacked",
            ),
        }
    }

    /// A model or an adapter.
    fn one(reading: Reading<'_>, text: &str, place: Place<'_>) -> Option<Self> {
        let fail = |message: String, hint: &str| reading.fail(Diagnostic::new(reading.node.span, message).hint(hint));
        let (name, revision) = match text.split_once('@') {
            None => (text, None),
            Some((_, revision)) if revision.contains('@') => {
                return fail(format!("`{text}` has more than one `@`"), "write org/name@revision");
            }
            Some((name, revision)) => (name, Some(revision.to_owned())),
        };
        let path = Path::new(name);
        let part = |part: &str| is_name(part);
        if !place.files.is_directory(path) && name.split('/').count() <= 2 && name.split('/').all(part) {
            if let Some(hint) = place.is_missing(path).filter(|_| revision.is_none()) {
                return fail(format!("there is no model `{name}`"), &hint);
            }
            return Some(Self::hub(name, revision.as_deref()));
        }
        if revision.is_some() {
            return fail(format!("`{name}` is a directory, and has no revision"), "take the `@` and what follows away");
        }
        Some(Self::path(path))
    }

    /// The model that an entry of `models` is.
    pub(super) fn of(entry: &Node) -> Option<Self> {
        let map = entry.as_map().filter(|map| !map.contains_key("from"))?;
        let scalar = |key: &str| map.get(key)?.value.as_scalar();
        let path = || scalar("path").map(|path| Self::path(Path::new(path)));
        let model = scalar("hub").map(|repo| Self::hub(repo, scalar("revision"))).or_else(path)?;
        let Some(adapter) = map.get("lora").map(|field| &field.value) else { return Some(model) };
        let adapter = match adapter.as_scalar() {
            Some(path) => Self::path(Path::new(path)),
            None => Self::of(adapter)?,
        };
        Some(Self::Lora(Box::new((model, adapter))))
    }

    fn hub(repo: &str, revision: Option<&str>) -> Self {
        Self::Hub(repo.to_owned(), revision.filter(|revision| *revision != "main").map(str::to_owned))
    }

    fn path(path: &Path) -> Self {
        Self::Path(path.components().filter(|part| *part != Component::CurDir).collect())
    }

    /// As an entry of `models`.
    pub(super) fn model(&self) -> Model {
        match self.clone() {
            Self::Hub(repo, revision) => Model::Hub { repo, revision },
            Self::Path(path) => Model::Path(path),
            Self::Lora(parts) => Model::Lora(Box::new(Lora { base: parts.0.model(), adapter: parts.1.model() })),
        }
    }

    /// A name for it: the last part of its path, or the last two, or that with a number, whichever is the first that is free.
    pub(super) fn name(&self, is_free: impl Fn(&str) -> bool) -> String {
        let of = |count: usize| as_name(&self.last_parts(count).join("-"));
        let numbered = (2_usize..).map(|number| format!("{}-{number}", of(2)));
        // `tokenizer: union` is no model.
        let free = |name: &String| name != "union" && is_free(name);
        [of(1), of(2)].into_iter().chain(numbered).find(free).unwrap_or_default()
    }

    /// The last so many parts of its path or id, with its revision; of a model with an adapter those of both.
    fn last_parts(&self, count: usize) -> Vec<String> {
        let last = |parts: Vec<String>| parts[parts.len().saturating_sub(count)..].to_vec();
        match self {
            Self::Hub(repo, revision) => {
                last(repo.split('/').map(str::to_owned).collect()).into_iter().chain(revision.clone()).collect()
            }
            Self::Path(path) => {
                let parts = path.components().filter(|part| matches!(part, Component::Normal(_)));
                last(parts.map(|part| part.as_os_str().to_string_lossy().into_owned()).collect())
            }
            Self::Lora(parts) => [parts.0.last_parts(count), parts.1.last_parts(count)].concat(),
        }
    }
}

/// A word in the form of a name.
pub fn as_name(word: &str) -> String {
    let dashed: String = word.chars().map(|char| if is_name_char(char) { char } else { '-' }).collect();
    let name = dashed.trim_start_matches(|first: char| !first.is_ascii_alphanumeric());
    if name.is_empty() { "model".to_owned() } else { name.to_owned() }
}

fn is_name_char(char: char) -> bool {
    u8::try_from(char).is_ok_and(is_name_byte)
}
