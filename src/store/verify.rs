//! Re-hashing everything: what a cached stat cannot show, such as a bit that flipped on the disk.

use std::path::PathBuf;

use serde::Serialize;

use super::{Stamp, Store, StoreError, manifest};
use crate::artifact::artifact_digest;
use crate::digest::Digest;

/// What was found.
#[derive(Debug, Default, Serialize)]
pub struct Verification {
    /// Manifests looked at.
    pub artifacts: usize,
    /// Files hashed.
    pub files: usize,
    /// Bytes hashed.
    pub bytes: u64,
    /// What does not agree.
    pub bad: Vec<Bad>,
}

/// One thing that does not agree.
#[derive(Debug, Serialize)]
pub struct Bad {
    /// Experiment of the artifact.
    pub experiment: String,
    /// Stage of the artifact; empty if the manifest cannot be read.
    pub stage: String,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

impl Store {
    /// Hashes every file that a manifest promises. Work in progress is no error. What is bad is forgotten by the cache
    /// of digests, so that the next run finds it, moves it to quarantine and makes it again.
    ///
    /// # Errors
    /// When `keys/` cannot be listed. Whatever else cannot be read is reported as bad.
    pub fn verify(&self) -> Result<Verification, StoreError> {
        let mut found = Verification::default();
        let mut seen = std::collections::HashSet::new();
        let super::ManifestPaths { paths, unlisted } = self.manifest_paths()?;
        for (path, error) in unlisted {
            found.bad.push(Bad::unknown(path, format!("cannot be listed: {error}")));
        }
        for path in paths {
            found.artifacts += 1;
            let manifest = match manifest::read(&path) {
                Ok(manifest) => manifest,
                Err(error) => {
                    let problem = match error {
                        StoreError::Manifest { reason, .. } => format!("not a manifest: {reason}"),
                        StoreError::LaterManifest { found, known, .. } => {
                            format!("a manifest of version {found}, this mergelab knows up to {known}: left alone")
                        }
                        StoreError::Io { source, .. } => format!("cannot be read: {source}"),
                        other => other.to_string(),
                    };
                    found.bad.push(Bad::unknown(path, problem));
                    continue;
                }
            };
            let mut complain = |path: PathBuf, problem: &str| {
                let (experiment, stage) = (manifest.experiment.clone(), manifest.stage.clone());
                found.bad.push(Bad { experiment, stage, path, problem: problem.to_owned() });
            };
            if Digest::of_json(&manifest.key_struct) != manifest.key.0
                || path.file_stem() != Some(manifest.key.to_string().as_ref())
            {
                complain(path.clone(), "the key is not the digest of what it was made from");
            }
            if artifact_digest(&manifest.outputs) != manifest.digest {
                complain(path.clone(), "the digest is not that of the files it lists");
            }
            if manifest.external {
                continue;
            }
            let object = self.object_dir(&manifest.digest);
            for output in manifest.outputs.iter().filter(|output| !output.dropped) {
                let path = object.join(&output.path);
                if !seen.insert(path.clone()) {
                    continue;
                }
                let metadata = match std::fs::symlink_metadata(&path) {
                    Ok(metadata) if metadata.is_file() => metadata,
                    Ok(_) => {
                        complain(path, "is no longer a regular file");
                        continue;
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                        complain(path, "is gone");
                        continue;
                    }
                    Err(error) => {
                        complain(path, &format!("cannot be read: {error}"));
                        continue;
                    }
                };
                let (digest, size) = match Digest::of_file(&path) {
                    Ok(read) => read,
                    Err(error) => {
                        self.stats().forget(&Stamp::of(&metadata));
                        complain(path, &format!("cannot be read: {error}"));
                        continue;
                    }
                };
                found.files += 1;
                found.bytes += size;
                if digest != output.sha256 {
                    self.stats().forget(&Stamp::of(&metadata));
                    complain(path, "does not match its digest");
                }
            }
        }
        if let Err(error) = self.save_stats()
            && !found.bad.is_empty()
        {
            found.bad.push(Bad::unknown(self.root().join("cache"), format!("does not take what was found: {error}")));
        }
        Ok(found)
    }
}

impl Bad {
    /// Of an artifact that cannot be told.
    fn unknown(path: PathBuf, problem: String) -> Self {
        Self { experiment: String::new(), stage: String::new(), path, problem }
    }
}
