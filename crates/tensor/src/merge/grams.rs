//! The Gram matrices that a merge is given, under the models' names of modules.

use std::path::PathBuf;

use mergelab_wire::{MergeJob, MergeSource};

use super::error::MergeError;
use super::method::Context;
use crate::gram::GramSet;

/// The Gram artifacts of a merge, in the order of its models.
#[derive(Debug)]
pub struct Grams {
    /// What the systems are made of.
    pub used: Vec<GramSet>,
    /// What the objective is reported on as well; empty, or one per model.
    pub held_out: Vec<GramSet>,
}

impl Grams {
    /// Opens what a merge names.
    ///
    /// # Errors
    /// When an artifact cannot be read.
    pub fn open(job: &MergeJob) -> Result<Self, MergeError> {
        let open = |path: &PathBuf| GramSet::open(path).map_err(MergeError::from);
        let sets = |path: fn(&MergeSource) -> Option<&PathBuf>| {
            job.models.iter().filter_map(path).map(open).collect::<Result<Vec<_>, _>>()
        };
        let used = sets(|model| model.grams.as_ref())?;
        let mut held_out = sets(|model| model.held_out.as_ref())?;
        if held_out.len() != used.len() {
            held_out.clear();
        }
        Ok(Self { used, held_out })
    }

    /// With the models' names of modules, where they were imported under others.
    ///
    /// # Errors
    /// When names do not match.
    pub(super) fn named(mut self, context: &Context<'_>) -> Result<Self, MergeError> {
        let is_matrix = |name: &&String| context.sources.shape(name).is_ok_and(|shape| shape.len() == 2);
        let names = context.sources.names().iter().filter(is_matrix);
        let modules: Vec<&str> = names.map(|name| name.strip_suffix(".weight").unwrap_or(name)).collect();
        for set in self.used.iter_mut().chain(&mut self.held_out) {
            if set.take_names(&modules)? {
                let place = set.directory().display();
                context
                    .reporter
                    .note(format!("{place}: the Gram of lm_head is not used, since the head is the embedding"));
            }
        }
        Ok(self)
    }
}
