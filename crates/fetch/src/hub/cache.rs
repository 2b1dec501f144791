//! The cache as it lies on disk; [`super`] shows the layout.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::api::{is_hex, is_inside};
use super::{Control, HubError, RemoteFile, RepoKind, is_commit};

/// Version of a kept list of files.
const LISTING: u32 = 1;

/// The version of `huggingface_hub`'s.
const TREE: u32 = 1;

/// How often a lock that somebody else holds is asked for.
const POLL: Duration = Duration::from_millis(100);

/// A repository in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folder {
    cache: PathBuf,
    name: String,
}

/// The list of files at a commit, which never changes, kept beside them: offline nobody else can say what is missing.
#[derive(Serialize, Deserialize)]
struct Listing {
    version: u32,
    files: Vec<Listed>,
}

#[derive(Serialize, Deserialize)]
struct Listed {
    path: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oid: Option<String>,
}

/// The same, as `huggingface_hub` writes it in `trees/`.
#[derive(Deserialize)]
struct Tree {
    format_version: u32,
    files: BTreeMap<String, Leaf>,
}

#[derive(Deserialize)]
struct Leaf {
    size: u64,
    blob_id: String,
    lfs_sha256: Option<String>,
    lfs_size: Option<u64>,
}

impl Folder {
    pub(super) fn new(cache: &Path, kind: RepoKind, repo: &str) -> Self {
        Self { cache: cache.to_path_buf(), name: format!("{}--{}", kind.plural(), repo.replace('/', "--")) }
    }

    fn path(&self, part: &str) -> PathBuf {
        self.cache.join(&self.name).join(part)
    }

    /// The file with some contents, by the digest that names them.
    pub(super) fn blob(&self, name: &str) -> PathBuf {
        self.path("blobs").join(name)
    }

    /// What there is of contents that are being fetched.
    pub(super) fn incomplete(&self, name: &str) -> PathBuf {
        self.path("blobs").join(format!("{name}.incomplete"))
    }

    /// The directory with the files of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.path("snapshots").join(commit)
    }

    /// The commit that a revision named when it was asked for last.
    pub(super) fn revision(&self, revision: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.reference(revision)?).ok()?;
        Some(text.trim().to_ascii_lowercase()).filter(|commit| is_commit(commit))
    }

    /// Takes down what a revision names.
    pub(super) fn name_revision(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        let Some(path) = self.reference(revision) else { return Ok(()) };
        if self.revision(revision).as_deref() == Some(commit) { Ok(()) } else { replace(&path, commit.as_bytes()) }
    }

    fn reference(&self, revision: &str) -> Option<PathBuf> {
        let is_plain = revision.split('/').all(|part| !matches!(part, "" | "." | ".."));
        is_plain.then(|| self.path("refs").join(revision))
    }

    /// The list of files at a commit, if it was kept, by us or by `huggingface_hub`.
    pub(super) fn listing(&self, commit: &str) -> Option<Vec<RemoteFile>> {
        self.own_listing(commit).or_else(|| self.tree(commit))
    }

    /// As `huggingface_hub` keeps it.
    fn tree(&self, commit: &str) -> Option<Vec<RemoteFile>> {
        let text = std::fs::read(self.path("trees").join(format!("{commit}.json"))).ok()?;
        let tree: Tree = serde_json::from_slice(&text).ok().filter(|kept: &Tree| kept.format_version == TREE)?;
        // The order is that of paths.
        let files = tree.files.into_iter().map(|(path, Leaf { size, blob_id, lfs_sha256, lfs_size })| {
            let size = lfs_size.unwrap_or(size);
            let oid = lfs_sha256.is_none().then_some(blob_id);
            let is_hex = |text: &Option<String>, length| text.as_ref().is_none_or(|text| is_hex(text, length));
            let is_good = is_inside(&path) && is_hex(&lfs_sha256, 64) && is_hex(&oid, 40);
            is_good.then_some(RemoteFile { path, size, sha256: lfs_sha256, oid })
        });
        files.collect()
    }

    fn own_listing(&self, commit: &str) -> Option<Vec<RemoteFile>> {
        let text = std::fs::read(self.listing_path(commit)).ok()?;
        let listing: Listing = serde_json::from_slice(&text).ok().filter(|kept: &Listing| kept.version == LISTING)?;
        let files = listing.files.into_iter();
        Some(files.map(|Listed { path, size, sha256, oid }| RemoteFile { path, size, sha256, oid }).collect())
    }

    pub(super) fn keep_listing(&self, commit: &str, files: &[RemoteFile]) -> Result<(), HubError> {
        let listed = |file: &RemoteFile| Listed {
            path: file.path.clone(),
            size: file.size,
            sha256: file.sha256.clone(),
            oid: file.oid.clone(),
        };
        let listing = Listing { version: LISTING, files: files.iter().map(listed).collect() };
        let text = serde_json::to_vec(&listing).expect("texts and numbers become JSON");
        replace(&self.listing_path(commit), &text)
    }

    fn listing_path(&self, commit: &str) -> PathBuf {
        self.path(".mergelab").join(format!("{commit}.json"))
    }

    /// The files of a commit that are in the cache, sorted by path: what can be said where the list was not kept. A file's
    /// digest is the name of the contents that it points at.
    pub(super) fn cached(&self, commit: &str) -> Vec<RemoteFile> {
        let root = self.snapshot(commit);
        let mut files = Vec::new();
        let mut pending = vec![root.clone()];
        while let Some(dir) = pending.pop() {
            for path in std::fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
                let Ok(metadata) = path.metadata() else { continue };
                if metadata.is_dir() {
                    pending.push(path);
                    continue;
                }
                let Some(name) = path.strip_prefix(&root).ok().and_then(Path::to_str) else { continue };
                let blob = std::fs::read_link(&path).ok();
                let blob = blob.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
                let digest = |length: usize| is_hex(blob, length).then(|| blob.to_owned());
                let (path, size) = (name.to_owned(), metadata.len());
                files.push(RemoteFile { path, size, sha256: digest(64), oid: digest(40) });
            }
        }
        files.sort_by(|one, other| one.path.cmp(&other.path));
        files
    }

    /// Makes a file of a commit point at its contents.
    pub(super) fn point(&self, commit: &str, path: &str, blob: &str) -> Result<PathBuf, HubError> {
        let pointer = self.snapshot(commit).join(path);
        let up = "../".repeat(path.split('/').count() + 1);
        let target = PathBuf::from(format!("{up}blobs/{blob}"));
        if std::fs::read_link(&pointer).is_ok_and(|old| old == target) {
            return Ok(pointer);
        }
        make_parent(&pointer)?;
        // By renaming, so that a program that reads the file now always finds one.
        let fresh = pointer.with_file_name(format!(".{}.{blob}", std::process::id()));
        let _ = std::fs::remove_file(&fresh);
        symlink(&target, &fresh).map_err(|source| HubError::cache("create", &fresh, source))?;
        std::fs::rename(&fresh, &pointer).map_err(|source| HubError::cache("create", &pointer, source))?;
        Ok(pointer)
    }

    /// Waits for the right to fetch some contents; `huggingface_hub` takes the same lock.
    pub(super) fn lock(&self, name: &str, what: &str, control: &Control) -> Result<File, HubError> {
        let path = self.cache.join(".locks").join(&self.name).join(format!("{name}.lock"));
        make_parent(&path)?;
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|source| HubError::cache("open", &path, source))?;
        let mut is_told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => return Err(HubError::cache("lock", &path, source)),
            }
            if !std::mem::replace(&mut is_told, true) {
                control.note(&format!("another program is fetching {what}: waiting for {}", path.display()));
            }
            control.sleep(POLL)?;
        }
    }
}

/// Writes a small file so that nobody ever sees half of it.
fn replace(path: &Path, contents: &[u8]) -> Result<(), HubError> {
    let parent = make_parent(path)?;
    let write = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(parent)?;
        io::Write::write_all(&mut file, contents)?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|source| HubError::cache("write", path, source))
}

/// Makes the directory that a file lies in.
pub(super) fn make_parent(path: &Path) -> Result<&Path, HubError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(|source| HubError::cache("create", parent, source))?;
    Ok(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789012345678901234567890123456789";

    #[test]
    fn a_pointer_leads_to_its_contents_from_any_depth_and_follows_new_ones() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), RepoKind::Model, "acme/tiny");
        let (one, two) = ("1".repeat(40), "2".repeat(64));
        for (name, text) in [(&one, "one"), (&two, "two")] {
            make_parent(&folder.blob(name)).unwrap();
            std::fs::write(folder.blob(name), text).unwrap();
        }
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!(read(&folder.point(COMMIT, "a", &one).unwrap()), "one");
        assert_eq!(read(&folder.point(COMMIT, "b/c/d", &one).unwrap()), "one");
        assert_eq!(read(&folder.point(COMMIT, "a", &two).unwrap()), "two");
        let cached = folder.cached(COMMIT);
        assert_eq!(cached.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["a", "b/c/d"]);
        assert_eq!((cached[0].sha256.as_ref(), cached[1].oid.as_ref()), (Some(&two), Some(&one)));
    }

    #[test]
    fn a_list_that_another_program_kept_is_read_unless_it_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), RepoKind::Model, "acme/tiny");
        let (oid, sha256) = ("b".repeat(40), "a".repeat(64));
        let write = |path: &str, version: u32| {
            // `huggingface_hub` 1.33 wrote such a file.
            let text = format!(
                r#"{{"format_version": {version}, "files": {{
                    "{path}": {{"size": 3, "blob_id": "{oid}"}},
                    "model.safetensors": {{"size": 5000, "blob_id": "{oid}", "lfs_sha256": "{sha256}", "lfs_size": 5000}}}}}}"#
            );
            replace(&folder.path("trees").join(format!("{COMMIT}.json")), text.as_bytes()).unwrap();
        };
        write("config.json", 1);
        let files = folder.listing(COMMIT).unwrap();
        assert_eq!(
            files[0],
            RemoteFile { path: "config.json".to_owned(), size: 3, sha256: None, oid: Some(oid.clone()) }
        );
        assert_eq!((files[1].size, files[1].sha256.as_ref(), files[1].oid.as_ref()), (5000, Some(&sha256), None));
        write("config.json", 2);
        assert_eq!(folder.listing(COMMIT), None);
        write("../../config.json", 1);
        assert_eq!(folder.listing(COMMIT), None);
    }

    #[test]
    fn a_list_and_a_name_are_read_back_and_nothing_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), RepoKind::Dataset, "acme/rows");
        let files = [RemoteFile { path: "x".to_owned(), size: 3, sha256: None, oid: Some("b".repeat(40)) }];
        assert_eq!(folder.listing(COMMIT), None);
        folder.keep_listing(COMMIT, &files).unwrap();
        assert_eq!(folder.listing(COMMIT).unwrap(), files);
        folder.name_revision("refs/pr/1", COMMIT).unwrap();
        assert_eq!(folder.revision("refs/pr/1").unwrap(), COMMIT);
        assert!(dir.path().join("datasets--acme--rows/refs/refs/pr/1").is_file());
        folder.name_revision("../../../out", COMMIT).unwrap();
        assert_eq!(folder.revision("../../../out"), None);
    }
}
