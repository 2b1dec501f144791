//! Gram matrices from and to other programs: files go to the tensor program, an artifact of our form comes back, and the other
//! way round.

use std::path::{Path, PathBuf};

use mergelab_wire::{Event, ExportGramsJob, GramFiles, ImportGramsJob, Job as Work};

use super::{Context, Failure, Job, Product, gram_card, tensor};
use crate::experiment::Gram;

/// Imports the matrices of an entry.
pub(super) fn run(
    context: &Context<'_>,
    gram: &Gram,
    job: &Job<'_>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    let resolve = |path: &PathBuf| context.project.resolve(path);
    let from = match gram {
        Gram::PicklePath(path) => GramFiles::Pickle(resolve(path)),
        Gram::Path(path) => GramFiles::Directory(resolve(path)),
        #[cfg(feature = "fetch")]
        Gram::PickleHub { .. } | Gram::Hub { .. } => super::gram_files::fetch(context, gram, job, on_event)?,
        #[cfg(not(feature = "fetch"))]
        Gram::PickleHub { repo, .. } | Gram::Hub { repo, .. } => {
            return Err(Failure::stage(super::without_hub(repo).unwrap_or_default()));
        }
        Gram::Capture(_) => unreachable!("a capture is no import"),
    };
    let mut product = tensor::run(context, job, Work::ImportGrams(ImportGramsJob { from }), on_event)?;
    if let Some(commit) = &job.commit {
        product.facts.insert("commit".to_owned(), commit.as_str().into());
    }
    gram_card::write(context, job)?;
    Ok(product)
}

/// Writes the matrices of an artifact whole into an empty directory. `scratch` holds what the program needs meanwhile.
///
/// # Errors
/// When the program fails, in words.
pub fn export(
    context: &Context<'_>,
    stage: &str,
    grams: &Path,
    (scratch, out): (&Path, &Path),
    on_event: &mut dyn FnMut(Event),
) -> Result<(), Failure> {
    let work = Work::ExportGrams(ExportGramsJob { grams: grams.to_path_buf() });
    tensor::run_alone(context, stage, (scratch, out), work, on_event).map(drop)
}
