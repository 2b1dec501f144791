//! Local data that a task names: a file, a directory, or a pattern, relative to where the harness runs.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Names that `datasets` takes for a format before it looks for a directory.
const FORMATS: [&str; 10] =
    ["json", "csv", "parquet", "text", "arrow", "pandas", "xml", "webdataset", "imagefolder", "audiofolder"];

/// Whether a text names a format, and no data set.
pub(super) fn is_format(text: &str) -> bool {
    FORMATS.contains(&text)
}

/// The file that a text names, if there is one, with an empty name.
pub(super) fn file(root: &Path, text: &str) -> Vec<(String, PathBuf)> {
    let is_path = text.contains(['/', '.']) && text.len() < 1024 && !text.contains(['\n', '\0']);
    let path = root.join(text);
    if is_path && path.is_file() { vec![(String::new(), path)] } else { Vec::new() }
}

/// The files that a text names where a data set stands: with their names under [`fixed_part`].
pub(super) fn files(root: &Path, text: &str) -> Vec<(String, PathBuf)> {
    if text.is_empty() || text.len() >= 1024 || text.contains(['\n', '\0']) || FORMATS.contains(&text) {
        return Vec::new();
    }
    let path = root.join(text);
    if path.is_file() {
        return vec![(String::new(), path)];
    }
    if path.is_dir() {
        return under(&path, usize::MAX);
    }
    let base = fixed_part(text);
    if base.len() == text.len() {
        return Vec::new();
    }
    let pattern = text[base.len()..].trim_start_matches('/');
    let Ok(glob) = globset::GlobBuilder::new(pattern).literal_separator(true).build() else { return Vec::new() };
    let glob = glob.compile_matcher();
    let base = if base.is_empty() { root.to_path_buf() } else { root.join(base) };
    // A pattern at the root of a project must not walk through everything in it.
    let depth = if pattern.contains("**") { usize::MAX } else { pattern.matches('/').count() };
    under(&base, depth).into_iter().filter(|(name, _)| glob.is_match(name)).collect()
}

/// The directory that a pattern starts in, as spelled; all of a text that is no pattern.
pub(super) fn fixed_part(text: &str) -> &str {
    match text.find(['*', '?', '[', '{']) {
        Some(at) => {
            let end = text[..at].rfind('/').map_or(0, |slash| slash.max(1));
            &text[..end]
        }
        None => text,
    }
}

/// Files at most some directories deep under one, links followed, without what is hidden: `datasets` leaves that out, and
/// a store is hidden.
fn under(dir: &Path, depth: usize) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut pending = vec![(dir.to_path_buf(), String::new(), 0)];
    while let Some((dir, prefix, level)) = pending.pop() {
        if !std::fs::canonicalize(&dir).is_ok_and(|real| seen.insert(real)) {
            continue;
        }
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') || name.starts_with("__") {
                continue;
            }
            let path = entry.path();
            if path.is_dir() {
                if level < depth {
                    pending.push((path, format!("{prefix}{name}/"), level + 1));
                }
            } else if path.is_file() {
                found.push((format!("{prefix}{name}"), path));
            }
        }
    }
    found.sort();
    found
}
