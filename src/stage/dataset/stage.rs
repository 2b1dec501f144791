//! The stage that reads rows of a data set on the hub, and what is settled about one before anything runs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use mergelab_fetch::hub::{Hub, HubError, RemoteFile, RepoKind};
use mergelab_wire::Event;
use serde_json::{Value, json};

use super::read::Sequence;
use super::{DataRepository, Found, Query, find};
use crate::digest::Digest;
use crate::experiment::{Data, DataSource, Pick};
use crate::plan::{CONVERSION, Repository, Spec, Stage, repository};
use crate::stage::hub::Remote;
use crate::stage::{Context, Failure, Job, Product, data};

/// Reads the rows that are asked for, out of no more files than they need.
pub(crate) fn run(
    context: &Context<'_>,
    data: &Data,
    job: &Job<'_>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    let (repository, _) = repository(job.stage).expect("a data set on the hub is in a repository");
    let commit = job.commit.as_deref().expect("a stage with a key has its commit");
    let query = query(data).expect("the data set is on the hub");
    let on_event = RefCell::new(on_event);
    let note = |message: String| (on_event.borrow_mut())(Event::Note { message });
    let fetched = Fetched {
        context,
        repository: &repository,
        conversion: job.conversion.as_deref(),
        remotes: RefCell::default(),
        on_event: &on_event,
    };
    let found = find(&fetched, commit, query)?;
    let name = &repository.name;
    if let Some(why) = &found.converted {
        let of_it = if found.choice.is_partial { "of the beginning of it " } else { "" };
        note(format!("{name}: {why}; read from the conversion {of_it}to Parquet that the hub keeps at {CONVERSION}"));
    }
    if found.choice.is_partial && !matches!(data.rows, Pick::First(_)) {
        let message = format!("{name}: the hub converted only the beginning of its split `{}` to Parquet", query.split);
        return Err(Failure::experiment(message).hint("ask for the first of its rows: `rows: N`"));
    }
    let mut files: BTreeMap<&str, PathBuf> = BTreeMap::new();
    let mut fetch = |path: &str| {
        // One that is read twice, to count its rows first, is held against its digest once.
        if let Some(place) = files.get(path) {
            return Ok(place.clone());
        }
        let file = found.file(path);
        let place = fetched.fetch(&found.commit, file)?;
        files.insert(&file.path, place.clone());
        Ok(place)
    };
    let mut rows = Sequence::new(&found.choice, &mut fetch);
    let place = format!("the split `{}` of {name}", query.split);
    let mut pass = |event: Event| (on_event.borrow_mut())(event);
    let mut product = data::keep(data.rows, &mut rows, &place, &job.out.join("rows.jsonl"), &mut pass)?;
    product.facts.insert("hub".to_owned(), came_from(name, commit, query, &found, &files)?);
    Ok(product)
}

/// Where rows came from, for the manifest: the files that were read, in the order of their rows.
fn came_from(
    name: &str,
    commit: &str,
    query: Query<'_>,
    found: &Found,
    files: &BTreeMap<&str, PathBuf>,
) -> Result<Value, Failure> {
    let mut read = Vec::new();
    for path in &found.choice.files {
        let Some(place) = files.get(&**path) else { continue };
        let file = found.file(path);
        let sha256 = match &file.sha256 {
            Some(sha256) => sha256.clone(),
            None => {
                let digest = Digest::of_file(place);
                digest
                    .map_err(|error| Failure::stage(format!("cannot read {}: {error}", place.display())))?
                    .0
                    .to_string()
            }
        };
        read.push(json!({ "path": path, "size": file.size, "sha256": sha256 }));
    }
    let mut said = json!({
        "repository": name,
        "commit": commit,
        "config": found.choice.config,
        "split": query.split,
        "files": read,
    });
    if found.converted.is_some() {
        said["conversion"] = json!(found.commit);
    }
    Ok(said)
}

fn query(data: &Data) -> Option<Query<'_>> {
    match &data.source {
        DataSource::Hub { revision, config, split, .. } => {
            Some(Query { revision: revision.as_deref(), config: config.as_deref(), split })
        }
        _ => None,
    }
}

/// A repository while its stage runs.
struct Fetched<'a, 'e> {
    context: &'a Context<'a>,
    repository: &'a Repository,
    /// The commit of the conversion that the lock file gives.
    conversion: Option<&'a str>,
    remotes: RefCell<BTreeMap<String, Rc<Remote<'a>>>>,
    on_event: &'a RefCell<&'e mut dyn FnMut(Event)>,
}

impl<'a> Fetched<'a, '_> {
    fn at(&self, commit: &str) -> Result<Rc<Remote<'a>>, Failure> {
        if let Some(remote) = self.remotes.borrow().get(commit) {
            return Ok(Rc::clone(remote));
        }
        let remote = Rc::new(Remote::open(self.context, self.repository, commit)?);
        self.remotes.borrow_mut().insert(commit.to_owned(), Rc::clone(&remote));
        Ok(remote)
    }
}

impl DataRepository for Fetched<'_, '_> {
    fn name(&self) -> &str {
        &self.repository.name
    }

    fn files(&self, commit: &str) -> Result<Vec<RemoteFile>, Failure> {
        self.at(commit)?.files(&mut **self.on_event.borrow_mut())
    }

    fn fetch(&self, commit: &str, file: &RemoteFile) -> Result<PathBuf, Failure> {
        let paths = self.at(commit)?.fetch(std::slice::from_ref(file), &mut **self.on_event.borrow_mut())?;
        Ok(paths.into_iter().next().expect("one path a file"))
    }

    fn conversion(&self) -> Result<Option<String>, Failure> {
        match self.conversion {
            Some(commit) => Ok(Some(commit.to_owned())),
            None => Err(Failure::stage(format!(
                "{}: its rows are to be read from the hub's conversion to Parquet, and the lock file does not say which \
                 commit of that counts",
                self.repository.name
            ))
            .hint("`mergelab run --update` asks the hub and takes it down")),
        }
    }
}

/// A repository before anything runs.
struct Asked<'a> {
    hub: &'a Hub,
    name: &'a str,
}

impl DataRepository for Asked<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn files(&self, commit: &str) -> Result<Vec<RemoteFile>, Failure> {
        Ok(self.hub.files(RepoKind::Dataset, self.name, commit)?)
    }

    fn fetch(&self, commit: &str, file: &RemoteFile) -> Result<PathBuf, Failure> {
        Ok(self.hub.fetch(RepoKind::Dataset, self.name, commit, file, &mut |_| {})?)
    }

    fn conversion(&self) -> Result<Option<String>, Failure> {
        match self.hub.resolve(RepoKind::Dataset, self.name, Some(CONVERSION)) {
            Ok(commit) => Ok(Some(commit)),
            Err(HubError::NoRevision { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The commit of the conversion that the rows of a stage are to be read from, if they are not in the repository's own files
/// at this commit.
///
/// # Errors
/// When the rows are not there at all, or the hub cannot be asked.
pub(crate) fn conversion(
    stage: &Stage,
    commit: &str,
    on_note: impl Fn(&str) + Send + Sync + 'static,
) -> Result<Option<String>, Failure> {
    let Spec::Data(data) = &stage.spec else { return Ok(None) };
    let (Some(query), Some((repository, _))) = (query(data), repository(stage)) else { return Ok(None) };
    let hub = Hub::from_environment()?.with_notes(on_note);
    let found = find(&Asked { hub: &hub, name: &repository.name }, commit, query)?;
    Ok(found.converted.is_some().then_some(found.commit))
}
