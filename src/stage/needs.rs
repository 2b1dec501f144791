//! What a stage takes of the machine, as far as it is known beforehand: estimates for the scheduler, not limits.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use mergelab_wire::{Engine, RowRange};

use crate::experiment::{Backend, Calibration, Capture, Merge, Suite};
use crate::plan::{Artifact, Graph, Shard, Spec, Stage};

/// What any program takes, and one layer of each model that it works on, in bytes.
const PROGRAM: u64 = 1 << 30;

/// GPUs that a stage is to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gpus {
    /// So many, or all where there are fewer.
    Any(usize),
    /// The one that its experiment names, counted from 0.
    This(usize),
}

/// About how many bytes a stage will write, with what it reads by role; 0 where nothing is known.
pub fn bytes_written<'a>(stage: &Stage, input: impl Fn(&str) -> Option<&'a Artifact>) -> u64 {
    match &stage.spec {
        Spec::Merge(_) => input("0").map_or(0, weight_bytes),
        Spec::Lora(_) => input("base").map_or(0, weight_bytes),
        // As much as the largest shard, whose matrices are those of the sum.
        Spec::AddGrams(_) => stage.needs.iter().filter_map(|need| input(&need.role)).map(bytes_of).max().unwrap_or(0),
        // A number of fp32 for every parameter, of 16 bits most often.
        Spec::Fisher { .. } => input("model").map_or(0, |model| 2 * weight_bytes(model)),
        _ => 0,
    }
}

/// About how much main memory a stage takes, in bytes, with what it reads by role; 0 where nothing is known. `on_gpu`
/// says that it computes on a GPU, whose memory is not counted.
pub fn memory_needed<'a>(stage: &Stage, on_gpu: bool, input: impl Fn(&str) -> Option<&'a Artifact>) -> u64 {
    match &stage.spec {
        Spec::Gram { capture, shard, .. } => match (input("model"), input("data")) {
            // The whole model, and unless they lie on a GPU all Grams: in fp32, about twice the weights in 16 bits.
            (Some(model), _) if capture.engine.resolve(model.family.as_deref()) == Engine::Transformers => {
                PROGRAM + if on_gpu { 1 } else { 3 } * weight_bytes(model)
            }
            (Some(model), Some(data)) if !on_gpu => {
                let shard = shard.and_then(|index| data.shards.get(&capture.shards)?.get(index));
                PROGRAM.saturating_add(hidden_states(capture, model, data, shard))
            }
            _ => PROGRAM,
        },
        // The hidden states before every layer and after the last, of which what has no room goes to a file.
        Spec::Fisher { fisher, .. } if !on_gpu => match (input("model"), input("data")) {
            (Some(model), Some(data)) => {
                let levels = config_number(&model.location, "num_hidden_layers").unwrap_or(0) + 1;
                PROGRAM.saturating_add(hidden_states(&fisher.capture, model, data, None).saturating_mul(levels))
            }
            _ => PROGRAM,
        },
        // The system of the widest layer, and the hidden states of all models that it captures by itself.
        Spec::Merge(merge) if !on_gpu => {
            let states = |(index, calibration): (usize, &Calibration)| {
                let (model, data) = (input(&index.to_string())?, input(&format!("data.{index}"))?);
                Some(hidden_states(&calibration.capture, model, data, None))
            };
            let program = PROGRAM.saturating_add(system(merge, &input));
            merge.captures.iter().enumerate().filter_map(states).fold(program, u64::saturating_add)
        }
        Spec::Loss(loss) => match (input("model"), input("data")) {
            (Some(model), Some(data)) if !on_gpu => {
                // Of the model, and of one source at a time.
                let models = if loss.sources.is_empty() { 1 } else { 2 };
                let states = hidden_states(&loss.on.capture, model, data, None);
                PROGRAM.saturating_add(models * states.saturating_add(head(&model.location)))
            }
            _ => PROGRAM,
        },
        Spec::AddGrams(_) | Spec::ImportGram(_) | Spec::Fisher { .. } | Spec::Merge(_) => PROGRAM,
        // The factors, as fp32 where they were stored in 16 bits.
        Spec::Lora(_) => input("lora").map_or(PROGRAM, |adapter| PROGRAM + 2 * weight_bytes(adapter)),
        // The model, as fp32 where it was stored as bf16.
        Spec::Eval { .. } => input("model").map_or(PROGRAM, |model| PROGRAM + 2 * weight_bytes(model)),
        Spec::Model(_) | Spec::Adapter(_) | Spec::Data(_) | Spec::Command(_) | Spec::Table { .. } => 0,
    }
}

/// How many GPUs a stage computes on: those over which an evaluation spreads its model, and one for whatever else may use
/// one.
pub fn gpus_needed(graph: &Graph, stage: &Stage) -> Gpus {
    match &stage.spec {
        Spec::Eval { suite, .. } if suite.backend == Backend::Vllm => return Gpus::Any(spread(suite)),
        Spec::Eval { suite, .. } if is_parallel(suite) => return Gpus::Any(usize::MAX),
        Spec::Eval { .. }
        | Spec::Loss(_)
        | Spec::Gram { .. }
        | Spec::Fisher { .. }
        | Spec::Merge(_)
        | Spec::Command(_) => {}
        Spec::AddGrams(_)
        | Spec::ImportGram(_)
        | Spec::Model(_)
        | Spec::Adapter(_)
        | Spec::Lora(_)
        | Spec::Data(_)
        | Spec::Table { .. } => return Gpus::Any(0),
    }
    let device = graph.experiments[stage.experiment].settings.device.as_deref().unwrap_or("auto");
    match (device, device.strip_prefix("cuda:").and_then(|index| index.parse().ok())) {
        ("cpu", _) => Gpus::Any(0),
        (_, Some(index)) => Gpus::This(index),
        _ => Gpus::Any(1),
    }
}

/// Whether `transformers` spreads a model over all GPUs that it sees.
fn is_parallel(suite: &Suite) -> bool {
    suite.backend == Backend::Hf && suite.model_args.get("parallelize").is_some_and(|value| *value == true)
}

/// Over how many GPUs vLLM spreads a model.
fn spread(suite: &Suite) -> usize {
    ["tensor_parallel_size", "data_parallel_size", "pipeline_parallel_size"]
        .into_iter()
        .filter_map(|name| usize::try_from(suite.model_args.get(name)?.as_u64()?).ok())
        .fold(1, |product, size| product.saturating_mul(size.max(1)))
}

/// Bytes of the hidden states of all tokens, or of those of a shard, `[tokens, hidden]`, at four bytes a number: an upper
/// bound, since a token is one byte of a row at least.
fn hidden_states(capture: &Capture, model: &Artifact, data: &Artifact, shard: Option<&Shard>) -> u64 {
    let rows = data.location.join("rows.jsonl");
    let bytes = shard.map_or_else(|| bytes_of(data), |shard| shard.bytes);
    let range = shard.map(|shard| shard.range);
    let tokens = capture.max_length.and_then(|length| truncated_bytes(&rows, range, length as u64)).unwrap_or(bytes);
    let width = config_number(&model.location, "hidden_size").unwrap_or_else(|| widest(weight_bytes(model)));
    tokens.saturating_mul(width).saturating_mul(4)
}

/// Bytes of the linear system of a merge's widest layer, `[width, width]` in fp32, by halves: its factor, and for each model
/// of the right-hand side and of the Grams that the objective is taken on; 0 where there are no systems or the width is not known.
fn system<'a>(merge: &Merge, input: &impl Fn(&str) -> Option<&'a Artifact>) -> u64 {
    let grams = merge.grams.len() + merge.held_out.len();
    let config = input("0").and_then(|model| config(&model.location)).filter(|_| grams > 0);
    let size = |key: &str| config.as_ref().and_then(|config| config.get(key)?.as_u64()).unwrap_or(0);
    let width = size("hidden_size").max(size("intermediate_size"));
    2 * (1 + (merge.models.len() + grams) as u64).saturating_mul(width.saturating_mul(width))
}

/// Bytes of a file of rows, or of some of them, of each of which no more than `length` count.
fn truncated_bytes(rows: &Path, range: Option<RowRange>, length: u64) -> Option<u64> {
    let (first, count) = range.map_or((0, usize::MAX), |range| (range.first as usize, range.count as usize));
    let lines = BufReader::new(File::open(rows).ok()?).split(b'\n').skip(first).take(count);
    lines.map(|line| line.ok().map(|line| (line.len() as u64).min(length))).sum()
}

/// Bytes of a model's output projection in fp32, as far as its configuration says.
fn head(model: &Path) -> u64 {
    let size = |key| config_number(model, key).unwrap_or(0);
    size("vocab_size").saturating_mul(size("hidden_size")).saturating_mul(4)
}

/// A number of a model's configuration.
pub fn config_number(model: &Path, key: &str) -> Option<u64> {
    config(model)?.get(key)?.as_u64()
}

fn config(model: &Path) -> Option<serde_json::Value> {
    serde_json::from_slice(&std::fs::read(model.join("config.json")).ok()?).ok()
}

/// The widest that a model of so many bytes can be: one layer alone has about 12 h² weights of two bytes.
fn widest(weight_bytes: u64) -> u64 {
    (weight_bytes / 24).isqrt()
}

fn bytes_of(artifact: &Artifact) -> u64 {
    artifact.outputs.iter().map(|file| file.size).sum()
}

fn weight_bytes(model: &Artifact) -> u64 {
    let weights =
        model.outputs.iter().filter(|file| file.path.ends_with(".safetensors") || file.path.ends_with(".bin"));
    weights.map(|file| file.size).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::artifact::Output;
    use crate::digest::Digest;

    const EXPERIMENT: &str = r#"name: x
models: { a: { path: a }, b: { path: b } }
data: { d: { path: d.jsonl, text: "{{ t }}" }, e: { path: e.jsonl, text: "{{ t }}" } }
grams:
  short: { model: a, data: d, max_length: 4 }
  long: { model: a, data: d }
  other: { model: b, data: d }
  parts: { model: a, data: d, shards: 2 }
  cut: { model: a, data: d, shards: 2, max_length: 2 }
fishers:
  all: { model: a, data: d }
evals:
  one: { models: [a], backend: vllm, tasks: [one-task] }
  six: { models: [a], backend: vllm, model_args: { tensor_parallel_size: 3, data_parallel_size: 2 }, tasks: [six-task] }
  hf: { models: [a], backend: hf, tasks: [hf-task] }
  all: { models: [a], backend: hf, model_args: { parallelize: true }, tasks: [all-task] }
  alone: { models: [a], backend: loss, data: [d] }
  against: { models: [a], backend: loss, data: [e], kl: [a, b] }
"#;

    fn graph(settings: &str) -> Graph {
        let text = format!("{EXPERIMENT}{settings}");
        let loaded = crate::experiment::parse(Path::new("x.yaml"), &text).unwrap_or_else(|errors| panic!("{errors}"));
        Graph::new(vec![Arc::new(loaded.experiment)])
    }

    fn stage<'a>(graph: &'a Graph, name: &str) -> &'a Stage {
        graph.stage(graph.find(name).unwrap()[0])
    }

    fn artifact(location: &Path, file: &str, size: u64) -> Artifact {
        let sha256 = Digest::of(b"");
        let outputs = vec![Output { path: file.to_owned(), size, sha256, aside: false, dropped: false }];
        let (roles, location) = (BTreeMap::new(), location.to_owned());
        Artifact { digest: sha256, roles, outputs, location, family: None, shards: BTreeMap::new() }
    }

    #[test]
    fn an_evaluation_takes_the_gpus_over_which_it_spreads_and_others_what_their_device_says() {
        let auto = graph("");
        assert_eq!(gpus_needed(&auto, stage(&auto, "evals.one")), Gpus::Any(1));
        assert_eq!(gpus_needed(&auto, stage(&auto, "evals.six")), Gpus::Any(6));
        assert_eq!(gpus_needed(&auto, stage(&auto, "evals.hf")), Gpus::Any(1));
        assert_eq!(gpus_needed(&auto, stage(&auto, "evals.all")), Gpus::Any(usize::MAX));
        assert_eq!(gpus_needed(&auto, stage(&auto, "models.a")), Gpus::Any(0));
        assert_eq!(gpus_needed(&auto, stage(&auto, "evals.against")), Gpus::Any(1));
        let named = graph("settings: { device: \"cuda:1\" }\n");
        assert_eq!(gpus_needed(&named, stage(&named, "grams.long")), Gpus::This(1));
        assert_eq!(gpus_needed(&named, stage(&named, "fishers.all")), Gpus::This(1));
        let none = graph("settings: { device: cpu }\n");
        assert_eq!(gpus_needed(&none, stage(&none, "grams.long")), Gpus::Any(0));
    }

    #[test]
    fn a_merge_with_grams_holds_the_system_of_its_widest_layer() {
        let dir = tempfile::tempdir().unwrap();
        let config = r#"{"hidden_size": 100, "intermediate_size": 300}"#;
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        let model = artifact(dir.path(), "model.safetensors", 10);
        let graph = graph(
            "merges:\n  plain: { method: average, models: [a, b] }\n  \
             solved: { method: regmean, models: [a, b], grams: [long, other], held_out: [short, other] }\n",
        );
        let needed = |name, on_gpu| memory_needed(stage(&graph, name), on_gpu, |_| Some(&model)) - PROGRAM;
        assert_eq!(needed("merges.plain", false), 0);
        assert_eq!(needed("merges.solved", false), 2 * (1 + 2 + 4) * 300 * 300);
        assert_eq!(needed("merges.solved", true), 0);
    }

    #[test]
    fn a_capture_holds_the_hidden_states_of_all_tokens_in_main_memory_or_on_its_gpu() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("rows.jsonl"), "123456\n12\n").unwrap();
        let (model, data) =
            (artifact(dir.path(), "model.safetensors", 24 * 64), artifact(dir.path(), "rows.jsonl", 10));
        // Of the second of two shards its one row.
        let shards = crate::stage::shards_of(dir.path(), 2).unwrap();
        assert_eq!(shards.iter().map(|shard| shard.bytes).collect::<Vec<_>>(), [7, 3]);
        let data = Artifact { shards: BTreeMap::from([(2, shards)]), ..data };
        let input = |role: &str| Some(if role == "model" { &model } else { &data });
        let graph = graph("");
        let needed = |name, on_gpu| memory_needed(stage(&graph, name), on_gpu, input) - PROGRAM;
        // Eight wide at the most, from the size of the weights.
        assert_eq!((needed("grams.long", false), needed("grams.short", false)), (10 * 8 * 4, (4 + 2) * 8 * 4));
        let of_shards = ["grams.parts/shard-0", "grams.parts/shard-1", "grams.cut/shard-1", "grams.parts"];
        assert_eq!(of_shards.map(|name| needed(name, false)), [7 * 8 * 4, 3 * 8 * 4, 2 * 8 * 4, 0]);
        std::fs::write(dir.path().join("config.json"), r#"{"hidden_size": 5, "num_hidden_layers": 3}"#).unwrap();
        assert_eq!((needed("grams.long", false), needed("grams.long", true)), (10 * 5 * 4, 0));
        // Before each of three layers, and after the last.
        assert_eq!((needed("fishers.all", false), needed("fishers.all", true)), (4 * 10 * 5 * 4, 0));
        assert_eq!(bytes_written(stage(&graph, "fishers.all"), input), 2 * 24 * 64);
        // A loss holds those of the model and of one source, and the output projection of each.
        assert_eq!((needed("evals.alone", false), needed("evals.against", false)), (200, 2 * 200));
        std::fs::write(dir.path().join("config.json"), r#"{"hidden_size": 5, "vocab_size": 7}"#).unwrap();
        let head = 7 * 5 * 4;
        assert_eq!((needed("evals.alone", false), needed("evals.against", false)), (200 + head, 2 * (200 + head)));
        assert_eq!(needed("evals.against", true), 0);
        let gemma = Artifact { family: Some("gemma2".to_owned()), ..model.clone() };
        let input = |role: &str| Some(if role == "model" { &gemma } else { &data });
        let needed = |on_gpu| memory_needed(stage(&graph, "grams.long"), on_gpu, input) - PROGRAM;
        assert_eq!((needed(false), needed(true)), (3 * 24 * 64, 24 * 64));
    }
}
