//! A capture needs the memory of a layer, not of the model; a merge keeps its budget while it solves.

use std::fs;
use std::path::Path;
use std::process::Command;

use mergelab_tensor::checkpoint::{NewTensor, Writer};
use mergelab_tensor::gram::GramSet;
use mergelab_wire::{Alpha, GramJob, Job, MergeJob, MergeSource, Rows};
use safetensors::Dtype;
use tch::{Device, Kind, Tensor};

use crate::support::{
    Outcome, PROGRAM, gram_job, references, regmean_job, run, run_by, run_within, source, toy_grams, toy_model,
};

const HIDDEN: usize = 512;
const MLP: usize = 4096;
const LAYERS: usize = 48;

/// A Llama in bfloat16, tokenizer and all.
fn model(directory: &Path, tokenizer: &Path) -> u64 {
    fs::create_dir_all(directory).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(tokenizer.join(file), directory.join(file)).unwrap();
    }
    let config: serde_json::Value = serde_json::from_slice(&fs::read(tokenizer.join("config.json")).unwrap()).unwrap();
    let vocab = config["vocab_size"].as_u64().unwrap() as usize;
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": MLP, "num_hidden_layers": LAYERS,
        "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": vocab, "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
    });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocab, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..LAYERS {
        let name = |module: &str| format!("model.layers.{layer}.{module}.weight");
        shapes.extend(["input_layernorm", "post_attention_layernorm"].map(|norm| (name(norm), vec![HIDDEN])));
        let attention =
            ["q", "k", "v", "o"].map(|part| (name(&format!("self_attn.{part}_proj")), vec![HIDDEN, HIDDEN]));
        shapes.extend(attention);
        shapes.extend(["gate", "up"].map(|part| (name(&format!("mlp.{part}_proj")), vec![MLP, HIDDEN])));
        shapes.push((name("mlp.down_proj"), vec![HIDDEN, MLP]));
    }
    let plan =
        shapes.iter().map(|(name, shape)| NewTensor { name: name.clone(), dtype: Dtype::BF16, shape: shape.clone() });
    let writer = Writer::model(directory, plan.collect(), usize::MAX).unwrap();
    let numbers = Tensor::randn([(HIDDEN * MLP) as i64], (Kind::Float, Device::Cpu)) * 0.02;
    for (name, shape) in shapes {
        let count = shape.iter().product::<usize>() as i64;
        writer.write(&name, 0, &numbers.narrow(0, 0, count)).unwrap();
    }
    writer.finish() as u64
}

#[test]
fn a_model_is_captured_under_a_limit_of_half_its_size() {
    let Some(references) = references() else { return };
    let home = tempfile::tempdir().unwrap();
    let bytes = model(&home.path().join("model"), &references.join("llama/model"));
    let data = home.path().join("rows.jsonl");
    fs::write(&data, "{\"t\": \"one and two\"}\n{\"t\": \"three\"}\n").unwrap();
    // All but one Gram a layer are left out, for the sake of the disk.
    let job = GramJob {
        rows: Rows::Text("{{ t }}".to_owned()),
        exclude: vec!["*.mlp.*".to_owned(), "*.o_proj".to_owned()],
        ..gram_job(&home.path().join("model"), &data)
    };
    // RLIMIT_DATA: everything that is not a file's own pages. A program that holds the model cannot run under it.
    let limited = |limit: u64| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -d {} && exec \"$0\" \"$1\"", limit / 1024), PROGRAM]);
        run_by(command, Job::Gram(job.clone()), 2, "cpu", None)
    };
    let outcome = limited(bytes / 2).ok();
    assert_eq!(GramSet::open(&outcome.out).unwrap().modules().count(), 3 * LAYERS);
    // The limit is one: not even a layer goes into a twentieth.
    assert_ne!(limited(bytes / 20).code, 0);
}

/// Three models of one linear layer `[rows, width]`, with Grams and held-out Grams; merged into bfloat16.
fn wide(home: &Path, rows: i64, width: i64) -> MergeJob {
    let models = (0..3i64).map(|index| {
        let at = |what: &str| home.join(format!("{what}-{index}"));
        let model = toy_model(&at("model"), index + 1, rows, width, 9);
        let inputs = || Tensor::randn([64, width], (Kind::Float, Device::Cpu));
        let grams = ["used", "held"].map(|what| toy_grams(&at(what), &inputs()));
        MergeSource { held_out: Some(grams[1].clone()), ..source(&format!("m{index}"), &model, Some(&grams[0])) }
    });
    MergeJob { dtype: Some("bfloat16".to_owned()), ..regmean_job(models.collect(), 0.1) }
}

/// What a merge says that it needs at the least, when it is refused.
#[track_caller]
fn least(refused: &Outcome) -> u64 {
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert_eq!(refused.files(), []);
    assert!(
        refused.stderr.contains("too small for the system of model.layers.0.self_attn.o_proj"),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("hint: raise `--memory`"), "{}", refused.stderr);
    let rest = refused.stderr.split("which needs ").nth(1).unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn regmean_runs_under_a_limit_that_is_its_budget_or_refuses_it_before_it_writes() {
    const BUDGET: u64 = 336 << 20;
    const UNTOUCHED: u64 = 64 << 20;
    let home = tempfile::tempdir().unwrap();
    let job = wide(home.path(), 2048, 2048);
    let refused = run_within(Job::Merge(job.clone()), 4, Some(290 << 20));
    assert!(least(&refused) > 290 << 20 && least(&refused) <= BUDGET, "{}", refused.stderr);
    // RLIMIT_DATA, as above; it also counts what was asked for and never touched, such as the ends of libtorch's heaps.
    let limited = |memory: Option<u64>| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -d {} && exec \"$0\" \"$1\"", (BUDGET + UNTOUCHED) / 1024), PROGRAM]);
        run_by(command, Job::Merge(job.clone()), 4, "cpu", memory)
    };
    let tight = limited(Some(BUDGET)).ok();
    assert_eq!(tight.files(), run(Job::Merge(job.clone()), 2).ok().files());
    // The limit is one: what is not told of it does not keep it.
    assert_ne!(limited(None).code, 0);
}

#[test]
fn a_merge_does_with_the_least_that_it_names_and_gives_the_same_bytes() {
    let home = tempfile::tempdir().unwrap();
    let plain = wide(home.path(), 700, 600);
    let auto = MergeJob { alpha: Some(Alpha::AutoLayer), ..plain.clone() };
    // α = 1 takes steps down, which take more than the least.
    for (job, more) in [(plain, 0), (auto, 48 << 20)] {
        let needed = least(&run_within(Job::Merge(job.clone()), 3, Some(200 << 20)));
        let tight = run_within(Job::Merge(job.clone()), 3, Some(needed + more)).ok();
        assert_eq!(tight.files(), run(Job::Merge(job.clone()), 2).ok().files());
        assert_eq!(least(&run_within(Job::Merge(job), 3, Some(needed - 1))), needed);
    }
}

#[test]
fn a_step_down_that_the_budget_has_no_room_for_is_named() {
    let home = tempfile::tempdir().unwrap();
    let job = MergeJob { alpha: Some(Alpha::Number(1.0)), ..wide(home.path(), 40, 1500) };
    let needed = least(&run_within(Job::Merge(job.clone()), 1, Some(201 << 20)));
    let outcome = run_within(Job::Merge(job), 1, Some(needed));
    assert_eq!(outcome.code, 1);
    let said = "an eigenvalue decomposition of width 1500 takes 108000000 bytes, and the memory budget leaves ";
    assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
}
