//! Which commits the revisions of repositories on the hub name: from the lock file, and where it does not say, from the
//! hub, once, before anything runs. Nothing else asks: keys touch no network.

use std::collections::{BTreeSet, HashMap};

use mergelab_wire::Fault;

use super::CliError;
use super::progress::describe;
use super::session::Session;
use crate::experiment::Diagnostics;
use crate::plan::{self, Facts, Holds, Repository, Stage};
use crate::project::lock_file::{Commits, LockFile, LockFileError, path_of};
use crate::stage::{self, Failure};

/// The commits that lock files give, for every stage that reads a repository.
pub(super) fn of_lock_files(session: &Session) -> HashMap<(usize, Repository), String> {
    let mut commits = HashMap::new();
    for (_, stage) in session.graph.iter() {
        if let Some((repository, _)) = plan::repository(stage)
            && let Some(commit) = section(&session.locks[stage.experiment], repository.holds)
                .get(&repository.name)
                .and_then(|revisions| revisions.get(&repository.revision))
        {
            commits.insert((stage.experiment, repository), commit.clone());
        }
        if let Some(conversion) = plan::repository(stage).and_then(|(repository, _)| repository.conversion())
            && let Some(revisions) = session.locks[stage.experiment].datasets.get(&conversion.name)
            && let Some(commit) = revisions.get(&conversion.revision)
        {
            commits.insert((stage.experiment, conversion), commit.clone());
        }
    }
    commits
}

/// Refuses a run for which a lock file does not say everything that it needs.
pub(super) fn check_locked(session: &Session, wanted: &[bool]) -> Result<(), CliError> {
    let known = of_lock_files(session);
    let mut missing = BTreeSet::new();
    for (_, stage) in session.graph.iter().filter(|(id, _)| wanted[id.0]) {
        if let Some((repository, _)) = plan::repository(stage)
            && !repository.is_at_commit()
            && !known.contains_key(&(stage.experiment, repository.clone()))
        {
            let lock = path_of(&session.loaded[stage.experiment].experiment.file);
            missing.insert((lock, repository.revision, repository.name));
        }
    }
    let said: Vec<_> = missing
        .iter()
        .map(|(lock, revision, name)| format!("{} does not say which commit `{revision}` of {name} is", lock.display()))
        .collect();
    if said.is_empty() {
        return Ok(());
    }
    let hint = "run without --locked, and keep the lock file with the experiment".to_owned();
    Err(CliError::Damaged { message: said.join("\nerror: "), hint })
}

/// Finds the commit of every repository that a wanted stage reads, with `update` also of those that a lock file gives, and
/// takes down in the lock files what was asked. An experiment whose hub cannot be asked is blocked.
///
/// # Errors
/// What an experiment names and is not there, each at its place; when a lock file cannot be written.
pub(super) fn resolve(
    session: &Session,
    wanted: &[bool],
    update: bool,
    facts: &mut Facts,
    blocked: &mut [Vec<String>],
) -> Result<(), CliError> {
    let mut asked: HashMap<Repository, Result<String, Failure>> = HashMap::new();
    let mut wrong: Vec<Diagnostics> = Vec::new();
    let mut reasons = vec![Vec::new(); blocked.len()];
    let mut fresh: Vec<(usize, Repository, String)> = Vec::new();
    for (id, stage) in session.graph.iter().filter(|(id, stage)| wanted[id.0] && blocked[stage.experiment].is_empty()) {
        let Some((repository, place)) = plan::repository(stage) else { continue };
        if repository.is_at_commit() || (!update && facts.commit(stage.experiment, &repository).is_some()) {
            continue;
        }
        let note = |note: &str| say!("note    {note}");
        let commit = asked.entry(repository.clone()).or_insert_with_key(|repository| stage::resolve(repository, note));
        let found = commit.clone().and_then(|commit| Ok((stage::conversion(stage, &commit, note)?, commit)));
        match &found {
            Ok((converted, commit)) => {
                let conversion = repository.conversion().zip(converted.clone());
                fresh.push((stage.experiment, repository, commit.clone()));
                fresh.extend(conversion.map(|(conversion, commit)| (stage.experiment, conversion, commit)));
            }
            Err(failure) if failure.fault == Fault::Experiment => {
                let (message, hint) = (failure.message.clone(), failure.hint.clone());
                let place: Vec<String> = place.iter().map(|&part| part.to_owned()).collect();
                let diagnostics = session.error_with_hint(id, &place, &message, hint);
                if !wrong.contains(&diagnostics) {
                    wrong.push(diagnostics);
                }
            }
            Err(failure) => reasons[stage.experiment].push(in_words(stage, failure)),
        }
    }
    if !wrong.is_empty() {
        return Err(CliError::Experiment(wrong));
    }
    for (blocked, mut reasons) in blocked.iter_mut().zip(reasons) {
        reasons.dedup();
        blocked.append(&mut reasons);
    }
    for (experiment, repository, _) in &fresh {
        if let Some(conversion) = repository.conversion() {
            facts.commits.remove(&(*experiment, conversion));
        }
    }
    for (experiment, repository, commit) in &fresh {
        facts.commits.insert((*experiment, repository.clone()), commit.clone());
    }
    for (experiment, loaded) in session.loaded.iter().enumerate() {
        let fresh: Vec<_> = fresh.iter().filter(|(of, ..)| *of == experiment).collect();
        if !fresh.is_empty() {
            write(session, experiment, &loaded.experiment.file, &fresh)?;
        }
    }
    Ok(())
}

/// Adds to a lock file what was asked, and leaves out what the experiment no longer names.
fn write(
    session: &Session,
    experiment: usize,
    file: &std::path::Path,
    fresh: &[&(usize, Repository, String)],
) -> Result<(), CliError> {
    let path = path_of(file);
    // Another run may have written it since it was read.
    let mut lock = LockFile::read(&path)?;
    for (_, repository, _) in fresh {
        // Which conversion counts was asked together with it, if any does.
        if let Some(conversion) = repository.conversion() {
            lock.datasets.entry(conversion.name).or_default().remove(&conversion.revision);
        }
    }
    for (_, repository, commit) in fresh {
        let of_name = section_mut(&mut lock, repository.holds).entry(repository.name.clone()).or_default();
        of_name.insert(repository.revision.clone(), commit.clone());
    }
    let stages = session.graph.iter().filter(|(_, stage)| stage.experiment == experiment);
    let named: BTreeSet<Repository> = stages
        .filter_map(|(_, stage)| Some(plan::repository(stage)?.0))
        .flat_map(|repository| repository.conversion().into_iter().chain([repository]))
        .collect();
    for holds in [Holds::Model, Holds::Dataset] {
        for (name, revisions) in &mut *section_mut(&mut lock, holds) {
            revisions.retain(|revision, _| {
                named.contains(&Repository { holds, name: name.clone(), revision: revision.clone() })
            });
        }
    }
    let is_new = !path.exists();
    lock.write(&path)?;
    if is_new {
        say!("wrote   {}", path.display());
    }
    Ok(())
}

fn in_words(stage: &Stage, failure: &Failure) -> String {
    let text = describe(failure).replace('\n', "\n  ");
    format!("{}.{}: {text}", stage.entry.0, stage.entry.1)
}

fn section(lock: &LockFile, holds: Holds) -> &Commits {
    match holds {
        Holds::Model => &lock.models,
        Holds::Dataset => &lock.datasets,
    }
}

fn section_mut(lock: &mut LockFile, holds: Holds) -> &mut Commits {
    match holds {
        Holds::Model => &mut lock.models,
        Holds::Dataset => &mut lock.datasets,
    }
}

impl From<LockFileError> for CliError {
    fn from(error: LockFileError) -> Self {
        let message = error.to_string();
        let hint = match error {
            LockFileError::Io { .. } => return Self::Failed(message),
            LockFileError::Invalid { .. } => "take it back from the repository, or delete it: a run makes it anew",
            LockFileError::Version { .. } => "use the mergelab that made it, or a newer one",
        };
        Self::Damaged { message, hint: hint.to_owned() }
    }
}
