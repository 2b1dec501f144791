//! Which file defines which name, by the rules of `lm_eval`'s own index.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::yaml::{self, Yaml};

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// A task or group, defined in a file.
    File(PathBuf),
    /// The tasks that carry it as a tag.
    Tag(Vec<String>),
}

/// What a file says of itself at its top level; `None` is what it leaves to those it includes.
#[derive(Clone, Debug, Default)]
struct Head {
    task: Option<Said>,
    group: Option<Said>,
    tags: Option<Vec<String>>,
    has_class: bool,
    include: Vec<String>,
}

/// What stands under `task:` or `group:`.
#[derive(Clone, Debug)]
enum Said {
    Name(String),
    /// A list of members, or something else that names nothing.
    NoName,
}

impl Head {
    fn of(yaml: &Yaml) -> Self {
        let name = |field: &str| {
            yaml.get(field).map(|value| value.text().map_or(Said::NoName, |text| Said::Name(text.to_owned())))
        };
        let list = |field: &str| {
            yaml.get(field).map(|value| value.texts().into_iter().map(ToOwned::to_owned).collect::<Vec<_>>())
        };
        Self {
            task: name("task"),
            group: name("group"),
            tags: list("tag"),
            has_class: yaml.get("class").is_some(),
            include: list("include").unwrap_or_default(),
        }
    }
}

/// The names of a directory. The first file in the order of paths as text defines a name; a tag gathers.
pub(super) fn index(dir: &Path) -> BTreeMap<String, Named> {
    let files = yaml_files(dir);
    let mut heads = read_heads(&files);
    let mut names: BTreeMap<String, Named> = BTreeMap::new();
    for path in files {
        let head = whole(&path, &mut heads, 0);
        // A Python task is named by `task`, whatever else is there; a group's `task` is the list of its members.
        let group = head.group.filter(|_| !head.has_class);
        let is_group = group.is_some();
        let Some(Said::Name(name)) = group.or(head.task) else { continue };
        match names.entry(name.clone()) {
            Entry::Occupied(_) => continue,
            Entry::Vacant(entry) => entry.insert(Named::File(path)),
        };
        for tag in head.tags.filter(|_| !is_group).unwrap_or_default() {
            if let Named::Tag(tasks) = names.entry(tag).or_insert_with(|| Named::Tag(Vec::new())) {
                tasks.push(name.clone());
            }
        }
    }
    names
}

/// Reads many small files, which is most of the time that an index takes, on a few threads.
fn read_heads(files: &[PathBuf]) -> HashMap<PathBuf, Head> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(8);
    let share = files.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let read = |part: &[PathBuf]| part.iter().map(|path| (path.clone(), head(path))).collect::<Vec<_>>();
        let workers: Vec<_> = files.chunks(share).map(|part| scope.spawn(move || read(part))).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("reading does not panic")).collect()
    })
}

fn head(path: &Path) -> Head {
    std::fs::read_to_string(path).map(|text| Head::of(&yaml::read(&text))).unwrap_or_default()
}

/// What a file says together with those it includes: later ones over earlier ones, the file itself over all of them.
fn whole(path: &Path, heads: &mut HashMap<PathBuf, Head>, depth: usize) -> Head {
    let own = heads.entry(path.to_path_buf()).or_insert_with(|| head(path)).clone();
    let mut merged = Head::default();
    // A file that includes itself is an error of the harness's; here it only must come to an end.
    for include in own.include.iter().filter(|_| depth < 16) {
        let included = whole(&path.parent().unwrap_or(Path::new("")).join(include), heads, depth + 1);
        merged = over(included, merged);
    }
    over(own, merged)
}

fn over(upper: Head, lower: Head) -> Head {
    Head {
        task: upper.task.or(lower.task),
        group: upper.group.or(lower.group),
        tags: upper.tags.or(lower.tags),
        has_class: upper.has_class || lower.has_class,
        include: Vec::new(),
    }
}

/// Task files under a directory, in the harness's order: that of their paths as text.
fn yaml_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for dir in directories(dir) {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "yaml") && !is_dir(&entry) {
                files.push(path);
            }
        }
    }
    files.sort_by(|one, other| one.as_os_str().cmp(other.as_os_str()));
    files
}

/// A directory and all under it in which the harness looks for tasks.
pub(super) fn directories(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_path_buf()];
    let mut next = 0;
    while let Some(dir) = found.get(next).cloned() {
        next += 1;
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let is_ignored = matches!(entry.file_name().to_str(), Some("__pycache__" | ".ipynb_checkpoints"));
            if is_dir(&entry) && !is_ignored {
                found.push(entry.path());
            }
        }
    }
    found
}

fn is_dir(entry: &std::fs::DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}
