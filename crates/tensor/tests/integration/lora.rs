//! Models with LoRA adapters, against `tests/reference/lora.py`, which is held against PEFT where that is installed.

use std::fs;
use std::path::{Path, PathBuf};

use mergelab_tensor::checkpoint::{Checkpoint, SafeFile};
use mergelab_wire::{ApplyLoraJob, ExtractLoraJob, Job, LoraSize};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::support::{
    Outcome, TOY_LAYER, made_by, python, reference_program, refused, run, run_within, save, toy_model,
};

/// What the reference program made.
fn cases() -> Option<PathBuf> {
    made_by("lora.py", &[include_str!("../reference/lora.py")])
}

fn job(name: &str, base: &Path, adapter: &Path) -> Job {
    Job::ApplyLora(ApplyLoraJob { name: name.to_owned(), base: base.to_path_buf(), adapter: adapter.to_path_buf() })
}

#[test]
fn a_model_with_an_adapter_is_what_peft_merges_and_unloads() {
    let Some(cases) = cases() else { return };
    // Of GPT-2 the attention and one projection of the MLP: one layer has two of them.
    for (case, changed, replaced) in [("plain", 14, 0), ("patterns", 14, 0), ("whole", 3, 5), ("transposed", 4, 0)] {
        let (base, adapter) = (cases.join(case).join("base"), cases.join(case).join("adapter"));
        let outcome = run(job("org/base", &base, &adapter), 2).ok();
        assert_eq!(outcome.notes(), [""; 0], "{case}");
        let facts = outcome.facts();
        assert_eq!(
            (&facts["tensors_changed"], &facts["tensors_replaced"]),
            (&json!(changed), &json!(replaced)),
            "{case}"
        );
        let (found, expected) = (
            Checkpoint::open(&outcome.out).unwrap(),
            SafeFile::open(&cases.join(case).join("expected.safetensors")).unwrap(),
        );
        let own = Checkpoint::open(&base).unwrap();
        assert_eq!(found.names().count(), expected.tensors().len(), "{case}");
        let mut others = 0;
        for name in found.names() {
            let (found, expected) = (found.load(name).unwrap(), expected.load(name).unwrap());
            let gap = (&found - expected).abs().max().double_value(&[]);
            assert!(gap < 1e-6, "{case}: {name} is off by {gap:e}");
            others += usize::from(found != own.load(name).unwrap());
        }
        assert!(others >= changed, "{case}: {others} tensors are not those of the model");
        let same = |name: &str| fs::read(base.join(name)).unwrap() == fs::read(outcome.out.join(name)).unwrap();
        assert!(same("config.json") && same("generation_config.json"), "{case}");
    }
}

#[test]
fn the_result_is_the_same_bytes_on_any_number_of_threads_and_from_a_pickled_adapter() {
    let Some(cases) = cases() else { return };
    let base = cases.join("plain/base");
    let whole = |adapter: &str, threads| run(job("org/base", &base, &cases.join(adapter)), threads).ok().files();
    let files = whole("plain/adapter", 1);
    assert_eq!(
        files.iter().map(|(name, _)| &**name).collect::<Vec<_>>(),
        ["config.json", "generation_config.json", "model.safetensors"]
    );
    assert_eq!(whole("plain/adapter", 3), files);
    assert_eq!(whole("pickled", 2), files);
}

#[test]
fn a_model_in_sixteen_bits_stays_so_and_is_rounded_once() {
    let Some(cases) = cases() else { return };
    let base = cases.join("half/base");
    let found = run(job("org/base", &base, &cases.join("plain/adapter")), 2).ok();
    let (found, own) = (Checkpoint::open(&found.out).unwrap(), Checkpoint::open(&base).unwrap());
    let factors = SafeFile::open(&cases.join("plain/adapter/adapter_model.safetensors")).unwrap();
    let mut seen = 0;
    for name in own.names() {
        let module = name.strip_suffix(".weight").unwrap_or(name);
        let factor = |end: &str| factors.load(&format!("base_model.model.{module}.{end}.weight"));
        let (Ok(a), Ok(b)) = (factor("lora_A"), factor("lora_B")) else {
            assert_eq!(found.load(name).unwrap(), own.load(name).unwrap(), "{name}");
            continue;
        };
        // α / r is 8 / 4.
        let exact = own.load(name).unwrap().to_kind(Kind::Float) + b.matmul(&a) * 2.0;
        let found = found.load(name).unwrap();
        assert_eq!(found.kind(), Kind::BFloat16);
        // Sums in another order move a few numbers over the edge between two.
        let differ = found.not_equal_tensor(&exact.to_kind(Kind::BFloat16)).to_kind(Kind::Double).mean(Kind::Double);
        assert!(differ.double_value(&[]) < 1e-3, "{name}");
        seen += 1;
    }
    assert_eq!(seen, 14);
}

/// A model of one layer `[8, 6]`, and an adapter of rank 2 for it.
struct Toy {
    home: tempfile::TempDir,
    base: PathBuf,
}

impl Toy {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let base = toy_model(&home.path().join("base"), 1, 8, 6, 10);
        Self { home, base }
    }

    /// Applies an adapter with these tensors, by their names without what PEFT puts before them, and these keys.
    fn apply(&self, keys: &Value, tensors: &[(&str, [i64; 2])]) -> Outcome {
        let adapter = tempfile::tempdir_in(self.home.path()).unwrap();
        let mut config = json!({ "peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "org/Base" });
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        fs::write(adapter.path().join("adapter_config.json"), config.to_string()).unwrap();
        let names: Vec<String> = tensors.iter().map(|(name, _)| format!("base_model.model.{name}")).collect();
        let random = |shape: &[i64; 2]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let tensors: Vec<(&str, Tensor)> =
            names.iter().zip(tensors).map(|(name, (_, shape))| (&**name, random(shape))).collect();
        save(&adapter.path().join("adapter_model.safetensors"), &tensors);
        run(job("models/base", &self.base, adapter.path()), 1)
    }

    /// An adapter of the one layer, with these keys.
    fn with(&self, keys: &Value) -> Outcome {
        let [a, b] = ["lora_A.weight", "lora_B.weight"].map(|end| format!("{TOY_LAYER}.{end}"));
        self.apply(keys, &[(&a, [2, 6]), (&b, [8, 2])])
    }
}

#[test]
fn an_adapter_of_another_model_is_refused_with_the_tensor_and_both_shapes() {
    let toy = Toy::new();
    let [a, b] = ["lora_A.weight", "lora_B.weight"].map(|end| format!("{TOY_LAYER}.{end}"));
    refused(
        &toy.apply(&json!({ "base_model_name_or_path": "org/wide" }), &[(&a, [2, 7]), (&b, [8, 2])]),
        &[
            &format!("{TOY_LAYER}.weight: [8, 6] in models/base, and the adapter's change of it is [8, 7]"),
            "hint: its adapter_config.json says that it was trained on org/wide",
        ],
    );
    let other = ["lora_A.weight", "lora_B.weight"].map(|end| format!("model.layers.7.mlp.up_proj.{end}"));
    refused(
        &toy.apply(&json!({}), &[(&other[0], [2, 6]), (&other[1], [8, 2])]),
        &["the adapter changes model.layers.7.mlp.up_proj.weight, which models/base does not have"],
    );
    let whole = toy.apply(&json!({}), &[(&a, [2, 6]), (&b, [8, 2]), ("model.embed_tokens.weight", [12, 4])]);
    refused(&whole, &["model.embed_tokens.weight: [10, 4] in models/base, and the adapter's change of it is [12, 4]"]);
    let head = toy.apply(&json!({}), &[(&a, [2, 6]), (&b, [8, 2]), ("lm_head.weight", [10, 4])]);
    refused(&head, &["lm_head.weight, and in models/base that is the embedding"]);
}

#[test]
fn what_is_no_plain_lora_is_refused_by_name() {
    let toy = Toy::new();
    refused(
        &toy.with(&json!({ "peft_type": "LOKR" })),
        &["`peft_type` is \"LOKR\", which is not applied here", "merge_and_unload"],
    );
    refused(&toy.with(&json!({ "use_dora": true })), &["`use_dora` is true"]);
    refused(
        &toy.with(&json!({ "r": 4 })),
        &[&format!("the rank of {TOY_LAYER} is 4 by adapter_config.json, and its tensors have 2")],
    );
    let a = format!("{TOY_LAYER}.lora_A.weight");
    refused(&toy.apply(&json!({}), &[(&a, [2, 6])]), &[&format!("{TOY_LAYER} has no lora_B")]);
    let magnitude = format!("{TOY_LAYER}.lora_magnitude_vector.weight");
    refused(&toy.apply(&json!({}), &[(&magnitude, [8, 1])]), &["is none that PEFT writes for LoRA"]);
    refused(&toy.apply(&json!({}), &[("model.embed_tokens.weight", [10, 4])]), &["there are no tensors of LoRA in it"]);
    let outcome = run(job("models/base", &toy.base, &toy.home.path().join("none")), 1);
    refused(&outcome, &["cannot read", "adapter_config.json"]);
}

#[test]
fn another_model_that_the_adapter_names_is_noted_and_the_same_one_elsewhere_is_not() {
    let toy = Toy::new();
    assert_eq!(toy.with(&json!({})).ok().notes(), [""; 0]);
    let noted = toy.with(&json!({ "base_model_name_or_path": "org/other" })).ok().notes();
    assert_eq!(noted, ["the adapter says that it was trained on org/other, and is applied to models/base"]);
}

#[test]
fn a_budget_that_has_no_room_for_the_work_is_refused() {
    let Some(cases) = cases() else { return };
    let outcome =
        run_within(job("org/base", &cases.join("plain/base"), &cases.join("plain/adapter")), 1, Some(1 << 20));
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("a memory budget of"), "{}", outcome.stderr);
}

/// The adapter of what a model has more than its base.
fn extract(model: &Path, base: &Path, size: LoraSize, whole: bool) -> Job {
    let (model, base) = (model.to_path_buf(), base.to_path_buf());
    let (name, base_name) = ("merges.m".to_owned(), "org/base".to_owned());
    Job::ExtractLora(ExtractLoraJob { name, model, base_name, base, size, whole })
}

/// A model of a case of the reference program, with its adapter.
fn adapted(cases: &Path, case: &str) -> Outcome {
    run(job("org/base", &cases.join(case).join("base"), &cases.join(case).join("adapter")), 2).ok()
}

#[test]
fn a_known_difference_of_low_rank_comes_back_and_peft_loads_it() {
    let (Some(cases), Some(python)) = (cases(), python()) else { return };
    for (case, whole) in [("plain", false), ("patterns", false), ("transposed", false), ("whole", true)] {
        let (base, model) = (cases.join(case).join("base"), adapted(&cases, case));
        let found = run(extract(&model.out, &base, LoraSize::Rank(8), whole), 2).ok();
        // Each layer has the rank that it was made with, and loses nothing.
        let config = |path: &Path| -> Value {
            serde_json::from_slice(&fs::read(path.join("adapter_config.json")).unwrap()).unwrap()
        };
        let report = found.json("layers.json");
        for layer in report["layers"].as_array().unwrap() {
            let made = SafeFile::open(&cases.join(case).join("adapter/adapter_model.safetensors")).unwrap();
            let name = format!("base_model.model.{}.lora_A.weight", layer["module"].as_str().unwrap());
            assert_eq!(layer["rank"], made.info(&name).unwrap().shape[0], "{case}: {layer}");
            assert!(layer["relative_error"].as_f64().unwrap() < 1e-5, "{case}: {layer}");
        }
        let config = config(&found.out);
        assert_eq!((&config["peft_type"], &config["task_type"]), (&json!("LORA"), &json!("CAUSAL_LM")));
        assert_eq!(config["base_model_name_or_path"], "org/base");
        let targets: &[&str] = match case {
            "whole" => &["q_proj"],
            "transposed" => &["c_attn", "c_fc"],
            _ => &["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
        };
        assert_eq!(config["target_modules"], json!(targets), "{case}");
        let paths = [&base, &found.out, &model.out].map(|path| path.to_str().unwrap());
        reference_program(&python, "lora.py", &["check", paths[0], paths[1], paths[2]]);
        let again = run(job("org/base", &base, &found.out), 1).ok();
        let (again, model) = (Checkpoint::open(&again.out).unwrap(), Checkpoint::open(&model.out).unwrap());
        for name in model.names() {
            let gap = (again.load(name).unwrap() - model.load(name).unwrap()).abs().max().double_value(&[]);
            assert!(gap < 1e-5, "{case}: {name} is off by {gap:e}");
        }
    }
}

#[test]
fn what_is_left_out_is_told_with_how_much_it_differs() {
    let Some(cases) = cases() else { return };
    let (base, model) = (cases.join("whole/base"), adapted(&cases, "whole"));
    let found = run(extract(&model.out, &base, LoraSize::Rank(8), false), 2).ok();
    let report = found.json("layers.json");
    let left_out = report["left_out"].as_array().unwrap();
    let mut names: Vec<&str> = left_out.iter().map(|out| out["tensor"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "lm_head.weight",
            "model.embed_tokens.weight",
            "model.layers.0.self_attn.q_proj.bias",
            "model.layers.1.self_attn.v_proj.bias",
            "model.norm.weight",
        ]
    );
    let norm = left_out.iter().find(|out| out["tensor"] == "model.norm.weight").unwrap();
    let (before, after) = (Checkpoint::open(&base).unwrap(), Checkpoint::open(&model.out).unwrap());
    let (before, after) = (before.load("model.norm.weight").unwrap(), after.load("model.norm.weight").unwrap());
    let expected = ((after - &before).norm() / before.norm()).double_value(&[]);
    assert!((norm["relative_difference"].as_f64().unwrap() - expected).abs() < 1e-6);
    assert_eq!(report["whole"], json!([]));
    let tensors = SafeFile::open(&found.out.join("adapter_model.safetensors")).unwrap();
    assert!(tensors.tensors().keys().all(|name| name.contains(".q_proj.lora_")));
}

#[test]
fn the_truncation_is_the_best_of_its_rank_and_energy_takes_as_little_as_is_enough() {
    let home = tempfile::tempdir().unwrap();
    let base = toy_model(&home.path().join("base"), 1, 30, 24, 10);
    let model = toy_model(&home.path().join("model"), 2, 30, 24, 10);
    let weight = format!("{TOY_LAYER}.weight");
    let load = |path: &Path| Checkpoint::open(path).unwrap().load(&weight).unwrap().to_kind(Kind::Double);
    let (_, values, _) = (load(&model) - load(&base)).svd(true, false);
    let squares: Vec<f64> = Vec::<f64>::try_from(values).unwrap().iter().map(|value| value * value).collect();
    let total: f64 = squares.iter().sum();
    let lost = |rank: usize| (squares[rank..].iter().sum::<f64>() / total).sqrt();
    let layer = |size| run(extract(&model, &base, size, false), 2).ok().json("layers.json")["layers"][0].clone();
    for rank in [1, 5, 23] {
        let found = layer(LoraSize::Rank(rank));
        assert_eq!((&found["rank"], &found["shape"]), (&json!(rank), &json!([30, 24])));
        assert!(
            (found["relative_error"].as_f64().unwrap() - lost(rank)).abs() < 1e-6,
            "{found} in place of {}",
            lost(rank)
        );
    }
    assert_eq!(layer(LoraSize::Rank(99))["rank"], 24);
    for share in [0.3, 0.9, 0.999] {
        let rank = layer(LoraSize::Energy(share))["rank"].as_u64().unwrap() as usize;
        let kept = |rank: usize| squares[..rank].iter().sum::<f64>() / total;
        assert!(kept(rank) >= share && kept(rank - 1) < share, "{share}: {rank}");
    }
    let files = |threads| run(extract(&model, &base, LoraSize::Rank(4), true), threads).ok().files();
    assert_eq!(files(1), files(3));
}

#[test]
fn models_that_do_not_fit_or_do_not_differ_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let model = |name: &str, rows, width, vocab| toy_model(&home.path().join(name), 1, rows, width, vocab);
    let (base, same, wide, long) =
        (model("a", 8, 6, 10), model("b", 8, 6, 10), model("c", 8, 7, 10), model("d", 8, 6, 12));
    let refuse = |other: &Path, whole: bool, parts: &[&str]| {
        refused(&run(extract(other, &base, LoraSize::Rank(2), whole), 1), parts);
    };
    refuse(&same, false, &["no linear layer of merges.m differs from org/base", "--base"]);
    let of_another = "an adapter is for a model of the same architecture and size";
    refuse(&wide, false, &["o_proj.weight: [8, 7] in merges.m, [8, 6] in org/base", of_another]);
    let said = ["vocabularies differ: merges.m has 12 tokens, org/base has 10", "hint: leave `--modules-to-save` out"];
    refuse(&long, true, &said);
    let less = model("f", 8, 6, 10);
    fs::remove_file(less.join("model.safetensors")).unwrap();
    save(&less.join("model.safetensors"), &[("model.norm.weight", Tensor::zeros([4], (Kind::Float, Device::Cpu)))]);
    refuse(&less, false, &["is in model org/base and not in merges.m", of_another]);
    let outcome = run_within(extract(&wide, &base, LoraSize::Rank(2), false), 1, Some(1 << 20));
    refused(&outcome, &["[8, 7] in merges.m"]);
    let other = toy_model(&home.path().join("e"), 3, 8, 6, 10);
    let outcome = run_within(extract(&other, &base, LoraSize::Rank(2), false), 1, Some(1 << 20));
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("a memory budget of"), "{}", outcome.stderr);
}
