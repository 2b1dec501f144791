//! State of the project's repository, for manifests.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::store::Git;

/// Commit and cleanliness of the repository around a directory; `None` where there is none, or no git.
pub fn state(root: &Path) -> Option<Git> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root).args(arguments).stdin(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(Git { commit, dirty: !changes.is_empty() })
}
