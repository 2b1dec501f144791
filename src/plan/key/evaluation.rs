//! What decides an evaluation, by whichever backend.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Inputs, Open, Reader, on_what};
use crate::artifact::model_roles;
use crate::experiment::{Backend, Calibration, Suite, Task};
use crate::plan::facts::{HUB, Source, digest_of};
use crate::plan::stage::Loss;

impl Reader<'_> {
    pub(super) fn eval(&self, suite: &Suite, task: &Task, seed: u64) -> Result<(Value, Inputs), Open> {
        let mut inputs = Inputs::new();
        let parts = ["generation", "tokenizer", "template"];
        self.roles(&mut inputs, "model", "model", &["weights", "config"], &parts)?;
        match suite.backend {
            Backend::Command => return self.score(suite, inputs),
            Backend::Loss => unreachable!("what a loss suite asks for is no evaluation by a task"),
            Backend::Vllm | Backend::Hf => {}
        }
        let definition = Source::Task { dirs: suite.task_dirs.clone(), task: task.task.clone() };
        let (hub, files): (Vec<_>, Vec<_>) =
            self.source(&definition)?.iter().cloned().partition(|file| file.path.starts_with(HUB));
        inputs.insert("task".to_owned(), digest_of(&definition, &files));
        match &task.data {
            Some(path) => {
                inputs.insert("task.data".to_owned(), self.source_digest(&Source::File(path.clone()))?);
            }
            // A data set that is replaced is not read.
            None => inputs.extend(hub.into_iter().map(|file| (format!("task.{}", file.path), file.sha256))),
        }
        let mut options = serde_json::to_value(&task.options).expect("options become JSON");
        let map = options.as_object_mut().expect("options are an object");
        for decides_no_score in ["batch_size", "tripwires"] {
            map.remove(decides_no_score);
        }
        options["seed"] = json!(task.options.seed.unwrap_or(seed));
        let (mut model_args, _) = model_arguments(suite);
        if let Some(path) = tokenizer(suite) {
            let files = self.source(&Source::Tokenizer(path))?;
            if !files.is_empty() {
                // A directory counts by what is in it, like the model's own, and not by where it is.
                model_args.remove("tokenizer");
                let roles = model_roles(files).into_iter().filter(|(role, _)| parts.contains(&role.as_str()));
                inputs.extend(roles.map(|(role, digest)| (format!("tokenizer.{role}"), digest)));
            }
        }
        let params =
            json!({ "task": task.task, "backend": suite.backend, "model_args": model_args, "options": options });
        Ok((params, inputs))
    }

    /// An evaluation by any program: its arguments, with a file of the project by its name and what is in it.
    fn score(&self, suite: &Suite, mut inputs: Inputs) -> Result<(Value, Inputs), Open> {
        let mut run = suite.run.clone();
        for (position, path) in scripts(suite) {
            if let [script] = self.source(&Source::Script(path))? {
                inputs.insert(format!("run.{position}"), script.sha256);
                run[position].clone_from(&script.path);
            }
        }
        for (position, path) in suite.inputs.iter().enumerate() {
            inputs.insert(format!("inputs.{position}"), self.source_digest(&Source::Any(path.clone()))?);
        }
        let mut params = json!({ "backend": suite.backend, "run": run });
        if !suite.env.is_empty() {
            params["env"] = json!(suite.env);
        }
        if let Some(version) = &suite.version {
            params["version"] = json!(version);
        }
        Ok((params, inputs))
    }

    pub(super) fn loss(&self, Loss { on, sources }: &Loss) -> Result<(Value, Inputs), Open> {
        let Calibration { capture, rows, strict } = on;
        let mut inputs = Inputs::from([("data".to_owned(), self.artifact("data")?.digest)]);
        self.roles(&mut inputs, "model", "model", &["weights", "config", "tokenizer"], &[])?;
        self.template(&mut inputs, ("model", "chat_template"), capture, rows)?;
        for index in 0..sources.len() {
            let source = format!("source.{index}");
            // The tokenizer only to see that its tokens are those of the model.
            self.roles(&mut inputs, &source, &source, &["weights", "config"], &["tokenizer"])?;
        }
        let mut params = on_what(capture, rows, *strict);
        params["backend"] = json!(Backend::Loss);
        // By name, since the names of its metrics are made of them.
        params["kl"] = json!(sources);
        Ok((params, inputs))
    }
}

/// Arguments of a backend's model: those that decide a result (with `add_bos_token` always explicit, since its default
/// changed between releases, and `dtype`, since a default by device would hide in no key), and those that decide how fast it comes.
pub fn model_arguments(suite: &Suite) -> (BTreeMap<String, Value>, BTreeMap<String, Value>) {
    const SPEED: [&str; 23] = [
        "tensor_parallel_size",
        "data_parallel_size",
        "pipeline_parallel_size",
        "distributed_executor_backend",
        "disable_custom_all_reduce",
        "max_parallel_loading_workers",
        "gpu_memory_utilization",
        "kv_cache_memory_bytes",
        "num_gpu_blocks_override",
        "cpu_offload_gb",
        "swap_space",
        "max_num_seqs",
        "max_num_batched_tokens",
        "enforce_eager",
        "disable_log_stats",
        "max_batch_size",
        "batch_size",
        "device",
        "device_map",
        "parallelize",
        "max_memory_per_gpu",
        "max_cpu_memory",
        "offload_folder",
    ];
    let (speed, mut decides): (BTreeMap<_, _>, BTreeMap<_, _>) = suite
        .model_args
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .partition(|(name, _)| SPEED.contains(&name.as_str()));
    decides.entry("add_bos_token".to_owned()).or_insert(Value::Bool(false));
    decides.entry("dtype".to_owned()).or_insert("auto".into());
    (decides, speed)
}

/// The tokenizer that an evaluation is told to use in place of the model's: a directory, or a name on the hub.
pub(in crate::plan) fn tokenizer(suite: &Suite) -> Option<PathBuf> {
    suite.model_args.get("tokenizer").and_then(Value::as_str).map(PathBuf::from)
}

/// Arguments of a program that evaluates which may name files of the project, with their positions.
pub(in crate::plan) fn scripts(suite: &Suite) -> impl Iterator<Item = (usize, PathBuf)> {
    let plain = suite.run.iter().enumerate().filter(|(_, argument)| !argument.contains('{') && !argument.is_empty());
    plain.map(|(position, argument)| (position, PathBuf::from(argument)))
}
