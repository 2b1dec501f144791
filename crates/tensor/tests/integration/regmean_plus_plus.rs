//! RegMean++ against a float64 program written from its definition (`tests/reference/regmean_plus_plus.py`).

use std::fs;
use std::path::Path;

use mergelab_tensor::checkpoint::{Checkpoint, SafeFile};
use mergelab_wire::{Alpha, GramJob, Job, MergeJob, MergeSource, Rows, Rule, RuleUse};
use tch::{Kind, Tensor};
use tempfile::TempDir;

use crate::support::{
    gram_job, merge_job, python, reference_program, refused, regmean_job, run, run_within, save, source,
};

const PROGRAM: &str = "regmean_plus_plus.py";

/// Two models of a family, `a` and `b`, with rows for each; or `None`, said aloud.
fn models(family: &str) -> Option<TempDir> {
    let Some(python) = python() else {
        println!("skipped: no Python with transformers (MERGELAB_PYTHON, VIRTUAL_ENV, .venv)");
        return None;
    };
    let home = tempfile::tempdir().unwrap();
    reference_program(&python, PROGRAM, &["models", home.path().to_str().unwrap(), family]);
    Some(home)
}

/// What to run a model on.
fn capture(home: &Path, name: &str) -> GramJob {
    let data = home.join(format!("rows-{name}.jsonl"));
    GramJob { rows: Rows::Text("{{ text }}".to_owned()), ..gram_job(&home.join(name), &data) }
}

fn sources(home: &Path) -> Vec<MergeSource> {
    let model = |name: &str| MergeSource { capture: Some(capture(home, name)), ..source(name, &home.join(name), None) };
    ["a", "b"].map(model).to_vec()
}

fn job(home: &Path, alpha: f64) -> MergeJob {
    MergeJob { alpha: Some(Alpha::Number(alpha)), ..merge_job("regmean++", sources(home)) }
}

/// Of every weight that the reference merged: its name, and `‖found - expected‖ / ‖expected - average‖`.
fn errors(found: &Path, reference: &SafeFile) -> Vec<(String, f64)> {
    let found = Checkpoint::open(found).unwrap();
    let error = |name: &str| {
        let load = |kind: &str| reference.load(&format!("{kind}:{name}")).unwrap();
        let (expected, average) = (load("merged"), load("average"));
        let found = found.load(name).unwrap().to_kind(Kind::Double);
        ((found - &expected).norm() / (expected - average).norm()).double_value(&[])
    };
    let names = reference.tensors().keys().filter_map(|name| name.strip_prefix("merged:"));
    names.map(|name| (name.to_owned(), error(name))).collect()
}

fn reference(home: &Path, alpha: &str, own: &[&str]) -> SafeFile {
    let arguments = ["merge", home.to_str().unwrap(), alpha];
    reference_program(&python().unwrap(), PROGRAM, &[&arguments, own].concat());
    SafeFile::open(&home.join("merged.safetensors")).unwrap()
}

#[test]
fn merged_weights_agree_with_the_float64_reference_to_1e_5_of_the_correction() {
    for family in ["llama", "qwen3"] {
        let Some(home) = models(family) else { return };
        for alpha in ["0.1", "0.9"] {
            let outcome = run(Job::Merge(job(home.path(), alpha.parse().unwrap())), 2).ok();
            let errors = errors(&outcome.out, &reference(home.path(), alpha, &[]));
            assert_eq!(errors.len(), 3 * 7 + 1, "three layers of seven weights, and the head");
            for (name, error) in &errors {
                assert!(*error < 1e-5, "{family}, α {alpha}, {name}: {error:e}");
            }
            let layers = outcome.json("layers.json");
            let figures = layers["layers"].as_array().unwrap();
            assert_eq!(figures.len(), errors.len());
            assert!(figures.iter().all(|layer| {
                layer["objective"]["merge"].as_f64().unwrap() < layer["objective"]["average"].as_f64().unwrap()
            }));
        }
    }
}

#[test]
fn states_flow_through_the_merged_blocks_and_not_through_the_models_own() {
    let Some(home) = models("llama") else { return };
    let outcome = run(Job::Merge(job(home.path(), 0.9)), 2).ok();
    let own = errors(&outcome.out, &reference(home.path(), "0.9", &["own"]));
    for (name, error) in own {
        // Before the first block there is nothing that could have gone the wrong way.
        let first = name.starts_with("model.layers.0.");
        assert_eq!(error < 1e-5, first, "{name}: {error:e}");
        assert!(first || error > 1e-3, "{name}: {error:e}");
    }
}

#[test]
fn weights_over_depth_agree_with_the_float64_reference() {
    let Some(home) = models("llama") else { return };
    let mut job = job(home.path(), 0.5);
    job.models[0].weight = vec![0.25, 0.75].into();
    job.models[1].weight = vec![2.0, 1.0, 0.5].into();
    let outcome = run(Job::Merge(job), 2).ok();
    let weights = "[[0.25, 0.25, 0.5, 0.75, 0.25], [2.0, 2.0, 1.0, 0.5, 2.0]]";
    for (name, error) in errors(&outcome.out, &reference(home.path(), "0.5", &[weights])) {
        assert!(error < 1e-5, "{name}: {error:e}");
    }
}

/// Writes a model's tensors anew, each as `change` makes it.
fn rewrite(model: &Path, change: impl Fn(&str, Tensor) -> Tensor) {
    let read = Checkpoint::open(model).unwrap();
    let names: Vec<&str> = read.names().collect();
    let tensors: Vec<(&str, Tensor)> =
        names.into_iter().map(|name| (name, change(name, read.load(name).unwrap()))).collect();
    fs::remove_file(model.join("model.safetensors")).unwrap();
    save(&model.join("model.safetensors"), &tensors);
}

#[test]
fn the_first_block_is_that_of_regmean_where_the_models_share_their_embedding() {
    let Some(home) = models("llama") else { return };
    let at = |name: &str| home.path().join(name);
    let a = Checkpoint::open(&at("a")).unwrap();
    let embedding = "model.embed_tokens.weight";
    rewrite(&at("b"), |name, tensor| if name == embedding { a.load(name).unwrap() } else { tensor });
    let flowing = run(Job::Merge(job(home.path(), 0.5)), 2).ok();
    let grams = ["a", "b"].map(|name| run(Job::Gram(capture(home.path(), name)), 2).ok());
    let with_grams = ["a", "b"].iter().zip(&grams).map(|(name, grams)| source(name, &at(name), Some(&grams.out)));
    let plain = run(Job::Merge(regmean_job(with_grams.collect(), 0.5)), 2).ok();
    let (flowing, plain) = (Checkpoint::open(&flowing.out).unwrap(), Checkpoint::open(&plain.out).unwrap());
    for name in plain.names() {
        let same = flowing.load(name).unwrap() == plain.load(name).unwrap();
        let is_solved = name.contains("_proj") || name == "lm_head.weight";
        assert_eq!(same, name.starts_with("model.layers.0.") || !is_solved, "{name}");
    }
}

#[test]
fn the_bytes_do_not_depend_on_threads_or_on_where_states_lie() {
    let Some(home) = models("qwen3") else { return };
    for dtype in [None, Some("bfloat16".to_owned())] {
        let job = MergeJob { dtype: dtype.clone(), ..job(home.path(), 0.5) };
        let one = run(Job::Merge(job.clone()), 1).ok();
        assert_eq!(one.files(), run(Job::Merge(job.clone()), 3).ok().files());
        let spilled = run_within(Job::Merge(job), 2, Some(240 << 20)).ok();
        assert_eq!(one.files(), spilled.files());
    }
}

#[test]
fn later_blocks_are_fitted_to_the_weights_as_they_are_rounded() {
    let Some(home) = models("llama") else { return };
    let merged = |dtype: &str| {
        let job = MergeJob { dtype: Some(dtype.to_owned()), ..job(home.path(), 0.5) };
        let outcome = run(Job::Merge(job), 2).ok();
        let objective = |layer: &serde_json::Value| layer["objective"]["average"].as_f64().unwrap();
        outcome.json("layers.json")["layers"].as_array().unwrap().iter().map(objective).collect::<Vec<_>>()
    };
    // Of the average, the objective depends on the Grams alone: on the states, and so on the blocks before as they are.
    let (exact, rounded) = (merged("float32"), merged("bfloat16"));
    let gaps: Vec<f64> = exact.iter().zip(&rounded).map(|(exact, rounded)| (rounded / exact - 1.0).abs()).collect();
    assert!(gaps.iter().all(|gap| *gap < 0.05), "{gaps:?}");
    for block in gaps[7..].chunks(7) {
        assert!(block.iter().any(|gap| *gap > 1e-4), "{gaps:?}");
    }
}

fn rule(pattern: &str, action: RuleUse) -> Rule {
    Rule { pattern: pattern.to_owned(), action: Some(action), alpha: None }
}

#[test]
fn rules_take_weights_out_and_what_they_say_is_what_states_flow_through() {
    let Some(home) = models("llama") else { return };
    // With its last two blocks, its norm and its head taken from b, only the first block is solved.
    let from_b = |pattern: &str| rule(pattern, RuleUse::Model("b".to_owned()));
    let rules = vec![from_b("*.layers.[12].*"), from_b("lm_head.weight"), from_b("model.norm.weight")];
    let plain = run(Job::Merge(job(home.path(), 0.5)), 2).ok();
    let outcome = run(Job::Merge(MergeJob { rules, ..job(home.path(), 0.5) }), 2).ok();
    assert_eq!(outcome.json("layers.json")["layers"].as_array().unwrap().len(), 7);
    let [plain, found, b] = [&plain.out, &outcome.out, &home.path().join("b")].map(|at| Checkpoint::open(at).unwrap());
    for name in found.names() {
        let is_of_b = name.contains("layers.1") || name.contains("layers.2") || name.ends_with("norm.weight");
        let is_of_b = (is_of_b && !name.contains("layers.0")) || name == "lm_head.weight";
        assert_eq!(found.load(name).unwrap(), if is_of_b { &b } else { &plain }.load(name).unwrap(), "{name}");
    }
    // A first block that is b's gives the second block other states.
    let rules = vec![from_b("*.layers.0.*")];
    let outcome = run(Job::Merge(MergeJob { rules, ..job(home.path(), 0.5) }), 2).ok();
    let name = "model.layers.1.self_attn.q_proj.weight";
    assert_ne!(Checkpoint::open(&outcome.out).unwrap().load(name).unwrap(), plain.load(name).unwrap());
}

#[test]
fn bad_input_is_named_with_its_model() {
    let Some(home) = models("llama") else { return };
    let at = |name: &str| home.path().join(name);
    let changed = |change: &dyn Fn(&mut GramJob)| {
        let mut job = job(home.path(), 0.1);
        change(job.models[1].capture.as_mut().unwrap());
        run(Job::Merge(job), 1)
    };
    let outcome = changed(&|capture| capture.exclude = vec!["*.down_proj".to_owned()]);
    refused(&outcome, &["layers.0.mlp.down_proj.weight is a linear layer, and the capture of b excludes it"]);
    assert_eq!(outcome.files(), []);
    let outcome = changed(&|capture| capture.rows = Rows::Text("{{ nothing }}".to_owned()));
    refused(&outcome, &["model b: ", "no column \"nothing\""]);
    let mut without = job(home.path(), 0.1);
    without.models[0].capture = None;
    refused(&run(Job::Merge(without), 1), &["nothing says what to run model a on"]);

    // Weights that are finite and still make states that are not.
    let huge = ["up", "down"].map(|part| format!("model.layers.1.mlp.{part}_proj.weight"));
    rewrite(&at("b"), |name, tensor| tensor * if huge.iter().any(|huge| huge == name) { 1e25 } else { 1.0 });
    let outcome = run(Job::Merge(job(home.path(), 0.1)), 1);
    refused(&outcome, &["model b: layer 1: the activations of row ", "rows-b.jsonl are not finite"]);

    let config = fs::read_to_string(at("b").join("config.json")).unwrap().replace("\"llama\"", "\"gemma2\"");
    for name in ["a", "b"] {
        fs::write(at(name).join("config.json"), &config).unwrap();
    }
    let outcome = run(Job::Merge(job(home.path(), 0.1)), 1);
    refused(&outcome, &["is of model_type \"gemma2\"", "llama, mistral, qwen2, qwen3", "`method: regmean`"]);
}
