//! `mergelab publish`.

use std::path::PathBuf;

use mergelab_wire::exit;
use serde_json::{Value, json};

use super::results;
use super::session::Session;
use super::status::{look, whole};
use super::{CliError, output};
use crate::exec::size;
use crate::plan::Kind;
use crate::project::lock_file;
use crate::publish::{self, PackError, Package, Place, Scrubber, Subject};
use crate::stage;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Stage: a merge or Gram matrices, such as merges.regmean
    stage: String,
    /// Experiment file
    file: PathBuf,
    /// Repository; made if it is not there
    #[arg(long, value_name = "ORG/NAME")]
    hub: String,
    /// Branch; made from main if it is not there [default: main]
    #[arg(long, value_name = "BRANCH")]
    revision: Option<String>,
    /// Make a new repository a private one
    #[arg(long)]
    private: bool,
    /// Message of the commit
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// Send nothing: list the files and print the card; needs neither a network nor a token
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Uploads a merge or Gram matrices.
pub(super) fn run(arguments: &Arguments) -> Result<u8, CliError> {
    let session = Session::open(std::slice::from_ref(&arguments.file))?;
    let id = session.find_one(&arguments.stage)?;
    let stage = session.graph.stage(id);
    publish::check(stage)?;
    hub::check(&arguments.hub, arguments.revision.as_deref())?;
    let (outlooks, facts) = look(&session)?;
    let (manifest, artifact, _use) = whole(&session, &outlooks, &facts, id)?;

    let up_to_date = results::up_to_date(&outlooks, &facts);
    let figures = stage::measurements(&session.graph, stage.experiment, |id| up_to_date.get(&id).copied())?;
    let subject = Subject {
        graph: &session.graph,
        id,
        manifest,
        artifact,
        results: &facts.results,
        figures,
        text: session.loaded[stage.experiment].source(),
        lock: lock_file::path_of(&session.loaded[stage.experiment].experiment.file),
    };
    let scrubber = scrubber(&session, &manifest.host);
    let place = Place { repo: &arguments.hub, branch: arguments.revision.as_deref() };
    let package = publish::package(&subject, place, &scrubber)?;
    for note in &package.notes {
        say!("note: {note}");
    }
    if arguments.dry_run {
        dry_run(arguments, &package);
        return Ok(exit::DONE);
    }
    hub::upload(arguments, &package, stage.spec.kind() == Kind::Merge, &stage.name)
}

/// What this machine is called, and what it knows that is nobody else's business.
fn scrubber(session: &Session, maker: &str) -> Scrubber {
    let store = session.project.store_path();
    let here = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Scrubber::new(&[&here, maker], variables, hub::token(), &[&session.project.root, &store])
}

/// Says what would be sent.
fn dry_run(arguments: &Arguments, package: &Package) {
    let total: u64 = package.files.iter().map(|file| file.size).sum();
    if arguments.json {
        let files: Vec<Value> = package
            .files
            .iter()
            .map(|file| json!({ "path": file.path, "size": file.size, "sha256": file.sha256 }))
            .collect();
        output::print_json(&json!({
            "repo": arguments.hub, "revision": arguments.revision, "private": arguments.private, "files": files,
            "bytes": total, "card": package.card(),
        }));
        return;
    }
    let width = package.files.iter().map(|file| file.path.chars().count()).max().unwrap_or(0);
    let mut text = format!("To {}{}:\n", arguments.hub, at(arguments.revision.as_deref()));
    for file in &package.files {
        text += &format!("  {:width$}  {:>9}  {}\n", file.path, size(file.size), file.sha256);
    }
    text += &format!("{} files, {}; what the hub has already is not sent.\n", package.files.len(), size(total));
    output::print(&format!("{text}\n{}", package.card()));
}

fn at(revision: Option<&str>) -> String {
    revision.map(|revision| format!(", branch {revision}")).unwrap_or_default()
}

impl From<PackError> for CliError {
    fn from(error: PackError) -> Self {
        let message = error.to_string();
        match error {
            PackError::NotPublished { .. } => Self::Usage(message),
            PackError::Private { .. } => {
                let hint = "it came with a source: take it out there, and make the stage again";
                Self::Source { message, hint: Some(hint.to_owned()) }
            }
            PackError::Read { .. } => Self::Failed(message),
        }
    }
}

/// With the hub.
#[cfg(feature = "fetch")]
mod hub {
    use mergelab_fetch::hub::upload::{self, Content, LocalFile, Step, Upload};
    use mergelab_fetch::hub::{Hub, HubError, RepoKind};
    use mergelab_wire::exit;
    use serde_json::json;

    use super::super::transfer::Transfer;
    use super::super::{CliError, output};
    use super::Arguments;
    use crate::artifact::is_of_model;
    use crate::exec::size;
    use crate::publish::{self, Package};

    /// Refuses names that the hub would not take.
    pub(super) fn check(repo: &str, branch: Option<&str>) -> Result<(), CliError> {
        upload::check(repo, branch).map_err(|error| CliError::Usage(error.to_string()))
    }

    /// The token, so that it is found wherever it may stand.
    pub(super) fn token() -> Option<String> {
        Hub::from_environment().ok()?.token().map(str::to_owned)
    }

    /// Whether a file of a repository would be read as a part of what is published.
    fn is_stale(is_merge: bool, path: &str) -> bool {
        if !is_merge {
            return !path.contains('/') && path.ends_with(".safetensors");
        }
        !path.contains('/') && is_of_model(path)
    }

    /// Why what is in a repository speaks against publishing to it: a reader would find a mixture.
    fn objection(is_merge: bool, paths: &[String]) -> Option<String> {
        let has = |name: &str| paths.iter().any(|path| path == name);
        match (is_merge, has("config.json"), has("index.json")) {
            (true, false, true) => Some("it holds Gram matrices".to_owned()),
            (false, true, _) => Some("it holds a model".to_owned()),
            _ => None,
        }
    }

    /// Sends a package, and says where it is.
    pub(super) fn upload(
        arguments: &Arguments,
        package: &Package,
        is_merge: bool,
        stage: &str,
    ) -> Result<u8, CliError> {
        let hub = Hub::from_environment()?.with_notes(|note| say!("note: {note}"));
        let files: Vec<LocalFile> = package
            .files
            .iter()
            .map(|file| LocalFile {
                path: file.path.clone(),
                size: file.size,
                sha256: file.sha256.to_string(),
                content: match &file.content {
                    publish::Content::File(path) => Content::File(path.clone()),
                    publish::Content::Text(text) => Content::Bytes(text.clone().into_bytes()),
                },
            })
            .collect();
        let message = format!("{stage}, by mergelab {}", env!("CARGO_PKG_VERSION"));
        let upload = Upload {
            kind: RepoKind::Model,
            repo: &arguments.hub,
            branch: arguments.revision.as_deref(),
            private: arguments.private,
            message: arguments.message.as_deref().unwrap_or(&message),
            files: &files,
            is_stale: &|path| is_stale(is_merge, path),
            objection: &|paths| objection(is_merge, paths),
        };
        let mut transfer = None;
        let done = hub.upload(&upload, &mut |step| match step {
            Step::Created => {
                let kind = if arguments.private { "a private repository" } else { "a public repository" };
                say!("made {}, {kind}", arguments.hub);
            }
            Step::Planned { plan, bytes } => {
                for path in &plan.stale {
                    say!("takes out {path}, which is of what was there before");
                }
                if !plan.is_empty() {
                    say!(
                        "{} of {} files are new, {} of large ones to send",
                        plan.wanted.len(),
                        files.len(),
                        size(bytes)
                    );
                }
                transfer = (bytes > 0).then(|| Transfer::new("sent", bytes));
            }
            Step::Sent(bytes) => {
                if let Some(transfer) = &mut transfer {
                    transfer.advance(bytes);
                }
            }
            Step::Committing => drop(transfer.take()),
        });
        drop(transfer);
        let done = done?;
        if !done.changed {
            say!("everything is there already");
        }
        if arguments.json {
            output::print_json(&json!({
                "repo": arguments.hub, "url": done.url, "revision": arguments.revision, "commit": done.commit,
                "changed": done.changed, "sent": done.sent, "had": done.had, "removed": done.removed, "bytes": done.bytes,
            }));
        } else {
            output::print(&format!("{}\n{}\n", done.url, done.commit));
        }
        Ok(exit::DONE)
    }

    impl From<HubError> for CliError {
        fn from(error: HubError) -> Self {
            let message = error.to_string();
            match (&error, error.hint()) {
                (HubError::Setting(_), _) => Self::Usage(message),
                (_, Some(hint)) => Self::NotThere { message, hint },
                (_, None) => Self::Failed(message),
            }
        }
    }
}

/// Without what reaches the hub.
#[cfg(not(feature = "fetch"))]
mod hub {
    use super::Arguments;
    use crate::cli::CliError;
    use crate::publish::Package;

    pub(super) fn check(repo: &str, _: Option<&str>) -> Result<(), CliError> {
        if repo.split('/').filter(|part| !part.is_empty()).count() == 2 {
            return Ok(());
        }
        Err(CliError::Usage(format!("`{repo}` cannot be a repository to publish to: its name is ORG/NAME")))
    }

    pub(super) fn token() -> Option<String> {
        None
    }

    pub(super) fn upload(_: &Arguments, _: &Package, _: bool, _: &str) -> Result<u8, CliError> {
        Err(CliError::Failed("this mergelab was built without the feature `fetch`, which reaches the hub".to_owned()))
    }
}
