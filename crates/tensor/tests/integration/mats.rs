//! `MaTS`: its steps against the reference program in `tests/reference/mats.py`, and where they end.

use std::path::{Path, PathBuf};

use mergelab_tensor::checkpoint::{Checkpoint, SafeFile};
use mergelab_tensor::gram::GramSet;
use mergelab_wire::{Alpha, Job, MergeJob, MergeSource, Rule, RuleUse, Solver};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

use crate::support::{
    Outcome, TOY_LAYER, merge_job, number, python, reference_program, regmean_job, run, source, toy_grams, toy_model,
};

const WIDTH: i64 = 40;

struct Toys {
    home: TempDir,
    base: PathBuf,
    models: Vec<MergeSource>,
}

impl Toys {
    /// Three models, each with Grams of so many tokens, whose features differ in scale and hang together.
    fn new(rows: i64, tokens: i64) -> Self {
        let home = tempfile::tempdir().unwrap();
        let at = |name: String| home.path().join(name);
        tch::manual_seed(11);
        let options = (Kind::Float, Device::Cpu);
        let mix = Tensor::randn([WIDTH, WIDTH], options) * 0.25 + Tensor::eye(WIDTH, options) * 2.0;
        let inputs: Vec<Tensor> = (0..3).map(|_| Tensor::randn([tokens, WIDTH], options).matmul(&mix)).collect();
        let models = inputs.iter().enumerate().map(|(index, x)| {
            let model = toy_model(&at(format!("model-{index}")), index as i64 + 1, rows, WIDTH, 9);
            let grams = toy_grams(&at(format!("grams-{index}")), x);
            MergeSource { weight: [1.0, 2.0, 0.5][index].into(), ..source(&format!("m{index}"), &model, Some(&grams)) }
        });
        let models = models.collect();
        let base = toy_model(&at("base".to_owned()), 9, rows, WIDTH, 9);
        Self { home, base, models }
    }

    fn job(&self, alpha: f64, params: &Value) -> MergeJob {
        MergeJob {
            base: Some(source("base", &self.base, None)),
            alpha: Some(Alpha::Number(alpha)),
            params: serde_json::from_value(params.clone()).unwrap(),
            ..merge_job("mats", self.models.clone())
        }
    }

    fn run(&self, alpha: f64, params: &Value) -> Outcome {
        run(Job::Merge(self.job(alpha, params)), 2).ok()
    }
}

/// `Σ uᵢ G̃ᵢ` at α = 1, and the right-hand side `Σ uᵢ Gᵢ Wᵢᵀ`, in float64.
fn plain_system(models: &[MergeSource]) -> (Tensor, Tensor) {
    let grams: Vec<Tensor> = models
        .iter()
        .map(|model| {
            let set = GramSet::open(model.grams.as_ref().unwrap()).unwrap();
            set.matrix(set.entry(TOY_LAYER).unwrap()).unwrap().to_kind(Kind::Double) * number(&model.weight)
        })
        .collect();
    let rhs = grams.iter().zip(models).map(|(gram, model)| gram.matmul(&weight(&model.path).tr())).sum();
    (grams.iter().sum(), rhs)
}

fn weight(directory: &Path) -> Tensor {
    Checkpoint::open(directory).unwrap().load(&format!("{TOY_LAYER}.weight")).unwrap().to_kind(Kind::Double)
}

fn layer(outcome: &Outcome) -> Value {
    outcome.json("layers.json")["layers"][0].clone()
}

fn gap(found: &Tensor, expected: &Tensor) -> f64 {
    ((found - expected).norm() / expected.norm()).double_value(&[])
}

#[test]
fn after_some_steps_mats_is_where_the_float64_reference_program_is() {
    let Some(python) = python() else {
        println!("skipped: no Python with transformers (MERGELAB_PYTHON, VIRTUAL_ENV, .venv)");
        return;
    };
    let case = |alpha: f64, x0: &str, iterations: u64| (alpha, json!({ "x0": x0, "iterations": iterations }));
    let cases = [
        case(1.0, "average", 1),
        case(1.0, "average", 4),
        case(0.3, "average", 8),
        case(1.0, "base", 1),
        case(0.7, "base", 5),
        case(1.0, "zeros", 1),
        case(1.0, "zeros", 8),
    ];
    let toys = Toys::new(24, 500);
    let asked: Vec<Value> = cases
        .iter()
        .map(|(alpha, params)| json!({ "alpha": alpha, "x0": params["x0"], "iterations": params["iterations"] }))
        .collect();
    let reference = toys.home.path().join("reference.safetensors");
    let part = |model: &MergeSource| {
        format!("{}:{}:{}", model.path.display(), model.grams.as_ref().unwrap().display(), model.weight)
    };
    let (asked, parts): (_, Vec<String>) = (Value::from(asked).to_string(), toys.models.iter().map(part).collect());
    let mut arguments = vec![asked.as_str(), reference.to_str().unwrap(), toys.base.to_str().unwrap()];
    arguments.extend(parts.iter().map(String::as_str));
    reference_program(&python, "mats.py", &arguments);
    let expected = SafeFile::open(&reference).unwrap();
    for (number, (alpha, params)) in cases.iter().enumerate() {
        let outcome = toys.run(*alpha, params);
        let expected = expected.load(&format!("{number}:{TOY_LAYER}.weight")).unwrap();
        let gap = gap(&weight(&outcome.out), &expected);
        // The result is rounded to fp32 once.
        assert!(gap < 1e-7, "α {alpha}, {params}: off by {gap:e}");
        let figures = layer(&outcome);
        assert_eq!((&figures["path"], &figures["iterations"]), (&json!("conjugate-gradient"), &params["iterations"]));
    }
}

#[test]
fn with_enough_steps_mats_solves_the_system_wherever_it_starts_and_takes_no_more() {
    let toys = Toys::new(24, 500);
    let (system, rhs) = plain_system(&toys.models);
    let solution = Tensor::linalg_solve(&system, &rhs, true).tr();
    for x0 in ["average", "base", "zeros"] {
        let outcome = toys.run(1.0, &json!({ "iterations": 5000, "x0": x0 }));
        let gap = gap(&weight(&outcome.out), &solution);
        assert!(gap < 1e-6, "{x0}: off by {gap:e}");
        let figures = layer(&outcome);
        let (steps, residual) = (figures["iterations"].as_u64().unwrap(), figures["residual"].as_f64().unwrap());
        assert!(steps > 30 && steps < 1000 && residual < 2e-7, "{figures}");
        assert_eq!(outcome.facts()["iterations_max"], steps);
        // What RegMean at α = 1 minimises.
        let objective = |key: &str| figures["objective"][key].as_f64().unwrap();
        assert!(objective("merge") < objective("average"));
    }
}

#[test]
fn more_steps_come_nearer_and_the_residual_says_so() {
    let toys = Toys::new(24, 500);
    let regmean = weight(&run(Job::Merge(regmean_job(toys.models.clone(), 1.0)), 2).ok().out);
    let figures = |iterations: u64| {
        let outcome = toys.run(1.0, &json!({ "iterations": iterations }));
        let figures = layer(&outcome);
        let objective = figures["objective"]["merge"].as_f64().unwrap();
        (gap(&weight(&outcome.out), &regmean), figures["residual"].as_f64().unwrap(), objective)
    };
    let (few, some, many) = (figures(2), figures(10), figures(30));
    assert!(few.0 > some.0 && some.0 > many.0, "{few:?} {some:?} {many:?}");
    assert!(few.1 > some.1 && some.1 > many.1, "{few:?} {some:?} {many:?}");
    assert!(few.2 > some.2 && some.2 > many.2, "{few:?} {some:?} {many:?}");
}

#[test]
fn what_no_token_ever_showed_stays_where_the_steps_began() {
    // 24 tokens in all for 40 features, so that the system has a null space and α = 1 leaves it there.
    let toys = Toys::new(24, 8);
    let params = json!({ "iterations": 100_000, "x0": "base" });
    let outcome = toys.run(1.0, &params);
    let figures = layer(&outcome);
    assert!(figures["iterations"].as_u64().unwrap() < 1000, "{figures}");
    assert!(figures["residual"].as_f64().unwrap() < 1e-5, "{figures}");
    let (values, vectors) = plain_system(&toys.models).0.linalg_eigh("L");
    let null = vectors.index_select(1, &values.lt(1e-4).nonzero().squeeze_dim(1));
    assert_eq!(null.size()[1], 16);
    let change = weight(&outcome.out) - weight(&toys.base);
    let outside = (change.matmul(&null).norm() / change.norm()).double_value(&[]);
    assert!(outside < 1e-3, "{outside:e}");
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let toys = Toys::new(1100, 500);
    let job = toys.job(1.0, &json!({ "iterations": 7 }));
    let one = run(Job::Merge(job.clone()), 1).ok();
    assert_eq!(one.files(), run(Job::Merge(job), 3).ok().files());
}

#[test]
fn a_rule_that_says_regmean_means_regmean() {
    let toys = Toys::new(24, 500);
    let rule = Rule { pattern: "*o_proj*".to_owned(), action: Some(RuleUse::Regmean), alpha: Some(0.5) };
    let job = MergeJob { rules: vec![rule], ..toys.job(1.0, &json!({ "iterations": 1 })) };
    let found = run(Job::Merge(job), 1).ok();
    let regmean = run(Job::Merge(regmean_job(toys.models.clone(), 0.5)), 1).ok();
    assert_eq!(weight(&found.out), weight(&regmean.out));
    assert_eq!(layer(&found)["iterations"], Value::Null);
}

#[test]
fn mats_refuses_what_it_cannot_do_before_it_writes() {
    let toys = Toys::new(24, 50);
    let refused = |job: MergeJob, expected: &str| {
        let outcome = run(Job::Merge(job), 1);
        assert_eq!(outcome.code, 3, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
        assert_eq!(outcome.files(), []);
    };
    refused(toys.job(1.0, &json!({ "iterations": 0 })), "iterations is 0");
    refused(toys.job(1.0, &json!({ "x0": "median" })), "x0 is \"median\"");
    refused(toys.job(1.0, &json!({ "density": 0.5 })), "it has no parameter \"density\"");
    refused(toys.job(1.5, &json!({})), "alpha is 1.5");
    refused(MergeJob { base: None, ..toys.job(1.0, &json!({ "x0": "base" })) }, "method mats needs a base model");
    refused(MergeJob { solver: Solver::Lstsq, ..toys.job(1.0, &json!({})) }, "it has no `solver`");
    let mut blind = toys.job(1.0, &json!({}));
    blind.models[1].grams = None;
    refused(blind, "model m1 has no Gram matrices");
}
