//! Fetching one file: going on where a killed run was, and holding what came against its digest.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use ureq::http::StatusCode;

use super::cache::{Folder, make_parent};
use super::http::{Http, Request, backoff};
use super::{Control, HubError, RemoteFile, Target, api};

/// How often a transfer may break off without a byte in between.
const TRIES: u32 = 5;

/// Bytes that are read at once.
const PIECE: usize = 1 << 18;

/// The digest by which the hub knows a file.
enum Hasher {
    Sha256(Sha256),
    Blob(Sha1),
}

impl Hasher {
    fn new(file: &RemoteFile) -> Self {
        if file.sha256.is_some() {
            return Self::Sha256(Sha256::new());
        }
        // What git hashes of a blob begins with its size.
        Self::Blob(Sha1::new_with_prefix(format!("blob {}\0", file.size)))
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Blob(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> String {
        match self {
            Self::Sha256(hasher) => api::hex(&hasher.finalize()),
            Self::Blob(hasher) => api::hex(&hasher.finalize()),
        }
    }
}

/// What there is of a file so far.
struct Partial {
    file: File,
    hasher: Hasher,
    size: u64,
}

/// One file of a commit, and how it is got.
pub(super) struct Fetch<'a> {
    pub(super) http: Option<&'a Http>,
    pub(super) endpoint: &'a str,
    pub(super) folder: &'a Folder,
    pub(super) target: Target<'a>,
    pub(super) file: &'a RemoteFile,
    pub(super) control: &'a Control,
}

impl Fetch<'_> {
    /// The file in its snapshot, after it was fetched, where it was not there or not whole. Nothing where it is not there
    /// and there is no network.
    pub(super) fn run(&self, on_progress: &mut dyn FnMut(u64)) -> Result<Option<PathBuf>, HubError> {
        let Some(name) = self.file.sha256.as_ref().or(self.file.oid.as_ref()) else {
            // In a cache that was copied without its links: nothing says what it should be.
            let path = self.folder.snapshot(self.target.revision).join(&self.file.path);
            return Ok(path.is_file().then_some(path));
        };
        let blob = self.folder.blob(name);
        if !self.is_whole(&blob, name, on_progress)? {
            let Some(http) = self.http else { return Ok(None) };
            let _lock = self.folder.lock(name, &self.target.to_string(), self.control)?;
            // Whoever held the lock may have fetched it.
            if !self.is_whole(&blob, name, on_progress)? {
                self.fetch(http, &blob, name, on_progress)?;
            }
        }
        self.folder.point(self.target.revision, &self.file.path, name).map(Some)
    }

    /// Whether contents are there and what their name says. What is not is removed.
    fn is_whole(&self, blob: &Path, name: &str, on_progress: &mut dyn FnMut(u64)) -> Result<bool, HubError> {
        match blob.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(HubError::cache("read", blob, source)),
            Ok(metadata) if metadata.len() == self.file.size => {
                let partial = self.read(blob, false, on_progress)?;
                if partial.hasher.finish() == name {
                    return Ok(true);
                }
            }
            Ok(_) => {}
        }
        if self.http.is_none() {
            return Ok(false);
        }
        self.control.note(&format!("{} in the cache is damaged: it is fetched anew", self.target));
        std::fs::remove_file(blob).map_err(|source| HubError::cache("remove", blob, source))?;
        Ok(false)
    }

    /// Fetches the contents, once more where what came is wrong.
    fn fetch(&self, http: &Http, blob: &Path, name: &str, on_progress: &mut dyn FnMut(u64)) -> Result<(), HubError> {
        let incomplete = self.folder.incomplete(name);
        make_parent(&incomplete)?;
        let mut is_second = false;
        loop {
            let partial = self.transfer(http, &incomplete, on_progress)?;
            partial.file.sync_all().map_err(|source| HubError::cache("write", &incomplete, source))?;
            let found = partial.hasher.finish();
            if found == name {
                return std::fs::rename(&incomplete, blob).map_err(|source| HubError::cache("write", blob, source));
            }
            std::fs::remove_file(&incomplete).map_err(|source| HubError::cache("remove", &incomplete, source))?;
            if is_second {
                let (repo, path) = (self.target.repo.to_owned(), self.file.path.clone());
                return Err(HubError::Damaged { repo, path, found, wanted: name.to_owned() });
            }
            is_second = true;
            self.control.note(&format!("{} came damaged: it is fetched once more", self.target));
        }
    }

    /// Gets whatever is missing of a file, with as many requests as it takes.
    fn transfer(&self, http: &Http, incomplete: &Path, on_progress: &mut dyn FnMut(u64)) -> Result<Partial, HubError> {
        let mut partial = self.read(incomplete, true, on_progress)?;
        if partial.size > self.file.size {
            self.restart(&mut partial, incomplete)?;
        }
        let url = api::file_url(self.endpoint, &self.target, &self.file.path);
        let mut tries = 0;
        while partial.size < self.file.size {
            let before = partial.size;
            let response = http.get(Request { url: &url, from: before }, &self.target, self.control)?;
            match response.status() {
                StatusCode::PARTIAL_CONTENT => {
                    let range = response.headers().get("Content-Range").and_then(|range| range.to_str().ok());
                    if !range.is_some_and(|range| range.starts_with(&format!("bytes {before}-"))) {
                        return Err(http.strange(format!("it was asked for {} from byte {before}", self.target)));
                    }
                }
                StatusCode::RANGE_NOT_SATISFIABLE => {
                    return Err(http.strange(format!("{} is shorter than its list of files says", self.target)));
                }
                // All of it.
                _ if before > 0 => self.restart(&mut partial, incomplete)?,
                _ => {}
            }
            let broken = self.copy(response.into_body().into_reader(), &mut partial, incomplete, on_progress)?;
            if partial.size > self.file.size {
                return Err(http.strange(format!("{} is longer than its list of files says", self.target)));
            }
            if partial.size < self.file.size {
                tries = if partial.size > before { 1 } else { tries + 1 };
                if tries >= TRIES {
                    return Err(http.unreachable(&format!("{} broke off: {broken}", self.target)));
                }
                self.control.sleep(backoff(tries))?;
            }
        }
        Ok(partial)
    }

    /// Appends what comes, until the end or until it breaks off, and says why it did. Only the disk is an error.
    fn copy(
        &self,
        mut body: impl Read,
        partial: &mut Partial,
        incomplete: &Path,
        on_progress: &mut dyn FnMut(u64),
    ) -> Result<String, HubError> {
        let mut buffer = vec![0; PIECE];
        loop {
            self.control.check()?;
            let count = match body.read(&mut buffer) {
                Ok(0) => return Ok("the connection was closed".to_owned()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(error.to_string()),
            };
            let written = partial.file.write_all(&buffer[..count]);
            written.map_err(|source| HubError::cache("write", incomplete, source))?;
            partial.hasher.update(&buffer[..count]);
            partial.size += count as u64;
            on_progress(count as u64);
            if partial.size > self.file.size {
                return Ok("there is more than there should be".to_owned());
            }
        }
    }

    /// A file from its beginning, hashed; made where it is to be `written` and is not there.
    fn read(&self, path: &Path, written: bool, on_progress: &mut dyn FnMut(u64)) -> Result<Partial, HubError> {
        let file = File::options().read(true).write(written).create(written).truncate(false).open(path);
        let mut file = file.map_err(|source| HubError::cache("open", path, source))?;
        let mut hasher = Hasher::new(self.file);
        let mut buffer = vec![0; PIECE];
        let mut size = 0;
        loop {
            self.control.check()?;
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    size += count as u64;
                    on_progress(count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(HubError::cache("read", path, source)),
            }
        }
        Ok(Partial { file, hasher, size })
    }

    /// Begins from nothing.
    fn restart(&self, partial: &mut Partial, incomplete: &Path) -> Result<(), HubError> {
        let emptied = partial.file.set_len(0).and_then(|()| partial.file.seek(SeekFrom::Start(0)));
        emptied.map_err(|source| HubError::cache("write", incomplete, source))?;
        (partial.hasher, partial.size) = (Hasher::new(self.file), 0);
        Ok(())
    }
}
