//! The merge methods, against the reference program in `tests/reference/methods.py`.

use std::path::PathBuf;

use mergelab_tensor::checkpoint::{Checkpoint, SafeFile};
use mergelab_wire::{Job, MergeJob, MergeSource};
use serde_json::{Map, Value, json};
use tch::Kind;

use crate::support::{merge_job, python, reference_program, run, source, toy_model};

struct Toys {
    home: tempfile::TempDir,
    base: PathBuf,
    models: Vec<MergeSource>,
}

fn toys() -> Toys {
    let home = tempfile::tempdir().unwrap();
    let model = |name: &str, seed| toy_model(&home.path().join(name), seed, 90, 70, 30);
    let base = model("base", 1);
    let models = (0..3)
        .map(|index| {
            let weight = [1.0, 0.5, 2.0][index];
            let path = model(&format!("m{index}"), 2 + index as i64);
            MergeSource { weight: weight.into(), ..source(&format!("m{index}"), &path, None) }
        })
        .collect();
    Toys { home, base, models }
}

fn job(toys: &Toys, method: &str, params: &Value) -> MergeJob {
    MergeJob {
        base: Some(source("base", &toys.base, None)),
        params: serde_json::from_value(params.clone()).unwrap(),
        ..merge_job(method, toys.models.clone())
    }
}

/// Method, parameters, how many of the models it takes, and whether there is a base.
type Case = (&'static str, Value, usize, bool);

/// All deterministic methods but those of means and of Gram matrices, which have tests of their own.
fn cases() -> Vec<Case> {
    let mut cases = vec![
        ("slerp", json!({ "t": 0.3 }), 1, true),
        ("slerp", json!({ "t": 1.0 }), 1, true),
        ("nuslerp", json!({}), 2, false),
        ("nuslerp", json!({}), 2, true),
        ("nuslerp", json!({ "nuslerp_flatten": false }), 2, true),
        ("nuslerp", json!({ "nuslerp_flatten": false, "nuslerp_row_wise": true }), 2, false),
        ("multislerp", json!({}), 3, false),
        ("multislerp", json!({ "normalize_weights": false }), 3, true),
        ("karcher", json!({ "max_iter": 200, "tol": 1e-12 }), 3, false),
        ("nearswap", json!({ "t": 0.4 }), 1, true),
        ("arcee_fusion", json!({}), 1, true),
        ("passthrough", json!({ "scale": 0.7 }), 1, false),
    ];
    let of_three = [
        ("task_arithmetic", json!({})),
        ("task_arithmetic", json!({ "lambda": 0.7, "normalize": true })),
        ("ties", json!({})),
        ("ties", json!({ "density": 0.3, "lambda": 1.3 })),
        ("ties", json!({ "density": 0.61, "normalize": false })),
        ("ties", json!({ "density": 0.2, "rescale": true })),
        ("ties", json!({ "density": 0.0 })),
        ("ties", json!({ "density": 1e-9 })),
        ("breadcrumbs", json!({ "density": 0.4, "gamma": 0.1 })),
        ("breadcrumbs", json!({ "density": 0.95, "gamma": 0.2, "normalize": true, "rescale": true })),
        ("breadcrumbs_ties", json!({ "density": 0.5, "gamma": 0.05, "lambda": 0.6 })),
        ("model_stock", json!({})),
        ("model_stock", json!({ "filter_wise": true })),
        ("sce", json!({})),
        ("sce", json!({ "select_topk": 0.3 })),
        ("ram", json!({ "epsilon": 0.5 })),
        ("ramplus_tl", json!({ "epsilon": 1.2, "r": 0.3, "alpha": 0.6 })),
        ("tsv", json!({ "lambda": 0.8 })),
        ("iso_c", json!({ "lambda": 0.5 })),
        ("consensus_ta", json!({})),
        ("consensus_ta", json!({ "lambda": 0.3, "mask_lambda": 0.9, "agree": 3 })),
        ("wudi", json!({ "iterations": 40, "learning_rate": 1e-3, "lambda": 0.9 })),
    ];
    cases.extend(of_three.map(|(method, params)| (method, params, 3, true)));
    cases
}

#[test]
fn methods_agree_with_the_reference_program() {
    let Some(python) = python() else {
        println!("skipped: no Python with transformers (MERGELAB_PYTHON, VIRTUAL_ENV, .venv)");
        return;
    };
    let toys = toys();
    let reference = toys.home.path().join("reference.safetensors");
    let models: Vec<String> =
        toys.models.iter().map(|model| format!("{}:{}", model.path.display(), model.weight)).collect();
    let asked = serde_json::to_string(&cases()).unwrap();
    let mut arguments = vec![asked.as_str(), reference.to_str().unwrap(), toys.base.to_str().unwrap()];
    arguments.extend(models.iter().map(String::as_str));
    reference_program(&python, "methods.py", &arguments);
    let expected = SafeFile::open(&reference).unwrap();
    for (number, (method, params, count, with_base)) in cases().into_iter().enumerate() {
        let mut job = job(&toys, method, &params);
        job.models.truncate(count);
        job.base = job.base.filter(|_| with_base);
        let outcome = run(Job::Merge(job), 2).ok();
        let found = Checkpoint::open(&outcome.out).unwrap();
        for name in found.names() {
            let expected = expected.load(&format!("{number}:{name}")).unwrap();
            let gap = (found.load(name).unwrap().to_kind(Kind::Double) - &expected).abs().max().double_value(&[]);
            assert!(gap < 1e-6, "{method} {params}: {name} is off by {gap:e}");
        }
    }
}

/// Merges with a method that draws, and gives a tensor.
fn drawn(toys: &Toys, method: &str, params: &Value, threads: usize, tensor: &str) -> Vec<f32> {
    let outcome = run(Job::Merge(job(toys, method, params)), threads).ok();
    let merged = Checkpoint::open(&outcome.out).unwrap().load(tensor).unwrap();
    Vec::try_from(merged.flatten(0, -1).to_kind(Kind::Float)).unwrap()
}

#[test]
fn what_is_drawn_depends_on_the_seed_and_neither_on_threads_nor_on_other_tensors() {
    let (toys, name) = (toys(), "model.layers.0.self_attn.o_proj.weight");
    for method in ["dare_linear", "dare_ties", "della", "della_linear"] {
        let merged = |seed: u64, threads| drawn(&toys, method, &json!({ "density": 0.4, "seed": seed }), threads, name);
        let first = merged(1, 1);
        assert_eq!(first, merged(1, 3), "{method}");
        assert_ne!(first, merged(2, 1), "{method}");
        // A rule that takes another tensor away changes nothing in this one.
        let mut job = job(&toys, method, &json!({ "density": 0.4, "seed": 1 }));
        job.rules = serde_json::from_value(json!([{ "match": "*k_proj*", "use": "base", "alpha": null }])).unwrap();
        let outcome = run(Job::Merge(job), 1).ok();
        let merged = Checkpoint::open(&outcome.out).unwrap().load(name).unwrap();
        assert_eq!(first, Vec::<f32>::try_from(merged.flatten(0, -1)).unwrap(), "{method}");
    }
}

#[test]
fn of_one_model_so_many_elements_stay_as_the_density_says_and_their_sum_of_magnitudes_is_the_old_one() {
    let (mut toys, name) = (toys(), "model.layers.0.self_attn.o_proj.weight");
    toys.models.truncate(1);
    let load = |path: &PathBuf| {
        let tensor = Checkpoint::open(path).unwrap().load(name).unwrap();
        Vec::<f32>::try_from(tensor.flatten(0, -1)).unwrap()
    };
    let (base, model) = (load(&toys.base), load(&toys.models[0].path));
    let size =
        |values: &[f32]| values.iter().zip(&base).map(|(value, base)| f64::from((value - base).abs())).sum::<f64>();
    for method in ["dare_linear", "della_linear"] {
        let merged = drawn(&toys, method, &json!({ "density": 0.4, "seed": 5 }), 2, name);
        let moved = merged.iter().zip(&base).filter(|(merged, base)| merged.to_bits() != base.to_bits()).count() as f64;
        let count = base.len() as f64;
        assert!((moved / count - 0.4).abs() < 5.0 * (0.24 / count).sqrt(), "{method}: {moved} of {count}");
        assert!((size(&merged) / size(&model) - 1.0).abs() < 1e-5, "{method}");
    }
}

#[test]
fn what_is_stated_for_one_model_goes_before_what_is_stated_for_all() {
    let mut toys = toys();
    toys.models.truncate(2);
    let alone = toys.models[1].clone();
    let merged = |models: Vec<MergeSource>, params: &Value| {
        let job = MergeJob { models, ..job(&toys, "ties", params) };
        let outcome = run(Job::Merge(job), 1).ok();
        Checkpoint::open(&outcome.out).unwrap().load("model.norm.weight").unwrap()
    };
    let mut models = toys.models.clone();
    models[0]
        .params
        .insert("density".into(), json!([{ "filter": "norm", "value": 0.0 }, { "filter": null, "value": 1.0 }]));
    assert_eq!(merged(models, &json!({ "density": 0.5 })), merged(vec![alone], &json!({ "density": 0.5 })));
}

#[test]
fn a_density_by_tensor_name_and_over_depth_is_that_of_the_tensor() {
    let toys = toys();
    let by_name = json!({ "density": [{ "filter": "o_proj", "value": [0.5, 0.0] }, { "filter": null, "value": 1.0 }] });
    let found = Checkpoint::open(&run(Job::Merge(job(&toys, "ties", &by_name)), 1).ok().out).unwrap();
    let base = Checkpoint::open(&toys.base).unwrap();
    let same = |name: &str| found.load(name).unwrap() == base.load(name).unwrap();
    assert!(same("model.layers.0.self_attn.o_proj.weight") && !same("model.norm.weight"));
}

#[test]
fn a_method_on_task_vectors_refuses_what_it_cannot_do_before_it_reads_a_weight() {
    let toys = toys();
    let refused = |job: MergeJob, expected: &str| {
        let outcome = run(Job::Merge(job), 1);
        assert_eq!(outcome.code, 3, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
        assert_eq!(outcome.files(), []);
    };
    refused(merge_job("ties", toys.models.clone()), "method ties needs a base model");
    refused(job(&toys, "ties", &json!({ "density": 1.5 })), "method ties: density is 1.5");
    refused(job(&toys, "ties", &json!({ "density": [0.5, -0.1] })), "method ties: density is [0.5,-0.1]");
    refused(job(&toys, "task_arithmetic", &json!({ "density": 0.5 })), "it has no parameter \"density\"");
    refused(job(&toys, "slerp", &json!({ "t": 0.5 })), "method slerp: 3 models beside the base");
    refused(job(&toys, "nearswap", &json!({})), "it needs the parameter \"t\"");
    refused(job(&toys, "nuslerp", &json!({})), "method nuslerp: 3 models");
    refused(job(&toys, "passthrough", &json!({})), "method passthrough: 3 models");
    refused(job(&toys, "consensus_ta", &json!({ "agree": 4 })), "agree is 4, of 3 models");
    refused(job(&toys, "della", &json!({ "density": 0.9 })), "density 0.9 and epsilon 0.15 at");
    refused(job(&toys, "ties", &Value::Object(Map::from_iter([("normalize".into(), json!(1))]))), "normalize is 1");
}
