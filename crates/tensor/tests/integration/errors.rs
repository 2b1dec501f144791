//! Bad input: the exit code, and a message that names the file, the place and the way out.

use std::fs;
use std::path::Path;
use std::process::Command;

use mergelab_tensor::checkpoint::Checkpoint;
use mergelab_wire::{Engine, Event, Fault, GramJob, Job, MergeJob, MergeSource, NamedWeight, Rule, RuleUse, Weight};
use serde_json::json;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

use crate::support::{
    Outcome, PROGRAM, TOY_LAYER, gram_job, merge_job, references, regmean_job, run, run_by, run_on, save, source,
    toy_grams, toy_model,
};

/// The program failed with this code, and says each part; the event says the same as the terminal.
#[track_caller]
fn refused(outcome: &Outcome, code: i32, parts: &[&str]) {
    assert_eq!(outcome.code, code, "{}", outcome.stderr);
    for part in parts {
        assert!(outcome.stderr.contains(part), "{part:?} is not in\n{}", outcome.stderr);
    }
    let Some(Event::Error { message, hint, fault }) = outcome.events.last() else { panic!("no error event") };
    assert_eq!(*fault, if code == 3 { Fault::Experiment } else { Fault::Stage });
    assert!(outcome.stderr.contains(&format!("error: {message}")));
    assert!(hint.as_ref().is_none_or(|hint| outcome.stderr.contains(&format!("hint: {hint}"))));
}

fn two(home: &TempDir, second: impl Fn(&Path)) -> Vec<MergeSource> {
    let models: Vec<_> = ["a", "b"].map(|name| (name, toy_model(&home.path().join(name), 1, 6, 5, 9))).to_vec();
    second(&models[1].1);
    models.iter().map(|(name, path)| source(name, path, None)).collect()
}

fn replace(directory: &Path, name: &str, with: Option<Tensor>) {
    let read = Checkpoint::open(directory).unwrap();
    let mut tensors: Vec<(&str, Tensor)> =
        read.names().filter(|other| *other != name).map(|other| (other, read.load(other).unwrap())).collect();
    tensors.extend(with.map(|tensor| (name, tensor)));
    fs::remove_file(directory.join("model.safetensors")).unwrap();
    save(&directory.join("model.safetensors"), &tensors);
}

fn random(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu))
}

#[test]
fn models_that_differ_are_named_with_both_shapes_before_anything_is_written() {
    let weight = format!("{TOY_LAYER}.weight");
    let home = tempfile::tempdir().unwrap();
    let models = two(&home, |second| replace(second, &weight, Some(random(&[6, 7]))));
    let outcome = run(Job::Merge(merge_job("average", models)), 1);
    refused(&outcome, 3, &["model.layers.0.self_attn.o_proj.weight: [6, 5] in a, [6, 7] in b"]);
    assert_eq!(outcome.files(), []);

    let home = tempfile::tempdir().unwrap();
    let models = two(&home, |second| replace(second, "model.embed_tokens.weight", Some(random(&[11, 4]))));
    let outcome = run(Job::Merge(merge_job("average", models)), 1);
    refused(&outcome, 3, &["vocabularies differ: a has 9 tokens, b has 11", "`tokenizer: union`"]);

    let home = tempfile::tempdir().unwrap();
    let models = two(&home, |second| replace(second, &weight, None));
    let outcome = run(Job::Merge(merge_job("average", models)), 1);
    refused(&outcome, 3, &["o_proj.weight is in model a and not in b", "use: { model: a }"]);
    assert_eq!(outcome.files(), []);
}

#[test]
fn a_tensor_that_only_one_model_has_is_taken_from_it_where_a_rule_says_so() {
    let home = tempfile::tempdir().unwrap();
    let models = two(&home, |second| replace(second, "extra.weight", Some(random(&[2, 3]))));
    let job = merge_job("average", models.clone());
    refused(&run(Job::Merge(job.clone()), 1), 3, &["extra.weight is in model b and not in a"]);
    let rules = vec![Rule { pattern: "extra.*".to_owned(), action: Some(RuleUse::Model("b".to_owned())), alpha: None }];
    let outcome = run(Job::Merge(MergeJob { rules, ..job }), 2).ok();
    let (found, b) = (Checkpoint::open(&outcome.out).unwrap(), Checkpoint::open(&models[1].path).unwrap());
    assert_eq!(found.load("extra.weight").unwrap(), b.load("extra.weight").unwrap());
}

#[test]
fn models_of_different_types_are_merged_if_both_are_numbers_with_a_note() {
    let home = tempfile::tempdir().unwrap();
    let half = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0]).to_kind(Kind::BFloat16);
    let models = two(&home, |second| replace(second, "model.norm.weight", Some(half.shallow_clone())));
    let outcome = run(Job::Merge(merge_job("average", models)), 1).ok();
    assert!(outcome.notes().iter().any(|note| note == "1 tensors are stored as F32 in a and as BF16 in b"));
    let home = tempfile::tempdir().unwrap();
    let models = two(&home, |second| replace(second, "model.norm.weight", Some(Tensor::from_slice(&[1i64, 2, 3, 4]))));
    let outcome = run(Job::Merge(merge_job("average", models)), 1);
    refused(&outcome, 3, &["model.norm.weight: F32 in a, I64 in b"]);
    assert_eq!(outcome.files(), []);
}

#[test]
fn a_quantised_model_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let config = r#"{"model_type": "llama", "vocab_size": 9, "quantization_config": {"quant_method": "fp8"}}"#;
    let models = two(&home, |second| fs::write(second.join("config.json"), config).unwrap());
    refused(&run(Job::Merge(merge_job("average", models)), 1), 3, &["model b is quantised (fp8)", "dequantise"]);
}

#[test]
fn a_merged_weight_that_the_output_type_cannot_hold_is_an_error_and_no_infinity() {
    let home = tempfile::tempdir().unwrap();
    let large = Tensor::from_slice(&[0.0f32, 1e6, 0.0, 0.0]);
    let models = two(&home, |second| replace(second, "model.norm.weight", Some(large.shallow_clone())));
    let job = MergeJob { dtype: Some("float16".to_owned()), ..merge_job("average", models) };
    refused(&run(Job::Merge(job), 1), 3, &["model.norm.weight: ", "at element 1 is too large for float16", "bfloat16"]);
}

#[test]
fn a_factor_by_which_weights_grow_too_large_is_named_as_what_to_lower() {
    let home = tempfile::tempdir().unwrap();
    let models = two(&home, |second| replace(second, "model.norm.weight", Some(random(&[4]))));
    let [base, model] = <[MergeSource; 2]>::try_from(models).unwrap();
    let job = MergeJob { base: Some(base), ..merge_job("task_arithmetic", vec![model.clone()]) };
    let with = |params: serde_json::Value| {
        let params = serde_json::from_value(params).unwrap();
        run(Job::Merge(MergeJob { params, ..job.clone() }), 1)
    };
    refused(
        &with(json!({ "lambda": 1e60 })),
        3,
        &["is too large for float32", "hint: lower `lambda`, which is 1e60\n"],
    );
    let by_name = json!({ "lambda": [{ "filter": "norm", "value": [-1e50, 1.0] }] });
    refused(&with(by_name), 3, &["model.norm.weight: ", "hint: lower `lambda`, which is 1e50\n"]);
    let models = vec![MergeSource { weight: 1e60.into(), ..model }];
    let outcome = run(Job::Merge(MergeJob { models, ..job.clone() }), 1);
    refused(&outcome, 3, &["hint: lower the weight of b, which is 1e60\n"]);
}

#[test]
fn a_vocabulary_that_the_weights_do_not_have_is_said_with_the_file_that_states_it() {
    let home = tempfile::tempdir().unwrap();
    let models = two(&home, |_| ());
    fs::write(models[0].path.join("config.json"), r#"{"model_type": "llama", "vocab_size": 8}"#).unwrap();
    let outcome = run(Job::Merge(merge_job("average", models)), 1);
    let said = ["a/config.json: vocab_size is 8, and model.embed_tokens.weight has 9 rows", "name another model"];
    refused(&outcome, 3, &said);
}

#[test]
fn filters_that_match_no_tensor_are_noted() {
    let home = tempfile::tempdir().unwrap();
    let [base, model] = <[MergeSource; 2]>::try_from(two(&home, |_| ())).unwrap();
    let named = |filter: &str| NamedWeight { filter: Some(filter.to_owned()), value: vec![1.0] };
    let weight = Weight::ByName(vec![named("norm"), named("mpl"), named("*")]);
    let of = |value: serde_json::Value| serde_json::from_value(value).unwrap();
    let filtered = |filter: &str| json!([{ "filter": filter, "value": 0.5 }, { "filter": null, "value": 1.0 }]);
    let params = of(json!({ "density": filtered("self_atn") }));
    let model = MergeSource { weight, params, ..model };
    let params = of(json!({ "lambda": filtered("o_proj"), "density": filtered("o_prj") }));
    let job = MergeJob { base: Some(base), params, ..merge_job("ties", vec![model]) };
    let notes = run(Job::Merge(job), 1).ok().notes();
    let of_filters: Vec<&String> = notes.iter().filter(|note| note.starts_with("filter")).collect();
    let expected = [
        r#"filter "o_prj" of density matches no tensor"#,
        r#"filter "mpl" of weight of b matches no tensor"#,
        r#"filter "self_atn" of density of b matches no tensor"#,
    ];
    assert_eq!(of_filters, expected);
}

#[test]
fn a_weight_that_is_no_number_is_named() {
    let home = tempfile::tempdir().unwrap();
    let models =
        two(&home, |second| replace(second, "model.norm.weight", Some(Tensor::from_slice(&[1.0, f32::NAN, 0.0, 2.0]))));
    refused(
        &run(Job::Merge(merge_job("average", models)), 1),
        3,
        &["model.norm.weight of model b has weights that are not finite: NaN at [1]"],
    );
}

#[test]
fn a_linear_layer_without_a_gram_is_an_error_unless_a_rule_covers_it() {
    let home = tempfile::tempdir().unwrap();
    let mut models = two(&home, |_| ());
    let grams = toy_grams(&home.path().join("grams"), &random(&[30, 5]));
    let index = fs::read_to_string(grams.join("index.json")).unwrap();
    for model in &mut models {
        model.grams = Some(grams.clone());
    }
    let job = regmean_job(models, 0.5);
    // Under a name that the model does not have, it is not passed over either.
    fs::write(grams.join("index.json"), index.replace("o_proj", "q_proj")).unwrap();
    refused(&run(Job::Merge(job.clone()), 1), 3, &["no linear module for the Gram matrices of", "q_proj", "`module.`"]);

    let mut index: serde_json::Value = serde_json::from_str(&index).unwrap();
    index["modules"] = serde_json::json!({});
    fs::write(grams.join("index.json"), index.to_string()).unwrap();
    let outcome = run(Job::Merge(job.clone()), 1);
    refused(&outcome, 3, &["o_proj.weight is a linear layer, and the Gram matrices of a", "use: average"]);
    assert_eq!(outcome.files(), []);
    let rules = vec![Rule { pattern: "*.o_proj.*".to_owned(), action: Some(RuleUse::Average), alpha: None }];
    run(Job::Merge(MergeJob { rules, ..job }), 1).ok();
}

#[test]
fn a_gram_of_another_width_is_named() {
    let home = tempfile::tempdir().unwrap();
    let mut models = two(&home, |_| ());
    let grams = toy_grams(&home.path().join("grams"), &random(&[30, 6]));
    for model in &mut models {
        model.grams = Some(grams.clone());
    }
    refused(&run(Job::Merge(regmean_job(models, 0.5)), 1), 3, &["input width 5, but the Gram of a has width 6"]);
}

#[test]
fn a_method_that_is_not_built_is_named_with_those_that_are() {
    let home = tempfile::tempdir().unwrap();
    refused(
        &run(Job::Merge(merge_job("slurp", two(&home, |_| ()))), 1),
        1,
        &["method \"slurp\" is not built", "built: average, regmean, regmean++, mats, fisher, slerp,"],
    );
}

#[test]
fn a_truncated_or_hostile_checkpoint_is_refused_by_name() {
    for (damage, says) in [
        (
            &(|bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 4)) as &dyn Fn(&mut Vec<u8>),
            "it is truncated or has a tail",
        ),
        (&|bytes| bytes.truncate(5), "too few for a header"),
        (&|bytes| bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes()), "larger than 100 MB"),
        (&|bytes| bytes[..8].copy_from_slice(&5_000_000u64.to_le_bytes()), "longer than the file"),
        (&|bytes| bytes[8] = b'x', "not a sound safetensors file"),
    ] {
        let home = tempfile::tempdir().unwrap();
        let models = two(&home, |second| {
            let path = second.join("model.safetensors");
            let mut bytes = fs::read(&path).unwrap();
            damage(&mut bytes);
            fs::write(path, bytes).unwrap();
        });
        refused(&run(Job::Merge(merge_job("average", models)), 1), 3, &["b/model.safetensors", says]);
    }
}

#[test]
fn a_disk_with_less_room_than_the_output_needs_is_found_before_any_work() {
    let mut mounted = Command::new("unshare");
    mounted.args([
        "-rm",
        "sh",
        "-c",
        "mount -t tmpfs -o size=64k tmpfs \"$(dirname \"$1\")/out\" && exec \"$0\" \"$1\"",
    ]);
    mounted.arg(PROGRAM);
    if !Command::new("unshare").args(["-rm", "true"]).status().is_ok_and(|status| status.success()) {
        println!("skipped: no name space to mount a small disk in");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let models = ["a", "b"].map(|name| source(name, &toy_model(&home.path().join(name), 1, 200, 300, 9), None));
    let outcome = run_by(mounted, Job::Merge(merge_job("average", models.to_vec())), 1, "cpu", None);
    refused(
        &outcome,
        1,
        &["cannot make room for", "out/model.safetensors: No space left", "free some space and run again"],
    );
}

#[test]
fn a_missing_shard_is_named() {
    let home = tempfile::tempdir().unwrap();
    let models = two(&home, |second| {
        fs::remove_file(second.join("model.safetensors")).unwrap();
        let index = r#"{"weight_map": {"x": "model-00001-of-00002.safetensors"}}"#;
        fs::write(second.join("model.safetensors.index.json"), index).unwrap();
    });
    refused(
        &run(Job::Merge(merge_job("average", models)), 1),
        3,
        &["index.json", "shard model-00001-of-00002.safetensors is missing"],
    );
}

#[test]
fn a_column_that_no_row_has_is_named_with_the_nearest_one() {
    let Some(references) = references() else { return };
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("rows.jsonl");
    fs::write(&data, "{\"questions\": \"a\", \"answer\": \"b\"}\n").unwrap();
    let outcome = run(Job::Gram(gram_job(&references.join("llama/model"), &data)), 1);
    refused(
        &outcome,
        3,
        &["rows.jsonl, row 1: no column \"question\" (the row has questions, answer)", "did you mean \"questions\"?"],
    );
}

#[test]
fn data_without_a_single_token_is_an_error() {
    let Some(references) = references() else { return };
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("rows.jsonl");
    fs::write(&data, "").unwrap();
    let job = gram_job(&references.join("llama/model"), &data);
    refused(&run(Job::Gram(job.clone()), 1), 3, &["none of the 0 rows gives a token", "the file is empty"]);
    fs::write(&data, "{\"question\": \"\", \"answer\": \"\"}\n").unwrap();
    refused(&run(Job::Gram(job), 1), 3, &["none of the 1 rows gives a token", "1 row(s) are empty"]);
}

#[test]
fn a_model_without_a_chat_template_says_what_to_do() {
    let Some(references) = references() else { return };
    let home = tempfile::tempdir().unwrap();
    let model = home.path().join("model");
    fs::create_dir(&model).unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        fs::copy(references.join("llama/model").join(file), model.join(file)).unwrap();
    }
    let job = gram_job(&model, &references.join("rows.jsonl"));
    refused(&run(Job::Gram(job.clone()), 1), 3, &["has no chat template", "`chat_template:` file"]);
    let lent = home.path().join("lent.jinja");
    fs::write(&lent, "{{ messages[0].content }}").unwrap();
    run(Job::Gram(GramJob { chat_template: Some(lent), ..job }), 1).ok();
}

#[test]
fn what_a_chat_template_raises_is_shown_with_the_row_it_was_raised_for() {
    let Some(references) = references() else { return };
    let home = tempfile::tempdir().unwrap();
    let lent = home.path().join("lent.jinja");
    fs::write(&lent, "{% if '+' not in messages[0].content %}\n{{ raise_exception('sums only') }}{% endif %}x")
        .unwrap();
    let job = gram_job(&references.join("llama/model"), &references.join("rows.jsonl"));
    let job = GramJob { chat_template: Some(lent), ..job };
    let said = ["rows.jsonl, row 2: ", "lent.jinja failed: sums only (line 2 of the template)", "`chat_template:`"];
    refused(&run(Job::Gram(job), 1), 3, &said);
}

#[test]
fn a_row_longer_than_the_models_positions_is_refused() {
    let Some(references) = references() else { return };
    let job = GramJob { max_length: None, ..gram_job(&references.join("llama/model"), &references.join("rows.jsonl")) };
    refused(&run(Job::Gram(job), 1), 3, &["row 6 has", "128 positions", "max_length"]);
}

#[test]
fn activations_that_are_not_finite_are_named_by_layer_and_row() {
    let Some(references) = references() else { return };
    let (stored, home) = (references.join("llama/model"), tempfile::tempdir().unwrap());
    for file in fs::read_dir(&stored).unwrap().map(|entry| entry.unwrap().file_name()) {
        fs::copy(stored.join(&file), home.path().join(&file)).unwrap();
    }
    let checkpoint = Checkpoint::open(&stored).unwrap();
    let damaged = "model.layers.1.mlp.down_proj.weight";
    let tensors: Vec<(&str, Tensor)> = checkpoint
        .names()
        .map(|name| {
            let tensor = checkpoint.load(name).unwrap();
            (name, if name == damaged { tensor * f64::INFINITY } else { tensor })
        })
        .collect();
    fs::remove_file(home.path().join("model.safetensors")).unwrap();
    save(&home.path().join("model.safetensors"), &tensors);
    let outcome = run(Job::Gram(gram_job(home.path(), &references.join("rows.jsonl"))), 2);
    refused(&outcome, 3, &["layer 1: the activations of row ", "rows.jsonl are not finite", "the weights are damaged"]);
}

#[test]
fn an_engine_and_a_device_that_are_not_there_say_so() {
    let Some(references) = references() else { return };
    let job = gram_job(&references.join("llama/model"), &references.join("rows.jsonl"));
    let other = GramJob { engine: Engine::Transformers, ..job.clone() };
    refused(
        &run(Job::Gram(other), 1),
        1,
        &["this program runs the native engine", "`mergelab run`, which starts the right one"],
    );
    refused(&run_on(Job::Gram(job.clone()), 1, "tpu"), 3, &["device \"tpu\" is not known"]);
    if Path::new("/proc/driver/nvidia/version").exists() {
        println!("skipped: this machine has a GPU, so that asking for one is no error");
    } else {
        refused(
            &run_on(Job::Gram(job), 1, "cuda"),
            1,
            &["device cuda was asked for, but this machine has no NVIDIA driver"],
        );
    }
}

#[test]
fn a_stage_file_of_another_version_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("stage.json");
    fs::write(&path, r#"{"wire": 999}"#).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_mergelab-tensor")).arg(&path).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("stage file of wire version 999, this program speaks {}", mergelab_wire::VERSION);
    assert!(String::from_utf8_lossy(&output.stderr).contains(&expected));
}

#[test]
fn models_of_one_shape_whose_heads_or_token_ids_differ_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let models = two(&home, |second| {
        let config = r#"{"model_type": "llama", "vocab_size": 9, "num_attention_heads": 2, "num_key_value_heads": 1}"#;
        fs::write(second.join("config.json"), config).unwrap();
    });
    refused(&run(Job::Merge(merge_job("average", models)), 1), 3, &["num_attention_heads is not set in a and 2 in b"]);

    let home = tempfile::tempdir().unwrap();
    let tokenizer = |first: u32, second: u32| format!(r#"{{"model": {{"vocab": {{"x": {first}, "y": {second}}}}}}}"#);
    let models = two(&home, |second| fs::write(second.join("tokenizer.json"), tokenizer(1, 0)).unwrap());
    fs::write(models[0].path.join("tokenizer.json"), tokenizer(0, 1)).unwrap();
    refused(&run(Job::Merge(merge_job("average", models)), 1), 3, &["token \"x\" is 0 in a and 1 in b"]);

    let home = tempfile::tempdir().unwrap();
    let models = two(&home, |second| fs::write(second.join("config.json"), "{").unwrap());
    refused(&run(Job::Merge(merge_job("average", models)), 1), 3, &["config.json: not JSON"]);
}
