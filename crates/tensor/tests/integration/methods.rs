//! Task arithmetic and TIES, against the reference program in `tests/reference/task_vectors.py`.

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

#[test]
fn task_arithmetic_and_ties_agree_with_the_reference_program() {
    let Some(python) = python() else {
        println!("skipped: no Python with transformers (MERGELAB_PYTHON, VIRTUAL_ENV, .venv)");
        return;
    };
    let cases = [
        ("task_arithmetic", json!({})),
        ("task_arithmetic", json!({ "lambda": 0.7, "normalize": true })),
        ("ties", json!({})),
        ("ties", json!({ "density": 0.3, "lambda": 1.3 })),
        ("ties", json!({ "density": 0.61, "normalize": false })),
        ("ties", json!({ "density": 0.2, "rescale": true })),
        ("ties", json!({ "density": 0.0 })),
    ];
    let toys = toys();
    let reference = toys.home.path().join("reference.safetensors");
    let models: Vec<String> =
        toys.models.iter().map(|model| format!("{}:{}", model.path.display(), model.weight)).collect();
    let asked = serde_json::to_string(&cases).unwrap();
    let mut arguments = vec![asked.as_str(), reference.to_str().unwrap(), toys.base.to_str().unwrap()];
    arguments.extend(models.iter().map(String::as_str));
    reference_program(&python, "task_vectors.py", &arguments);
    let expected = SafeFile::open(&reference).unwrap();
    for (number, (method, params)) in cases.into_iter().enumerate() {
        let outcome = run(Job::Merge(job(&toys, method, &params)), 2).ok();
        let found = Checkpoint::open(&outcome.out).unwrap();
        for name in found.names() {
            let expected = expected.load(&format!("{number}:{name}")).unwrap();
            let gap = (found.load(name).unwrap().to_kind(Kind::Double) - &expected).abs().max().double_value(&[]);
            assert!(gap < 1e-6, "{method} {params}: {name} is off by {gap:e}");
        }
    }
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
    refused(job(&toys, "ties", &Value::Object(Map::from_iter([("normalize".into(), json!(1))]))), "normalize is 1");
}
