//! `engine: transformers` (`gram-transformers/`) on token ids from here: Grams of families without a native forward pass against
//! hooks of a reference program (`tests/reference/engine.py`), and merges with them against float64.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use mergelab_tensor::checkpoint::{Checkpoint, SafeFile};
use mergelab_tensor::gram::GramSet;
use mergelab_wire::{GramJob, Job, MergeJob, MergeSource, Rule, RuleUse};
use serde_json::{Value, json};
use tch::{Kind, Tensor};
use tempfile::TempDir;

use crate::support::{gram_job, made_by, merge_job, python, reference_program, regmean_job, run, source};

const FAMILIES: [&str; 5] = ["gemma2", "gemma3", "phi3", "gpt2", "bert"];

fn engine_references() -> Option<&'static Path> {
    static MADE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let texts = [include_str!("../reference/engine.py"), include_str!("../reference/models.py")];
    MADE.get_or_init(|| made_by("engine.py", &texts)).as_deref()
}

/// What the engine made of the references: Gram artifacts by `family/model/kind`, and `llama`. Both of its programs ran, the
/// second in one process for all.
fn captured() -> Option<(&'static Path, &'static Path)> {
    static MADE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let references = engine_references()?;
    let make = || {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("captured-by-transformers");
        let _ = fs::remove_dir_all(&home);
        let (rows, mut files) = (references.join("rows.jsonl"), Vec::new());
        let mut ask = |name: &str, model: &str, skip_first: usize| {
            let job = GramJob { skip_first, ..gram_job(&references.join(model).join("model"), &rows) };
            let out = home.join(name);
            fs::create_dir_all(&out).unwrap();
            let at = |extension: &str| out.with_extension(extension);
            let tokens = run(Job::Tokens(job.clone()), 1).ok();
            fs::copy(tokens.out.join("sequences.jsonl"), at("jsonl")).unwrap();
            let value = json!({
                "events": at("events"), "out": out, "model": job.model,
                "sequences": at("jsonl"), "exclude": [], "dtype": null, "device": "cpu", "threads": 1,
            });
            fs::write(at("json"), value.to_string()).unwrap();
            files.push(at("json"));
        };
        for family in FAMILIES {
            for (name, which, skip_first) in [("a/all", "a", 0), ("a/later", "a", 3), ("b/all", "b", 0)] {
                ask(&format!("{family}/{name}"), &format!("{family}/{which}"), skip_first);
            }
        }
        ask("llama", "llama", 0);
        let program = "import sys, capture; sys.exit(any([capture.main(['', job]) for job in sys.argv[1:]]))";
        let output = Command::new(python()?)
            .args(["-c", program])
            .args(&files)
            .env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("../../gram-transformers"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(home)
    };
    Some((references, MADE.get_or_init(make).as_deref()?))
}

/// The largest `|found - expected|` beside `√(g_ii g_jj)`, over all modules of a kind (`all`, `later`), which must be the same in both.
fn farthest(grams: &Path, reference: &SafeFile, kind: &str) -> f64 {
    let set = GramSet::open(grams).unwrap();
    let mut modules: Vec<&str> = set.modules().collect();
    let prefix = format!("{kind}:");
    let mut expected: Vec<&str> = reference.tensors().keys().filter_map(|name| name.strip_prefix(&prefix)).collect();
    modules.sort_unstable();
    expected.sort_unstable();
    assert_eq!(modules, expected);
    modules
        .iter()
        .map(|module| {
            let found = set.matrix(set.entry(module).unwrap()).unwrap();
            gap(&found, &reference.load(&format!("{prefix}{module}")).unwrap())
        })
        .fold(0.0, f64::max)
}

fn gap(found: &Tensor, expected: &Tensor) -> f64 {
    let expected = expected.to_kind(Kind::Double);
    let scale = expected.diagonal(0, 0, 1).sqrt();
    ((found.to_kind(Kind::Double) - &expected).abs() / scale.outer(&scale)).max().double_value(&[])
}

fn index(grams: &Path) -> Value {
    serde_json::from_slice(&fs::read(grams.join("index.json")).unwrap()).unwrap()
}

#[test]
fn grams_of_families_without_a_native_pass_agree_with_hooks_to_1e_5_whichever_tokens_count() {
    let Some((references, captured)) = captured() else { return };
    for family in FAMILIES {
        let reference = SafeFile::open(&references.join(family).join("a/reference.safetensors")).unwrap();
        for kind in ["all", "later"] {
            let out = captured.join(family).join("a").join(kind);
            let gap = farthest(&out, &reference, kind);
            assert!(gap < 1e-5, "{family}, {kind} tokens: {gap:e}");
            assert_eq!(index(&out)["without"], json!({}), "{family}");
        }
    }
    // Fused projections have one Gram, those that read one input share it, and only Conv1D is transposed.
    let entries = |family: &str| index(&captured.join(family).join("a/all"))["modules"].as_object().unwrap().clone();
    let phi = entries("phi3");
    assert_eq!(phi["model.layers.1.self_attn.qkv_proj"]["tensor"], "model.layers.1.self_attn.qkv_proj");
    assert_eq!(phi["model.layers.1.mlp.gate_up_proj"]["width"], 48);
    let gemma = entries("gemma3");
    assert_eq!(gemma["model.layers.0.self_attn.v_proj"], gemma["model.layers.0.self_attn.q_proj"]);
    assert_ne!(gemma["model.layers.0.self_attn.o_proj"], gemma["model.layers.0.self_attn.q_proj"]);
    let transposed = |family: &str| entries(family).values().filter(|entry| entry["transposed"] == true).count();
    assert_eq!(FAMILIES.map(transposed), [0, 0, 0, 8, 0]);
}

#[test]
fn merges_of_families_without_a_native_pass_agree_with_float64_and_load_in_transformers() {
    let Some((references, captured)) = captured() else { return };
    let python = python().unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut merged = Vec::new();
    for family in FAMILIES {
        let sources = sources(references, captured, family);
        let reference = home.path().join("reference.safetensors");
        let part =
            |model: &MergeSource| format!("{}:{}:1", model.path.display(), model.grams.as_ref().unwrap().display());
        let arguments = ["0.1", reference.to_str().unwrap(), &part(&sources[0]), &part(&sources[1])];
        reference_program(&python, "regmean.py", &arguments);
        let file = SafeFile::open(&reference).unwrap();
        let average = run(Job::Merge(merge_job("average", sources.clone())), 2).ok();
        let regmean = run(Job::Merge(regmean_job(sources, 0.1)), 2).ok();
        let (means, solved) = (Checkpoint::open(&average.out).unwrap(), Checkpoint::open(&regmean.out).unwrap());
        let modules = index(&captured.join(family).join("a/all"))["modules"].as_object().unwrap().clone();
        for module in modules.keys() {
            let name = format!("{module}.weight");
            let of = |kind: &str| file.load(&format!("{kind}:{name}")).unwrap();
            let (expected, mean) = (of("merged"), of("average"));
            // Beside the correction, which any weight is large against.
            let correction = (&expected - &mean).norm().double_value(&[]);
            let far = |found: &Checkpoint, expected: &Tensor| {
                (found.load(&name).unwrap().to_kind(Kind::Double) - expected).norm().double_value(&[]) / correction
            };
            assert!(far(&solved, &expected) < 1e-5, "{family}: {name}: {:e}", far(&solved, &expected));
            assert!(far(&means, &mean) < 1e-5, "{family}: {name}: {:e}", far(&means, &mean));
        }
        for name in means.names().filter(|name| !modules.contains_key(name.strip_suffix(".weight").unwrap_or(name))) {
            assert_eq!(means.load(name).unwrap(), solved.load(name).unwrap(), "{family}: {name} is no linear layer");
        }
        for outcome in [average, regmean] {
            let kept = home.path().join(format!("merged-{}", merged.len()));
            fs::create_dir(&kept).unwrap();
            for (name, bytes) in outcome.files() {
                fs::write(kept.join(name), bytes).unwrap();
            }
            merged.push(kept.display().to_string());
        }
    }
    let merged: Vec<&str> = merged.iter().map(String::as_str).collect();
    reference_program(&python, "loads.py", &merged);
}

/// The two models of a family with their Grams.
fn sources(references: &Path, captured: &Path, family: &str) -> Vec<MergeSource> {
    let of = |which: &str| {
        let (model, grams) = (references.join(family).join(which), captured.join(family).join(which));
        source(which, &model.join("model"), Some(&grams.join("all")))
    };
    vec![of("a"), of("b")]
}

#[test]
fn both_engines_give_a_llama_the_same_modules_and_grams_to_1e_5() {
    let Some((references, captured)) = captured() else { return };
    let job = gram_job(&references.join("llama/model"), &references.join("rows.jsonl"));
    let native = run(Job::Gram(job), 2).ok();
    let (native, other) = (GramSet::open(&native.out).unwrap(), GramSet::open(&captured.join("llama")).unwrap());
    let names = |set: &GramSet| {
        let mut names: Vec<String> = set.modules().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(names(&native), names(&other));
    assert_eq!(names(&native).len(), 15);
    for module in native.modules() {
        let (one, two) = (native.entry(module).unwrap(), other.entry(module).unwrap());
        assert_eq!((one.n, one.width, one.tile, one.transposed), (two.n, two.width, two.tile, two.transposed));
        let gap = gap(&other.matrix(two).unwrap(), &native.matrix(one).unwrap());
        assert!(gap < 1e-5, "{module}: {gap:e}");
    }
}

/// A copy of a model's Grams in which the index is changed.
fn changed(grams: &Path, change: impl FnOnce(&mut Value)) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(grams).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let mut index = index(grams);
    change(&mut index);
    fs::write(copy.path().join("index.json"), index.to_string()).unwrap();
    copy
}

#[test]
fn a_linear_layer_that_has_no_gram_is_an_error_with_the_reason_and_never_an_average() {
    let Some((references, captured)) = captured() else { return };
    let name = "transformer.h.1.mlp.c_fc";
    let mut sources = sources(references, captured, "gpt2");
    let grams = changed(&captured.join("gpt2/b/all"), |index| {
        index["modules"].as_object_mut().unwrap().remove(name);
        index["without"][format!("{name}.weight")] = json!("it never ran");
    });
    sources[1].grams = Some(grams.path().to_path_buf());
    let job = regmean_job(sources, 0.1);
    let outcome = run(Job::Merge(job.clone()), 1);
    assert_eq!(outcome.code, 3);
    assert!(outcome.stderr.contains("transformer.h.1.mlp.c_fc.weight is a linear layer"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("have none for it: it never ran"), "{}", outcome.stderr);
    let rule = Rule { pattern: format!("{name}.*"), action: Some(RuleUse::Average), alpha: None };
    run(Job::Merge(MergeJob { rules: vec![rule], ..job }), 1).ok();
}

#[test]
fn grams_that_do_not_agree_on_how_a_square_weight_is_stored_are_refused() {
    let Some((references, captured)) = captured() else { return };
    let mut sources = sources(references, captured, "gpt2");
    let grams = changed(&captured.join("gpt2/b/all"), |index| {
        index["modules"]["transformer.h.0.attn.c_proj"]["transposed"] = json!(false);
    });
    sources[1].grams = Some(grams.path().to_path_buf());
    let outcome = run(Job::Merge(regmean_job(sources, 0.1)), 1);
    assert_eq!(outcome.code, 3);
    let expected = "the weight is [in, out] for the Gram of a, and [out, in] for that of b";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
}
