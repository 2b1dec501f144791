//! Models with LoRA adapters, against `tests/reference/lora.py`, which is held against PEFT where that is installed.

use std::fs;
use std::path::{Path, PathBuf};

use mergelab_tensor::checkpoint::{Checkpoint, SafeFile};
use mergelab_wire::{ApplyLoraJob, Job};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::support::{Outcome, TOY_LAYER, made_by, refused, run, run_within, save, toy_model};

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
