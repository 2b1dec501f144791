//! Which files an `lm_eval` task is made of, found without starting `lm_eval`.
//!
//! A task is a YAML file that names itself (`task: gsm8k`), may take in others (`include:`), refers to functions of
//! Python modules beside it (`!function utils.score`), and may read local data (`data_files:`). A group names tasks.
//! The harness searches the user's directories before its own, and so do we.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::project::Python;

/// Finds the files of tasks.
#[derive(Debug, Default)]
pub struct TaskFiles {
    indexes: Mutex<HashMap<PathBuf, BTreeMap<String, PathBuf>>>,
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
    /// Files of a task or group: under names that are the same on every machine, and where they are.
    ///
    /// # Errors
    /// When no directory has a task of that name.
    pub fn find(
        &self,
        root: &Path,
        dirs: &[PathBuf],
        python: Option<&Python>,
        task: &str,
    ) -> Result<BTreeMap<String, PathBuf>, NoTask> {
        let mut places: Vec<PathBuf> = dirs.iter().map(|dir| root.join(dir)).collect();
        let own = python.map(Python::site_packages).unwrap_or_default();
        places.extend(own.iter().map(|site| site.join("lm_eval").join("tasks")).filter(|dir| dir.is_dir()));
        let mut found = BTreeMap::new();
        let mut pending = vec![task.to_owned()];
        let mut seen = BTreeSet::new();
        while let Some(name) = pending.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let place = places.iter().find_map(|dir| Some((dir, self.lookup(dir, &name)?)));
            match place {
                Some((dir, file)) => pending.extend(gather(root, dir, &file, &mut found)),
                // A group may refer to what is no file of its own, such as a task that it defines in place.
                None if name != task => {}
                None => {
                    let nearest = self.nearest(&places, task);
                    let dirs =
                        dirs.iter().map(|dir| dir.display().to_string()).chain(["lm_eval's own tasks".to_owned()]);
                    return Err(NoTask { task: task.to_owned(), dirs: dirs.collect(), nearest });
                }
            }
        }
        Ok(found)
    }

    fn lookup(&self, dir: &Path, task: &str) -> Option<PathBuf> {
        let mut indexes = self.indexes.lock().expect("no holder of this lock panics");
        indexes.entry(dir.to_path_buf()).or_insert_with(|| index(dir)).get(task).cloned()
    }

    fn nearest(&self, dirs: &[PathBuf], task: &str) -> Option<String> {
        let indexes = self.indexes.lock().expect("no holder of this lock panics");
        let names = dirs.iter().filter_map(|dir| indexes.get(dir)).flat_map(BTreeMap::keys);
        let ranked =
            names.map(|name| (strsim::jaro_winkler(name, task), name)).filter(|(likeness, _)| *likeness > 0.85);
        ranked.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, name)| name.clone())
    }
}

/// Task and group names of a directory with the files that define them; the first in path order wins.
fn index(dir: &Path) -> BTreeMap<String, PathBuf> {
    let mut names = BTreeMap::new();
    for path in yaml_files(dir) {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for field in ["task", "group"] {
            if let Some(name) = top_level(&text, field) {
                names.entry(name).or_insert_with(|| path.clone());
            }
        }
    }
    names
}

fn yaml_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => pending.push(path),
                Ok(_) if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") => {
                    files.push(path);
                }
                _ => {}
            }
        }
    }
    files.sort();
    files
}

/// A scalar at the top level of a YAML mapping.
fn top_level(text: &str, field: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let value = value.split(" #").next().unwrap_or(value).trim().trim_matches(['"', '\'']);
    (!value.is_empty() && !value.starts_with(['[', '{', '#', '!'])).then(|| value.to_owned())
}

/// Takes down one YAML file and all that it refers to; gives the names of the tasks that a group lists.
fn gather(root: &Path, dir: &Path, file: &Path, found: &mut BTreeMap<String, PathBuf>) -> Vec<String> {
    let mut tasks = Vec::new();
    let mut pending = vec![file.to_path_buf()];
    while let Some(path) = pending.pop() {
        let name = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().into_owned();
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        if found.insert(name, path.clone()).is_some() {
            continue;
        }
        let folder = path.parent().unwrap_or(dir);
        if let Some(included) = top_level(&text, "include") {
            pending.push(folder.join(included));
        }
        let has_functions = text.contains("!function");
        if has_functions {
            // A module may import its neighbours: all of them count.
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let module = entry.path();
                if module.extension().is_some_and(|extension| extension == "py") {
                    let name = module.strip_prefix(dir).unwrap_or(&module).to_string_lossy().into_owned();
                    found.insert(name, module);
                }
            }
        }
        for word in text.split(|letter: char| letter.is_whitespace() || "\"',[]{}".contains(letter)) {
            // Local data is named relative to the project's root, which is where the harness runs.
            if word.contains(['/', '.']) && root.join(word).is_file() {
                found.insert(word.to_owned(), root.join(word));
            }
        }
        if top_level(&text, "group").is_some() {
            let listed = text.lines().filter_map(|line| line.trim().strip_prefix("- "));
            let listed = listed.map(|item| item.trim().trim_start_matches("task:").trim().trim_matches(['"', '\'']));
            tasks.extend(listed.filter(|item| !item.is_empty()).map(ToOwned::to_owned));
        }
    }
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("tasks/add/add.yaml", "task: add # sums\ninclude: _base\nprocess_results: !function score.exact\n");
        write("tasks/add/_base", "dataset_path: json\ndataset_kwargs:\n  data_files: { test: data/add.jsonl }\n");
        write("tasks/add/score.py", "from helper import x\n");
        write("tasks/add/helper.py", "x = 1\n");
        write("tasks/all.yaml", "group: all\ntask:\n  - add\n  - task: sub\n");
        write("tasks/sub.yaml", "task: sub\n");
        write("data/add.jsonl", "{}\n");
        dir
    }

    fn names(task: &str) -> Vec<String> {
        let dir = project();
        let found = TaskFiles::default().find(dir.path(), &["tasks".into()], None, task).unwrap();
        found.into_keys().collect()
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
    fn an_unknown_task_is_refused_with_the_nearest_name() {
        let dir = project();
        let error = TaskFiles::default().find(dir.path(), &["tasks".into()], None, "adds").unwrap_err();
        assert_eq!(error.to_string(), r#"no task "adds" in tasks, lm_eval's own tasks; did you mean "add"?"#);
    }
}
