//! What every command starts with: files read, names checked, the graph built, the project found.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mergelab_wire::Engine;

use super::{CliError, revisions};
use crate::exec::{Surveyor, missing};
use crate::experiment::{self, Loaded};
use crate::plan::{self, Facts, Graph, StageId};
use crate::project::lock_file::{LockFile, path_of};
use crate::project::{Project, Python};
use crate::store::Store;

/// Experiments, their graph and their project.
pub(super) struct Session {
    pub(super) loaded: Vec<Loaded>,
    pub(super) graph: Graph,
    pub(super) project: Project,
    pub(super) python: Option<Python>,
    /// Of each file, what lies beside it.
    pub(super) locks: Vec<LockFile>,
}

impl Session {
    /// Reads experiment files; every error of every file is reported.
    pub(super) fn open(files: &[PathBuf]) -> Result<Self, CliError> {
        let folder = |file: &Path| file.parent().map(Path::to_path_buf).unwrap_or_default();
        let mut loaded: Vec<Loaded> = Vec::new();
        let mut wrong = Vec::new();
        for file in files {
            let root = Project::find(&folder(file))?.root;
            match experiment::load(file, &root) {
                Ok(_) if files.iter().filter(|other| *other == file).count() > 1 => {
                    return Err(CliError::Usage(format!("{} is named twice", file.display())));
                }
                Ok(experiment) => loaded.push(experiment),
                Err(experiment::LoadError::Invalid(diagnostics)) => wrong.push(diagnostics),
                Err(error) => return Err(error.into()),
            }
        }
        if let Err(clashes) = experiment::check_names(&loaded) {
            wrong.extend(clashes);
        }
        if !wrong.is_empty() {
            return Err(CliError::Experiment(wrong));
        }
        let project = Project::find(&folder(&files[0]))?;
        for file in &files[1..] {
            let other = Project::find(&folder(file))?.root;
            if other != project.root {
                return Err(CliError::Usage(format!(
                    "{} belongs to the project in {}, {} to the one in {}: run them one by one",
                    files[0].display(),
                    project.root.display(),
                    file.display(),
                    other.display()
                )));
            }
        }
        let graph = Graph::new(loaded.iter().map(|loaded| Arc::new(loaded.experiment.clone())).collect());
        let python = project.python();
        let locks = loaded.iter().map(|loaded| LockFile::read(&path_of(&loaded.experiment.file)));
        let locks = locks.collect::<Result<_, _>>()?;
        Ok(Self { loaded, graph, project, python, locks })
    }

    /// The store, if there is one.
    pub(super) fn existing_store(&self) -> Result<Option<Store>, CliError> {
        Ok(Store::open_existing(&self.project.store_path())?)
    }

    /// Facts to start with: versions of tools, if any stage asks for them, and the commits that lock files give.
    pub(super) fn facts(&self) -> Facts {
        let asks = self.graph.stages.iter().any(|stage| match &stage.spec {
            plan::Spec::Eval { .. } => true,
            plan::Spec::Gram { capture, .. } => capture.engine != Engine::Native,
            _ => false,
        });
        let tools = self.python.as_ref().filter(|_| asks).map(Python::versions).unwrap_or_default();
        Facts { tools, commits: revisions::of_lock_files(self), ..Facts::default() }
    }

    /// Looks at every source that the wanted stages name, and refuses what is not there, each at its place in its file.
    pub(super) fn look_at_sources(
        &self,
        surveyor: &Surveyor<'_>,
        wanted: &[bool],
        facts: &mut Facts,
    ) -> Result<(), CliError> {
        for (_, stage) in self.graph.iter().filter(|(id, _)| wanted[id.0]) {
            surveyor.glance_all(stage, facts)?;
        }
        let mut wrong = Vec::new();
        for (id, place, reason) in missing(&self.graph, facts) {
            // Without the harness nobody can say which tasks there are; that it is not there is said when it is needed.
            let is_task = place == ["tasks"] && !facts.tools.contains_key("lm_eval");
            if wanted[id.0] && !is_task {
                let diagnostics = self.error_at(id, &place, reason);
                if !wrong.contains(&diagnostics) {
                    wrong.push(diagnostics);
                }
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(CliError::Experiment(wrong)) }
    }

    /// An error about something in a stage's entry.
    fn error_at(&self, id: StageId, place: &[String], message: &str) -> experiment::Diagnostics {
        let hint = "paths are relative to the project's root";
        let hint = (!message.starts_with("no task")).then(|| format!("{hint}, {}", self.project.root.display()));
        self.error_with_hint(id, place, message, hint)
    }

    /// An error about something in a stage's entry, with the way out.
    pub(super) fn error_with_hint(
        &self,
        id: StageId,
        place: &[String],
        message: &str,
        hint: Option<String>,
    ) -> experiment::Diagnostics {
        let stage = self.graph.stage(id);
        let mut path = vec![stage.entry.0, stage.entry.1.as_str()];
        path.extend(place.iter().map(String::as_str));
        self.loaded[stage.experiment].error_at(&path, message, hint)
    }

    /// Whether a stage's entry states something in the file of its experiment.
    pub(super) fn states(&self, id: StageId, place: &[&str]) -> bool {
        let stage = self.graph.stage(id);
        let path = [&[stage.entry.0, stage.entry.1.as_str()], place].concat();
        self.loaded[stage.experiment].states(&path)
    }

    /// The stages of a name: one for each experiment that has it; all of its expansions for a swept entry.
    pub(super) fn find(&self, name: &str) -> Result<Vec<StageId>, CliError> {
        let expansions = self.loaded.iter().flat_map(|loaded| loaded.expansions(name));
        let mut found: Vec<StageId> = expansions.flat_map(|stage| self.graph.find(stage).unwrap_or_default()).collect();
        match self.graph.find(name) {
            Ok(stages) => found.extend(stages),
            Err(error) if found.is_empty() => return Err(error.into()),
            Err(_) => {}
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// The one stage of a name.
    pub(super) fn find_one(&self, name: &str) -> Result<StageId, CliError> {
        match self.find(name)?.as_slice() {
            [one] => Ok(*one),
            several => {
                let names: Vec<_> = several.iter().map(|id| self.graph.stage(*id).name.as_str()).collect();
                Err(CliError::Usage(format!("{name:?} is more than one stage: {}", names.join(", "))))
            }
        }
    }
}
