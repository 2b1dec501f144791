//! `alpha: auto` and `alpha: auto-layer`: against float64 on the same Grams.

use std::fs;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use mergelab_tensor::checkpoint::Checkpoint;
use mergelab_tensor::gram::GramSet;
use mergelab_tensor::gram::index::{FORMAT, GramEntry, GramIndex};
use mergelab_wire::{Alpha, Job, MergeJob, MergeSource, Normalize, Rule, Solver};
use serde_json::Value;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

use crate::support::{Outcome, TOY_LAYER, regmean_job, run, save, source, toy_grams};

const WIDTH: i64 = 32;
const GRID: [f64; 13] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];

fn module(layer: usize) -> String {
    format!("model.layers.{layer}.self_attn.o_proj")
}

/// Numbers of mean 0 and variance 1 that a seed alone decides; libtorch's generator is one for all tests that run at a time.
fn noise(seed: i64, shape: [i64; 2]) -> Tensor {
    let mut state = seed as u64;
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f32 / (1u64 << 53) as f32
    };
    // Three uniform numbers have a variance of a quarter together.
    let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| 2.0 * (uniform() + uniform() + uniform() - 1.5)).collect();
    Tensor::from_slice(&values).reshape(shape)
}

/// A llama of two layers with one projection each, `[rows, WIDTH]`.
fn model(directory: &Path, seed: i64, rows: i64) -> PathBuf {
    fs::create_dir_all(directory).unwrap();
    let random = |place: i64, shape| noise(10 * seed + place, shape) * 0.1;
    let names = [0, 1].map(|layer| format!("{}.weight", module(layer)));
    let tensors = [
        ("model.embed_tokens.weight", random(0, [9, 4])),
        (&*names[0], random(1, [rows, WIDTH])),
        (&*names[1], random(2, [rows, WIDTH])),
    ];
    save(&directory.join("model.safetensors"), &tensors);
    fs::write(directory.join("config.json"), r#"{"model_type": "llama", "vocab_size": 9}"#).unwrap();
    directory.to_path_buf()
}

/// A Gram artifact with a matrix for each of the two layers.
fn grams(directory: &Path, inputs: &[Tensor; 2]) -> PathBuf {
    let mut modules = IndexMap::new();
    fs::create_dir_all(directory).unwrap();
    for (layer, x) in inputs.iter().enumerate() {
        let part = toy_grams(&directory.join(format!("part-{layer}")), x);
        let file = format!("layer-{layer}.safetensors");
        fs::copy(part.join("layer.safetensors"), directory.join(&file)).unwrap();
        let entry = GramSet::open(&part).unwrap().entry(TOY_LAYER).unwrap().clone();
        modules.insert(module(layer), GramEntry { file, ..entry });
    }
    GramIndex { format: FORMAT, modules, without: None }.write(directory).unwrap();
    directory.to_path_buf()
}

/// Inputs of model `index`, which sees features of its own loudly, mixed by the same matrix whatever the tokens.
fn inputs(index: i64, tokens: [i64; 2]) -> [Tensor; 2] {
    tokens.map(|tokens| {
        let mix = noise(77 + index, [WIDTH, WIDTH]) * 0.15 + Tensor::eye(WIDTH, (Kind::Float, Device::Cpu));
        let (x, own) =
            (noise(2000 + 2 * tokens + index, [tokens, WIDTH]), noise(9000 + 2 * tokens + index, [tokens, WIDTH]));
        x.matmul(&mix) + own * 0.3
    })
}

/// Two models, with Grams of few tokens in the first layer and many in the second, and held-out Grams.
fn toys(rows: i64) -> (TempDir, Vec<MergeSource>) {
    let home = tempfile::tempdir().unwrap();
    let at = |name: String| home.path().join(name);
    let models = (0..2)
        .map(|index| {
            let model = model(&at(format!("model-{index}")), index + 1, rows);
            let used = grams(&at(format!("grams-{index}")), &inputs(index, [20, 400]));
            let held_out = grams(&at(format!("held-{index}")), &inputs(index, [900, 901]));
            MergeSource { held_out: Some(held_out), ..source(&format!("m{index}"), &model, Some(&used)) }
        })
        .collect();
    (home, models)
}

fn weight(directory: &Path, layer: usize) -> Tensor {
    let name = format!("{}.weight", module(layer));
    Checkpoint::open(directory).unwrap().load(&name).unwrap().to_kind(Kind::Double)
}

fn gram(directory: &Path, layer: usize) -> Tensor {
    let set = GramSet::open(directory).unwrap();
    set.matrix(set.entry(&module(layer)).unwrap()).unwrap().to_kind(Kind::Double)
}

/// The objective on the held-out Grams of a layer's exact merge.
fn exact(models: &[MergeSource], layer: usize, alpha: f64, normalize: Normalize) -> f64 {
    by_row(models, layer, alpha, normalize).sum(Kind::Double).double_value(&[])
}

/// What each row of the weight has of it, in float64: the pseudo-inverse of the scaled system, cut as
/// docs/numerics.md has it, on top of the average. Weights are 1.
fn by_row(models: &[MergeSource], layer: usize, alpha: f64, normalize: Normalize) -> Tensor {
    let read = |path: &Path| {
        let gram = gram(path, layer);
        let trace = gram.trace().double_value(&[]);
        if normalize == Normalize::Trace { gram / trace } else { gram }
    };
    let weights: Vec<Tensor> = models.iter().map(|model| weight(&model.path, layer)).collect();
    let average = (&weights[0] + &weights[1]) / 2.0;
    let scaled: Vec<Tensor> = models
        .iter()
        .map(|model| read(model.grams.as_ref().unwrap()))
        .map(|gram| &gram * alpha + gram.diagonal(0, 0, 1).diag_embed(0, 0, 1) * (1.0 - alpha))
        .collect();
    let sum = &scaled[0] + &scaled[1];
    let root = sum.diagonal(0, 0, 1).rsqrt();
    let (values, vectors) = (&sum * root.outer(&root)).linalg_eigh("L");
    let cut = 4.0 * (WIDTH as f64).sqrt() * f64::from(f32::EPSILON);
    let inverses = values.reciprocal() * values.gt(cut);
    let rhs: Tensor = scaled.iter().zip(&weights).map(|(gram, weight)| (weight - &average).matmul(gram)).sum();
    let merged = &average + (rhs * &root).matmul(&vectors).matmul(&(vectors.tr() * inverses.unsqueeze(1))) * &root;
    let part = |(model, weight): (&MergeSource, &Tensor)| {
        let away = &merged - weight;
        let held_out = read(model.held_out.as_ref().unwrap());
        (away.matmul(&held_out) * &away).sum_dim_intlist([1i64].as_slice(), false, Kind::Double)
    };
    models.iter().zip(&weights).map(part).sum()
}

fn auto(models: &[MergeSource], alpha: Alpha) -> MergeJob {
    MergeJob { alpha: Some(alpha), ..regmean_job(models.to_vec(), 0.0) }
}

/// `[(α, objective)]` of a curve.
fn points(curve: &Value) -> Vec<(f64, f64)> {
    let points = curve.as_array().unwrap().iter();
    points.map(|point| (point[0].as_f64().unwrap(), point[1].as_f64().unwrap())).collect()
}

/// Holds a curve and what was chosen from it against float64: the values, the grid, and the αs beside its best.
#[track_caller]
fn holds(curve: &Value, chosen: &Value, exact: impl Fn(f64) -> f64) -> f64 {
    let curve = points(curve);
    for (alpha, found) in &curve {
        let expected = exact(*alpha);
        assert!((found - expected).abs() < 1e-4 * expected, "α {alpha}: {found} {expected}");
    }
    let least = |alphas: &[f64]| *alphas.iter().min_by(|a, b| exact(**a).total_cmp(&exact(**b))).unwrap();
    let first = least(&GRID);
    let place = GRID.iter().position(|alpha| alpha.total_cmp(&first).is_eq()).unwrap();
    let near = [place.checked_sub(1), Some(place + 1)].into_iter().flatten().filter_map(|place| GRID.get(place));
    let near = near.map(|other| ((first + other) * 500.0).floor() / 1000.0);
    let mut expected: Vec<f64> = GRID.into_iter().chain(near).collect();
    expected.sort_by(f64::total_cmp);
    let found: Vec<f64> = curve.iter().map(|point| point.0).collect();
    assert_eq!(found, expected);
    let chosen = chosen.as_f64().unwrap();
    let best = least(&found);
    assert!(chosen.total_cmp(&best).is_eq(), "{chosen} {best}");
    chosen
}

fn alphas(outcome: &Outcome) -> Vec<f64> {
    let layers = outcome.json("layers.json");
    layers["layers"].as_array().unwrap().iter().map(|layer| layer["alpha"].as_f64().unwrap()).collect()
}

#[test]
fn auto_layer_takes_for_each_input_the_alpha_that_float64_finds_best_on_held_out_grams() {
    let (_home, models) = toys(24);
    let outcome = run(Job::Merge(auto(&models, Alpha::AutoLayer)), 2).ok();
    let report = outcome.json("alpha.json");
    assert_eq!((&report["mode"], &report["alpha"]), (&"auto-layer".into(), &Value::Null));
    let chosen: Vec<f64> = (0..2)
        .map(|layer| {
            let input = &report["inputs"][layer];
            assert_eq!(input["tensors"][0], format!("{}.weight", module(layer)));
            holds(&input["curve"], &input["alpha"], |alpha| exact(&models, layer, alpha, Normalize::None))
        })
        .collect();
    // Few tokens say little of what lies off the diagonal.
    assert!(chosen[0] < chosen[1] && chosen[0] > 0.0, "{chosen:?}");
    assert_eq!(alphas(&outcome), chosen);
    assert_eq!(outcome.facts()["alpha_min"], chosen[0]);
    // The merge is that with these αs stated, to the byte.
    let stated = run(Job::Merge(auto(&models, Alpha::Gradient(chosen))), 2).ok();
    for layer in 0..2 {
        assert_eq!(weight(&outcome.out, layer), weight(&stated.out, layer));
    }
}

#[test]
fn auto_takes_for_all_layers_the_alpha_with_the_least_sum() {
    let (_home, models) = toys(24);
    for normalize in [Normalize::None, Normalize::Trace] {
        let job = MergeJob { normalize, ..auto(&models, Alpha::Auto) };
        let outcome = run(Job::Merge(job), 2).ok();
        let report = outcome.json("alpha.json");
        let sum = |alpha: f64| (0..2).map(|layer| exact(&models, layer, alpha, normalize)).sum();
        let chosen = holds(&report["curve"], &report["alpha"], sum);
        assert_eq!(alphas(&outcome), [chosen, chosen]);
        assert_eq!(outcome.facts()["alpha"], chosen);
        assert_eq!(outcome.facts()["alpha_curve"], report["curve"]);
        let parts = [0, 1].map(|layer| points(&report["inputs"][layer]["curve"]));
        for (at, (_, total)) in points(&report["curve"]).into_iter().enumerate() {
            assert!((parts[0][at].1 + parts[1][at].1 - total).abs() < 1e-9 * total);
        }
    }
}

#[test]
fn a_tensor_of_many_rows_is_estimated_from_some_that_lie_evenly() {
    let (_home, models) = toys(1200);
    let outcome = run(Job::Merge(auto(&models, Alpha::AutoLayer)), 2).ok();
    let report = outcome.json("alpha.json");
    assert_eq!(report["rows"], 256);
    // The middles of 256 equal parts.
    let places = Tensor::from_slice(&(0..256).map(|part| (2 * part + 1) * 1200 / 512).collect::<Vec<i64>>());
    for layer in 0..2 {
        for (alpha, found) in points(&report["inputs"][layer]["curve"]) {
            let rows = by_row(&models, layer, alpha, Normalize::None).index_select(0, &places);
            let expected = rows.sum(Kind::Double).double_value(&[]) * 1200.0 / 256.0;
            assert!((found / expected - 1.0).abs() < 1e-4, "layer {layer}, α {alpha}: {found} {expected}");
        }
    }
}

#[test]
fn rules_with_an_alpha_of_their_own_keep_it_and_do_not_count() {
    let (_home, models) = toys(24);
    let rule = |pattern: &str| Rule { pattern: pattern.to_owned(), action: None, alpha: Some(0.25) };
    let with = |rules| run(Job::Merge(MergeJob { rules, ..auto(&models, Alpha::Auto) }), 1).ok();
    let outcome = with(vec![rule("*layers.0*")]);
    let report = outcome.json("alpha.json");
    assert_eq!(report["inputs"].as_array().unwrap().len(), 1);
    let chosen = holds(&report["curve"], &report["alpha"], |alpha| exact(&models, 1, alpha, Normalize::None));
    assert_eq!(alphas(&outcome), [0.25, chosen]);
    // Where all have one there is nothing to choose.
    let outcome = with(vec![rule("*")]);
    assert!(!outcome.out.join("alpha.json").exists());
    assert_eq!(alphas(&outcome), [0.25, 0.25]);
}

#[test]
fn the_choice_and_the_merge_are_the_same_bytes_whatever_the_threads() {
    let (_home, models) = toys(300);
    for alpha in [Alpha::Auto, Alpha::AutoLayer] {
        let with = |threads| run(Job::Merge(auto(&models, alpha.clone())), threads).ok().files();
        assert_eq!(with(1), with(3));
    }
}

#[test]
fn alpha_is_chosen_for_plain_solvers_too() {
    let (_home, models) = toys(24);
    let chosen = |solver| {
        let job = MergeJob { solver, rules: vec![one_off()], ..auto(&models, Alpha::Auto) };
        points(&run(Job::Merge(job), 1).ok().json("alpha.json")["curve"])
    };
    let (scaled, plain) = (chosen(Solver::Auto), chosen(Solver::Pinv));
    for ((alpha, a), (other, b)) in scaled.into_iter().zip(plain) {
        assert!(alpha.total_cmp(&other).is_eq(), "{alpha} {other}");
        assert!((a / b - 1.0).abs() < 1e-3, "α {alpha}: {a} {b}");
    }
}

/// Leaves the layer of few tokens out, whose plain system has no single solution at α = 1.
fn one_off() -> Rule {
    Rule { pattern: "*layers.0*".to_owned(), action: None, alpha: Some(0.1) }
}

#[test]
fn without_held_out_grams_there_is_nothing_to_choose_on() {
    let (_home, mut models) = toys(4);
    models[1].held_out = None;
    for alpha in [Alpha::Auto, Alpha::AutoLayer] {
        let outcome = run(Job::Merge(auto(&models, alpha)), 1);
        assert_eq!(outcome.code, 3);
        assert!(outcome.stderr.contains("α is chosen on held-out Grams, and model m1 has none"), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("`held_out: [NAME, …]`"), "{}", outcome.stderr);
        assert_eq!(outcome.files(), []);
    }
}
