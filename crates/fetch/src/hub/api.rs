//! What the hub says of a repository: the commit that a revision names, and the files at a commit.

use serde::Deserialize;

use super::http::Http;
use super::{Control, HubError, RemoteFile, Target};

#[derive(Deserialize)]
struct Revision {
    sha: Option<String>,
}

/// One entry of a tree.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    oid: Option<String>,
    lfs: Option<Large>,
}

/// Of a large file.
#[derive(Deserialize)]
struct Large {
    #[serde(alias = "sha256")]
    oid: String,
    size: u64,
}

/// The commit that a revision names.
pub(super) fn commit(http: &Http, endpoint: &str, target: &Target<'_>, control: &Control) -> Result<String, HubError> {
    let url = format!("{endpoint}/api/{}/revision/{}", repo(target), encode(target.revision, ""));
    let (text, _) = http.text(&url, target, control)?;
    let said: Revision =
        serde_json::from_str(&text).map_err(|_| http.strange(format!("{url} is no description of a repository")))?;
    match said.sha {
        Some(commit) if super::is_commit(&commit) => Ok(commit.to_ascii_lowercase()),
        _ => Err(http.strange(format!("{url} names no commit"))),
    }
}

/// All files at a commit, sorted by path.
pub(super) fn files(
    http: &Http,
    endpoint: &str,
    target: &Target<'_>,
    control: &Control,
) -> Result<Vec<RemoteFile>, HubError> {
    let start = format!("{endpoint}/api/{}/tree/{}?recursive=true", repo(target), target.revision);
    let mut next = Some(start);
    let mut files = Vec::new();
    while let Some(url) = next {
        let (text, answer) = http.text(&url, target, control)?;
        let entries: Vec<Entry> =
            serde_json::from_str(&text).map_err(|_| http.strange(format!("{url} is no list of files")))?;
        for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
            let path = entry.path.clone();
            files.push(remote(entry).ok_or_else(|| http.strange(format!("{path:?} in a list of files")))?);
        }
        let link = answer.headers().get("Link").and_then(|link| link.to_str().ok()).and_then(next_page);
        next = match link {
            // A list that goes on elsewhere would be somebody else's.
            Some(link) if !link.starts_with(&format!("{endpoint}/")) => {
                return Err(http.strange("its list of files goes on at another address".to_owned()));
            }
            Some(link) if link == url => return Err(http.strange("its list of files has no end".to_owned())),
            link => link,
        };
    }
    files.sort_by(|one: &RemoteFile, other| one.path.cmp(&other.path));
    Ok(files)
}

/// The address of a file.
pub(super) fn file_url(endpoint: &str, target: &Target<'_>, path: &str) -> String {
    let repo = encode(target.repo, "/");
    format!("{endpoint}/{}{repo}/resolve/{}/{}", target.kind.page(), target.revision, encode(path, "/"))
}

/// Kind and name of a repository, in addresses of the interface for programs.
pub(super) fn repo(target: &Target<'_>) -> String {
    format!("{}/{}", target.kind.plural(), encode(target.repo, "/"))
}

/// A file as the hub lists it; nothing where its path or its digest cannot be.
fn remote(entry: Entry) -> Option<RemoteFile> {
    if !is_inside(&entry.path) {
        return None;
    }
    match entry.lfs {
        Some(Large { oid, size }) => {
            let sha256 = oid.strip_prefix("sha256:").unwrap_or(&oid).to_ascii_lowercase();
            is_hex(&sha256, 64).then_some(RemoteFile { path: entry.path, size, sha256: Some(sha256), oid: None })
        }
        None => {
            let oid = entry.oid?.to_ascii_lowercase();
            is_hex(&oid, 40).then_some(RemoteFile { path: entry.path, size: entry.size, sha256: None, oid: Some(oid) })
        }
    }
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Whether a path stays in the repository.
pub(super) fn is_inside(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | "..")) && !path.contains(['\\', '\0'])
}

pub(super) fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The address of the next page in a `Link` header.
fn next_page(link: &str) -> Option<String> {
    let part = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    let (_, rest) = part.split_once('<')?;
    Some(rest.split_once('>')?.0.to_owned())
}

/// A text as a part of an address: whatever is not unreserved (RFC 3986) nor in `keep` is escaped.
pub(super) fn encode(text: &str, keep: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        let letter = char::from(byte);
        if letter.is_ascii_alphanumeric() || "-._~".contains(letter) || keep.contains(letter) {
            encoded.push(letter);
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::RepoKind;

    fn entry(json: &str) -> Option<RemoteFile> {
        remote(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_large_file_has_its_own_digest_and_a_small_one_that_of_its_blob() {
        let (sha256, oid) = ("a".repeat(64), "b".repeat(40));
        let large = entry(&format!(
            r#"{{"type": "file", "path": "x/y.bin", "size": 130, "oid": "{oid}", "lfs": {{"oid": "{sha256}", "size": 9, "pointerSize": 130}}, "xetHash": "c"}}"#
        ));
        assert_eq!(large.unwrap(), RemoteFile { path: "x/y.bin".to_owned(), size: 9, sha256: Some(sha256), oid: None });
        let small = entry(&format!(r#"{{"type": "file", "path": "a b", "size": 3, "oid": "{oid}"}}"#)).unwrap();
        assert_eq!((small.size, small.sha256, small.oid), (3, None, Some(oid)));
    }

    #[test]
    fn a_path_that_leads_out_of_the_repository_is_none() {
        let oid = "b".repeat(40);
        for path in ["../x", "a/../../x", "/etc/passwd", "a//b", "./x", "a\\\\b"] {
            assert_eq!(entry(&format!(r#"{{"type": "file", "path": "{path}", "oid": "{oid}"}}"#)), None, "{path}");
        }
        assert_eq!(entry(r#"{"type": "file", "path": "x", "oid": "../../x"}"#), None);
    }

    #[test]
    fn addresses_are_escaped() {
        let target = Target { kind: RepoKind::Dataset, repo: "a/b", revision: "c0ffee", path: None };
        assert_eq!(file_url("http://h", &target, "x y/#1.csv"), "http://h/datasets/a/b/resolve/c0ffee/x%20y/%231.csv");
        assert_eq!(encode("refs/pr/1", ""), "refs%2Fpr%2F1");
    }

    #[test]
    fn the_next_page_is_in_the_link() {
        let link = r#"<http://h/x?cursor=1>; rel="prev", <http://h/x?cursor=3>; rel="next""#;
        assert_eq!(next_page(link).unwrap(), "http://h/x?cursor=3");
        assert_eq!(next_page(r#"<http://h/x>; rel="prev""#), None);
    }
}
