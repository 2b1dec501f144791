//! A model's files: found and hashed, never copied. The artifact is a manifest that points at them.

use super::{Failure, Job, Product};
use crate::artifact::model_roles;
use crate::experiment::Model;

/// Checks that the files make a model.
pub(super) fn run(model: &Model, job: &Job<'_>) -> Result<Product, Failure> {
    let roles = model_roles(&job.files);
    let place = match model {
        Model::Path(path) => path.display().to_string(),
        Model::From(output) => format!("the output of commands.{}", output.command),
        Model::Hub { repo, .. } => repo.clone(),
    };
    for (role, file) in [("config", "config.json"), ("weights", "model.safetensors, nor another file of weights")] {
        if !roles.contains_key(role) {
            return Err(Failure::experiment(format!("{place} is not a model: it has no {file}"))
                .hint("a model directory is what `save_pretrained` of transformers writes"));
        }
    }
    Ok(Product { external: Some(job.files.clone()), ..Product::default() })
}
