//! Which files an `lm_eval` task is made of, found without starting `lm_eval`.
//!
//! A task is a YAML file that names itself (`task: gsm8k`), may take in others (`include:`), refers to functions of
//! Python modules beside it (`!function utils.score`), and may read local data (`dataset_path:`, `data_files:`). A group
//! lists tasks, groups and tags; a tag stands for all tasks that carry it. The harness searches the user's directories
//! before its own, the last of them first, and so do we.

mod cache;
mod data;
mod hub;
mod index;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use self::index::{Named, index};
use super::yaml::{self, Yaml};
use crate::digest::Digest;
use crate::project::Python;

/// Finds the files of tasks.
#[derive(Debug, Default)]
pub struct TaskFiles {
    /// Where the index of the harness's own tasks is kept.
    cache: Option<PathBuf>,
    /// Where `datasets` keeps what it fetched from the hub.
    datasets: Option<PathBuf>,
    indexes: Mutex<HashMap<PathBuf, BTreeMap<String, Named>>>,
}

/// What a task is made of.
#[derive(Debug, Default)]
pub struct Definition {
    /// Its files: under names that are the same on every machine, and where they are.
    pub files: BTreeMap<String, PathBuf>,
    /// Commits of the hub data sets that it reads, by data set and configuration, as far as they are on this machine.
    pub revisions: BTreeMap<String, String>,
}

/// A task that is nowhere.
#[derive(Debug, thiserror::Error)]
#[error("no task {task:?} in {}{}", dirs.join(", "), nearest.as_ref().map(|name| format!("; did you mean {name:?}?")).unwrap_or_default())]
pub struct NoTask {
    task: String,
    dirs: Vec<String>,
    nearest: Option<String>,
}

impl TaskFiles {
    /// With a directory that keeps the index of the harness's own tasks; losing it costs time only.
    pub fn cached_in(dir: PathBuf) -> Self {
        Self { cache: Some(dir), datasets: hub::cache(), ..Self::default() }
    }

    /// The files of a task, group or tag, and the revisions of its data.
    ///
    /// # Errors
    /// When no directory has a task of that name.
    pub fn find(
        &self,
        root: &Path,
        dirs: &[PathBuf],
        python: Option<&Python>,
        task: &str,
    ) -> Result<Definition, NoTask> {
        let mut places: Vec<PathBuf> = dirs.iter().rev().map(|dir| root.join(dir)).collect();
        let own = python.map(Python::site_packages).unwrap_or_default();
        let own: Vec<_> =
            own.iter().map(|site| site.join("lm_eval").join("tasks")).filter(|dir| dir.is_dir()).collect();
        let users = places.len();
        places.extend(own);
        let mut gathered = Gathered::new(root);
        let mut pending = vec![task.to_owned()];
        let mut seen = BTreeSet::new();
        while let Some(name) = pending.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let mut numbered = places.iter().enumerate();
            match numbered.find_map(|(number, dir)| {
                let shipped_with = python.filter(|_| number >= users);
                Some((dir, self.lookup(dir, shipped_with, &name)?))
            }) {
                Some((dir, Named::File(file))) => pending.extend(gathered.task(dir, file)),
                Some((_, Named::Tag(tasks))) => pending.extend(tasks),
                // A group may list what is no file of its own: a task or group that it defines in place.
                None if name != task => {}
                None => {
                    let nearest = self.nearest(&places, task);
                    let dirs =
                        dirs.iter().map(|dir| dir.display().to_string()).chain(["lm_eval's own tasks".to_owned()]);
                    return Err(NoTask { task: task.to_owned(), dirs: dirs.collect(), nearest });
                }
            }
        }
        let revisions = self.datasets.iter().flat_map(|cache| gathered.revisions(cache)).collect();
        Ok(Definition { files: gathered.files, revisions })
    }

    fn lookup(&self, dir: &Path, shipped_with: Option<&Python>, task: &str) -> Option<Named> {
        let mut indexes = self.indexes.lock().expect("no holder of this lock panics");
        let names = indexes.entry(dir.to_path_buf()).or_insert_with(|| match (&self.cache, shipped_with) {
            (Some(cache), Some(python)) => cached(cache, dir, python),
            _ => index(dir),
        });
        names.get(task).cloned()
    }

    fn nearest(&self, dirs: &[PathBuf], task: &str) -> Option<String> {
        let indexes = self.indexes.lock().expect("no holder of this lock panics");
        let names = dirs.iter().filter_map(|dir| indexes.get(dir)).flat_map(BTreeMap::keys);
        let ranked =
            names.map(|name| (strsim::jaro_winkler(name, task), name)).filter(|(likeness, _)| *likeness > 0.85);
        ranked.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, name)| name.clone())
    }
}

/// The index of the harness's own tasks.
fn cached(cache: &Path, dir: &Path, python: &Python) -> BTreeMap<String, Named> {
    let versions = python.versions();
    let version = versions.get("lm_eval").map_or("unknown", String::as_str);
    let place = Digest::of(dir.as_os_str().as_encoded_bytes()).to_string();
    let file = cache.join(format!("tasks-{version}-{}", &place[..16]));
    cache::read(&file, dir).unwrap_or_else(|| {
        let names = index(dir);
        let _ = cache::write(&file, dir, &names);
        names
    })
}

/// The files found so far.
struct Gathered<'a> {
    /// Directory that the harness runs in.
    root: &'a Path,
    files: BTreeMap<String, PathBuf>,
    /// Task files that were read.
    read: BTreeSet<PathBuf>,
    /// Places without a name that is the same everywhere: their numbers are their names.
    outside: Vec<PathBuf>,
    /// Data sets on the hub, and names of configurations of any of them.
    data_sets: BTreeSet<String>,
    configs: BTreeSet<String>,
}

impl<'a> Gathered<'a> {
    fn new(root: &'a Path) -> Self {
        Self {
            root,
            files: BTreeMap::new(),
            read: BTreeSet::new(),
            outside: Vec::new(),
            data_sets: BTreeSet::new(),
            configs: BTreeSet::new(),
        }
    }

    /// Commits of the data sets in a cache.
    fn revisions(&self, cache: &Path) -> BTreeMap<String, String> {
        let mut revisions = BTreeMap::new();
        for name in &self.data_sets {
            let found = hub::revisions(cache, name, &self.configs);
            revisions.extend(found.into_iter().map(|(config, commit)| (format!("{name}/{config}"), commit)));
        }
        revisions
    }

    /// Takes down a task file of a directory and all that it refers to; gives the names that it lists as members.
    fn task(&mut self, dir: &Path, file: PathBuf) -> Vec<String> {
        let mut members = Vec::new();
        let mut pending = vec![file];
        while let Some(path) = pending.pop() {
            let path = plain(&path);
            if !self.read.insert(path.clone()) {
                continue;
            }
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            self.add_beside(dir, &path);
            let yaml = yaml::read(&text);
            let folder = path.parent().unwrap_or(dir).to_path_buf();
            let included = yaml.get("include").map(Yaml::texts).unwrap_or_default();
            pending.extend(included.into_iter().map(|include| folder.join(include)));
            let mut modules = BTreeSet::new();
            let mut named = Vec::new();
            yaml.scalars(&mut |scalar| match scalar {
                Yaml::Function(function) => {
                    modules.insert(function.rsplit_once('.').map_or("", |(module, _)| module).replace('.', "/"));
                }
                Yaml::Text(text) => named.push(text.as_str()),
                _ => {}
            });
            for module in modules {
                // A module may import its neighbours: all of them count.
                let beside = folder.join(format!("{module}.py"));
                self.add_modules(dir, &folder);
                self.add_modules(dir, beside.parent().unwrap_or(&folder));
            }
            let is_on_hub =
                |name: &&str| hub::is_name(name) && !data::is_format(name) && data::files(self.root, name).is_empty();
            self.data_sets.extend(yaml.get("dataset_path").and_then(Yaml::text).filter(is_on_hub).map(str::to_owned));
            self.configs.extend(yaml.get("dataset_name").and_then(Yaml::text).map(str::to_owned));
            for field in ["dataset_path", "dataset_kwargs"] {
                if let Some(value) = yaml.get(field) {
                    value.scalars(&mut |scalar| self.add_data(scalar.text().unwrap_or_default(), true));
                }
            }
            // Whatever else names a file relative to where the harness runs is taken to be read.
            for text in named {
                self.add_data(text, false);
            }
            if let Some(Yaml::List(_)) = yaml.get("task") {
                members_of(&yaml, &mut members);
            }
        }
        members
    }

    fn add_modules(&mut self, dir: &Path, folder: &Path) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let module = entry.path();
            if module.extension().is_some_and(|extension| extension == "py") {
                self.add_beside(dir, &module);
            }
        }
    }

    /// A file of a directory of tasks, named by its path in it.
    fn add_beside(&mut self, dir: &Path, path: &Path) {
        let path = plain(path);
        match path.strip_prefix(plain(dir)) {
            Ok(name) => self.add(&name.to_string_lossy(), path.clone()),
            Err(_) => {
                let name = self.name_of(&path.to_string_lossy());
                self.add(&name, path);
            }
        }
    }

    /// Data that a text names, if it does: a file, or where a data set stands, also a directory or a pattern.
    fn add_data(&mut self, text: &str, is_data: bool) {
        let found = if is_data { data::files(self.root, text) } else { data::file(self.root, text) };
        if found.is_empty() {
            return;
        }
        let name = self.name_of(data::fixed_part(text));
        for (inner, path) in found {
            self.add([name.as_str(), &inner].join("/").trim_matches('/'), path);
        }
    }

    /// A name for a path that is the same on every machine: relative to the root, or a number.
    fn name_of(&mut self, path: &str) -> String {
        let path = Path::new(path);
        if path.is_relative() {
            return plain(path).to_string_lossy().into_owned();
        }
        if let Ok(inner) = plain(path).strip_prefix(plain(self.root)) {
            return inner.to_string_lossy().into_owned();
        }
        let path = plain(path);
        let number = self.outside.iter().position(|other| *other == path).unwrap_or_else(|| {
            self.outside.push(path);
            self.outside.len() - 1
        });
        format!("data/{number}")
    }

    fn add(&mut self, name: &str, path: PathBuf) {
        // The same name in two directories of tasks, or twice the same file.
        let mut free = name.to_owned();
        for again in 1.. {
            match self.files.get(&free) {
                Some(other) if *other != path => free = format!("{name}~{again}"),
                _ => break,
            }
        }
        self.files.insert(free, path);
    }
}

/// Names that a group lists, those of the groups that it defines in place included.
fn members_of(group: &Yaml, names: &mut Vec<String>) {
    for member in group.get("task").map(Yaml::items).unwrap_or_default() {
        if let Some(name) = member.text() {
            names.push(name.to_owned());
        }
        for field in ["group", "task"] {
            names.extend(member.get(field).and_then(Yaml::text).map(ToOwned::to_owned));
        }
        members_of(member, names);
    }
}

/// A path without `.`, and with `..` taken back as far as it can be, by its spelling.
fn plain(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(plain.components().next_back(), Some(Component::Normal(_))) => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    fn found(files: &[(&str, &str)], task: &str) -> Vec<String> {
        let dir = written(files);
        TaskFiles::default().find(dir.path(), &["tasks".into()], None, task).unwrap().files.into_keys().collect()
    }

    fn project() -> tempfile::TempDir {
        written(&[
            ("tasks/add/add.yaml", "task: add # sums\ninclude: _base\nprocess_results: !function score.exact\n"),
            ("tasks/add/_base", "dataset_path: json\ndataset_kwargs:\n  data_files: { test: data/add.jsonl }\n"),
            ("tasks/add/score.py", "from helper import x\n"),
            ("tasks/add/helper.py", "x = 1\n"),
            ("tasks/all.yaml", "group: all\ntask:\n  - add\n  - task: sub\n"),
            ("tasks/sub.yaml", "task: sub\n"),
            ("data/add.jsonl", "{}\n"),
        ])
    }

    fn names(task: &str) -> Vec<String> {
        let dir = project();
        let found = TaskFiles::default().find(dir.path(), &["tasks".into()], None, task).unwrap();
        found.files.into_keys().collect()
    }

    #[test]
    fn a_task_is_its_file_what_it_includes_its_modules_and_its_data() {
        assert_eq!(names("add"), ["add/_base", "add/add.yaml", "add/helper.py", "add/score.py", "data/add.jsonl"]);
    }

    #[test]
    fn a_group_is_all_of_its_tasks() {
        assert!(names("all").contains(&"sub.yaml".to_owned()));
        assert!(names("all").contains(&"add/add.yaml".to_owned()));
    }

    #[test]
    fn a_tag_is_every_task_that_carries_it_itself_or_by_what_it_includes() {
        let found = found(
            &[
                ("tasks/one.yaml", "\"task\": \"one\"\n\"tag\": \"letters\"\n"),
                ("tasks/two.yaml", "task: two\ntag:\n  - letters\n  - more\n"),
                ("tasks/three.yaml", "task: three\ninclude: _base\n"),
                ("tasks/other.yaml", "task: other\ntag: more\n"),
                ("tasks/_base", "tag: letters\n"),
            ],
            "letters",
        );
        assert_eq!(found, ["_base", "one.yaml", "three.yaml", "two.yaml"]);
    }

    #[test]
    fn a_group_is_followed_through_flow_lists_tags_and_groups_defined_in_place() {
        let files = [
            (
                "tasks/all.yaml",
                "group: all\ntask: [a, letters, { group: inner, task: [{ task: c }, { group: deep }] }]\n",
            ),
            ("tasks/deep.yaml", "group: deep\ntask:\n  - d\n  - in-place\n"),
            ("tasks/a.yaml", "task: a\n"),
            ("tasks/b.yaml", "task: b\ntag: [letters]\n"),
            ("tasks/c.yaml", "task: c\n"),
            ("tasks/d.yaml", "task: d\n"),
            ("tasks/e.yaml", "task: e\n"),
        ];
        assert_eq!(found(&files, "all"), ["a.yaml", "all.yaml", "b.yaml", "c.yaml", "d.yaml", "deep.yaml"]);
    }

    #[test]
    fn data_is_a_file_a_directory_or_a_pattern() {
        let files = [
            (
                "tasks/a.yaml",
                "task: a\ndataset_path: data/dir\ndataset_kwargs: { data_files: { test: [\"more/*.json\"] } }\n",
            ),
            ("data/dir/x.parquet", ""),
            ("data/dir/deep/y.parquet", ""),
            ("data/dir/.cache/z", ""),
            ("more/one.json", ""),
            ("more/two.txt", ""),
        ];
        assert_eq!(found(&files, "a"), ["a.yaml", "data/dir/deep/y.parquet", "data/dir/x.parquet", "more/one.json"]);
    }

    #[test]
    fn data_elsewhere_is_named_by_a_number_and_not_by_where_it_is() {
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::write(elsewhere.path().join("x.jsonl"), "{}").unwrap();
        let at = elsewhere.path().display();
        let text = format!("task: a\ndataset_kwargs:\n  data_files: {at}/x.jsonl\n");
        assert_eq!(found(&[("tasks/a.yaml", &text)], "a"), ["a.yaml", "data/0"]);
        let text = format!("task: a\ndataset_path: {at}\n");
        assert_eq!(found(&[("tasks/a.yaml", &text)], "a"), ["a.yaml", "data/0/x.jsonl"]);
    }

    #[test]
    fn the_last_directory_that_has_a_task_defines_it() {
        let dir = written(&[("one/a.yaml", "task: a\n"), ("two/b.yaml", "task: a\n")]);
        let found = TaskFiles::default().find(dir.path(), &["one".into(), "two".into()], None, "a").unwrap();
        assert_eq!(found.files.into_keys().collect::<Vec<_>>(), ["b.yaml"]);
    }

    #[test]
    fn a_data_set_on_the_hub_is_known_by_the_commit_that_is_on_this_machine() {
        let dir = written(&[
            ("tasks/a.yaml", "task: a\ninclude: _base\ndataset_name: main\n"),
            ("tasks/_base", "dataset_path: openai/gsm8k\n"),
            ("tasks/b.yaml", "task: b\ndataset_path: json\ndataset_kwargs: { data_files: rows.json }\n"),
            ("cache/openai___gsm8k/main/0.0.0/abc/dataset_info.json", "{}"),
            ("cache/openai___gsm8k/socratic/0.0.0/abc/dataset_info.json", "{}"),
            ("cache/json/default-1/0.0.0/abc/dataset_info.json", "{}"),
        ]);
        let tasks = TaskFiles { datasets: Some(dir.path().join("cache")), ..TaskFiles::default() };
        let of = |task: &str| tasks.find(dir.path(), &["tasks".into()], None, task).unwrap().revisions;
        assert_eq!(of("a"), BTreeMap::from([("openai/gsm8k/main".to_owned(), "abc".to_owned())]));
        assert_eq!(of("b"), BTreeMap::new());
    }

    #[test]
    fn an_unknown_task_is_refused_with_the_nearest_name() {
        let dir = project();
        let error = TaskFiles::default().find(dir.path(), &["tasks".into()], None, "adds").unwrap_err();
        assert_eq!(error.to_string(), r#"no task "adds" in tasks, lm_eval's own tasks; did you mean "add"?"#);
    }
}
