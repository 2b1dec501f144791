//! The files of a model or of an adapter: found and hashed, never copied. The artifact is a manifest that points at them.

use mergelab_wire::Event;

use super::{Context, Failure, Job, Product};
use crate::artifact::{ADAPTER_CONFIG, ADAPTER_TENSORS, Output, model_roles};
use crate::experiment::Model;
use crate::plan::Kind;

/// Checks that the files make a model, or an adapter; of one on the hub, after they were fetched.
#[cfg_attr(not(feature = "fetch"), expect(unused_variables, reason = "there is no hub to ask"))]
pub(super) fn run(
    context: &Context<'_>,
    model: &Model,
    job: &Job<'_>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    let is_adapter = job.stage.spec.kind() == Kind::Adapter;
    #[cfg(feature = "fetch")]
    if let Model::Hub { .. } = model {
        let fetch = if is_adapter { super::adapter_files::run } else { super::model_files::run };
        return fetch(context, job, on_event);
    }
    let check = if is_adapter { check_adapter } else { check_model };
    check(&place(model), &job.files)?;
    Ok(Product { external: Some(job.files.clone()), ..Product::default() })
}

/// Where the files of a model come from, for messages.
pub(super) fn place(model: &Model) -> String {
    match model {
        Model::Path(path) => path.display().to_string(),
        Model::From(output) => format!("the output of commands.{}", output.command),
        Model::Hub { repo, .. } => repo.clone(),
        Model::Lora(lora) => format!("{} with {}", place(&lora.base), place(&lora.adapter)),
    }
}

fn check_model(place: &str, files: &[Output]) -> Result<(), Failure> {
    let roles = model_roles(files);
    for (role, file) in [("config", "config.json"), ("weights", "model.safetensors, nor another file of weights")] {
        if !roles.contains_key(role) {
            let is_adapter = files.iter().any(|file| file.path == ADAPTER_CONFIG);
            let hint = if is_adapter { IS_ADAPTER } else { MODEL_HINT };
            return Err(Failure::experiment(format!("{place} is not a model: it has no {file}")).hint(hint));
        }
    }
    Ok(())
}

const MODEL_HINT: &str = "a model directory is what `save_pretrained` of transformers writes";

/// What to do with an adapter where a model is named.
pub(super) const IS_ADAPTER: &str = "it holds an adapter: name its model, and the adapter beside it under `lora`";

fn check_adapter(place: &str, files: &[Output]) -> Result<(), Failure> {
    let has = |path: &str| files.iter().any(|file| file.path == path);
    let lacks = match (has(ADAPTER_CONFIG), ADAPTER_TENSORS.iter().any(|path| has(path))) {
        (true, true) => return Ok(()),
        (true, false) => ADAPTER_TENSORS.join(", nor "),
        (false, _) => ADAPTER_CONFIG.to_owned(),
    };
    Err(Failure::experiment(format!("{place} is no adapter that can be read: it has no {lacks}")).hint(ADAPTER_HINT))
}

/// What the directory of an adapter is.
pub(super) const ADAPTER_HINT: &str = "the directory of an adapter is what `save_pretrained` of PEFT writes";
