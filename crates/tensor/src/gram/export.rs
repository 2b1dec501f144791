//! The matrices of an artifact, whole: an fp32 tensor `[in, in]` per module, by the module's name, in a safetensors file for
//! each of the artifact's, with an index ([`super::import`]).
//!
//! What other programs read is a dictionary from module names to matrices, so modules that share an input have a copy each.
//! A strip of rows per worker is in memory at a time.

use std::path::Path;

use indexmap::IndexMap;
use mergelab_wire::ExportGramsJob;
use safetensors::Dtype;

use super::error::GramError;
use super::import::{FullEntry, FullIndex};
use super::index::{FORMAT, GramEntry, GramSet};
use crate::checkpoint::{NewTensor, Writer};
use crate::failure::FileError;
use crate::parallel::Pool;
use crate::report::Reporter;

/// Writes the whole matrices of an artifact.
///
/// # Errors
/// When it cannot be read or written.
pub fn run(job: &ExportGramsJob, out: &Path, pool: Pool, reporter: &Reporter) -> Result<(), GramError> {
    let set = GramSet::open(&job.grams)?;
    let mut files: IndexMap<&str, Vec<(&str, &GramEntry)>> = IndexMap::new();
    let mut matrices = IndexMap::new();
    for module in set.modules() {
        let entry = set.entry(module).expect("a module of the index has an entry");
        files.entry(&entry.file).or_default().push((module, entry));
        let GramEntry { file, n, width, transposed, .. } = entry.clone();
        matrices.insert(module.to_owned(), FullEntry { file, tensor: module.to_owned(), n, width, transposed });
    }
    reporter.progress(0, files.len(), "files");
    for (done, (file, members)) in files.iter().enumerate() {
        write(&set, members, &out.join(file), pool)?;
        reporter.progress(done + 1, files.len(), "files");
    }
    let index = FullIndex { format: FORMAT, matrices, without: set.without().cloned() };
    let path = out.join("index.json");
    let text = serde_json::to_string_pretty(&index).expect("names and numbers have a JSON form");
    Ok(std::fs::write(&path, text + "\n").map_err(FileError::of("write", &path))?)
}

fn write(set: &GramSet, members: &[(&str, &GramEntry)], path: &Path, pool: Pool) -> Result<(), GramError> {
    let planned = members.iter().map(|(module, entry)| NewTensor {
        name: (*module).to_owned(),
        dtype: Dtype::F32,
        shape: vec![entry.width, entry.width],
    });
    let writer = Writer::single(path, planned.collect())?;
    let strips = members.iter().flat_map(|(module, entry)| {
        let tiling = entry.tiling();
        (0..tiling.blocks()).map(move |block| (*module, *entry, tiling.rows(block)))
    });
    pool.map(strips.collect(), |(module, entry, rows)| -> Result<(), GramError> {
        let strip = set.part(entry, rows.clone(), 0..entry.width)?;
        Ok(writer.write(module, rows.start * entry.width, &strip)?)
    })?;
    writer.finish();
    Ok(())
}
