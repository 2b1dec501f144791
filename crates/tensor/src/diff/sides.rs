//! The two models, open, with what a loader would take of their files.

use std::path::Path;

use mergelab_wire::DiffJob;
use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::failure::Failure;
use crate::merge::sources::{HEAD, config, is_tied};
use crate::report::Reporter;

/// The models.
pub(super) struct Sides {
    /// Their tensors.
    pub(super) checkpoints: [Checkpoint; 2],
    /// Whether their head is their embedding, which then has the numbers of both.
    pub(super) tied: [bool; 2],
}

impl Sides {
    /// Opens both. Left out is what is in the files and not in the model: a head that is the embedding, which old libraries
    /// saved beside it, and buffers of positions.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(super) fn open(job: &DiffJob, reporter: &Reporter) -> Result<Self, Failure> {
        let [first, second] = &job.sides;
        let mut checkpoints = [open(&first.path)?, open(&second.path)?];
        let mut tied = [says_tied(&first.path), says_tied(&second.path)];
        let has_head = checkpoints.each_ref().map(|side| side.contains(HEAD));
        for (side, tied) in checkpoints.iter().zip(&mut tied) {
            // A head that both save is compared as what it is, unless a configuration says that it is none.
            *tied = *tied || has_head != [true, true] && side.contains(HEAD) && is_tied(side)?;
        }
        for (side, _) in checkpoints.iter_mut().zip(tied).filter(|(_, tied)| *tied) {
            side.forget(HEAD);
        }
        for (side, other) in [(0, 1), (1, 0)] {
            if tied[side] && checkpoints[other].contains(HEAD) {
                let [this, that] = [side, other].map(|side| &job.sides[side].name);
                reporter.note(format!("the head of {this} is its embedding, that of {that} is not"));
            }
        }
        Ok(Self { checkpoints, tied })
    }
}

fn open(path: &Path) -> Result<Checkpoint, Failure> {
    let mut checkpoint = Checkpoint::open(path)?;
    let buffers: Vec<String> =
        checkpoint.names().filter(|name| name.ends_with("rotary_emb.inv_freq")).map(str::to_owned).collect();
    for buffer in buffers {
        checkpoint.forget(&buffer);
    }
    Ok(checkpoint)
}

/// Whether `config.json` says that the head is the embedding.
fn says_tied(path: &Path) -> bool {
    config(path).is_some_and(|config| config.get("tie_word_embeddings") == Some(&Value::Bool(true)))
}
