//! What is in the key of an evaluation and what is not: one named case for each thing.

use super::*;

const SUITE: &str = r"name: x
models:
  a: { path: models/a }
evals:
  suite:
    models: [a]
    backend: vllm
    task_dirs: [tasks]
    model_args: { dtype: bfloat16, tokenizer: tokens }
    tasks: [{ task: mbpp, num_fewshot: 3, data: rows.jsonl }]
settings: { seed: 1, device: cpu }
";

/// The key of the only evaluation of an experiment.
fn key(world: &World, text: &str) -> Key {
    let keys = world.keys(text);
    let (_, key_struct) = keys.iter().find(|(name, _)| name.starts_with("evals.")).unwrap();
    key_struct.key()
}

/// Whether the key is another one when some text of the experiment becomes another.
fn changes(from: &str, to: &str) -> bool {
    assert_eq!(SUITE.matches(from).count(), 1, "{from:?}");
    let world = World::default();
    key(&world, SUITE) != key(&world, &SUITE.replace(from, to))
}

/// Whether it is another one with something more of the task.
fn changes_with_option(option: &str) -> bool {
    changes("num_fewshot: 3", &format!("num_fewshot: 3, {option}"))
}

/// Whether it is another one with one more argument of the backend's model.
fn changes_with_argument(argument: &str) -> bool {
    changes("dtype: bfloat16", &format!("dtype: bfloat16, {argument}"))
}

#[test]
fn every_setting_that_decides_a_result_is_in_the_key() {
    for (what, is_in) in [
        ("the task", changes("task: mbpp", "task: mbpp_instruct")),
        ("the backend", changes("backend: vllm", "backend: hf")),
        ("shots", changes("num_fewshot: 3", "num_fewshot: 4")),
        ("no number of shots", changes("num_fewshot: 3, ", "")),
        ("a limit", changes_with_option("limit: 10")),
        ("the seed of the task", changes_with_option("seed: 7")),
        ("the seed of the experiment", changes("seed: 1", "seed: 2")),
        ("generation arguments", changes_with_option("gen_kwargs: { temperature: 0.5 }")),
        ("the chat template's use", changes_with_option("apply_chat_template: true")),
        ("the system prompt", changes_with_option("system_instruction: Think.")),
        ("examples as turns", changes_with_option("fewshot_as_multiturn: true")),
        ("the beginning of a sequence", changes_with_argument("add_bos_token: true")),
        ("the type of the weights", changes("dtype: bfloat16", "dtype: float32")),
        ("the length of a sequence", changes_with_argument("max_model_len: 512")),
        ("the seed of the engine", changes_with_argument("seed: 7")),
        ("variables of the chat template", changes_with_argument("chat_template_args: { enable_thinking: false }")),
        ("the name of a tokenizer on the hub", changes("tokenizer: tokens", "tokenizer: org/tokens")),
        ("an argument that nobody here knows", changes_with_argument("quantization: fp8")),
    ] {
        assert!(is_in, "{what} is not in the key");
    }
}

#[test]
fn every_file_that_decides_a_result_is_in_the_key() {
    for (what, path) in [
        ("weights", "models/a/model.safetensors"),
        ("config", "models/a/config.json"),
        ("generation config", "models/a/generation_config.json"),
        ("tokenizer", "models/a/tokenizer.json"),
        ("chat template", "models/a/chat_template.jinja"),
        ("the task's definition", "tasks/mbpp.yaml"),
        ("the file in place of its data set", "rows.jsonl"),
        ("another tokenizer than the model's", "tokens/tokenizer.json"),
        ("its chat template", "tokens/chat_template.jinja"),
    ] {
        let before = key(&World::default(), SUITE);
        assert_ne!(key(&World::with(path, "other contents"), SUITE), before, "{what} is not in the key");
    }
}

#[test]
fn the_revision_of_a_data_set_is_in_the_key_unless_a_file_replaces_it() {
    let (one, other) = (World::with("hub", "one commit"), World::with("hub", "another"));
    assert_eq!(key(&one, SUITE), key(&other, SUITE), "a data set that is not read is in the key");
    let from_hub = SUITE.replace(", data: rows.jsonl", "");
    assert_ne!(key(&one, &from_hub), key(&other, &from_hub), "the revision of the data set is not in the key");
}

#[test]
fn the_version_of_everything_that_evaluates_is_in_the_key() {
    let with = |tool: &str| World { tools: HashMap::from([(tool.to_owned(), "9".to_owned())]), ..World::default() };
    for tool in ["lm_eval", "vllm", "torch", "transformers"] {
        assert_ne!(key(&with(tool), SUITE), key(&World::default(), SUITE), "{tool} is not in the key");
    }
    let hf = SUITE.replace("backend: vllm", "backend: hf");
    assert_eq!(key(&with("vllm"), &hf), key(&World::default(), &hf), "transformers does without vllm");
}

#[test]
fn what_decides_only_how_fast_a_result_comes_is_not_in_the_key() {
    for argument in [
        "tensor_parallel_size: 4",
        "data_parallel_size: 2",
        "pipeline_parallel_size: 2",
        "gpu_memory_utilization: 0.5",
        "max_num_seqs: 16",
        "max_num_batched_tokens: 4096",
        "enforce_eager: true",
        "swap_space: 4",
        "cpu_offload_gb: 8",
        "device: cuda",
        "parallelize: true",
        "batch_size: 4",
        "max_batch_size: 64",
    ] {
        assert!(!changes_with_argument(argument), "{argument} is in the key");
    }
    for option in ["batch_size: 8", "batch_size: auto"] {
        assert!(!changes_with_option(option), "{option} is in the key");
    }
}

#[test]
fn names_labels_places_and_patience_are_not_in_the_key() {
    for (what, is_in) in [
        ("the device", changes("device: cpu", "device: cuda")),
        ("the name of the experiment", changes("name: x", "name: y")),
        ("a description", changes("name: x", "name: x\ndescription: about it")),
        ("the name of the suite", changes("  suite:", "  other:")),
        ("the name of the task in results", changes_with_option("name: mine")),
        ("how long it may be silent", changes("backend: vllm", "backend: vllm\n    stalled_after: 60")),
        ("where the directory of tasks is", changes("task_dirs: [tasks]", "task_dirs: [other/tasks]")),
        ("a default that is written out", changes_with_argument("add_bos_token: false")),
        (
            "a table with its labels",
            changes(
                "settings:",
                "tables: { t: { rows: [{ model: a, label: A }], columns: [{ task: mbpp, metric: pass }] } }\nsettings:",
            ),
        ),
    ] {
        assert!(!is_in, "{what} is in the key");
    }
    let world = World::default();
    let renamed = SUITE.replace("  a: {", "  other: {").replace("models: [a]", "models: [other]");
    assert_eq!(key(&world, SUITE), key(&world, &renamed), "the name of the model is in the key");
}

#[test]
fn the_same_files_elsewhere_have_the_same_key() {
    let files = ["README.md", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors"];
    let model = files
        .iter()
        .chain(&["tokenizer.json"])
        .flat_map(|name| ["models/a", "far/away"].map(|dir| (format!("{dir}/{name}"), (*name).to_owned())));
    let tokens = ["tokens", "other"].map(|dir| (format!("{dir}/tokenizer.json"), "of another".to_owned()));
    let rows = ["rows.jsonl", "deep/data.jsonl"].map(|path| (path.to_owned(), "rows".to_owned()));
    let world = World { files: model.chain(tokens).chain(rows).collect(), ..World::default() };
    for (what, from, to) in [
        ("the model's directory", "models/a }", "far/away }"),
        ("the tokenizer's directory", "tokenizer: tokens", "tokenizer: other"),
        ("the data's file", "data: rows.jsonl", "data: deep/data.jsonl"),
    ] {
        assert_eq!(key(&world, SUITE), key(&world, &SUITE.replace(from, to)), "{what} is in the key");
    }
}

#[test]
fn an_evaluation_by_any_program_has_in_its_key_what_the_program_is_and_reads() {
    let text = SUITE.replace(
        "    backend: vllm\n    task_dirs: [tasks]\n    model_args: { dtype: bfloat16, tokenizer: tokens }\n    tasks: [{ task: mbpp, num_fewshot: 3, data: rows.jsonl }]\n",
        "    backend: command\n    run: [python, score.py, '{model}', '{out}']\n    inputs: [answers]\n",
    );
    let world = |contents: &str| World::with("score.py", contents);
    let before = key(&world("one"), &text);
    let edited = |from: &str, to: &str| {
        assert_eq!(text.matches(from).count(), 1, "{from:?}");
        key(&world("one"), &text.replace(from, to))
    };
    for (what, after) in [
        ("its arguments", edited("'{out}'", "'{out}', --strict")),
        ("its environment", edited("inputs: [answers]", "inputs: [answers]\n    env: { MODE: strict }")),
        ("its version", edited("inputs: [answers]", "inputs: [answers]\n    version: 2")),
        ("a script among its arguments", key(&world("two"), &text)),
        ("its inputs", edited("    inputs: [answers]\n", "")),
        ("the model", key(&World::with("models/a/model.safetensors", "other"), &text)),
    ] {
        assert_ne!(after, before, "{what} is not in the key");
    }
    assert_eq!(edited("inputs: [answers]", "inputs: [answers]\n    timeout: 60"), before, "its time-out is in the key");
    let mut moved = world("one");
    moved.files.insert("deep/score.py".to_owned(), "one".to_owned());
    assert_eq!(key(&moved, &text.replace("score.py", "deep/score.py")), before, "where its script is, is in the key");
}

#[test]
fn a_harness_that_is_too_old_gives_no_key_and_says_which_version_is_wanted() {
    let graph = Graph::new(vec![Arc::new(parse(Path::new("x.yaml"), SUITE).unwrap().experiment)]);
    let stage = graph.stage(graph.find("evals.suite").unwrap()[0]);
    let versions = [("lm_eval", "0.4.13"), ("torch", "2.11.0"), ("transformers", "5.14.1"), ("vllm", "0.24.0+cpu")];
    let with = |tool: &str, version: &str| {
        let mut facts = Facts::default();
        facts.tools.extend(versions.map(|(tool, version)| (tool.to_owned(), version.to_owned())));
        facts.tools.insert(tool.to_owned(), version.to_owned());
        tools(stage, &facts)
    };
    for (tool, old, wanted) in
        [("lm_eval", "0.4.9", "0.4.13"), ("vllm", "0.23.1", "0.24"), ("transformers", "4.57", "5")]
    {
        let expected = Open::OldTool { name: tool, found: old.to_owned(), wanted };
        assert_eq!(with(tool, old), Err(expected));
    }
    for (tool, version) in
        [("lm_eval", "0.5.1"), ("vllm", "0.25.0"), ("transformers", "6.0"), ("vllm", "0.1.dev3+gabc")]
    {
        assert!(with(tool, version).is_ok(), "{tool} {version} is newer, or nobody knows");
    }
}
