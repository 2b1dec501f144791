//! Other experiments, whose models stand in a table of this one: `from: FILE` in a row.
//!
//! Their files are read for what they are called and which models and tasks they evaluate; tables of theirs are not, so two
//! experiments may show each other's models.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::diagnostics::Diagnostic;
use super::layout::Row;
use super::loaded::{Files, Loaded, text_of};
use super::names::Expanded;
use super::parse::parse_with;
use super::read::{Reading, did_you_mean, listed};

/// Experiments that tables name, each read once.
pub(super) struct Others<'a> {
    files: &'a dyn Files,
    /// What this experiment is called.
    own: Option<String>,
    read: RefCell<HashMap<PathBuf, Result<Rc<Loaded>, Unusable>>>,
}

/// Why an experiment cannot be used, and the way out.
struct Unusable {
    message: String,
    hint: String,
}

/// The files of an experiment that another one names.
struct Inner<'a>(&'a dyn Files);

impl Files for Inner<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.read(path)
    }

    fn is_directory(&self, path: &Path) -> bool {
        self.0.is_directory(path)
    }

    fn of_another(&self) -> bool {
        true
    }
}

impl<'a> Others<'a> {
    pub(super) fn new(files: &'a dyn Files, own: Option<String>) -> Self {
        Self { files, own, read: RefCell::default() }
    }

    /// The experiment that a `from` names; reports one that cannot be used.
    pub(super) fn experiment(&self, from: Reading<'_>) -> Option<(PathBuf, Rc<Loaded>)> {
        let path = from.path()?;
        let mut read = self.read.borrow_mut();
        let found = read.entry(path.clone()).or_insert_with(|| self.load(&path));
        let fail = |message: String, hint: &str| from.fail(Diagnostic::new(from.node.span, message).hint(hint));
        let loaded = match found {
            Ok(loaded) => Rc::clone(loaded),
            Err(Unusable { message, hint }) => return fail(message.clone(), hint),
        };
        let name = &loaded.experiment.name;
        if self.own.as_ref() == Some(name) {
            let hint = "leave `from` away for models of this experiment; another one needs a name of its own";
            return fail(format!("{} is called `{name}` too", path.display()), hint);
        }
        let is_called_so =
            |found: &Result<Rc<Loaded>, _>| found.as_ref().is_ok_and(|found| found.experiment.name == *name);
        if let Some((other, _)) = read.iter().find(|(other, found)| **other != path && is_called_so(found)) {
            let message = format!("{} and {} are both called `{name}`", path.display(), other.display());
            return fail(message, "give one of them another name: their results lie in results/NAME");
        }
        Some((path, loaded))
    }

    fn load(&self, path: &Path) -> Result<Rc<Loaded>, Unusable> {
        let file = path.display();
        let bytes = self.files.read(path).map_err(|error| Unusable {
            message: format!("cannot read {file}: {error}"),
            hint: "`from` is an experiment file, relative to the project's root".to_owned(),
        })?;
        let wrong = |what: &str| Unusable {
            message: format!("{file} is wrong: {what}"),
            hint: format!("`mergelab status {file}` says where"),
        };
        let text = text_of(&bytes).map_err(|_| wrong("it is not UTF-8 text"))?;
        parse_with(path, text, &Inner(self.files)).map(Rc::new).map_err(|errors| {
            let first = errors.list().first().map(|error| error.message.as_str()).unwrap_or_default();
            match errors.list().len() - 1 {
                0 => wrong(first),
                more => wrong(&format!("{first}, and {more} more")),
            }
        })
    }

    /// The tasks that the experiments of some rows evaluate.
    pub(super) fn tasks(&self, rows: &[Row]) -> BTreeSet<String> {
        let read = self.read.borrow();
        let files = rows.iter().filter_map(|row| Some(&row.elsewhere.as_ref()?.file));
        let experiments = files.filter_map(|file| Some(&read.get(file)?.as_ref().ok()?.experiment));
        let suites = experiments.flat_map(|experiment| &experiment.evals);
        suites.flat_map(|(name, suite)| suite.measures(name)).map(|task| task.name).collect()
    }
}

/// What a name of another experiment means: the expansions of a swept entry. Reports what that does not evaluate.
pub(super) fn expanded(file: &Path, loaded: &Loaded, model: Reading<'_>) -> Option<Vec<Expanded>> {
    let name = model.name()?;
    let experiment = &loaded.experiment;
    let all = || {
        let merges = experiment.merges.keys().map(|name| ("merges", name));
        merges.chain(experiment.models.keys().map(|name| ("models", name)))
    };
    let of_entry = |(section, model): (&str, &String)| {
        let origin = loaded.expansion(&format!("{section}.{model}"))?;
        (origin.entry == name).then(|| Expanded { model: model.clone(), coordinates: origin.coordinates.clone() })
    };
    let mut found: Vec<Expanded> = all().filter_map(of_entry).collect();
    if found.is_empty() && all().any(|(_, model)| *model == name) {
        found.push(Expanded { model: name.clone(), coordinates: Vec::new() });
    }
    let fail = |message: String, hint| model.fail(Diagnostic::new(model.node.span, message).maybe_hint(hint));
    if found.is_empty() {
        let names: Vec<&str> = all().map(|(_, name)| name.as_str()).collect();
        let hint = did_you_mean(&name, names.iter().copied()).or_else(|| listed(&names, "names"));
        return fail(format!("{} has no model or merge called `{name}`", file.display()), hint);
    }
    let evaluated = |model: &String| experiment.evals.values().any(|suite| suite.models.contains(model));
    if let Some(Expanded { model: name, .. }) = found.iter().find(|one| !evaluated(&one.model)) {
        let message = format!("no suite of {} evaluates `{name}`, so this row would be empty", file.display());
        return fail(message, Some("add it to the `models` of a suite there".to_owned()));
    }
    Some(found)
}
