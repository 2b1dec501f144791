//! Averages and RegMean: against float64, at full rank and without it.

use std::fs;
use std::path::{Path, PathBuf};

use mergelab_tensor::checkpoint::{Checkpoint, SafeFile};
use mergelab_tensor::gram::GramSet;
use mergelab_wire::{Alpha, Event, Job, MergeJob, MergeSource, Normalize, Rule, RuleUse, Solver};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

use crate::support::{
    Outcome, TOY_LAYER, merge_job, number, python, reference_program, regmean_job, run, run_within, save, source,
    toy_grams, toy_model,
};

const WIDTH: i64 = 40;
const ROWS: i64 = 24;

fn weight_name() -> String {
    format!("{TOY_LAYER}.weight")
}

/// Two toy models with Grams of activations that `x` makes from a model's number.
fn toys(x: impl Fn(i64) -> Tensor) -> (TempDir, Vec<MergeSource>) {
    let home = tempfile::tempdir().unwrap();
    let at = |name: String| home.path().join(name);
    let models = (0..2)
        .map(|index| {
            let model = toy_model(&at(format!("model-{index}")), index + 1, ROWS, WIDTH, 9);
            let grams = toy_grams(&at(format!("grams-{index}")), &x(index));
            source(&format!("m{index}"), &model, Some(&grams))
        })
        .collect();
    (home, models)
}

/// Activations `[tokens, WIDTH]` whose features have scales over four orders, as real ones do.
fn activations(tokens: i64) -> Tensor {
    let scale = (Tensor::arange(WIDTH, (Kind::Float, Device::Cpu)) / 10.0).exp();
    Tensor::randn([tokens, WIDTH], (Kind::Float, Device::Cpu)) * scale
}

fn weight(directory: &Path) -> Tensor {
    Checkpoint::open(directory).unwrap().load(&weight_name()).unwrap().to_kind(Kind::Double)
}

fn average(models: &[MergeSource]) -> Tensor {
    let total: f64 = models.iter().map(|model| number(&model.weight)).sum();
    let sum: Tensor = models.iter().map(|model| weight(&model.path) * number(&model.weight)).sum();
    sum / total
}

fn gram(directory: &Path) -> Tensor {
    let set = GramSet::open(directory).unwrap();
    set.matrix(set.entry(TOY_LAYER).unwrap()).unwrap().to_kind(Kind::Double)
}

/// `Σ uᵢ G̃ᵢ` and `Σ uᵢ G̃ᵢ Wᵢᵀ` in float64.
fn plain_system(models: &[MergeSource], alpha: f64) -> (Tensor, Tensor) {
    let parts: Vec<Tensor> = models
        .iter()
        .map(|model| {
            let gram = gram(model.grams.as_ref().unwrap());
            let diagonal = gram.diagonal(0, 0, 1).diag_embed(0, 0, 1);
            (gram * alpha + diagonal * (1.0 - alpha)) * number(&model.weight)
        })
        .collect();
    let rhs = parts.iter().zip(models).map(|(part, model)| part.matmul(&weight(&model.path).tr())).sum();
    (parts.iter().sum(), rhs)
}

fn layer(outcome: &Outcome) -> Value {
    outcome.json("layers.json")["layers"][0].clone()
}

/// `‖found - expected‖ / ‖expected - average‖`.
fn error(outcome: &Outcome, expected: &Tensor, average: &Tensor) -> f64 {
    ((weight(&outcome.out) - expected).norm() / (expected - average).norm()).double_value(&[])
}

#[test]
fn an_average_is_the_weighted_mean_of_every_tensor() {
    let (_home, mut models) = toys(|_| activations(100));
    models[1].weight = 3.0.into();
    let outcome = run(Job::Merge(merge_job("average", models.clone())), 2).ok();
    let found = Checkpoint::open(&outcome.out).unwrap();
    let sources: Vec<Checkpoint> = models.iter().map(|model| Checkpoint::open(&model.path).unwrap()).collect();
    assert_eq!(found.names().count(), 3);
    for name in found.names() {
        let load = |index: usize| sources[index].load(name).unwrap().to_kind(Kind::Double);
        let expected = ((load(0) + load(1) * 3.0) / 4.0).to_kind(Kind::Float);
        assert_eq!(found.load(name).unwrap(), expected, "{name}");
    }
    assert_eq!(outcome.json("merge.json")["models"][1]["weight"], 3.0);
    assert_eq!(outcome.json("merge.json")["origin"]["key"], "k");
    assert_eq!(fs::read_to_string(outcome.out.join("README.md")).unwrap(), "# A merge\n");
}

#[test]
fn an_average_that_is_not_normalised_is_the_weighted_sum() {
    let (_home, mut models) = toys(|_| activations(100));
    models[1].weight = 3.0.into();
    let merged = |normalize: bool| {
        let params = [("normalize".to_owned(), Value::from(normalize))].into_iter().collect();
        weight(&run(Job::Merge(MergeJob { params, ..merge_job("average", models.clone()) }), 1).ok().out)
    };
    let sum = weight(&models[0].path) + weight(&models[1].path) * 3.0;
    let rounded = |exact: Tensor| exact.to_kind(Kind::Float).to_kind(Kind::Double);
    assert_eq!(merged(false), rounded(sum.shallow_clone()));
    assert_eq!(merged(true), rounded(sum / 4.0));
}

#[test]
fn regmean_solves_the_plain_system_to_1e_5_of_the_correction() {
    let (_home, mut models) = toys(|_| activations(4000));
    models[0].weight = 2.0.into();
    for alpha in [0.0, 0.1, 0.5, 0.9, 1.0] {
        let outcome = run(Job::Merge(regmean_job(models.clone(), alpha)), 2).ok();
        let (system, rhs) = plain_system(&models, alpha);
        let expected = Tensor::linalg_solve(&system, &rhs, true).tr();
        let error = error(&outcome, &expected, &average(&models));
        assert!(error < 1e-5, "α {alpha}: {error:e}");
        let figures = layer(&outcome);
        assert!(figures["path"].as_str().unwrap().starts_with("cholesky"), "{figures}");
        assert_eq!(figures["alpha"], alpha);
        assert!(figures["residual"].as_f64().unwrap() < 1e-6);
    }
}

#[test]
fn regmean_agrees_with_the_float64_reference_program_at_every_rank() {
    let Some(python) = python() else {
        println!("skipped: no Python with transformers (MERGELAB_PYTHON, VIRTUAL_ENV, .venv)");
        return;
    };
    // Under-determined (10 tokens each for 40 features) and well determined.
    for (tokens, alpha, limit) in [(10, 1.0, 1e-3), (10, 0.9, 1e-5), (4000, 1.0, 1e-5), (4000, 0.1, 1e-5)] {
        let (home, models) = toys(|_| activations(tokens));
        let outcome = run(Job::Merge(regmean_job(models.clone(), alpha)), 1).ok();
        let reference = home.path().join("reference.safetensors");
        let part = |model: &MergeSource| {
            format!("{}:{}:{}", model.path.display(), model.grams.as_ref().unwrap().display(), model.weight)
        };
        let (alpha_text, first, second) = (alpha.to_string(), part(&models[0]), part(&models[1]));
        reference_program(&python, "regmean.py", &[&alpha_text, reference.to_str().unwrap(), &first, &second]);
        let file = SafeFile::open(&reference).unwrap();
        let expected = file.load(&format!("merged:{}", weight_name())).unwrap();
        let average = file.load(&format!("average:{}", weight_name())).unwrap();
        let error = error(&outcome, &expected, &average);
        assert!(error < limit, "{tokens} tokens, α {alpha}: {error:e}\n{}", layer(&outcome));
    }
}

#[test]
fn without_full_rank_regmean_is_the_least_change_from_the_average_in_the_norm_of_d() {
    let (_home, models) = toys(|_| activations(10));
    let outcome = run(Job::Merge(regmean_job(models.clone(), 1.0)), 2).ok();
    let figures = layer(&outcome);
    assert_eq!(figures["path"], "eigenvalues");
    assert_eq!(figures["cut_eigenvalues"], 20, "{figures}");
    assert!(outcome.notes().iter().any(|note| note.contains("20 of 40 eigenvalues cut")), "{:?}", outcome.notes());
    // It solves the system as well as fp32 Grams can tell …
    let (system, rhs) = plain_system(&models, 1.0);
    let merged = weight(&outcome.out);
    let gap = (system.matmul(&merged.tr()) - &rhs).norm() / rhs.norm();
    assert!(gap.double_value(&[]) < 1e-5, "{gap:?}");
    // … and has no part that the system does not ask for: D^½ (W - W̄)ᵀ lies in the range of D^-½ S D^-½.
    let root = system.diagonal(0, 0, 1).sqrt();
    let scaled = &system / root.outer(&root);
    let (values, vectors) = scaled.linalg_eigh("L");
    let null = vectors.index_select(1, &values.lt(1e-6).nonzero().squeeze_dim(1));
    assert_eq!(null.size()[1], 20);
    let change = (merged - average(&models)) * &root;
    let outside = change.matmul(&null).norm() / change.norm();
    assert!(outside.double_value(&[]) < 1e-4, "{outside:?}");
}

#[test]
fn features_never_seen_stay_at_the_average_exactly() {
    let unseen = [3, 4, 39];
    let blind = |tokens| {
        let x = activations(tokens);
        for feature in unseen {
            let _ = x.narrow(1, feature, 1).zero_();
        }
        x
    };
    for (tokens, alpha) in [(4000, 0.1), (4000, 1.0), (10, 1.0)] {
        let (_home, models) = toys(|_| blind(tokens));
        let merged = run(Job::Merge(regmean_job(models.clone(), alpha)), 1).ok();
        let average = run(Job::Merge(merge_job("average", models)), 1).ok();
        assert_eq!(layer(&merged)["unseen_features"], 3);
        for feature in unseen {
            let column = |outcome: &Outcome| weight(&outcome.out).narrow(1, feature, 1);
            assert_eq!(column(&merged), column(&average), "{tokens} tokens, α {alpha}, feature {feature}");
        }
        assert_ne!(weight(&merged.out), weight(&average.out));
    }
}

#[test]
fn the_objective_falls_from_the_average_to_regmean_and_is_reported_on_held_out_grams_too() {
    // Each model sees other features loudly, so that there is something to gain over the average.
    let loud = |index: i64| if index == 0 { activations(3000) } else { activations(3000).flip([1]) };
    let (home, mut models) = toys(loud);
    for (index, model) in models.iter_mut().enumerate() {
        model.held_out = Some(toy_grams(&home.path().join(format!("held-{index}")), &loud(index as i64)));
    }
    let outcome = run(Job::Merge(regmean_job(models, 1.0)), 2).ok();
    let figures = layer(&outcome);
    for kind in ["objective", "objective_held_out"] {
        let number = |key: &str| figures[kind][key].as_f64().unwrap();
        assert!(number("merge") < 0.9 * number("average"), "{figures}");
        assert_eq!(figures[kind]["sources"].as_array().unwrap().len(), 2);
    }
    assert_ne!(figures["objective"], figures["objective_held_out"]);
    assert!(outcome.facts().contains_key("objective_held_out_merge"));
}

#[test]
fn plain_solvers_agree_with_the_correction_where_the_system_is_kind() {
    let (_home, models) = toys(|_| Tensor::randn([4000, WIDTH], (Kind::Float, Device::Cpu)));
    let solve = |solver| run(Job::Merge(MergeJob { solver, ..regmean_job(models.clone(), 0.5) }), 2).ok();
    let auto = weight(&solve(Solver::Auto).out);
    for solver in [Solver::Cholesky, Solver::Lstsq, Solver::Inverse, Solver::Pinv] {
        let outcome = solve(solver);
        let gap = ((weight(&outcome.out) - &auto).norm() / auto.norm()).double_value(&[]);
        assert!(gap < 1e-5, "{solver:?}: {gap:e}");
        assert_eq!(layer(&outcome)["path"], "plain");
    }
}

#[test]
fn a_plain_solver_that_cannot_is_an_error_and_not_a_silent_fallback() {
    let (_home, models) = toys(|_| activations(5));
    let outcome = run(Job::Merge(MergeJob { solver: Solver::Cholesky, ..regmean_job(models, 1.0) }), 1);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("solver cholesky failed on the plain system"), "{}", outcome.stderr);
}

#[test]
fn normalising_by_the_trace_makes_the_scale_of_the_data_irrelevant() {
    let merged = |factor: f64| {
        let (_home, models) = toys(|index| {
            tch::manual_seed(50 + index);
            let x = Tensor::randn([500, WIDTH], (Kind::Float, Device::Cpu));
            if index == 1 { x * factor } else { x }
        });
        let job = MergeJob { normalize: Normalize::Trace, ..regmean_job(models.clone(), 0.5) };
        (weight(&run(Job::Merge(job), 1).ok().out), weight(&run(Job::Merge(regmean_job(models, 0.5)), 1).ok().out))
    };
    let (once, plain_once) = merged(1.0);
    let (scaled, plain_scaled) = merged(32.0);
    let gap = |a: &Tensor, b: &Tensor| ((a - b).norm() / a.norm()).double_value(&[]);
    assert!(gap(&once, &scaled) < 1e-5);
    assert!(gap(&plain_once, &plain_scaled) > 0.1);
}

#[test]
fn rules_decide_per_tensor_in_order() {
    let (home, models) = toys(|_| activations(200));
    let base = toy_model(&home.path().join("base"), 9, ROWS, WIDTH, 9);
    let rule = |pattern: &str, action| Rule { pattern: pattern.to_owned(), action: Some(action), alpha: None };
    let job = MergeJob {
        base: Some(source("base", &base, None)),
        rules: vec![
            rule("*embed*", RuleUse::Base),
            rule("model.norm.*", RuleUse::Model("m1".to_owned())),
            rule("*", RuleUse::Average),
        ],
        ..regmean_job(models.clone(), 0.9)
    };
    let outcome = run(Job::Merge(job), 1).ok();
    let found = Checkpoint::open(&outcome.out).unwrap();
    let same = |name: &str, directory: &Path| {
        assert_eq!(found.load(name).unwrap(), Checkpoint::open(directory).unwrap().load(name).unwrap());
    };
    same("model.embed_tokens.weight", &base);
    same("model.norm.weight", &models[1].path);
    assert_eq!(weight(&outcome.out), average(&models).to_kind(Kind::Float).to_kind(Kind::Double));
}

#[test]
fn a_gradient_of_alpha_and_a_rule_of_its_own_decide_the_alpha_of_a_layer() {
    let (_home, models) = toys(|_| activations(200));
    let gradient = MergeJob { alpha: Some(Alpha::Gradient(vec![0.25, 0.75])), ..regmean_job(models.clone(), 0.0) };
    assert_eq!(layer(&run(Job::Merge(gradient.clone()), 1).ok())["alpha"], 0.75);
    let rules = vec![Rule { pattern: "*o_proj*".to_owned(), action: None, alpha: Some(0.6) }];
    assert_eq!(layer(&run(Job::Merge(MergeJob { rules, ..gradient }), 1).ok())["alpha"], 0.6);
}

#[test]
fn the_output_type_is_the_first_models_or_the_stated_one() {
    let (_home, models) = toys(|_| activations(200));
    let job = MergeJob { dtype: Some("bfloat16".to_owned()), ..regmean_job(models, 0.5) };
    let outcome = run(Job::Merge(job), 1).ok();
    assert_eq!(Checkpoint::open(&outcome.out).unwrap().load(&weight_name()).unwrap().kind(), Kind::BFloat16);
    assert_eq!(outcome.json("config.json")["torch_dtype"], "bfloat16");
    let share = layer(&outcome)["rounding_over_correction"].as_f64().unwrap();
    assert!(share > 1e-4 && share < 1.0, "{share}");
}

#[test]
fn a_tied_head_is_the_embedding_and_a_buffer_of_old_checkpoints_is_no_weight() {
    let home = tempfile::tempdir().unwrap();
    let directories: Vec<PathBuf> =
        (0..2).map(|index| toy_model(&home.path().join(format!("{index}")), index, 4, 4, 9)).collect();
    // The second one was saved with its tied head and an old buffer.
    let second = &directories[1];
    let read = Checkpoint::open(second).unwrap();
    let mut tensors: Vec<(&str, Tensor)> = read.names().map(|name| (name, read.load(name).unwrap())).collect();
    tensors.push(("lm_head.weight", read.load("model.embed_tokens.weight").unwrap()));
    tensors.push(("model.layers.0.self_attn.rotary_emb.inv_freq", Tensor::from_slice(&[1.0f32])));
    fs::remove_file(second.join("model.safetensors")).unwrap();
    save(&second.join("model.safetensors"), &tensors);
    for directory in &directories {
        fs::write(
            directory.join("config.json"),
            r#"{"model_type": "llama", "vocab_size": 9, "tie_word_embeddings": true}"#,
        )
        .unwrap();
    }
    let models = directories.iter().enumerate().map(|(index, path)| source(&format!("m{index}"), path, None)).collect();
    let outcome = run(Job::Merge(merge_job("average", models)), 1).ok();
    assert_eq!(Checkpoint::open(&outcome.out).unwrap().names().count(), 3);
}

#[test]
fn files_are_hashed_while_they_are_written_whatever_the_method_the_threads_and_the_shards() {
    let (_home, models) = toys(|_| activations(200));
    let jobs = [merge_job("average", models.clone()), regmean_job(models, 0.5)];
    for (job, shard_size, files) in jobs.iter().flat_map(|job| [(job, None, 1), (job, Some(200), 3)]) {
        for threads in [1, 3] {
            let outcome = run(Job::Merge(MergeJob { shard_size, ..job.clone() }), threads).ok();
            let written: Vec<(String, u64, String)> = outcome
                .events
                .iter()
                .filter_map(|event| match event.clone() {
                    Event::Written { path, size, sha256 } => Some((path, size, sha256)),
                    _ => None,
                })
                .collect();
            assert_eq!(written.len(), files);
            for (path, size, sha256) in written {
                let bytes = fs::read(outcome.out.join(&path)).unwrap();
                let digest: String =
                    Sha256::digest(&bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
                assert_eq!((bytes.len() as u64, digest), (size, sha256), "{path} of {} by {threads}", job.method);
            }
        }
    }
}

#[test]
fn eight_bit_floats_are_read_and_their_merge_is_stored_in_sixteen() {
    let home = tempfile::tempdir().unwrap();
    let models: Vec<MergeSource> = (0..2u8)
        .map(|index| {
            let directory = home.path().join(format!("{index}"));
            fs::create_dir(&directory).unwrap();
            // 1 and 1.125 as e4m3: 0x38 and 0x39; 1 and 2 as e5m2: 0x3c and 0x40.
            let header = r#"{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F8_E5M2","shape":[1],"data_offsets":[1,2]}}"#;
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend([0x38 + index, 0x3c + 4 * index]);
            fs::write(directory.join("model.safetensors"), bytes).unwrap();
            fs::write(directory.join("config.json"), "{}").unwrap();
            source(&format!("m{index}"), &directory, None)
        })
        .collect();
    let outcome = run(Job::Merge(merge_job("average", models)), 1).ok();
    let found = Checkpoint::open(&outcome.out).unwrap();
    for (name, expected) in [("a", 1.0625), ("b", 1.5)] {
        let value = found.load(name).unwrap();
        assert_eq!((value.kind(), value.double_value(&[0])), (Kind::BFloat16, expected));
    }
}

#[test]
fn a_memory_budget_is_kept_or_refused_and_changes_no_byte() {
    let (_home, models) = toys(|_| activations(20));
    let merged = |memory| run_within(Job::Merge(merge_job("average", models.clone())), 2, memory);
    let free = merged(None).ok();
    let tight = merged(Some(256 << 20)).ok();
    assert_eq!(free.files(), tight.files());
    let refused = merged(Some(1 << 20));
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("a memory budget of 1048576 bytes is too small"), "{}", refused.stderr);
    assert_eq!(refused.files(), []);
}
