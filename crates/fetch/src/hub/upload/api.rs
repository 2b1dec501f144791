//! What is asked of the hub itself: a repository, a branch, what counts as large, and the commit.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use ureq::Body;
use ureq::http::Response;

use super::super::api::{commit, encode, hex, repo};
use super::super::http::{Http, Outgoing, said_in};
use super::super::{Control, HubError, MAIN, Target, is_commit};
use super::{LocalFile, body};

/// Files that are asked about at once.
const BATCH: usize = 256;

/// Bytes of a file by which the hub judges whether it is text.
const SAMPLE: u64 = 512;

/// One repository, at a branch, that is written to.
pub(super) struct Api<'a> {
    pub(super) http: &'a Http,
    pub(super) endpoint: &'a str,
    pub(super) target: Target<'a>,
    pub(super) control: &'a Control,
}

#[derive(Deserialize)]
struct Repository {
    id: Option<String>,
    #[serde(default)]
    private: bool,
}

#[derive(Deserialize)]
struct Modes {
    files: Vec<Mode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mode {
    path: String,
    upload_mode: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Commit {
    commit_oid: String,
}

impl Api<'_> {
    /// The address of the repository for people, at a branch if one was named.
    pub(super) fn page(&self, branch: Option<&str>) -> String {
        let page = format!("{}/{}{}", self.endpoint, self.target.kind.page(), self.target.repo);
        branch.map_or(page.clone(), |branch| format!("{page}/tree/{branch}"))
    }

    /// Makes the repository where there is none; whether it did.
    pub(super) fn ensure_repository(&self, private: bool) -> Result<bool, HubError> {
        match self.repository() {
            Ok(found) => {
                let name = found.id.unwrap_or_else(|| self.target.repo.to_owned());
                if !name.eq_ignore_ascii_case(self.target.repo) {
                    let message = format!("{} has another name now: publish to {name}", self.target.repo);
                    return Err(HubError::Setting(message));
                }
                if private && !found.private {
                    return Err(HubError::Public { repo: name });
                }
                Ok(false)
            }
            Err(HubError::NoRepo { .. }) => {
                let (organization, name) = self.target.repo.split_once('/').unwrap_or_default();
                let asked = json!({
                    "type": self.target.kind.singular(), "organization": organization, "name": name, "private": private,
                });
                let response =
                    self.post(&format!("{}/api/repos/create", self.endpoint), "application/json", &text(&asked))?;
                match response.status().as_u16() {
                    // Somebody made it just now, or something of another kind has the name.
                    409 => match self.repository() {
                        Ok(_) => Ok(false),
                        Err(HubError::NoRepo { .. }) => {
                            let noun = self.target.kind.noun();
                            Err(HubError::Taken {
                                repo: self.target.repo.to_owned(),
                                noun,
                                message: self.message(response),
                            })
                        }
                        Err(error) => Err(error),
                    },
                    _ => self.success(response).map(|_| true),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn repository(&self) -> Result<Repository, HubError> {
        let url = format!("{}/api/{}", self.endpoint, repo(&self.target));
        let target = Target { revision: MAIN, ..self.target };
        let (text, _) = self.http.text(&url, &target, self.control)?;
        serde_json::from_str(&text).map_err(|_| self.http.strange(format!("{url} is no description of a repository")))
    }

    /// The commit at the head of the branch, which is made where there is none.
    pub(super) fn ensure_branch(&self) -> Result<String, HubError> {
        let head = || commit(self.http, self.endpoint, &self.target, self.control);
        match head() {
            Err(HubError::NoRevision { .. }) if self.target.revision != MAIN => {
                let branch = encode(self.target.revision, "");
                let url = format!("{}/api/{}/branch/{branch}", self.endpoint, repo(&self.target));
                let response = self.post(&url, "application/json", b"{}")?;
                if response.status().as_u16() != 409 {
                    self.success(response)?;
                }
                head()
            }
            other => other,
        }
    }

    /// Paths of those files that the hub keeps as large ones.
    pub(super) fn large(&self, files: &[LocalFile]) -> Result<HashSet<String>, HubError> {
        let mut large = HashSet::new();
        let branch = encode(self.target.revision, "");
        let url = format!("{}/api/{}/preupload/{branch}", self.endpoint, repo(&self.target));
        for files in files.chunks(BATCH) {
            let mut asked = Vec::new();
            for file in files {
                let sample = STANDARD.encode(body::sample(file, SAMPLE)?);
                asked.push(json!({ "path": file.path, "size": file.size, "sample": sample }));
            }
            let modes: Modes = self.ask(&url, "application/json", &json!({ "files": asked }))?;
            for file in files.iter().filter(|file| file.size > 0) {
                let mode = modes.files.iter().find(|mode| mode.path == file.path);
                match mode.map(|mode| mode.upload_mode.as_str()) {
                    Some("lfs") => drop(large.insert(file.path.clone())),
                    Some("regular") => {}
                    _ => return Err(self.http.strange(format!("it does not say how to send {}", file.path))),
                }
            }
        }
        Ok(large)
    }

    /// Makes one commit of small files, large files that are in the storage, and paths that have to go.
    pub(super) fn commit(
        &self,
        message: &str,
        parent: &str,
        (small, large): (&[&LocalFile], &[&LocalFile]),
        stale: &[String],
    ) -> Result<String, HubError> {
        let mut lines = vec![json!({
            "key": "header", "value": { "summary": message, "description": "", "parentCommit": parent },
        })];
        for file in small {
            let bytes = body::read(file)?;
            let found = hex(&Sha256::digest(&bytes));
            if found != file.sha256 {
                let source = std::io::Error::other(format!("its digest is {found} and was {}", file.sha256));
                return Err(body::unreadable(file, source));
            }
            let value = json!({ "path": file.path, "encoding": "base64", "content": STANDARD.encode(&bytes) });
            lines.push(json!({ "key": "file", "value": value }));
        }
        for file in large {
            let value = json!({ "path": file.path, "algo": "sha256", "oid": file.sha256, "size": file.size });
            lines.push(json!({ "key": "lfsFile", "value": value }));
        }
        lines.extend(stale.iter().map(|path| json!({ "key": "deletedFile", "value": { "path": path } })));
        let mut sent = Vec::new();
        for line in &lines {
            sent.extend(text(line));
            sent.push(b'\n');
        }
        let branch = encode(self.target.revision, "");
        let url = format!("{}/api/{}/commit/{branch}", self.endpoint, repo(&self.target));
        let response = self.post(&url, "application/x-ndjson", &sent)?;
        let said: Commit = self.read(response, &url)?;
        if is_commit(&said.commit_oid) {
            Ok(said.commit_oid)
        } else {
            Err(self.http.strange(format!("{url} names no commit")))
        }
    }

    /// Asks with some JSON, and reads JSON.
    pub(super) fn ask<T: DeserializeOwned>(&self, url: &str, kind: &str, asked: &Value) -> Result<T, HubError> {
        let response = self.post(url, kind, &text(asked))?;
        self.read(response, url)
    }

    /// Posts something; the answer may be an error.
    pub(super) fn post(&self, url: &str, kind: &str, sent: &[u8]) -> Result<Response<Body>, HubError> {
        let headers = [("Content-Type".to_owned(), kind.to_owned()), ("Accept".to_owned(), accepted(kind).to_owned())];
        let outgoing = Outgoing { method: "POST", url, headers: &headers, length: sent.len() as u64 };
        let response = self.http.send(outgoing, &mut |once| once(&mut &*sent), self.control)?;
        if response.status().as_u16() == 429 { Err(self.http.refusal(response, &self.target)) } else { Ok(response) }
    }

    fn read<T: DeserializeOwned>(&self, response: Response<Body>, url: &str) -> Result<T, HubError> {
        let response = self.success(response)?;
        let text = response.into_body().into_with_config().limit(1 << 26).read_to_vec();
        let text = text.map_err(|error| self.http.unreachable(&error.to_string()))?;
        serde_json::from_slice(&text).map_err(|error| self.http.strange(format!("{url}: {error}")))
    }

    /// An answer that is none of an error.
    pub(super) fn success(&self, response: Response<Body>) -> Result<Response<Body>, HubError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let repo = self.target.repo.to_owned();
        Err(match status.as_u16() {
            403 => HubError::NoWrite {
                repo,
                message: self.message(response),
                token_from: self.http.token_from().to_owned(),
            },
            409 | 412 => HubError::Conflict { repo, message: self.message(response) },
            401 | 404 | 429 => self.http.refusal(response, &self.target),
            status => HubError::Server {
                endpoint: self.endpoint.to_owned(),
                status,
                what: format!("writing to {repo}"),
                message: self.message(response),
            },
        })
    }

    /// What an answer says of why it is an error.
    pub(super) fn message(&self, response: Response<Body>) -> String {
        let header = response.headers().get("X-Error-Message").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let said = header.filter(|message| !message.is_empty()).unwrap_or_else(|| said_in(response.into_body()));
        self.http.clean(&said)
    }
}

/// What is accepted in answer to something of a type.
fn accepted(kind: &str) -> &str {
    if kind == "application/x-ndjson" { "application/json" } else { kind }
}

fn text(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}
