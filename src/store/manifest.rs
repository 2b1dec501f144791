//! Manifests: what an artifact is, and what it was made from.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::DateTime;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::error::IoContext;
use crate::artifact::{Output, any_dropped};
use crate::digest::{Digest, Key};

/// Version of the manifest. History: 1, the first.
pub const FORMAT: u32 = 1;

/// The manifest of an artifact; JSON on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`] of the program that wrote it.
    pub format: u32,
    /// The experiment that made it first.
    pub experiment: String,
    /// The stage that made it first.
    pub stage: String,
    /// Digest of `struct`.
    pub key: Key,
    /// Everything that decided the result.
    #[serde(rename = "struct")]
    pub key_struct: serde_json::Value,
    /// The files, sorted by path.
    pub outputs: Vec<Output>,
    /// The files are somebody else's and lie elsewhere; the store holds this manifest only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub external: bool,
    /// Digests of parts that are read separately: a model's `weights`, `config`, …
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roles: BTreeMap<String, Digest>,
    /// Digest of the artifact: of the paths and digests of its files.
    pub digest: Digest,
    /// RFC 3339.
    pub started: String,
    /// RFC 3339.
    pub ended: String,
    /// Machine.
    pub host: String,
    /// State of the project's repository.
    pub git: Option<Git>,
    /// Programs and libraries.
    pub versions: BTreeMap<String, String>,
    /// Device, for stages that compute.
    pub device: Option<String>,
    /// Bytes, where known.
    pub peak_memory: Option<u64>,
    /// Log of the stage's program, relative to the store.
    pub log: Option<String>,
    /// Further figures that the stage reported.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub facts: serde_json::Map<String, serde_json::Value>,
}

impl Manifest {
    /// Whether files of it were dropped, and must be made again before they can be read.
    pub fn is_dropped(&self) -> bool {
        any_dropped(&self.outputs)
    }

    /// How long the stage took: what its program says of it, else from its start to its end.
    pub fn seconds(&self) -> Option<f64> {
        let told = self.facts.get("seconds").and_then(serde_json::Value::as_f64);
        told.or_else(|| {
            let time = |text: &str| DateTime::parse_from_rfc3339(text).ok();
            let took = time(&self.ended)? - time(&self.started)?;
            Some(took.num_milliseconds() as f64 / 1000.0)
        })
    }
}

/// State of the project's repository when a stage ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Git {
    /// Commit checked out.
    pub commit: String,
    /// Whether tracked files differed from it.
    pub dirty: bool,
}

/// Reads a manifest.
///
/// # Errors
/// When it cannot be read, is of a later version ([`StoreError::LaterManifest`]), or is no manifest
/// ([`StoreError::Manifest`]).
pub(super) fn read(path: &Path) -> Result<Manifest, StoreError> {
    let bytes = std::fs::read(path).context("read", path)?;
    let refuse = |reason: String| StoreError::Manifest { path: path.to_path_buf(), reason };
    let read = serde_json::from_slice(&bytes);
    // A later version may have other fields: what does not read as ours is asked for its version alone.
    let found = match &read {
        Ok(Manifest { format, .. }) => Some(u64::from(*format)),
        Err(_) => serde_json::from_slice::<serde_json::Value>(&bytes).ok().and_then(|json| json["format"].as_u64()),
    };
    match found {
        Some(found) if found > u64::from(FORMAT) => {
            Err(StoreError::LaterManifest { path: path.to_path_buf(), found, known: FORMAT })
        }
        _ => read.map_err(|error| refuse(error.to_string())),
    }
}
