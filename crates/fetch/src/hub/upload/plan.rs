//! Which files have to be sent, which are there, and which have to go: from what is here and what is there.

use sha1::{Digest as _, Sha1};

use super::super::api::hex;
use super::super::{HubError, RemoteFile};
use super::{LocalFile, body};

/// What an upload has to do.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Files that the repository lacks, or has with other contents.
    pub wanted: Vec<LocalFile>,
    /// Paths of files that it has.
    pub had: Vec<String>,
    /// Paths of files that have to go.
    pub stale: Vec<String>,
}

impl Plan {
    /// Of the files here, beside those there.
    ///
    /// # Errors
    /// When a file cannot be read whose git blob id has to be taken: a small one of the same size as the one there.
    pub(super) fn of(
        local: &[LocalFile],
        remote: &[RemoteFile],
        is_stale: &dyn Fn(&str) -> bool,
    ) -> Result<Self, HubError> {
        let mut plan = Self::default();
        for file in local {
            let there = remote.iter().find(|other| other.path == file.path && other.size == file.size);
            let is_same = match there {
                Some(RemoteFile { sha256: Some(sha256), .. }) => *sha256 == file.sha256,
                Some(RemoteFile { oid: Some(oid), .. }) => *oid == blob_id(&body::read(file)?),
                _ => false,
            };
            if is_same {
                plan.had.push(file.path.clone());
            } else {
                plan.wanted.push(file.clone());
            }
        }
        let is_ours = |path: &str| local.iter().any(|file| file.path == path);
        let others = remote.iter().map(|file| &file.path).filter(|path| !is_ours(path) && is_stale(path));
        plan.stale = others.cloned().collect();
        Ok(plan)
    }

    /// Whether nothing has to be done.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.stale.is_empty()
    }
}

/// The id that git gives a file with these contents.
fn blob_id(bytes: &[u8]) -> String {
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", bytes.len()));
    hasher.update(bytes);
    hex(&hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::super::Content;
    use super::*;

    fn local(path: &str, text: &str) -> LocalFile {
        let content = Content::Bytes(text.as_bytes().to_vec());
        LocalFile { path: path.to_owned(), size: text.len() as u64, sha256: format!("sha of {text}"), content }
    }

    #[test]
    fn a_blob_has_the_id_that_git_gives_it() {
        // git hash-object --stdin < /dev/null; printf 'hello\n' | git hash-object --stdin
        assert_eq!(blob_id(b""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        assert_eq!(blob_id(b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
    }

    #[test]
    fn what_is_there_under_the_same_digest_is_not_wanted() {
        let remote = |path: &str, size, sha256: Option<&str>, oid: Option<&str>| RemoteFile {
            path: path.to_owned(),
            size,
            sha256: sha256.map(str::to_owned),
            oid: oid.map(str::to_owned),
        };
        let files = ["same.bin", "other.bin", "same.txt", "other.txt", "new.txt"].map(|path| local(path, "hello\n"));
        let hello = "ce013625030ba8dba906f756967f9e9ca394464a";
        let there = [
            remote("same.bin", 6, Some("sha of hello\n"), None),
            remote("other.bin", 6, Some("sha of another"), None),
            remote("same.txt", 6, None, Some(hello)),
            remote("other.txt", 5, None, Some(hello)),
            remote("old.bin", 6, Some("x"), None),
            remote("notes.txt", 6, None, Some(hello)),
        ];
        let plan = Plan::of(&files, &there, &|path| path.ends_with(".bin")).unwrap();
        assert_eq!(plan.had, ["same.bin", "same.txt"]);
        assert_eq!(
            plan.wanted.iter().map(|file| &file.path).collect::<Vec<_>>(),
            ["other.bin", "other.txt", "new.txt"]
        );
        assert_eq!(plan.stale, ["old.bin"]);
        assert!(Plan::of(&files[..1], &there[..1], &|_| true).unwrap().is_empty());
    }
}
