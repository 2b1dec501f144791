//! Gram matrices that torch pickled, as people publish them (`tests/reference/grams.py`), and artifacts that were exported.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use mergelab_tensor::checkpoint::SafeFile;
use mergelab_tensor::gram::GramSet;
use mergelab_wire::{ExportGramsJob, GramFiles, ImportGramsJob, Job, MergeSource};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::support::{
    Outcome, TOY_LAYER, gram_job, made_by, python, reference_program, references, refused, regmean_job, run, save,
    source, toy_grams, toy_model,
};

fn made() -> Option<&'static Path> {
    static MADE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let texts = [
        include_str!("../reference/grams.py"),
        include_str!("../reference/models.py"),
        include_str!("../reference/regmean.py"),
    ];
    MADE.get_or_init(|| made_by("grams.py", &texts)).as_deref()
}

fn import(from: GramFiles) -> Outcome {
    run(Job::ImportGrams(ImportGramsJob { from }), 2)
}

fn pickle(path: &Path) -> Outcome {
    import(GramFiles::Pickle(path.to_path_buf()))
}

fn directory(path: &Path) -> Outcome {
    import(GramFiles::Directory(path.to_path_buf()))
}

fn export(grams: &Path) -> Outcome {
    run(Job::ExportGrams(ExportGramsJob { grams: grams.to_path_buf() }), 2).ok()
}

fn set(outcome: &Outcome) -> GramSet {
    GramSet::open(&outcome.out).unwrap()
}

fn gap(found: &Tensor, expected: &Tensor) -> f64 {
    let expected = expected.to_kind(Kind::Double);
    ((found.to_kind(Kind::Double) - &expected).norm() / expected.norm()).double_value(&[])
}

/// How far the matrices of two artifacts of the same modules are apart at most.
fn farthest(found: &GramSet, expected: &GramSet) -> f64 {
    let mut names = [found, expected].map(|set| set.modules().map(str::to_owned).collect::<Vec<_>>());
    for names in &mut names {
        names.sort();
    }
    assert_eq!(names[0], names[1]);
    let matrix = |set: &GramSet, name: &str| set.matrix(set.entry(name).unwrap()).unwrap();
    names[0].iter().map(|name| gap(&matrix(found, name), &matrix(expected, name))).fold(0.0, f64::max)
}

/// RegMean of the two models with these Grams.
fn merged(made: &Path, grams: [&Path; 2]) -> Outcome {
    let models = ["a", "b"].into_iter().zip(grams);
    let models: Vec<MergeSource> =
        models.map(|(name, grams)| source(name, &made.join(name).join("model"), Some(grams))).collect();
    run(Job::Merge(regmean_job(models, 0.3)), 2)
}

fn weights(outcome: Outcome) -> Vec<u8> {
    fs::read(outcome.ok().out.join("model.safetensors")).unwrap()
}

#[test]
fn what_people_pickled_merges_as_what_was_captured_here() {
    let (Some(made), Some(references)) = (made(), references()) else { return };
    let native = ["a", "b"].map(|name| {
        let job = gram_job(&made.join(name).join("model"), &references.join("rows.jsonl"));
        run(Job::Gram(job), 2).ok()
    });
    let imported = ["a", "b"].map(|name| pickle(&made.join(name).join("plain.pkl")).ok());
    for (native, imported) in native.iter().zip(&imported) {
        assert!(farthest(&set(imported), &set(native)) < 1e-5);
        // Of the modules of a layer that have a matrix each, those that read one input share it.
        let facts = imported.facts();
        assert_eq!((&facts["modules"], &facts["gram_matrices"]), (&json!(15), &json!(9)));
        assert!(facts["asymmetry_max"].as_f64().unwrap() < 1e-5, "{facts:?}");
        assert!(imported.json("index.json")["modules"]["lm_head"]["n"].is_null());
    }
    let [here, there] = [&native, &imported].map(|both| merged(made, [&both[0].out, &both[1].out]).ok());
    let [here, there] = [here, there].map(|outcome| SafeFile::open(&outcome.out.join("model.safetensors")).unwrap());
    for name in here.tensors().keys() {
        let gap = gap(&there.load(name).unwrap(), &here.load(name).unwrap());
        assert!(gap < 1e-5, "{name}: {gap:e}");
    }

    // The very matrices of an artifact, pickled: then it is the same merge to the bit.
    let home = tempfile::tempdir().unwrap();
    let python = python().unwrap();
    let again = native.iter().enumerate().map(|(index, native)| {
        let path = home.path().join(format!("{index}.pkl"));
        reference_program(&python, "grams.py", &["repack", native.out.to_str().unwrap(), path.to_str().unwrap()]);
        pickle(&path).ok()
    });
    let again: Vec<Outcome> = again.collect();
    let expected = weights(merged(made, [&native[0].out, &native[1].out]));
    assert!(weights(merged(made, [&again[0].out, &again[1].out])) == expected);
}

#[test]
fn every_form_of_a_pickle_gives_the_same_artifact() {
    let Some(made) = made() else { return };
    let expected = pickle(&made.join("a/plain.pkl")).ok();
    for name in ["three", "zip", "old", "shared"] {
        let found = pickle(&made.join(format!("a/{name}.pkl"))).ok();
        assert!(found.files() == expected.files(), "{name}");
    }
    let one = run(Job::ImportGrams(ImportGramsJob { from: GramFiles::Pickle(made.join("a/plain.pkl")) }), 1).ok();
    assert!(one.files() == expected.files(), "with one worker");
    for (name, far) in [("double", 1e-7), ("half", 1e-3), ("bfloat", 1e-2)] {
        let found = pickle(&made.join(format!("a/{name}.pkl"))).ok();
        let gap = farthest(&set(&found), &set(&expected));
        assert!(gap < far, "{name}: {gap:e}");
    }
}

#[test]
fn names_with_wrappers_are_those_of_the_model_and_others_are_refused() {
    let Some(made) = made() else { return };
    let [a, b] = ["a", "b"].map(|name| pickle(&made.join(name).join("plain.pkl")).ok());
    let wrapped = pickle(&made.join("b/wrapped.pkl")).ok();
    assert!(set(&wrapped).modules().all(|name| name.starts_with("module._orig_mod.") && name.ends_with(".weight")));
    let expected = weights(merged(made, [&a.out, &b.out]));
    assert!(weights(merged(made, [&a.out, &wrapped.out])) == expected);

    let renamed = |from: &str, to: &str| {
        let copy = tempfile::tempdir().unwrap();
        for (name, bytes) in b.files() {
            let text = String::from_utf8_lossy(&bytes).replace(from, to);
            fs::write(copy.path().join(&name), if name == "index.json" { text.into_bytes() } else { bytes }).unwrap();
        }
        copy
    };
    let foreign = renamed("\"model.layers.1.mlp.down_proj\": {", "\"transformer.h.1.mlp\": {");
    let outcome = merged(made, [&a.out, foreign.path()]);
    refused(&outcome, &["no linear module for the Gram matrices of \"transformer.h.1.mlp\"", "rename the keys"]);
    let norm = renamed("\"lm_head\": {", "\"module.model.norm\": {");
    refused(&merged(made, [&a.out, norm.path()]), &["no linear module for the Gram matrices of \"module.model.norm\""]);
    let two = renamed("\"model.layers.1.mlp.down_proj\": {", "\"_orig_mod.lm_head.weight\": {");
    let two_file =
        fs::read_to_string(two.path().join("index.json")).unwrap().replace("\"lm_head\": {", "\"module.lm_head\": {");
    fs::write(two.path().join("index.json"), two_file).unwrap();
    refused(&merged(made, [&a.out, two.path()]), &["both mean the module lm_head"]);
}

#[test]
fn what_is_no_gram_matrix_is_refused_and_nothing_is_run() {
    let Some(made) = made() else { return };
    for (name, said) in [
        ("system", "it asks for posix.system, which no dictionary of tensors needs"),
        ("numpy", "it asks for numpy"),
        ("class", "it asks for torch.nn.modules.linear.Linear"),
        ("list", "it holds no dictionary of tensors"),
        ("nested", "\"state\" in it is no tensor"),
        ("empty", "there are no matrices in it"),
        ("nan", "m: G[1, 2] is NaN"),
        ("infinite", "m: G[0, 0] is inf"),
        ("skewed", "m: it is not symmetric: G[0, 3] is 5e-1, and G[3, 0] is 0e0"),
        ("negative", "m: G[2, 2] is -1, and a mean of squares is not negative"),
        ("oblong", "m: it is not square: [4, 5]"),
        ("vector", "m: it is not square: [4]"),
        ("integers", "m: its numbers are I64"),
        ("expanded", "m: it is a view that repeats its elements"),
        ("overlapping", "its matrices overlap in the file"),
        ("number-as-name", "a key of its dictionary is no text"),
        ("protocol-2", "it asks for _codecs.encode"),
        ("cut", "truncated"),
        ("zero", "it is empty"),
    ] {
        let path = made.join("hostile").join(format!("{name}.pkl"));
        let outcome = pickle(&path);
        refused(&outcome, &[said, path.to_str().unwrap()]);
        assert!(outcome.files().iter().all(|(name, _)| name != "index.json"), "{name}");
    }
    assert!(!Path::new("ran").exists() && !made.join("hostile/ran").exists());
}

#[test]
fn memory_does_not_grow_with_the_number_of_matrices() {
    let Some(made) = made() else { return };
    let peak = |name: &str| pickle(&made.join(name)).ok().facts()["peak_memory"].as_u64().unwrap();
    let (small, large) = (peak("small.pkl"), peak("large.pkl"));
    // Thirty matrices more have 120 MB.
    assert!(large < small + (24 << 20), "{small} for 2 matrices, {large} for 32");
}

/// Two toy models with Grams of random activations.
fn toys(home: &Path) -> Vec<MergeSource> {
    let model = |index: i64| {
        let path = toy_model(&home.join(format!("model-{index}")), index + 1, 24, 700, 9);
        let x = Tensor::randn([900, 700], (Kind::Float, tch::Device::Cpu));
        source(&format!("m{index}"), &path, Some(&toy_grams(&home.join(format!("grams-{index}")), &x)))
    };
    vec![model(0), model(1)]
}

#[test]
fn what_was_exported_and_imported_again_merges_to_the_same_bytes() {
    let home = tempfile::tempdir().unwrap();
    let models = toys(home.path());
    let expected = weights(run(Job::Merge(regmean_job(models.clone(), 0.3)), 2));
    let whole: Vec<Outcome> = models.iter().map(|model| export(model.grams.as_ref().unwrap())).collect();
    let file = SafeFile::open(&whole[0].out.join("layer.safetensors")).unwrap();
    assert_eq!(file.load(TOY_LAYER).unwrap(), {
        let set = GramSet::open(models[0].grams.as_ref().unwrap()).unwrap();
        set.matrix(set.entry(TOY_LAYER).unwrap()).unwrap()
    });
    assert_eq!(whole[0].json("index.json")["matrices"][TOY_LAYER]["n"], 900);
    let back: Vec<Outcome> = whole.iter().map(|whole| directory(&whole.out).ok()).collect();
    assert_eq!(back[0].json("index.json")["modules"][TOY_LAYER]["n"], 900);
    let again: Vec<MergeSource> = models
        .iter()
        .zip(&back)
        .map(|(model, back)| MergeSource { grams: Some(back.out.clone()), ..model.clone() })
        .collect();
    assert!(weights(run(Job::Merge(regmean_job(again, 0.3)), 2)) == expected);
}

#[test]
fn an_artifact_is_taken_over_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let grams = toys(home.path())[0].grams.clone().unwrap();
    fs::write(grams.join("README.md"), "# Mine\n").unwrap();
    let taken = directory(&grams).ok();
    let read = |name: &str| (name.to_owned(), fs::read(grams.join(name)).unwrap());
    assert!(taken.files() == [read("index.json"), read("layer.safetensors")]);
}

#[test]
fn a_directory_that_is_no_artifact_is_refused() {
    let home = tempfile::tempdir().unwrap();
    refused(&directory(home.path()), &["cannot read", "index.json"]);
    let write = |index: &Value| fs::write(home.path().join("index.json"), index.to_string()).unwrap();
    save(&home.path().join("m.safetensors"), &[("m", Tensor::eye(3, (Kind::Float, tch::Device::Cpu)))]);
    let entry = |file: &str, width: u64| json!({ "file": file, "tensor": "m", "n": 1, "width": width });
    let cases = [
        (json!({ "format": 2, "matrices": {} }), "Gram format 2, this program reads 1"),
        (json!({ "format": 1 }), "missing field `matrices`"),
        (json!({ "format": 1, "matrices": {} }), "there are no matrices in it"),
        (json!({ "format": 1, "modules": {} }), "there are no matrices in it"),
        (
            json!({ "format": 1, "matrices": { "m": entry("../m.safetensors", 3) } }),
            "is no safetensors file beside the index",
        ),
        (
            json!({ "format": 1, "matrices": { "m": entry("m.safetensors", 4) } }),
            "width 4 in index.json, 3 in the file",
        ),
        (json!({ "format": 1, "matrices": { "m": entry("n.safetensors", 3) } }), "n.safetensors"),
    ];
    for (index, said) in cases {
        write(&index);
        refused(&directory(home.path()), &[said]);
    }
    let tiled = |width: u64, tile: u64| json!({ "format": 1, "modules": { "m": { "file": "m.safetensors", "tensor": "m", "n": 1, "width": width, "tile": tile } } });
    for (width, tile) in [(3, 0), (0, 3), (u64::MAX / 2, 1), (3, 3)] {
        write(&tiled(width, tile));
        refused(&directory(home.path()), &["index.json: m: "]);
    }
    for (value, said) in [(f64::NAN, "G[0, 1] is NaN"), (7.0, "it is not symmetric at G[0, 1]")] {
        let tile = Tensor::eye(3, (Kind::Float, tch::Device::Cpu));
        let _ = tile.get(0).get(1).fill_(value);
        let path = home.path().join("m.safetensors");
        fs::remove_file(&path).unwrap();
        save(&path, &[("m", tile.view([1, 3, 3]))]);
        write(&tiled(3, 3));
        refused(&directory(home.path()), &[said]);
    }
}
