//! An artifact that lies somewhere: checked, and taken over file by file, so that it has the digest that it had.

use std::path::Path;

use super::super::add::Figures;
use super::super::error::GramError;
use super::super::index::{GramEntry, GramSet};
use super::error::ImportError;
use super::is_beside;
use crate::failure::FileError;
use crate::parallel::Pool;
use crate::report::Reporter;

/// Copies an artifact whose index is `index`.
pub(super) fn copy(
    directory: &Path,
    index: &[u8],
    out: &Path,
    pool: Pool,
    reporter: &Reporter,
) -> Result<(), GramError> {
    let path = directory.join("index.json");
    let set = GramSet::open(directory).map_err(|error| match error {
        // Of our own artifacts the stage is at fault, of this one whoever named it.
        GramError::Index { path, reason } => ImportError::Index { path, reason }.into(),
        other => other,
    })?;
    if set.modules().next().is_none() {
        return Err(ImportError::Empty { path }.into());
    }
    let mut files: Vec<&str> = Vec::new();
    let mut matrices: Vec<(&str, &GramEntry)> = Vec::new();
    for module in set.modules() {
        let entry = set.entry(module).expect("a module of the index has an entry");
        if !is_beside(&entry.file) {
            let reason = format!("{module}: {:?} is no safetensors file beside the index", entry.file);
            return Err(ImportError::Index { path, reason }.into());
        }
        if !files.contains(&entry.file.as_str()) {
            files.push(&entry.file);
        }
        if !matrices.iter().any(|(_, other)| (&other.file, &other.tensor) == (&entry.file, &entry.tensor)) {
            matrices.push((module, entry));
        }
    }
    let tiles = matrices.iter().flat_map(|(module, entry)| {
        let blocks = entry.tiling().blocks();
        (0..blocks).flat_map(move |i| (i..blocks).map(move |j| (*module, *entry, i, j)))
    });
    pool.map(tiles.collect(), |(module, entry, i, j)| {
        let fault = |reason: String| {
            GramError::from(ImportError::Matrix {
                path: directory.join(&entry.file),
                module: module.to_owned(),
                reason,
            })
        };
        check(&set, entry, (i, j))?.map_or(Ok(()), |reason| Err(fault(reason)))
    })?;
    reporter.progress(0, files.len(), "files");
    for (done, file) in files.iter().enumerate() {
        take(directory, file, out)?;
        reporter.progress(done + 1, files.len(), "files");
    }
    if Figures::read(directory)?.is_some() {
        take(directory, "layers.json", out)?;
    }
    let to = out.join("index.json");
    std::fs::write(&to, index).map_err(FileError::of("write", &to))?;
    reporter.fact("modules", set.modules().count());
    reporter.fact("gram_matrices", matrices.len());
    if let Some(tokens) = matrices.iter().filter_map(|(_, entry)| entry.n).max() {
        reporter.fact("tokens_counted", tokens);
    }
    Ok(())
}

fn take(directory: &Path, file: &str, out: &Path) -> Result<(), GramError> {
    let (from, to) = (directory.join(file), out.join(file));
    std::fs::copy(&from, &to).map_err(FileError::of("copy", &from))?;
    Ok(())
}

/// What is wrong with a tile, if anything: every number is finite, the diagonal one is symmetric and its diagonal not
/// negative, and what reaches past the matrix is zero.
fn check(set: &GramSet, entry: &GramEntry, (i, j): (usize, usize)) -> Result<Option<String>, GramError> {
    let tiling = entry.tiling();
    let tile = set.tile_at(entry, tiling.first(i) + j - i)?;
    let values = Vec::<f32>::try_from(&tile).map_err(GramError::torch(format!("tiles of {}", entry.tensor)))?;
    let (rows, columns) = (tiling.rows(i), tiling.rows(j));
    for (at, &value) in values.iter().enumerate() {
        let (down, across) = (at / tiling.tile, at % tiling.tile);
        let (row, column) = (rows.start + down, columns.start + across);
        if !value.is_finite() {
            return Ok(Some(format!("G[{row}, {column}] is {value}")));
        }
        if (down >= rows.len() || across >= columns.len()) && value != 0.0 {
            return Ok(Some(format!("tile ({i}, {j}) reaches past the matrix")));
        }
        if i == j && row == column && value < 0.0 {
            return Ok(Some(format!("G[{row}, {column}] is {value}, and a mean of squares is not negative")));
        }
        if i == j && value.to_bits() != values[across * tiling.tile + down].to_bits() {
            return Ok(Some(format!("it is not symmetric at G[{row}, {column}]")));
        }
    }
    Ok(None)
}
