//! A model's files: found and hashed, never copied. The artifact is a manifest that points at them.

use mergelab_wire::Event;

use super::{Context, Failure, Job, Product};
use crate::artifact::model_roles;
use crate::experiment::Model;

/// Checks that the files make a model; of one on the hub, after they were fetched.
#[cfg_attr(not(feature = "fetch"), expect(unused_variables, reason = "there is no hub to ask"))]
pub(super) fn run(
    context: &Context<'_>,
    model: &Model,
    job: &Job<'_>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    #[cfg(feature = "fetch")]
    if let Model::Hub { .. } = model {
        return super::model_files::run(context, job, on_event);
    }
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
