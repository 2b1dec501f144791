//! Large files, by the protocol of git-lfs: asked where to put them, put there, and joined where that takes parts.
//!
//! Several are on their way at once. Addresses in the storage have a signature of their own and a short life: the token
//! is not sent there, and an address that got old is asked for anew.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use super::super::HubError;
use super::super::http::Outgoing;
use super::LocalFile;
use super::api::Api;
use super::body::{self, Counted};

/// The type of what is said to a git-lfs server.
const LFS: &str = "application/vnd.git-lfs+json";

/// Objects that are asked about at once.
const BATCH: usize = 256;

/// Transfers side by side.
const WORKERS: usize = 4;

/// Addresses that are older than this are asked for anew.
const OLD: Duration = Duration::from_mins(10);

#[derive(Deserialize)]
struct Batch {
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    oid: String,
    actions: Option<Actions>,
    error: Option<Refusal>,
}

#[derive(Clone, Debug, Deserialize)]
struct Actions {
    upload: Option<Action>,
    verify: Option<Action>,
}

#[derive(Clone, Debug, Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

/// A file that the storage lacks.
struct Missing<'a> {
    file: &'a LocalFile,
    actions: Actions,
    asked: Instant,
    /// Of a file in parts: what the storage calls each, as far as they are there.
    parts: Mutex<Vec<Option<String>>>,
    /// Bytes of a part; the file's size where it goes in one piece.
    part: u64,
}

/// Large files on their way.
pub(super) struct Sending<'a> {
    api: &'a Api<'a>,
    missing: Vec<Missing<'a>>,
}

/// One transfer: which file, and which part of it.
type Piece = (usize, usize);

impl<'a> Sending<'a> {
    /// Asks which of some files the storage lacks.
    pub(super) fn ask(api: &'a Api<'a>, files: &[&'a LocalFile]) -> Result<Self, HubError> {
        // Two files with the same contents are one object.
        let mut seen = HashSet::new();
        let files: Vec<&LocalFile> = files.iter().copied().filter(|file| seen.insert(&file.sha256)).collect();
        let mut missing = Vec::new();
        for files in files.chunks(BATCH) {
            for (file, actions) in files.iter().zip(batch(api, files)?) {
                if let Some(actions) = actions {
                    missing.push(Missing::new(file, actions).map_err(|what| api.http.strange(what))?);
                }
            }
        }
        Ok(Self { api, missing })
    }

    /// Bytes that have to be sent.
    pub(super) fn bytes(&self) -> u64 {
        self.missing.iter().map(|missing| missing.file.size).sum()
    }

    /// Sends what is missing, and gives it.
    pub(super) fn run(&self, on_bytes: &mut dyn FnMut(i64)) -> Result<Vec<&'a LocalFile>, HubError> {
        let parts = |index: usize| self.missing[index].parts.lock().expect("no holder of this lock panics").len();
        let pieces: VecDeque<Piece> =
            (0..self.missing.len()).flat_map(|index| (0..parts(index)).map(move |part| (index, part))).collect();
        let workers = pieces.len().min(WORKERS);
        let (queue, is_over) = (Mutex::new(pieces), AtomicBool::new(false));
        let (tell, told) = mpsc::channel();
        let outcomes: Vec<Result<(), HubError>> = std::thread::scope(|scope| {
            let (queue, is_over) = (&queue, &is_over);
            let workers: Vec<_> = (0..workers)
                .map(|_| {
                    let tell = tell.clone();
                    scope.spawn(move || self.work(queue, is_over, &tell))
                })
                .collect();
            drop(tell);
            for bytes in told {
                on_bytes(bytes);
            }
            workers.into_iter().map(|worker| worker.join().expect("sending does not panic")).collect()
        });
        // Those that ended because another failed say only that they were stopped.
        let mut failures: Vec<HubError> = outcomes.into_iter().filter_map(Result::err).collect();
        let first = failures.iter().position(|failure| !matches!(failure, HubError::Stopped)).unwrap_or(0);
        if failures.is_empty() {
            return Ok(self.missing.iter().map(|missing| missing.file).collect());
        }
        Err(failures.swap_remove(first))
    }

    /// Takes pieces until there are none, or something failed.
    fn work(&self, queue: &Mutex<VecDeque<Piece>>, is_over: &AtomicBool, tell: &Sender<i64>) -> Result<(), HubError> {
        loop {
            let next = queue.lock().expect("no holder of this lock panics").pop_front();
            let Some(piece) = next.filter(|_| !is_over.load(Ordering::Relaxed)) else { return Ok(()) };
            if let Err(error) = self.send(piece, is_over, tell) {
                is_over.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
    }

    /// Sends one piece; with the last of a file, joins and verifies it.
    fn send(&self, (index, number): Piece, is_over: &AtomicBool, tell: &Sender<i64>) -> Result<(), HubError> {
        let missing = &self.missing[index];
        if missing.is_whole() {
            let fresh = if missing.asked.elapsed() > OLD {
                // Nothing to do where somebody else has put it there meanwhile.
                let Some(actions) = batch(self.api, &[missing.file])?.pop().flatten() else { return Ok(()) };
                Missing::new(missing.file, actions).map_err(|what| self.api.http.strange(what))?.actions
            } else {
                missing.actions.clone()
            };
            let Some(upload) = &fresh.upload else { return Ok(()) };
            self.put(missing, (&upload.href, &headers(upload)), 0, is_over, tell)?;
            return self.verify(missing, &fresh);
        }
        let Some(upload) = &missing.actions.upload else { return Ok(()) };
        let address = upload.header.iter().find(|(name, _)| part_number(name) == Some(number + 1));
        let Some(address) = address.and_then(|(_, address)| address.as_str()) else {
            return Err(self.api.http.strange(format!("no address for part {} of {}", number + 1, missing.file.path)));
        };
        let name = self.put(missing, (address, &[]), number, is_over, tell)?;
        let name =
            name.ok_or_else(|| self.api.http.strange("a part of a file that was taken without a name".to_owned()))?;
        let mut parts = missing.parts.lock().expect("no holder of this lock panics");
        parts[number] = Some(name);
        let done: Option<Vec<_>> =
            parts.iter().enumerate().map(|(number, name)| Some((number + 1, name.as_ref()?))).collect();
        let Some(done) = done else { return Ok(()) };
        let done: Vec<_> = done.iter().map(|(number, name)| json!({ "partNumber": number, "etag": name })).collect();
        let joined = json!({ "oid": missing.file.sha256, "parts": done }).to_string();
        let response = self.api.post(&upload.href, LFS, joined.as_bytes())?;
        self.api.success(response)?;
        self.verify(missing, &missing.actions)
    }

    /// Puts a part of a file to an address; what the storage calls it.
    fn put(
        &self,
        missing: &Missing<'_>,
        (url, headers): (&str, &[(String, String)]),
        number: usize,
        is_over: &AtomicBool,
        tell: &Sender<i64>,
    ) -> Result<Option<String>, HubError> {
        let start = missing.part * number as u64;
        let length = missing.part.min(missing.file.size - start);
        let outgoing = Outgoing { method: "PUT", url, headers, length };
        let control = self.api.control;
        let mut sent = 0_i64;
        let response = self.api.http.send(
            outgoing,
            &mut |once| {
                let _ = tell.send(-std::mem::take(&mut sent));
                let mut on_read = |bytes: u64| {
                    sent += bytes as i64;
                    let _ = tell.send(bytes as i64);
                    !is_over.load(Ordering::Relaxed) && control.check().is_ok()
                };
                let inner = body::part(missing.file, start, length)?;
                let mut counted = Counted { inner, on_read: &mut on_read, failure: None, is_stopped: false };
                let outcome = once(&mut counted);
                match (counted.failure, counted.is_stopped) {
                    (Some(source), _) => Err(body::unreadable(missing.file, source)),
                    (None, true) => Err(HubError::Stopped),
                    (None, false) => outcome,
                }
            },
            control,
        )?;
        if !response.status().is_success() {
            let (endpoint, status) = (self.api.endpoint.to_owned(), response.status().as_u16());
            let what = format!("the transfer of {}", missing.file.path);
            return Err(HubError::Server { endpoint, status, what, message: self.api.message(response) });
        }
        let name = response.headers().get("ETag").and_then(|name| name.to_str().ok());
        Ok(name.filter(|name| !name.is_empty()).map(str::to_owned))
    }

    /// Has the hub look at what was put.
    fn verify(&self, missing: &Missing<'_>, actions: &Actions) -> Result<(), HubError> {
        let Some(verify) = &actions.verify else { return Ok(()) };
        let asked = json!({ "oid": missing.file.sha256, "size": missing.file.size }).to_string();
        let response = self.api.post(&verify.href, LFS, asked.as_bytes())?;
        self.api.success(response).map(drop)
    }
}

impl<'a> Missing<'a> {
    fn new(file: &'a LocalFile, actions: Actions) -> Result<Self, String> {
        let upload = actions.upload.as_ref();
        let part = match upload.and_then(|upload| upload.header.get("chunk_size")) {
            None => file.size,
            Some(size) => {
                let size = size.as_u64().or_else(|| size.as_str()?.parse().ok()).filter(|size| *size > 0);
                size.ok_or_else(|| format!("it wants {} in parts of no size", file.path))?
            }
        };
        let count = file.size.div_ceil(part.max(1)).max(1);
        let offered =
            upload.map_or(0, |upload| upload.header.keys().filter(|name| part_number(name).is_some()).count());
        if part < file.size && offered as u64 != count {
            return Err(format!("it offers {offered} addresses for the {count} parts of {}", file.path));
        }
        Ok(Self { file, actions, asked: Instant::now(), parts: Mutex::new(vec![None; count as usize]), part })
    }

    /// Whether it goes in one piece, and not in parts.
    fn is_whole(&self) -> bool {
        self.actions.upload.as_ref().is_none_or(|upload| !upload.header.contains_key("chunk_size"))
    }
}

fn part_number(name: &str) -> Option<usize> {
    name.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.parse().ok()).flatten()
}

/// The headers that an address asks for.
fn headers(action: &Action) -> Vec<(String, String)> {
    let headers = action.header.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    headers.collect()
}

/// Asks where to put some files; nothing for those that are there.
fn batch(api: &Api<'_>, files: &[&LocalFile]) -> Result<Vec<Option<Actions>>, HubError> {
    let url = format!("{}/{}{}.git/info/lfs/objects/batch", api.endpoint, api.target.kind.page(), api.target.repo);
    let objects: Vec<_> = files.iter().map(|file| json!({ "oid": file.sha256, "size": file.size })).collect();
    let asked = json!({
        "operation": "upload", "transfers": ["basic", "multipart"], "objects": objects, "hash_algo": "sha256",
        "ref": { "name": api.target.revision },
    });
    let said: Batch = api.ask(&url, LFS, &asked)?;
    let mut found = Vec::new();
    for file in files {
        let object = said.objects.iter().find(|object| object.oid == file.sha256);
        let object = object.ok_or_else(|| api.http.strange(format!("it does not say where to put {}", file.path)))?;
        if let Some(Refusal { code, message }) = &object.error {
            let (endpoint, what) = (api.endpoint.to_owned(), file.path.clone());
            return Err(HubError::Server { endpoint, status: *code, what, message: api.http.clean(message) });
        }
        found.push(object.actions.clone().filter(|actions| actions.upload.is_some()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::Content;
    use super::*;

    #[test]
    fn parts_are_as_many_as_their_size_asks_for() {
        let file = LocalFile { path: "w".into(), size: 10, sha256: "a".into(), content: Content::Bytes(Vec::new()) };
        let actions = |header: serde_json::Value| -> Actions {
            serde_json::from_value(json!({ "upload": { "href": "http://x", "header": header } })).unwrap()
        };
        let parts =
            |header| Missing::new(&file, actions(header)).map(|missing| missing.parts.into_inner().unwrap().len());
        assert_eq!(parts(json!({})), Ok(1));
        assert_eq!(parts(json!({ "chunk_size": "4", "1": "a", "2": "b", "3": "c" })), Ok(3));
        assert_eq!(parts(json!({ "chunk_size": 10, "1": "a" })), Ok(1));
        assert!(parts(json!({ "chunk_size": "4", "1": "a", "2": "b" })).unwrap_err().contains("2 addresses for the 3"));
        assert!(parts(json!({ "chunk_size": "0" })).is_err());
    }
}
