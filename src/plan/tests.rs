//! What reruns and what does not: one test a reason, with plain values. The world is made of words: a file's contents are
//! a word, and what a stage makes is decided by its key, so that a change shows in all that follows.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use super::{
    Artifact, Facts, Graph, HUB, KeyStruct, Kind, Open, Sighting, Source, Spec, Stage, key_struct, sources, tools,
};
use crate::artifact::{Output, adapter_roles, artifact_digest, model_roles, subtree};
use crate::digest::{Digest, Key};
use crate::experiment::{Data, DataSource, Experiment, Model, parse};

mod datasets;
mod evals;
mod fishers;
mod flowing;
mod hub;
mod imports;
mod loras;
mod losses;
mod mergekit;
mod shards;

const EXPERIMENT: &str = r#"name: x
description: about it
models:
  a: { path: models/a }
  b: { path: models/b }
  made: { from: commands.train, path: model }
data:
  chat: { path: chat.jsonl, rows: 10, messages: [{ role: user, content: "{{ q }}" }] }
  plain: { path: plain.jsonl, text: "{{ text }}" }
commands:
  train: { run: [python, train.py, "{inputs.rows}", "{out}"], inputs: { rows: { from: data.plain }, script: train.py } }
grams:
  a: { model: a, data: chat, max_length: 256 }
  b: { model: b, data: plain }
merges:
  avg: { method: average, models: [a, b] }
  reg: { method: regmean, models: [a, b], grams: [a, b], alpha: 0.1 }
evals:
  suite:
    models: [a, reg]
    backend: hf
    model_args: { dtype: bfloat16 }
    batch_size: 8
    tasks: [gsm8k, { task: mbpp, num_fewshot: 3 }]
tables:
  main:
    rows: [{ model: a, label: The first }, reg]
    columns: [{ task: gsm8k, metric: exact_match }]
    published: published.csv
settings: { seed: 1, device: cpu }
"#;

/// All that rests on the RegMean merge, with it.
const REG: [&str; 4] = ["merges.reg", "evals.suite/reg/gsm8k", "evals.suite/reg/mbpp", "tables.main"];

/// The four evaluations and the table.
const EVALS: [&str; 5] =
    ["evals.suite/a/gsm8k", "evals.suite/a/mbpp", "evals.suite/reg/gsm8k", "evals.suite/reg/mbpp", "tables.main"];

/// Files by path with what is in them, where that is not the path itself; versions of tools; and the family of all models.
#[derive(Clone, Default)]
struct World {
    files: HashMap<String, String>,
    tools: HashMap<String, String>,
    family: Option<String>,
}

impl World {
    fn with(path: &str, contents: &str) -> Self {
        Self { files: HashMap::from([(path.to_owned(), contents.to_owned())]), ..Self::default() }
    }

    fn file(&self, path: &str, name: &str) -> Output {
        let contents = self.files.get(path).map_or(path, String::as_str);
        file(name, contents)
    }

    fn look(&self, source: &Source) -> Sighting {
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        Sighting::Hashed(match source {
            Source::File(path) | Source::Any(path) => vec![self.file(path.to_str().unwrap(), &name(path))],
            Source::Tree(path) if path.starts_with("adapters") => {
                let names = ["README.md", "adapter_config.json", "adapter_model.safetensors", "optimizer.pt"];
                names.iter().map(|name| self.file(path.join(name).to_str().unwrap(), name)).collect()
            }
            Source::Tree(path) => {
                let names = [
                    "README.md",
                    "chat_template.jinja",
                    "config.json",
                    "generation_config.json",
                    "model.safetensors",
                    "tokenizer.json",
                ];
                names.iter().map(|name| self.file(path.join(name).to_str().unwrap(), name)).collect()
            }
            Source::Script(path) => {
                let is_there = self.files.contains_key(path.to_str().unwrap());
                is_there.then(|| self.file(path.to_str().unwrap(), &name(path))).into_iter().collect()
            }
            Source::Tokenizer(path) => {
                let files =
                    ["config.json", "tokenizer.json", "chat_template.jinja"].map(|name| (name, path.join(name)));
                let there = files.iter().filter(|(_, path)| self.files.contains_key(path.to_str().unwrap()));
                there.map(|(name, path)| self.file(path.to_str().unwrap(), name)).collect()
            }
            Source::Task { task, .. } => {
                let commit = self.files.contains_key("hub").then(|| self.file("hub", &format!("{HUB}org/{task}")));
                let yaml = self.file(&format!("tasks/{task}.yaml"), &format!("{task}.yaml"));
                std::iter::once(yaml).chain(commit).collect()
            }
        })
    }

    /// Rows of a data set: the lines of its file.
    fn rows(&self, data: &Data) -> Vec<String> {
        let DataSource::Path(path) = &data.source else { return Vec::new() };
        let path = path.to_str().unwrap();
        self.files.get(path).map_or(path, String::as_str).lines().map(str::to_owned).collect()
    }

    /// Key structs of every stage of an experiment, all of them run in order.
    fn keys(&self, text: &str) -> BTreeMap<String, KeyStruct> {
        self.keys_of(parse(Path::new("x.yaml"), text).unwrap_or_else(|errors| panic!("{errors}")).experiment)
    }

    fn keys_of(&self, experiment: Experiment) -> BTreeMap<String, KeyStruct> {
        let graph = Graph::new(vec![Arc::new(experiment)]);
        let mut facts = Facts::default();
        for (tool, version) in [("lm_eval", "0.4.13"), ("torch", "2.11"), ("transformers", "5.14"), ("vllm", "0.24")] {
            let version = self.tools.get(tool).map_or(version, String::as_str);
            facts.tools.insert(tool.to_owned(), version.to_owned());
        }
        let mut keys = BTreeMap::new();
        for (id, stage) in graph.iter() {
            for (source, _) in sources(stage) {
                let sighting = self.look(&source);
                facts.sources.insert(source, sighting);
            }
            let key_struct = key_struct(stage, &facts).unwrap_or_else(|open| panic!("{}: {open:?}", stage.name));
            facts.results.insert(id, Arc::new(self.result(stage, &facts, key_struct.key())));
            keys.insert(stage.name.clone(), key_struct);
        }
        keys
    }

    fn result(&self, stage: &Stage, facts: &Facts, key: Key) -> Artifact {
        let made =
            |names: &[&str]| names.iter().map(|name| file(name, &format!("{name} of {key}"))).collect::<Vec<_>>();
        let outputs = match &stage.spec {
            Spec::Model(Model::Path(path)) | Spec::Adapter(Model::Path(path)) => {
                match self.look(&Source::Tree(path.clone())) {
                    Sighting::Hashed(files) => files,
                    other => unreachable!("{other:?}"),
                }
            }
            Spec::Model(Model::From(output)) => {
                let command = &facts.results[&stage.need("command").unwrap()];
                subtree(&command.outputs, output.path.as_ref().unwrap().to_str().unwrap())
            }
            Spec::Command(_) => made(&["model/config.json", "model/model.safetensors", "log.txt"]),
            Spec::Merge(_) | Spec::Lora(_) => made(&["config.json", "model.safetensors", "tokenizer.json"]),
            _ => made(&["result"]),
        };
        let roles = match stage.spec.kind() {
            Kind::Model | Kind::Merge => model_roles(&outputs),
            Kind::Adapter => adapter_roles(&outputs),
            _ => BTreeMap::new(),
        };
        let shards = match &stage.spec {
            Spec::Data(data) => shards::of_rows(&self.rows(data)),
            _ => BTreeMap::new(),
        };
        let family = self.family.clone().filter(|_| roles.contains_key("config"));
        Artifact { digest: artifact_digest(&outputs), roles, outputs, location: "/somewhere".into(), family, shards }
    }
}

fn file(path: &str, contents: &str) -> Output {
    let sha256 = Digest::of(contents.as_bytes());
    Output { path: path.to_owned(), size: contents.len() as u64, sha256, aside: false, dropped: false }
}

/// Stages whose keys differ, in the order of the graph's kinds.
fn differing(before: &BTreeMap<String, KeyStruct>, after: &BTreeMap<String, KeyStruct>) -> Vec<String> {
    let mut names: Vec<_> =
        after.iter().filter(|(name, now)| before.get(*name) != Some(now)).map(|(name, now)| (now.kind, name)).collect();
    names.sort();
    names.into_iter().map(|(_, name)| name.clone()).collect()
}

/// What reruns when some text of the experiment becomes another.
fn edited(from: &str, to: &str) -> Vec<String> {
    assert_eq!(EXPERIMENT.matches(from).count(), 1, "{from:?}");
    let world = World::default();
    differing(&world.keys(EXPERIMENT), &world.keys(&EXPERIMENT.replace(from, to)))
}

/// What reruns when a file has other contents.
fn rewritten(path: &str) -> Vec<String> {
    differing(&World::default().keys(EXPERIMENT), &World::with(path, "other contents").keys(EXPERIMENT))
}

/// What reruns when an entry of a merge is added to the RegMean merge.
fn added_to_reg(entry: &str) -> Vec<String> {
    edited("alpha: 0.1 }", &format!("alpha: 0.1, {entry} }}"))
}

/// What reruns when an entry is added to the Gram capture of `a`.
fn added_to_gram(entry: &str) -> Vec<String> {
    edited("max_length: 256 }", &format!("max_length: 256, {entry} }}"))
}

fn with_reg<'a>(first: &[&'a str]) -> Vec<&'a str> {
    [first, &REG].concat()
}

const NOTHING: [&str; 0] = [];

mod reruns {
    use super::*;

    #[test]
    fn alpha_of_a_merge() {
        assert_eq!(edited("alpha: 0.1", "alpha: 0.2"), REG);
    }

    #[test]
    fn the_weight_of_a_model() {
        assert_eq!(
            edited(
                "reg: { method: regmean, models: [a, b]",
                "reg: { method: regmean, models: [{ model: a, weight: 2 }, b]"
            ),
            REG
        );
    }

    #[test]
    fn a_weight_over_depth() {
        let whole = "reg: { method: regmean, models: [a, b]";
        let with = |weight: &str| format!("reg: {{ method: regmean, models: [{{ model: a, weight: {weight} }}, b]");
        assert_eq!(edited(whole, &with("[1, 2]")), REG);
        // A list of one value is that value.
        assert!(edited(whole, &with("[1]")).is_empty());
    }

    #[test]
    fn a_parameter_of_the_merge_or_of_one_model() {
        let merge = |models: &str, keys: &str| {
            let ties = format!("merges:\n  t: {{ method: ties, base: b, models: [{models}], {keys} }}\n");
            World::default().keys(&EXPERIMENT.replace("merges:\n", &ties))["merges.t"].key()
        };
        let of_all = merge("a, made", "density: 0.5");
        let of_one = merge("{ model: a, density: 0.5 }, made", "density: 1");
        assert_ne!(of_one, merge("a, { model: made, density: 0.5 }", "density: 1"));
        assert_ne!(of_one, of_all);
        assert_ne!(
            merge("{ model: a, weight: [{ filter: mlp, value: 2 }] }", ""),
            merge("{ model: a, weight: 2 }", "")
        );
        // The base is none of the models, whether it is named among them or not.
        assert_eq!(merge("b, a, made", "density: 0.5"), of_all);
    }

    #[test]
    fn the_order_of_models_since_the_first_gives_the_rest() {
        let swapped = edited(
            "reg: { method: regmean, models: [a, b], grams: [a, b]",
            "reg: { method: regmean, models: [b, a], grams: [b, a]",
        );
        assert_eq!(swapped, REG);
    }

    #[test]
    fn rules_and_their_order() {
        let one = "rules: [{ match: '*.lm_head.*', use: average }, { match: '*.mlp.*', alpha: 0.3 }]";
        let other = "rules: [{ match: '*.mlp.*', alpha: 0.3 }, { match: '*.lm_head.*', use: average }]";
        assert_eq!(added_to_reg(one), REG);
        let with = |rules: &str| {
            World::default().keys(&EXPERIMENT.replace("alpha: 0.1 }", &format!("alpha: 0.1, {rules} }}")))
        };
        assert_eq!(differing(&with(one), &with(other)), REG);
    }

    #[test]
    fn the_type_of_a_merge() {
        assert_eq!(added_to_reg("dtype: float16"), REG);
    }

    #[test]
    fn the_tokenizer_of_a_merge() {
        assert_eq!(added_to_reg("tokenizer: b"), REG);
        assert_eq!(added_to_reg("tokenizer: a"), REG, "rows go by token");
        assert_eq!(added_to_reg("tokenizer: union"), REG);
        assert_eq!(added_to_reg("tokenizer: { source: b, rows: ids }"), REG);
        assert_eq!(added_to_reg("tokenizer: { source: a, pad_to_multiple_of: 8 }"), REG);
    }

    #[test]
    fn the_scale_and_the_solver_of_a_merge() {
        assert_eq!(added_to_reg("normalize: trace"), REG);
        assert_eq!(added_to_reg("solver: pinv"), REG);
    }

    #[test]
    fn held_out_grams_of_a_merge() {
        assert_eq!(added_to_reg("held_out: [a, b]"), REG);
    }

    #[test]
    fn how_much_of_a_row_is_captured() {
        assert_eq!(edited("max_length: 256", "max_length: 128"), with_reg(&["grams.a"]));
        assert_eq!(added_to_gram("skip_first: 1"), with_reg(&["grams.a"]));
        assert_eq!(added_to_gram("tokens: assistant"), with_reg(&["grams.a"]));
        assert_eq!(added_to_gram("add_special_tokens: false"), with_reg(&["grams.a"]));
    }

    #[test]
    fn how_and_of_what_grams_are_captured() {
        assert_eq!(added_to_gram("dtype: bfloat16"), with_reg(&["grams.a"]));
        assert_eq!(added_to_gram("exclude: ['*.lm_head']"), with_reg(&["grams.a"]));
        assert_eq!(added_to_gram("engine: transformers"), with_reg(&["grams.a"]));
    }

    #[test]
    fn how_a_row_becomes_text_reruns_the_capture_and_not_the_rows() {
        assert_eq!(edited("{{ q }}", "{{ question }}"), with_reg(&["grams.a"]));
        assert_eq!(edited("role: user", "role: system"), with_reg(&["grams.a"]));
        // A command that reads the rows does not care for their template.
        assert_eq!(edited("{{ text }}", "{{ prompt }}"), with_reg(&["grams.b"]));
    }

    #[test]
    fn which_rows_are_picked() {
        assert_eq!(edited("rows: 10", "rows: 11"), with_reg(&["data.chat", "grams.a"]));
        assert_eq!(edited("rows: 10", "rows: { sample: 10, seed: 0 }"), with_reg(&["data.chat", "grams.a"]));
    }

    #[test]
    fn the_template_of_a_model_reruns_captures_through_it() {
        let expected = [&["models.a", "grams.a", "merges.avg", "merges.reg"], &EVALS[..]].concat();
        assert_eq!(rewritten("models/a/chat_template.jinja"), expected);
        // `b` is captured on plain text, and the first model fills the merges.
        assert_eq!(rewritten("models/b/chat_template.jinja"), ["models.b"]);
    }

    #[test]
    fn a_template_file_in_place_of_the_models() {
        assert_eq!(added_to_gram("chat_template: t.jinja"), with_reg(&["grams.a"]));
        let text = EXPERIMENT.replace("max_length: 256 }", "max_length: 256, chat_template: t.jinja }");
        let keys = |world: World| world.keys(&text);
        assert_eq!(differing(&keys(World::default()), &keys(World::with("t.jinja", "other"))), with_reg(&["grams.a"]));
        // The model's own is not read then.
        let changed = differing(&keys(World::default()), &keys(World::with("models/a/chat_template.jinja", "other")));
        assert!(!changed.contains(&"grams.a".to_owned()), "{changed:?}");
    }

    #[test]
    fn weights_rerun_everything_after_them() {
        let expected = [&["models.a", "grams.a", "merges.avg", "merges.reg"], &EVALS[..]].concat();
        assert_eq!(rewritten("models/a/model.safetensors"), expected);
        assert_eq!(
            rewritten("models/b/model.safetensors"),
            [&["models.b", "grams.b", "merges.avg"], &REG[..]].concat()
        );
    }

    #[test]
    fn the_tokenizer_of_a_model_that_gives_none_reruns_its_capture() {
        assert_eq!(rewritten("models/b/tokenizer.json"), with_reg(&["models.b", "grams.b"]));
    }

    #[test]
    fn the_generation_config_reruns_merges_that_take_it_and_evaluations() {
        let expected = [&["models.a", "merges.avg", "merges.reg"], &EVALS[..]].concat();
        assert_eq!(rewritten("models/a/generation_config.json"), expected);
        assert_eq!(rewritten("models/b/generation_config.json"), ["models.b"]);
    }

    #[test]
    fn arguments_environment_and_version_of_a_command() {
        let expected = ["models.made", "commands.train"];
        assert_eq!(edited("[python, train.py,", "[python, train.py, --fast,"), expected);
        assert_eq!(edited("script: train.py } }", "script: train.py }, env: { SEED: 1 } }"), expected);
        assert_eq!(edited("script: train.py } }", "script: train.py }, version: 2 }"), expected);
    }

    #[test]
    fn inputs_of_a_command() {
        assert_eq!(rewritten("train.py"), ["models.made", "commands.train"]);
        assert_eq!(
            rewritten("plain.jsonl"),
            [&["models.made", "data.plain", "commands.train", "grams.b"], &REG[..]].concat()
        );
    }

    #[test]
    fn options_of_one_task_rerun_that_task() {
        let mbpp = ["evals.suite/a/mbpp", "evals.suite/reg/mbpp"];
        assert_eq!(edited("num_fewshot: 3", "num_fewshot: 4"), mbpp);
        for option in [
            "limit: 10",
            "code_timeout: 10",
            "gen_kwargs: { temperature: 0.5 }",
            "apply_chat_template: true",
            "chat_template_args: { enable_thinking: false }",
            "system_instruction: Think.",
            "fewshot_as_multiturn: true",
            "seed: 7",
            "data: mbpp.jsonl",
        ] {
            assert_eq!(edited("num_fewshot: 3", &format!("num_fewshot: 3, {option}")), mbpp, "{option}");
        }
    }

    #[test]
    fn an_option_of_the_suite_reruns_the_tasks_that_do_not_set_it() {
        let all = edited("    batch_size: 8\n", "    batch_size: 8\n    num_fewshot: 5\n");
        assert_eq!(all, ["evals.suite/a/gsm8k", "evals.suite/reg/gsm8k", "tables.main"]);
    }

    #[test]
    fn arguments_of_the_backends_model() {
        assert_eq!(edited("dtype: bfloat16", "dtype: float32"), EVALS);
        assert_eq!(edited("dtype: bfloat16", "dtype: bfloat16, max_length: 512"), EVALS);
        assert_eq!(edited("dtype: bfloat16", "dtype: bfloat16, add_bos_token: true"), EVALS);
    }

    #[test]
    fn the_backend_and_the_experiments_seed() {
        assert_eq!(edited("backend: hf", "backend: vllm"), EVALS);
        assert_eq!(edited("seed: 1", "seed: 2"), EVALS);
    }

    #[test]
    fn a_tasks_definition() {
        assert_eq!(rewritten("tasks/mbpp.yaml"), ["evals.suite/a/mbpp", "evals.suite/reg/mbpp"]);
    }

    #[test]
    fn versions_of_what_evaluates() {
        let before = World::default().keys(EXPERIMENT);
        for (tool, expected) in [("lm_eval", &EVALS[..]), ("torch", &EVALS), ("transformers", &EVALS), ("vllm", &[])] {
            let world = World { tools: HashMap::from([(tool.to_owned(), "9".to_owned())]), ..World::default() };
            assert_eq!(differing(&before, &world.keys(EXPERIMENT)), expected, "{tool}");
        }
    }

    #[test]
    fn versions_of_what_captures_a_model_without_a_native_forward_pass() {
        let world = |family: &str, tool: &str| World {
            tools: HashMap::from([(tool.to_owned(), "9".to_owned())]),
            family: Some(family.to_owned()),
            ..World::default()
        };
        let before = world("gemma2", "none").keys(EXPERIMENT);
        assert_eq!(before["grams.a"].params["engine"], "transformers");
        let grams = ["grams.a", "grams.b"];
        for (tool, expected) in [("torch", true), ("transformers", true), ("vllm", false)] {
            let differing = differing(&before, &world("gemma2", tool).keys(EXPERIMENT));
            assert_eq!(grams.iter().all(|gram| differing.iter().any(|stage| stage == gram)), expected, "{tool}");
        }
        let native = world("qwen3", "none").keys(EXPERIMENT);
        assert_eq!((&native["grams.a"].params["engine"], native["grams.a"].tools.len()), (&"native".into(), 0));
        assert_eq!(native["grams.a"], world("qwen3", "transformers").keys(EXPERIMENT)["grams.a"]);
    }

    #[test]
    fn labels_columns_and_published_figures_rerun_the_table() {
        for (from, to) in [
            ("label: The first", "label: Number one"),
            ("metric: exact_match", "metric: exact_match, label: GSM8k"),
            ("metric: exact_match", "metric: exact_match, digits: 1"),
            ("rows: [{ model: a, label: The first }, reg]", "rows: [reg, { model: a, label: The first }]"),
            ("published: published.csv", "published: published.csv\n    baseline: a"),
            ("published: published.csv", "published: published.csv\n    bold: not_worse"),
            ("published: published.csv", "published: published.csv\n    second: true"),
            ("metric: exact_match", "metric: exact_match, specialist: a"),
            ("metric: exact_match }", "metric: exact_match }, { mean: scores, label: Mean }"),
        ] {
            assert_eq!(edited(from, to), ["tables.main"], "{to}");
        }
        assert_eq!(rewritten("published.csv"), ["tables.main"]);
    }
}

mod reruns_nothing {
    use super::*;

    #[test]
    fn what_a_table_is_without_a_baseline_spelled_out() {
        let spelled = "published: published.csv\n    bold: best\n    second: false";
        assert_eq!(edited("published: published.csv", spelled), NOTHING);
    }

    #[test]
    fn the_name_and_the_description_of_the_experiment() {
        assert_eq!(edited("name: x", "name: y"), NOTHING);
        assert_eq!(edited("description: about it", "description: about something else"), NOTHING);
    }

    #[test]
    fn the_device_and_what_the_machine_must_have() {
        assert_eq!(edited("device: cpu", "device: cuda"), NOTHING);
        assert_eq!(edited("device: cpu", "device: cpu, requires: { disk: 1GiB }"), NOTHING);
    }

    #[test]
    fn whether_code_that_a_model_wrote_runs_in_a_sandbox_or_in_the_open() {
        assert_eq!(edited("batch_size: 8", "batch_size: 8\n    unsafe_code: sandbox"), NOTHING);
        assert_eq!(edited("batch_size: 8", "batch_size: 8\n    unsafe_code: allow"), NOTHING);
    }

    #[test]
    fn batch_size() {
        assert_eq!(edited("batch_size: 8", "batch_size: auto"), NOTHING);
        assert_eq!(edited("num_fewshot: 3", "num_fewshot: 3, batch_size: 1"), NOTHING);
    }

    #[test]
    fn what_is_accepted_of_a_score() {
        assert_eq!(edited("    batch_size: 8\n", "    batch_size: 8\n    tripwires: { cut: accept }\n"), NOTHING);
        assert_eq!(edited("num_fewshot: 3", "num_fewshot: 3, tripwires: { empty: 0.5 }"), NOTHING);
    }

    #[test]
    fn how_many_gpus_serve_a_model_and_how_full_they_are() {
        for argument in
            ["tensor_parallel_size: 4", "gpu_memory_utilization: 0.5", "max_num_seqs: 16", "parallelize: true"]
        {
            assert_eq!(edited("dtype: bfloat16", &format!("dtype: bfloat16, {argument}")), NOTHING, "{argument}");
        }
    }

    #[test]
    fn a_default_that_is_written_out() {
        assert_eq!(edited("dtype: bfloat16", "dtype: bfloat16, add_bos_token: false"), NOTHING);
        assert_eq!(added_to_reg("normalize: none"), NOTHING);
        assert_eq!(added_to_reg("solver: auto"), NOTHING);
        assert_eq!(added_to_reg("tokenizer: { source: a, rows: ids }"), NOTHING);
        assert_eq!(added_to_gram("add_special_tokens: true, tokens: all, skip_first: 0, shards: 1"), NOTHING);
        assert_eq!(added_to_gram("engine: native"), NOTHING, "what `auto` comes to");
        assert_eq!(
            edited(
                "avg: { method: average, models: [a, b] }",
                "avg: { method: average, models: [{ model: a, weight: 1 }, b] }"
            ),
            NOTHING
        );
    }

    #[test]
    fn a_timeout() {
        assert_eq!(edited("script: train.py } }", "script: train.py }, timeout: 60 }"), NOTHING);
    }

    #[test]
    fn whether_weights_are_kept() {
        assert_eq!(added_to_reg("keep: recipe"), NOTHING);
    }

    #[test]
    fn where_a_table_goes() {
        assert_eq!(edited("published: published.csv", "published: published.csv\n    into: README.md"), NOTHING);
    }

    #[test]
    fn a_card_in_a_model_directory_but_for_the_model_itself() {
        assert_eq!(rewritten("models/a/README.md"), ["models.a"]);
    }

    #[test]
    fn another_place_for_the_same_files() {
        let world = World {
            files: [
                "README.md",
                "chat_template.jinja",
                "config.json",
                "generation_config.json",
                "model.safetensors",
                "tokenizer.json",
            ]
            .iter()
            .map(|name| (format!("elsewhere/a/{name}"), format!("models/a/{name}")))
            .chain([("elsewhere/chat.jsonl".to_owned(), "chat.jsonl".to_owned())])
            .collect(),
            ..World::default()
        };
        let moved =
            EXPERIMENT.replace("models/a }", "elsewhere/a }").replace("path: chat.jsonl", "path: elsewhere/chat.jsonl");
        assert_eq!(differing(&world.keys(EXPERIMENT), &world.keys(&moved)), NOTHING);
    }

    #[test]
    fn another_name_for_an_entry() {
        let world = World::default();
        let renamed = EXPERIMENT.replace("reg:", "regmean:").replace(", reg]", ", regmean]");
        let keys = |text: &str| {
            let mut keys: Vec<_> =
                world.keys(text).into_values().filter(|key| key.kind != Kind::Table).map(|key| key.key()).collect();
            keys.sort();
            keys
        };
        assert_eq!(keys(EXPERIMENT), keys(&renamed));
    }

    #[test]
    fn an_entry_that_nothing_reads() {
        let more = EXPERIMENT.replace("merges:\n", "merges:\n  other: { method: average, models: [b, a] }\n");
        let world = World::default();
        assert_eq!(differing(&world.keys(EXPERIMENT), &world.keys(&more)), ["merges.other"]);
    }
}

#[test]
fn a_member_of_a_sweep_has_the_key_of_the_same_merge_written_out() {
    let swept = EXPERIMENT.replace(
        "reg: {",
        "sw: { method: regmean, models: [a, b], grams: [a, b], sweep: { alpha: [0.1, 0.5] } }\n  reg: {",
    );
    let keys = World::default().keys(&swept);
    assert_eq!(keys["merges.sw-0.1"], keys["merges.reg"]);
    assert_ne!(keys["merges.sw-0.5"], keys["merges.reg"]);
}

#[test]
fn one_model_under_two_names_has_one_key() {
    let twice =
        EXPERIMENT.replace("  a: { path: models/a }\n", "  a: { path: models/a }\n  again: { path: models/a }\n");
    let keys = World::default().keys(&twice);
    assert_eq!(keys["models.again"], keys["models.a"]);
}

#[test]
fn a_stage_waits_for_the_first_need_that_has_no_result() {
    let loaded = parse(Path::new("x.yaml"), EXPERIMENT).unwrap();
    let graph = Graph::new(vec![Arc::new(loaded.experiment)]);
    let facts = Facts::default();
    let open = |name: &str| key_struct(graph.stage(graph.find(name).unwrap()[0]), &facts).unwrap_err();
    assert_eq!(open("merges.reg"), Open::Waits(graph.find("models.a").unwrap()[0]));
    assert_eq!(open("data.chat"), Open::Unhashed(Source::File("chat.jsonl".into())));
    assert_eq!(open("evals.suite/a/gsm8k"), Open::NoTool("lm_eval"));
}

#[test]
fn the_engine_transformers_needs_torch_and_transformers_as_soon_as_it_is_known_to_run() {
    let tool = |engine: &str| {
        let text = EXPERIMENT.replace("max_length: 256", &format!("max_length: 256, engine: {engine}"));
        let graph = Graph::new(vec![Arc::new(parse(Path::new("x.yaml"), &text).unwrap().experiment)]);
        tools(graph.stage(graph.find("grams.a").unwrap()[0]), &Facts::default())
    };
    assert_eq!(tool("transformers"), Err(Open::NoTool("torch")));
    assert_eq!((tool("auto"), tool("native")), (Ok(BTreeMap::new()), Ok(BTreeMap::new())));
}

#[test]
fn a_model_without_a_part_that_is_read_is_named() {
    let loaded = parse(Path::new("x.yaml"), EXPERIMENT).unwrap();
    let graph = Graph::new(vec![Arc::new(loaded.experiment)]);
    let (a, gram) = (graph.find("models.a").unwrap()[0], graph.find("grams.a").unwrap()[0]);
    let outputs = vec![file("config.json", "c"), file("model.safetensors", "w")];
    let artifact = |outputs: Vec<Output>| {
        Arc::new(Artifact {
            digest: artifact_digest(&outputs),
            roles: model_roles(&outputs),
            outputs,
            location: "/".into(),
            family: None,
            shards: BTreeMap::new(),
        })
    };
    let data = graph.stage(gram).need("data").unwrap();
    let facts =
        Facts { results: HashMap::from([(a, artifact(outputs)), (data, artifact(Vec::new()))]), ..Facts::default() };
    assert_eq!(key_struct(graph.stage(gram), &facts), Err(Open::NoRole { stage: a, role: "tokenizer" }));
}

#[test]
fn stages_come_after_what_they_need_whatever_the_order_of_the_file() {
    let loaded = parse(Path::new("x.yaml"), EXPERIMENT).unwrap();
    let graph = Graph::new(vec![Arc::new(loaded.experiment)]);
    for (id, stage) in graph.iter() {
        assert!(stage.needs.iter().all(|need| need.stage < id), "{}", stage.name);
    }
    assert!(graph.find("commands.train").unwrap() < graph.find("models.made").unwrap());
}

#[test]
fn a_table_needs_its_baseline_and_its_specialists_also_where_they_are_no_rows() {
    let text = EXPERIMENT
        .replace("rows: [{ model: a, label: The first }, reg]", "rows: [reg]\n    baseline: a")
        .replace("metric: exact_match }", "metric: exact_match }, { task: mbpp, metric: pass, specialist: a }");
    let loaded = parse(Path::new("x.yaml"), &text).unwrap();
    let graph = Graph::new(vec![Arc::new(loaded.experiment)]);
    let (_, table) = graph.iter().find(|(_, stage)| stage.name == "tables.main").unwrap();
    let roles: Vec<_> = table.needs.iter().map(|need| need.role.as_str()).collect();
    assert_eq!(roles, ["reg/gsm8k", "reg/mbpp", "a/gsm8k", "a/mbpp"]);
}

#[test]
fn the_closure_of_a_stage_is_what_it_needs() {
    let loaded = parse(Path::new("x.yaml"), EXPERIMENT).unwrap();
    let graph = Graph::new(vec![Arc::new(loaded.experiment)]);
    let wanted = graph.closure(&graph.find("merges.reg").unwrap());
    let names: Vec<_> = graph.iter().filter(|(id, _)| wanted[id.0]).map(|(_, stage)| stage.name.as_str()).collect();
    assert_eq!(names, ["models.a", "models.b", "data.plain", "data.chat", "grams.a", "grams.b", "merges.reg"]);
}

#[test]
fn a_suites_name_means_all_that_lies_under_it() {
    let loaded = parse(Path::new("x.yaml"), EXPERIMENT).unwrap();
    let graph = Graph::new(vec![Arc::new(loaded.experiment)]);
    assert_eq!(graph.find("evals.suite").unwrap().len(), 4);
    assert_eq!(graph.find("evals.suite/reg").unwrap().len(), 2);
    let error = graph.find("merges.regg").unwrap_err();
    assert_eq!(error.to_string(), r#"no stage "merges.regg"; did you mean "merges.reg"?"#);
}
