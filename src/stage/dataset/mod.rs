//! Data sets of the hub: which files of a repository hold the rows that are asked for, and the rows out of them.
//!
//! The rules are those of the `datasets` library, so that the first N rows are those of `load_dataset(REPO, CONFIG,
//! split=SPLIT)`. [`card`] reads what the repository says of itself, [`pattern`] and [`format`] know file names,
//! [`choice`] puts them together without looking at anything else, and [`read`] fetches one file after the other.

mod card;
mod choice;
mod columns;
mod format;
mod pattern;
mod read;
mod stage;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::PathBuf;

use mergelab_fetch::hub::RemoteFile;

use self::card::Card;
use self::choice::{Choice, NoChoice, Wanted, choose, choose_converted};
pub(super) use self::stage::{conversion, run};
use super::Failure;

/// What the header of a repository is read from.
const CARD: [&str; 2] = ["README.md", ".huggingface.yaml"];

/// One repository with data, at the hub or where a test has it.
trait DataRepository {
    /// `ORG/NAME`.
    fn name(&self) -> &str;

    /// All files at a commit.
    fn files(&self, commit: &str) -> Result<Vec<RemoteFile>, Failure>;

    /// Where a file lies here, after it was fetched.
    fn fetch(&self, commit: &str, file: &RemoteFile) -> Result<PathBuf, Failure>;

    /// The commit of the hub's own conversion to Parquet, if there is one.
    fn conversion(&self) -> Result<Option<String>, Failure>;
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
struct Query<'a> {
    /// Branch, tag or commit, as the experiment has it.
    revision: Option<&'a str>,
    /// Configuration.
    config: Option<&'a str>,
    /// Split.
    split: &'a str,
}

/// Where rows are.
#[derive(Debug)]
struct Found {
    /// Which files.
    choice: Choice,
    /// The commit that has them: of the conversion, where it stands in.
    commit: String,
    /// Why the hub's own conversion stands in for the files of the repository, if it does.
    converted: Option<NoChoice>,
    listing: Vec<RemoteFile>,
}

impl Found {
    /// A file of the choice as the hub lists it.
    fn file(&self, path: &str) -> &RemoteFile {
        self.listing.iter().find(|file| file.path == path).expect("a choice is made of the files that are listed")
    }
}

/// Why rows are not found.
#[derive(Debug, thiserror::Error)]
enum NotFound {
    /// What is needed for it cannot be had.
    #[error("{}", .0.message)]
    Failed(Failure),
    /// A file that was fetched cannot be read.
    #[error("{}: {source}", path.display())]
    Card {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The repository does not have it.
    #[error("{repo}: {why}")]
    Choice {
        /// `ORG/NAME`.
        repo: String,
        /// Why not.
        why: Box<NoChoice>,
    },
    /// A conversion would have it, but not of this revision.
    #[error("{repo} at {revision}: {why}; the hub's conversion to Parquet follows main, and is not of this revision")]
    Pinned {
        /// `ORG/NAME`.
        repo: String,
        /// As asked for.
        revision: String,
        /// Why a conversion is needed.
        why: Box<NoChoice>,
    },
    /// A conversion would have it, but there is none.
    #[error("{repo}: {why}, and the hub has no conversion of it to Parquet")]
    Unconverted {
        /// `ORG/NAME`.
        repo: String,
        /// Why a conversion is needed.
        why: Box<NoChoice>,
    },
    /// The conversion does not have it.
    #[error("{repo}, in the hub's conversion to Parquet: {why}")]
    Converted {
        /// `ORG/NAME`.
        repo: String,
        /// Why not.
        why: Box<NoChoice>,
    },
}

impl NotFound {
    /// What to do about it.
    fn hint(&self) -> Option<String> {
        match self {
            Self::Failed(failure) => failure.hint.clone(),
            Self::Card { .. } => None,
            Self::Choice { why, .. } | Self::Converted { why, .. } => why.hint(),
            Self::Pinned { .. } => {
                Some("leave out `revision`, or export the rows to a file and name it in `path`".into())
            }
            Self::Unconverted { .. } => Some("export the rows to a .jsonl file, and name it in `path`".into()),
        }
    }
}

impl From<Failure> for NotFound {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<NotFound> for Failure {
    fn from(error: NotFound) -> Self {
        let failure = match &error {
            NotFound::Failed(failure) => return failure.clone(),
            NotFound::Card { .. } => Self::stage(error.to_string()),
            _ => Self::experiment(error.to_string()),
        };
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Finds rows at a commit of a repository.
///
/// # Errors
/// Why they are not found.
fn find(repository: &dyn DataRepository, commit: &str, query: Query<'_>) -> Result<Found, NotFound> {
    let listing = repository.files(commit)?;
    let wanted = Wanted { config: query.config, split: query.split };
    let repo = || repository.name().to_owned();
    let why = match card(repository, commit, &listing)? {
        Ok(card) => {
            let own_name = repository.name().rsplit('/').next().unwrap_or_default();
            match choose(&paths(&listing), own_name, &card, wanted) {
                Ok(choice) => return Ok(Found { choice, commit: commit.to_owned(), converted: None, listing }),
                Err(why) => why,
            }
        }
        Err(header) => NoChoice::Header(header),
    };
    if !why.may_be_converted() {
        return Err(NotFound::Choice { repo: repo(), why: why.into() });
    }
    if let Some(revision) = query.revision.filter(|revision| *revision != "main") {
        return Err(NotFound::Pinned { repo: repo(), revision: revision.to_owned(), why: why.into() });
    }
    let Some(conversion) = repository.conversion()? else {
        return Err(NotFound::Unconverted { repo: repo(), why: why.into() });
    };
    let listing = repository.files(&conversion)?;
    match choose_converted(&paths(&listing), wanted) {
        Ok(choice) => Ok(Found { choice, commit: conversion, converted: Some(why), listing }),
        Err(why) => Err(NotFound::Converted { repo: repo(), why: why.into() }),
    }
}

fn paths(listing: &[RemoteFile]) -> Vec<&str> {
    listing.iter().map(|file| &*file.path).collect()
}

/// What the repository says of itself, or what is wrong with that.
fn card(
    repository: &dyn DataRepository,
    commit: &str,
    listing: &[RemoteFile],
) -> Result<Result<Card, String>, NotFound> {
    let read = |name: &str| {
        let Some(file) = listing.iter().find(|file| file.path == name) else { return Ok(None) };
        let path = repository.fetch(commit, file)?;
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(source) => Err(NotFound::Card { path, source }),
        }
    };
    let [readme, yaml] = [read(CARD[0])?, read(CARD[1])?];
    Ok(Card::read(readme.as_deref(), yaml.as_deref()))
}
