//! The version of the layout, in the file `format`.

use std::path::Path;

use super::StoreError;
use super::error::IoContext;

const CURRENT: u32 = 1;

/// Refuses a layout that this program does not know.
pub(super) fn check(root: &Path) -> Result<(), StoreError> {
    let path = root.join("format");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context("read", &path),
    };
    match text.trim().strip_prefix("mergelab store ").and_then(|version| version.parse().ok()) {
        Some(found) if found > CURRENT => Err(StoreError::TooNew { path, found, known: CURRENT }),
        Some(_) => Ok(()),
        None => Err(StoreError::NoFormat { path, text: text.chars().take(40).collect() }),
    }
}

/// As [`check`]; a new store gets its version.
pub(super) fn check_or_write(root: &Path) -> Result<(), StoreError> {
    let path = root.join("format");
    if !path.exists() {
        let mut file = super::new_file_in(root)?;
        std::io::Write::write_all(&mut file, format!("mergelab store {CURRENT}\n").as_bytes())
            .context("write", &path)?;
        file.as_file().sync_all().context("sync", &path)?;
        file.persist(&path).map_err(|error| error.error).context("write", &path)?;
    }
    check(root)
}
