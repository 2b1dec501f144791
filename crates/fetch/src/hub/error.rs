//! What goes wrong between here and the hub, in words, whose fault it is, and the way out.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why something cannot be had from the hub. No message holds a token.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// No such repository, or one that this token, or nobody without one, may see.
    #[error("{endpoint} has no {noun} `{repo}`, or does not show it to {who}")]
    NoRepo {
        /// Where.
        endpoint: String,
        /// `model` or `data set`.
        noun: &'static str,
        /// `ORG/NAME`.
        repo: String,
        /// Who asked.
        who: &'static str,
    },
    /// A repository without that branch, tag or commit.
    #[error("{repo} has no revision `{revision}` on the hub")]
    NoRevision {
        /// `ORG/NAME`.
        repo: String,
        /// As it was asked for.
        revision: String,
    },
    /// A commit without that file.
    #[error("{repo} has no file `{path}` at {commit}")]
    NoFile {
        /// `ORG/NAME`.
        repo: String,
        /// The commit.
        commit: String,
        /// The file.
        path: String,
    },
    /// One has to ask for access first.
    #[error("{repo} is gated: access has to be granted by its authors")]
    Gated {
        /// `ORG/NAME`.
        repo: String,
        /// Page on which to ask.
        page: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The token is not taken.
    #[error("{endpoint} does not take the token for {repo}: {message}")]
    BadToken {
        /// Where.
        endpoint: String,
        /// `ORG/NAME`.
        repo: String,
        /// What the hub says.
        message: String,
        /// Where the token comes from, in words.
        token_from: String,
    },
    /// Not allowed, with a token or without.
    #[error("{repo}: the hub does not allow it: {message}")]
    Forbidden {
        /// `ORG/NAME`.
        repo: String,
        /// What the hub says.
        message: String,
    },
    /// Nobody may write without a token.
    #[error("{endpoint} takes nothing without a token, and there is none")]
    NoToken {
        /// Where.
        endpoint: String,
    },
    /// A token that may not write.
    #[error("the hub does not let the token write to {repo}{}", said(.message))]
    NoWrite {
        /// `ORG/NAME`.
        repo: String,
        /// What the hub says.
        message: String,
        /// Where the token comes from, in words.
        token_from: String,
    },
    /// A name that something else has.
    #[error("the name {repo} is taken by something that is no {noun}{}", said(.message))]
    Taken {
        /// `ORG/NAME`.
        repo: String,
        /// `model` or `data set`.
        noun: &'static str,
        /// What the hub says.
        message: String,
    },
    /// What was to be private would be seen by everybody.
    #[error("{repo} is there already, and public")]
    Public {
        /// `ORG/NAME`.
        repo: String,
    },
    /// What is in the repository does not go with what is to be uploaded.
    #[error("{repo}: {reason}, and what is published would be mixed with it")]
    InTheWay {
        /// `ORG/NAME`.
        repo: String,
        /// What is there.
        reason: String,
    },
    /// Somebody else wrote to it meanwhile.
    #[error("{repo} changed while it was written to{}", said(.message))]
    Conflict {
        /// `ORG/NAME`.
        repo: String,
        /// What the hub says.
        message: String,
    },
    /// A file that is to be uploaded cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Local {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The network is not to be used, and nothing else will do.
    #[error("{what} needs the hub, and HF_HUB_OFFLINE is set")]
    Offline {
        /// What was asked for.
        what: String,
    },
    /// The hub asks to wait longer than anybody would.
    #[error("{endpoint} limits how often it is asked: it says to wait {}", seconds(*.wait))]
    RateLimited {
        /// Where.
        endpoint: String,
        /// How long it asks to wait.
        wait: Duration,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// No answer.
    #[error("{endpoint} cannot be reached: {reason}")]
    Unreachable {
        /// Where.
        endpoint: String,
        /// What the network says.
        reason: String,
    },
    /// The hub answered with an error of its own.
    #[error("{endpoint} answers {status} for {what}{}", said(.message))]
    Server {
        /// Where.
        endpoint: String,
        /// HTTP status.
        status: u16,
        /// What was asked for.
        what: String,
        /// What the hub says.
        message: String,
    },
    /// An answer that is none.
    #[error("{endpoint} does not answer like a hub: {what}")]
    Strange {
        /// Where.
        endpoint: String,
        /// What is wrong with it.
        what: String,
    },
    /// The network is not to be used, and it is not in the cache.
    #[error("{what} is not in the cache {}, and HF_HUB_OFFLINE is set", .cache.display())]
    NotCached {
        /// What was asked for.
        what: String,
        /// The cache.
        cache: PathBuf,
        /// How to get it.
        how: String,
    },
    /// What came is not what the hub said, twice.
    #[error("{path} of {repo} came damaged twice: its digest is {found}, the hub says {wanted}")]
    Damaged {
        /// `ORG/NAME`.
        repo: String,
        /// The file.
        path: String,
        /// What it was found to be.
        found: String,
        /// What it should be.
        wanted: String,
    },
    /// No room for it.
    #[error("{what} needs {} more, and the disk that holds {} has {} free", size(*.needed), .cache.display(), size(*.free))]
    NoRoom {
        /// What was to be fetched.
        what: String,
        /// Bytes that are missing of it.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// The cache.
        cache: PathBuf,
    },
    /// The cache cannot be read or written.
    #[error("cannot {what} {}: {source}", .path.display())]
    Cache {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A setting that cannot be used.
    #[error("{0}")]
    Setting(String),
    /// Somebody asked for an end.
    #[error("interrupted")]
    Stopped,
}

impl HubError {
    pub(super) fn cache(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Cache { what, path: path.to_path_buf(), source }
    }

    /// Whether what the experiment file names is wrong; otherwise this machine cannot get it now.
    pub fn is_of_the_file(&self) -> bool {
        matches!(self, Self::NoRepo { .. } | Self::NoRevision { .. } | Self::NoFile { .. })
    }

    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoRepo { .. } => {
                "look at its spelling, ORG/NAME; for a private one, set HF_TOKEN to a token that may read it".to_owned()
            }
            Self::NoRevision { .. } => "a revision is a branch, a tag or a commit of the repository".to_owned(),
            Self::Gated { page, with_token: false, .. } => {
                format!("ask for access at {page}, and set HF_TOKEN to a token of the account that has it")
            }
            Self::Gated { page, with_token: true, .. } => {
                format!("ask for access at {page}: the account of the token that was sent has none yet")
            }
            Self::BadToken { token_from, .. } => format!("the token comes from {token_from}: replace it, or unset it"),
            Self::Forbidden { .. } => "HF_TOKEN has to be a token that may read it".to_owned(),
            Self::NoToken { .. } => "set HF_TOKEN to a token that may write, or log in by `hf auth login`".to_owned(),
            Self::NoWrite { token_from, .. } => {
                format!(
                    "the token comes from {token_from}: it has to be one that may write, of a member of the organization"
                )
            }
            Self::Taken { .. } | Self::InTheWay { .. } => "choose another name".to_owned(),
            Self::Public { .. } => "make it private in its settings on the hub, or leave out --private".to_owned(),
            Self::Conflict { .. } => "run it again: what was sent is not sent again".to_owned(),
            Self::Local { .. } => "`mergelab verify` finds all that is damaged in the store".to_owned(),
            Self::Offline { .. } => "unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE".to_owned(),
            Self::RateLimited { with_token: false, .. } => {
                "run again later, or set HF_TOKEN: the hub allows more to those it knows".to_owned()
            }
            Self::Unreachable { .. } => {
                "look at the network, HTTPS_PROXY and HF_ENDPOINT; what the cache holds works with HF_HUB_OFFLINE=1"
                    .to_owned()
            }
            Self::Server { status, .. } if *status < 500 => return None,
            Self::RateLimited { .. } | Self::Server { .. } => "run again later: it goes on where it was".to_owned(),
            Self::Strange { .. } => "is HF_ENDPOINT the address of a hub?".to_owned(),
            Self::NotCached { how, .. } => how.clone(),
            Self::Damaged { .. } => "something between here and the hub changes what it sends".to_owned(),
            Self::NoRoom { .. } => "free some space, or set HF_HUB_CACHE to a directory on another disk".to_owned(),
            Self::Cache { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some space, or set HF_HUB_CACHE to a directory on another disk; it goes on where it was"
                    .to_owned()
            }
            Self::Cache { .. } => "HF_HUB_CACHE names another directory for the cache".to_owned(),
            Self::NoFile { .. } | Self::Setting(_) | Self::Stopped => return None,
        })
    }
}

/// What a server says, behind a colon, if it says anything.
fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// Bytes in the unit that a person would use.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if value >= 100.0 || value.fract() < 0.05 {
        format!("{value:.0} {}", units[unit])
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

/// A time in whole seconds.
fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}
