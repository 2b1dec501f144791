//! A Python environment, read from its files: no interpreter is started to learn what is installed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A Python environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Python {
    /// The interpreter.
    pub executable: PathBuf,
    /// The environment's directory.
    pub prefix: PathBuf,
}

impl Python {
    /// The environment at a path: an interpreter, or a directory that has one under `bin/`.
    pub fn at(path: &Path) -> Option<Self> {
        if path.is_file() {
            // Not canonical: a virtual environment's interpreter is a link out of it.
            let prefix = path.parent()?.parent()?.to_path_buf();
            return Some(Self { executable: path.to_path_buf(), prefix });
        }
        let executable =
            ["bin/python", "bin/python3"].iter().map(|name| path.join(name)).find(|path| path.is_file())?;
        Some(Self { executable, prefix: path.to_path_buf() })
    }

    /// Its `site-packages` directories.
    pub fn site_packages(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for library in ["lib", "lib64"] {
            let Ok(entries) = std::fs::read_dir(self.prefix.join(library)) else { continue };
            for entry in entries.flatten() {
                let is_python = entry.file_name().to_str().is_some_and(|name| name.starts_with("python3"));
                let site = entry.path().join("site-packages");
                if is_python && site.is_dir() {
                    found.push(site);
                }
            }
        }
        found.sort();
        found.dedup_by_key(|path| std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone()));
        found
    }

    /// Versions of what is installed, by distribution name with `-` as `_`, from the names of the `dist-info` folders.
    pub fn versions(&self) -> BTreeMap<String, String> {
        let mut versions = BTreeMap::new();
        for site in self.site_packages() {
            for entry in std::fs::read_dir(&site).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".dist-info")) else { continue };
                if let Some((name, version)) = stem.split_once('-') {
                    versions.insert(name.to_lowercase().replace(['-', '.'], "_"), version.to_owned());
                }
            }
        }
        versions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_names_of_folders() {
        let dir = tempfile::tempdir().unwrap();
        let site = dir.path().join("lib/python3.11/site-packages");
        for name in ["lm_eval-0.4.13.dist-info", "Torch-2.11.0+cu130.dist-info", "torch", "not-a-version"] {
            std::fs::create_dir_all(site.join(name)).unwrap();
        }
        std::fs::create_dir_all(dir.path().join("bin")).unwrap();
        std::fs::write(dir.path().join("bin/python"), "").unwrap();
        let versions = Python::at(dir.path()).unwrap().versions();
        assert_eq!(versions["lm_eval"], "0.4.13");
        assert_eq!(versions["torch"], "2.11.0+cu130");
        assert_eq!(versions.len(), 2);
        assert_eq!(Python::at(&dir.path().join("nowhere")), None);
    }
}
