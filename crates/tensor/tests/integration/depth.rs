//! Weights of models that are lists over depth: every method against its formula in float64.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use mergelab_tensor::checkpoint::Checkpoint;
use mergelab_tensor::gram::GramSet;
use mergelab_tensor::gram::index::{FORMAT, GramEntry, GramIndex};
use mergelab_wire::{Alpha, Job, MergeJob, MergeSource, Weight};
use serde_json::json;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

use crate::support::{Outcome, TOY_LAYER, merge_job, regmean_job, run, save, source, toy_grams};

const WIDTH: i64 = 24;
const LAYERS: usize = 3;

/// Linear layers; the first two of each decoder layer share their input.
fn linear() -> Vec<String> {
    let mut names: Vec<String> = (0..LAYERS)
        .flat_map(|layer| ["q_proj", "k_proj", "o_proj"].map(|part| format!("model.layers.{layer}.self_attn.{part}")))
        .collect();
    names.push("lm_head".to_owned());
    names
}

fn random(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 0.1
}

pub(crate) fn model(directory: &Path) -> PathBuf {
    fs::create_dir_all(directory).unwrap();
    let mut tensors: Vec<(String, Tensor)> =
        linear().into_iter().map(|module| (format!("{module}.weight"), random(&[10, WIDTH]))).collect();
    tensors.extend((0..LAYERS).map(|layer| (format!("model.layers.{layer}.input_layernorm.weight"), random(&[WIDTH]))));
    tensors.push(("model.embed_tokens.weight".to_owned(), random(&[10, WIDTH])));
    tensors.push(("model.norm.weight".to_owned(), random(&[WIDTH])));
    let tensors: Vec<(&str, Tensor)> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shallow_clone())).collect();
    save(&directory.join("model.safetensors"), &tensors);
    fs::write(directory.join("config.json"), r#"{"model_type": "llama", "vocab_size": 10}"#).unwrap();
    directory.to_path_buf()
}

/// A Gram for every linear layer, of features at scales of their own.
fn grams(directory: &Path) -> PathBuf {
    let mut modules = IndexMap::new();
    fs::create_dir_all(directory).unwrap();
    for module in linear() {
        let shared = module.replace("k_proj", "q_proj");
        let file = format!("{shared}.safetensors");
        if shared == module {
            let mix = random(&[WIDTH, WIDTH]) * 4.0 + Tensor::eye(WIDTH, (Kind::Float, Device::Cpu));
            let part = toy_grams(&directory.join(&shared), &(random(&[300, WIDTH]) * 10.0).matmul(&mix));
            fs::copy(part.join("layer.safetensors"), directory.join(&file)).unwrap();
        }
        let entry = GramSet::open(&directory.join(&shared)).unwrap().entry(TOY_LAYER).unwrap().clone();
        modules.insert(module, GramEntry { file, ..entry });
    }
    GramIndex { format: FORMAT, modules, without: None }.write(directory).unwrap();
    directory.to_path_buf()
}

/// Three models, the weights of two of which are lists.
fn toys() -> (TempDir, PathBuf, Vec<MergeSource>) {
    tch::manual_seed(3);
    let home = tempfile::tempdir().unwrap();
    let at = |name: String| home.path().join(name);
    let weights = [vec![0.25, 0.75], vec![2.0, 1.0, 0.5], vec![1.5]];
    let models = weights.into_iter().enumerate().map(|(index, weight)| {
        let grams = [format!("grams-{index}"), format!("held-{index}")].map(|name| grams(&at(name)));
        let model = model(&at(format!("model-{index}")));
        let held_out = Some(grams[1].clone());
        MergeSource { weight: weight.into(), held_out, ..source(&format!("m{index}"), &model, Some(&grams[0])) }
    });
    let models = models.collect();
    let base = model(&at("base".to_owned()));
    (home, base, models)
}

/// The three weights at a tensor, written out.
fn weights(name: &str) -> [f64; 3] {
    let layer = name.strip_prefix("model.layers.").map(|rest| &rest[..1]);
    match (layer, name) {
        (Some("0"), _) | (None, "model.embed_tokens.weight" | "model.norm.weight" | "lm_head.weight") => {
            [0.25, 2.0, 1.5]
        }
        (Some("1"), _) => [0.5, 1.0, 1.5],
        (Some("2"), _) => [0.75, 0.5, 1.5],
        _ => panic!("{name}"),
    }
}

fn load(directory: &Path) -> BTreeMap<String, Tensor> {
    let checkpoint = Checkpoint::open(directory).unwrap();
    checkpoint.names().map(|name| (name.to_owned(), checkpoint.load(name).unwrap().to_kind(Kind::Double))).collect()
}

/// Holds every tensor of a merge against what `formula` makes of its name, the models' tensors and their weights.
#[track_caller]
fn agrees(outcome: &Outcome, models: &[MergeSource], formula: impl Fn(&str, &[Tensor], [f64; 3]) -> Tensor) {
    let sources: Vec<_> = models.iter().map(|model| load(&model.path)).collect();
    let found = load(&outcome.out);
    assert_eq!(found.len(), 3 * LAYERS + 1 + LAYERS + 2);
    for (name, found) in &found {
        let own: Vec<Tensor> = sources.iter().map(|source| source[name].shallow_clone()).collect();
        let expected = formula(name, &own, weights(name));
        let gap = ((found - &expected).norm() / expected.norm()).double_value(&[]);
        assert!(gap < 1e-6, "{name} is off by {gap:e}");
    }
}

fn mean(own: &[Tensor], weights: [f64; 3]) -> Tensor {
    let sum: Tensor = own.iter().zip(weights).map(|(tensor, weight)| tensor * weight).sum();
    sum / weights.iter().sum::<f64>()
}

/// The solution of RegMean's plain system at a linear layer; the mean elsewhere.
fn regmean(models: &[MergeSource], alpha: f64, name: &str, own: &[Tensor], weights: [f64; 3]) -> Tensor {
    let module = name.strip_suffix(".weight").unwrap();
    if !linear().iter().any(|linear| linear == module) {
        return mean(own, weights);
    }
    let part = |(model, weight): (&MergeSource, f64)| {
        let set = GramSet::open(model.grams.as_ref().unwrap()).unwrap();
        let gram = set.matrix(set.entry(module).unwrap()).unwrap().to_kind(Kind::Double);
        let diagonal = gram.diagonal(0, 0, 1).diag_embed(0, 0, 1);
        (gram * alpha + diagonal * (1.0 - alpha)) * weight
    };
    let parts: Vec<Tensor> = models.iter().zip(weights).map(part).collect();
    let rhs: Tensor = parts.iter().zip(own).map(|(part, own)| part.matmul(&own.tr())).sum();
    Tensor::linalg_solve(&parts.iter().sum::<Tensor>(), &rhs, true).tr()
}

#[test]
fn an_average_has_the_weights_of_each_tensors_depth() {
    let (_home, _, models) = toys();
    let outcome = run(Job::Merge(merge_job("average", models.clone())), 2).ok();
    agrees(&outcome, &models, |_, own, weights| mean(own, weights));
    assert_eq!(outcome.json("merge.json")["models"][1]["weight"], json!([2.0, 1.0, 0.5]));
    assert_eq!(outcome.json("merge.json")["models"][2]["weight"], json!(1.5));
    let params = [("normalize".to_owned(), json!(false))].into_iter().collect();
    let outcome = run(Job::Merge(MergeJob { params, ..merge_job("average", models.clone()) }), 2).ok();
    agrees(&outcome, &models, |_, own, weights| mean(own, weights) * weights.iter().sum::<f64>());
}

#[test]
fn regmean_solves_the_system_with_the_weights_of_its_layer_and_reports_its_objective() {
    let (_home, _, models) = toys();
    for alpha in [0.1, 0.9] {
        let outcome = run(Job::Merge(regmean_job(models.clone(), alpha)), 2).ok();
        agrees(&outcome, &models, |name, own, weights| regmean(&models, alpha, name, own, weights));
        let layers = outcome.json("layers.json");
        for figures in layers["layers"].as_array().unwrap() {
            let name = figures["tensor"].as_str().unwrap();
            let own: Vec<Tensor> = models.iter().map(|model| load(&model.path).remove(name).unwrap()).collect();
            let weights = weights(name);
            let mean = mean(&own, weights);
            let away = |(model, (own, weight)): (&MergeSource, (&Tensor, f64))| {
                let set = GramSet::open(model.grams.as_ref().unwrap()).unwrap();
                let gram = set.matrix(set.entry(name.strip_suffix(".weight").unwrap()).unwrap()).unwrap();
                let away = &mean - own;
                weight * (away.matmul(&gram.to_kind(Kind::Double)) * away).sum(Kind::Double).double_value(&[])
            };
            let expected: f64 = models.iter().zip(own.iter().zip(weights)).map(away).sum();
            let found = figures["objective"]["average"].as_f64().unwrap();
            assert!((found / expected - 1.0).abs() < 1e-4, "{name}: {found} {expected}");
        }
    }
}

#[test]
fn mats_ends_at_the_solution_of_the_system_with_the_weights_of_its_layer() {
    let (_home, _, models) = toys();
    let params = [("iterations".to_owned(), json!(2000))].into_iter().collect();
    let job = MergeJob { alpha: Some(Alpha::Number(0.7)), params, ..merge_job("mats", models.clone()) };
    let outcome = run(Job::Merge(job), 2).ok();
    agrees(&outcome, &models, |name, own, weights| regmean(&models, 0.7, name, own, weights));
}

#[test]
fn methods_on_task_vectors_have_the_weights_of_each_tensors_depth() {
    let (_home, base, models) = toys();
    let start = load(&base);
    let merged = |method: &str, normalize: bool| {
        let params = [("normalize".to_owned(), json!(normalize))].into_iter().collect();
        let base = Some(source("base", &base, None));
        run(Job::Merge(MergeJob { params, base, ..merge_job(method, models.clone()) }), 2).ok()
    };
    let vectors = |name: &str, own: &[Tensor]| own.iter().map(|own| own - &start[name]).collect::<Vec<_>>();
    for normalize in [false, true] {
        let total = |weights: [f64; 3]| if normalize { weights.iter().sum::<f64>() } else { 1.0 };
        agrees(&merged("task_arithmetic", normalize), &models, |name, own, weights| {
            let sum: Tensor = vectors(name, own).iter().zip(weights).map(|(vector, weight)| vector * weight).sum();
            &start[name] + sum / total(weights)
        });
    }
    agrees(&merged("ties", true), &models, |name, own, weights| {
        let vectors = vectors(name, own);
        let sum: Tensor = vectors.iter().zip(weights).map(|(vector, weight)| vector * weight).sum();
        let sign = sum.ge(0.0).to_kind(Kind::Double) * 2.0 - 1.0;
        let elected: Vec<Tensor> =
            vectors.iter().map(|vector| (vector * &sign).gt(0.0).to_kind(Kind::Double)).collect();
        let of_sign = vectors.iter().zip(&elected).zip(weights);
        let sum: Tensor = of_sign.map(|((vector, elected), weight)| vector * elected * weight).sum();
        let total: Tensor = elected.iter().zip(weights).map(|(elected, weight)| elected * weight).sum();
        &start[name] + sum / total
    });
}

#[test]
fn alpha_is_chosen_with_the_weights_of_the_layer() {
    let (_home, _, models) = toys();
    let chosen = |models: Vec<MergeSource>| {
        let job = MergeJob { alpha: Some(Alpha::AutoLayer), ..regmean_job(models, 0.0) };
        run(Job::Merge(job), 2).ok().json("alpha.json")["inputs"].as_array().unwrap().clone()
    };
    let over_depth = chosen(models.clone());
    for (layer, name) in [(0, "model.layers.0.self_attn.q_proj.weight"), (2, "model.layers.1.self_attn.q_proj.weight")]
    {
        let fixed = models.iter().zip(weights(name));
        let fixed = fixed.map(|(model, weight)| MergeSource { weight: weight.into(), ..model.clone() }).collect();
        let expected = chosen(fixed);
        assert_eq!(over_depth[layer]["tensors"][0], name);
        assert_eq!(over_depth[layer], expected[layer]);
        assert_eq!(over_depth[6] == expected[6], layer == 0, "the head has the weights of the first layer");
    }
}

#[test]
fn weights_that_leave_nothing_at_some_depth_are_refused_before_anything_is_written() {
    let (_home, base, mut models) = toys();
    let list = |list: &[f64]| Weight::Gradient(list.to_vec());
    for (weights, says) in [
        (
            [list(&[1.0, 0.0]), list(&[3.0, 0.0]), Weight::Number(0.0)],
            "add up to zero at model.layers.2.self_attn.q_proj.weight",
        ),
        ([list(&[1.0, 0.0, 1.0]), list(&[1.0, 0.0, 2.0]), Weight::Number(0.0)], "add up to zero at model.layers.1."),
        ([list(&[1.0, -0.5]), Weight::Number(0.2), Weight::Number(0.3)], "add up to zero at model.layers.2."),
        ([list(&[]), Weight::Number(1.0), Weight::Number(1.0)], "the weight of m0 is []"),
    ] {
        for (model, weight) in models.iter_mut().zip(weights) {
            model.weight = weight;
        }
        let outcome = run(Job::Merge(merge_job("average", models.clone())), 1);
        assert_eq!(outcome.code, 3, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(says), "{says} is not in {}", outcome.stderr);
        assert_eq!(outcome.files(), []);
    }
    // What adds up may subtract.
    models[0].weight = list(&[1.0, -0.5]);
    models[2].weight = 1.0.into();
    run(Job::Merge(merge_job("average", models.clone())), 1).ok();
    let base = Some(source("base", &base, None));
    run(Job::Merge(MergeJob { base, ..merge_job("task_arithmetic", models) }), 1).ok();
}
