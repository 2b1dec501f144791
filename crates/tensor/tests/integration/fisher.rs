//! Fisher information against autograd in `transformers` (`tests/reference/fisher.py`), and merges weighted by it against
//! float64.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use mergelab_tensor::checkpoint::{Checkpoint, SafeFile};
use mergelab_tensor::fisher::FisherSet;
use mergelab_wire::{FisherJob, GramJob, Job, Labels, MergeJob, MergeSource, Rows, Rule, RuleUse};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

use crate::support::{
    FAMILIES, Outcome, gram_job, merge_job, python, reference_program, references, refused, run, run_within, save,
    source, toy_model,
};

/// An estimate on the reference rows with everything at its default.
fn fisher_job(references: &Path, family: &str) -> FisherJob {
    let run = gram_job(&references.join(family).join("model"), &references.join("rows.jsonl"));
    FisherJob { run, labels: Labels::Data }
}

fn set(outcome: &Outcome) -> FisherSet {
    FisherSet::open(&outcome.out).unwrap()
}

/// The largest `|found - expected|` of a tensor beside the largest `expected`.
fn gap(found: &Tensor, expected: &Tensor) -> f64 {
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    ((found - &expected).abs().max() / expected.abs().max()).double_value(&[])
}

/// The models of the references, and what the reference program makes of a family in which so many first tokens do not count.
fn expected(family: &str, skip_first: usize) -> Option<(&'static Path, SafeFile)> {
    static MADE: OnceLock<TempDir> = OnceLock::new();
    let references = references()?;
    let home = MADE.get_or_init(|| {
        let home = tempfile::tempdir().unwrap();
        let cases = FAMILIES.map(|family| format!("{family}:0"));
        let mut arguments = vec![home.path().to_str().unwrap(), references.to_str().unwrap()];
        arguments.extend(cases.iter().map(String::as_str));
        arguments.push("llama32-tied:9");
        reference_program(&python().unwrap(), "fisher.py", &arguments);
        home
    });
    let file = home.path().join(format!("{family}-{skip_first}.safetensors"));
    Some((references, SafeFile::open(&file).unwrap()))
}

/// Holds an artifact against the reference, parameter by parameter.
fn agrees(found: &FisherSet, expected: &SafeFile, family: &str) {
    let own = |name: &&String| !["log_likelihood", "tokens"].contains(&name.as_str());
    let mut names: Vec<&str> = expected.tensors().keys().filter(own).map(String::as_str).collect();
    let mut found_names: Vec<&str> = found.index.tensors.keys().map(String::as_str).collect();
    names.sort_unstable();
    found_names.sort_unstable();
    assert_eq!(found_names, names, "{family}");
    for name in names {
        let gap = gap(&found.tensors.load(name).unwrap(), &expected.load(name).unwrap());
        assert!(gap < 2e-5, "{family}, {name}: {gap:e}");
    }
    assert_eq!(found.index.tokens as i64, expected.load("tokens").unwrap().int64_value(&[]));
    let likelihood = expected.load("log_likelihood").unwrap().double_value(&[]);
    assert!((found.index.log_likelihood - likelihood).abs() < 1e-5 * likelihood.abs());
}

#[test]
fn fisher_information_of_every_family_is_that_of_autograd_in_transformers() {
    for family in FAMILIES {
        let Some((references, expected)) = expected(family, 0) else { return };
        let outcome = run(Job::Fisher(fisher_job(references, family)), 2).ok();
        agrees(&set(&outcome), &expected, family);
    }
}

#[test]
fn tokens_that_do_not_count_are_read_and_not_predicted() {
    // Tied: the embedding's gradient comes from both of its ends.
    let family = "llama32-tied";
    let Some((references, expected)) = expected(family, 9) else { return };
    let mut job = fisher_job(references, family);
    job.run.skip_first = 9;
    let outcome = run(Job::Fisher(job), 2).ok();
    agrees(&set(&outcome), &expected, family);
}

#[test]
fn the_bytes_do_not_depend_on_threads_or_on_where_states_lie() {
    let Some(references) = references() else { return };
    for (family, labels) in [("qwen3", Labels::Data), ("llama32-tied", Labels::Model { seed: 5 })] {
        let job = FisherJob { labels, ..fisher_job(references, family) };
        let one = run(Job::Fisher(job.clone()), 1).ok();
        assert_eq!(one.facts()["hidden_states_in_file"], 0);
        assert_eq!(one.files(), run(Job::Fisher(job.clone()), 3).ok().files());
        let spilled = run_within(Job::Fisher(job), 2, Some(1 << 10)).ok();
        assert_eq!(spilled.facts()["hidden_states_in_file"], spilled.facts()["hidden_states"]);
        assert_eq!(one.files(), spilled.files());
    }
}

#[test]
fn drawn_labels_are_the_models_own_and_follow_their_seed() {
    let Some(references) = references() else { return };
    let with = |labels| {
        let outcome = run(Job::Fisher(FisherJob { labels, ..fisher_job(references, "llama") }), 2).ok();
        (outcome.files(), set(&outcome).index.log_likelihood)
    };
    let (data, seeded, again, other) = (
        with(Labels::Data),
        with(Labels::Model { seed: 1 }),
        with(Labels::Model { seed: 1 }),
        with(Labels::Model { seed: 2 }),
    );
    assert_eq!(seeded.0, again.0);
    assert_ne!(seeded.0, other.0);
    // A random model finds its own labels far more likely than those of the text.
    assert!(seeded.1 > data.1 + 0.3 && other.1 > data.1 + 0.3, "{} {} {}", data.1, seeded.1, other.1);
}

#[test]
fn bfloat16_passes_come_near_and_float16_is_refused() {
    let Some(references) = references() else { return };
    let with = |dtype: &str| {
        let mut job = fisher_job(references, "llama");
        job.run.dtype = Some(dtype.to_owned());
        run(Job::Fisher(job), 2)
    };
    let (exact, rounded) = (with("float32").ok(), with("bfloat16").ok());
    let (exact, rounded) = (set(&exact), set(&rounded));
    for name in exact.index.tensors.keys() {
        let (exact, rounded) = (exact.tensors.load(name).unwrap(), rounded.tensors.load(name).unwrap());
        let gap = ((&rounded - &exact).norm() / exact.norm()).double_value(&[]);
        assert!((1e-6..0.2).contains(&gap), "{name}: {gap:e}");
    }
    refused(&with("float16"), &["gradients do not fit into the range of float16", "`dtype: bfloat16`"]);
}

#[test]
fn rows_that_predict_nothing_are_counted_or_refused() {
    let Some(references) = references() else { return };
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("rows.jsonl");
    let job = |rows: &str, strict: bool| {
        fs::write(&data, rows).unwrap();
        let run = gram_job(&references.join("llama/model"), &data);
        let run = GramJob { rows: Rows::Text("{{ t }}".to_owned()), add_special_tokens: false, strict, ..run };
        Job::Fisher(FisherJob { run, labels: Labels::Data })
    };
    let (some, none) = ("{\"t\": \"a\"}\n{\"t\": \"two\"}\n", "{\"t\": \"a\"}\n");
    let outcome = run(job(some, false), 1).ok();
    assert_eq!([&outcome.facts()["sequences"], &outcome.facts()["rows_that_predict_nothing"]], [1, 1]);
    assert!(outcome.notes().join("\n").contains("1 row(s) have no token that counts and that another one precedes"));
    refused(&run(job(some, true), 1), &["row 1", "that another one precedes"]);
    refused(&run(job(none, false), 1), &["no row has a token that counts and that another one precedes"]);
}

#[test]
fn a_family_without_a_native_forward_pass_is_refused_with_a_way_out() {
    let Some(references) = references() else { return };
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("config.json"), r#"{"model_type": "gemma2"}"#).unwrap();
    let mut job = fisher_job(references, "llama");
    job.run.model = home.path().to_path_buf();
    refused(
        &run(Job::Fisher(job), 1),
        &["is of model_type \"gemma2\"", "llama, mistral, qwen2, qwen3", "`method: regmean`"],
    );
}

/// A Fisher artifact for [`toy_model`] of these numbers.
fn toy_fisher(directory: &Path, tensors: &[(&str, Tensor)]) {
    fs::create_dir_all(directory).unwrap();
    save(&directory.join("all.safetensors"), tensors);
    let square =
        |(_, tensor): &(&str, Tensor)| tensor.to_kind(Kind::Double).square().sum(Kind::Double).double_value(&[]);
    let norm = tensors.iter().map(square).sum::<f64>().sqrt();
    let entry = |(name, _): &(&str, Tensor)| ((*name).to_owned(), json!({ "file": "all.safetensors", "sum": 0.0 }));
    let entries: serde_json::Map<String, Value> = tensors.iter().map(entry).collect();
    let index = json!({
        "format": 1, "labels": "data", "sequences": 1, "tokens": 1, "log_likelihood": -1.0, "norm": norm, "tensors": entries,
    });
    fs::write(directory.join("fisher.json"), index.to_string()).unwrap();
}

struct Toys {
    home: TempDir,
    models: Vec<MergeSource>,
}

/// Three models with Fisher information, a third of which is zero in all of them.
fn toys() -> Toys {
    let home = tempfile::tempdir().unwrap();
    let models = (0..3)
        .map(|index| {
            let path = toy_model(&home.path().join(format!("m{index}")), index, 90, 70, 30);
            let checkpoint = Checkpoint::open(&path).unwrap();
            let fisher = home.path().join(format!("f{index}"));
            let squares = |name| {
                let like = checkpoint.load(name).unwrap();
                let known = Tensor::arange(like.numel() as i64, (Kind::Float, Device::Cpu)).fmod(3.0).ne(0.0);
                (name, like.randn_like().square() * 1e-6 * known.view_as(&like).to_kind(Kind::Float))
            };
            toy_fisher(&fisher, &checkpoint.names().map(squares).collect::<Vec<_>>());
            let weight = [1.0, 0.5, 2.0][index as usize];
            MergeSource { weight: weight.into(), fisher: Some(fisher), ..source(&format!("m{index}"), &path, None) }
        })
        .collect();
    Toys { home, models }
}

fn job(toys: &Toys, params: &Value) -> MergeJob {
    MergeJob { params: serde_json::from_value(params.clone()).unwrap(), ..merge_job("fisher", toys.models.clone()) }
}

/// The formula in float64, and how many elements have nothing above the floor.
fn formula(toys: &Toys, name: &str, floor: f64, normalize: bool) -> (Tensor, i64) {
    let wide = |tensor: Tensor| tensor.to_kind(Kind::Double);
    let shape = Checkpoint::open(&toys.models[0].path).unwrap().load(name).unwrap().size();
    let zeros = || Tensor::zeros(shape.as_slice(), (Kind::Double, Device::Cpu));
    let (mut sum, mut information, mut mean, mut known) = (zeros(), zeros(), zeros(), zeros().to_kind(Kind::Bool));
    for model in &toys.models {
        let weights = wide(Checkpoint::open(&model.path).unwrap().load(name).unwrap());
        let set = FisherSet::open(model.fisher.as_ref().unwrap()).unwrap();
        let fisher = wide(set.tensors.load(name).unwrap());
        let [weight] = *model.weight.stated().as_slice() else { unreachable!("toys have one weight each") };
        let u = weight / if normalize { set.index.norm } else { 1.0 };
        known = known.logical_or(&fisher.gt(floor));
        let lifted = fisher.clamp_min(floor) * u;
        sum += &lifted * &weights;
        information += lifted;
        mean += weights * (weight / 3.5);
    }
    let unknown = known.logical_not().sum(Kind::Int64).int64_value(&[]);
    ((sum / information).where_self(&known, &mean), unknown)
}

#[test]
fn merged_weights_are_those_of_the_formula_in_float64() {
    let toys = toys();
    for (params, floor, normalize) in [
        (json!({}), 0.0, false),
        (json!({ "floor": 1e-6 }), 1e-6, false),
        (json!({ "normalize": true }), 0.0, true),
        (json!({ "floor": 1e-7, "normalize": true }), 1e-7, true),
    ] {
        let outcome = run(Job::Merge(job(&toys, &params)), 2).ok();
        let found = Checkpoint::open(&outcome.out).unwrap();
        let mut averaged = 0;
        for name in found.names() {
            let (expected, unknown) = formula(&toys, name, floor, normalize);
            let gap = (found.load(name).unwrap().to_kind(Kind::Double) - expected).abs().max().double_value(&[]);
            assert!(gap < 1e-7, "{params}: {name} is off by {gap:e}");
            averaged += unknown;
        }
        assert_eq!(outcome.facts()["elements_averaged"], averaged, "{params}");
        assert!(averaged > 0);
        let note = format!("{averaged} of {} elements took the weighted mean", 90 * 70 + 30 * 4 + 4);
        assert!(outcome.notes().join("\n").contains(&note), "{:?}", outcome.notes());
    }
}

#[test]
fn rules_take_tensors_out_and_a_floor_may_be_one_tensors_own() {
    let toys = toys();
    let rule = Rule { pattern: "*norm*".to_owned(), action: Some(RuleUse::Model("m1".to_owned())), alpha: None };
    let params = json!({ "floor": [{ "filter": "embed", "value": 1.0 }] });
    let outcome = run(Job::Merge(MergeJob { rules: vec![rule], ..job(&toys, &params) }), 1).ok();
    let [found, m1] = [&outcome.out, &toys.models[1].path].map(|path| Checkpoint::open(path).unwrap());
    let norm = "model.norm.weight";
    assert_eq!(found.load(norm).unwrap(), m1.load(norm).unwrap());
    // Nothing of the embedding is above its floor.
    let average = run(Job::Merge(merge_job("average", toys.models.clone())), 1).ok();
    let average = Checkpoint::open(&average.out).unwrap();
    let same = |name: &str| found.load(name).unwrap() == average.load(name).unwrap();
    assert!(same("model.embed_tokens.weight") && !same("model.layers.0.self_attn.o_proj.weight"));
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let toys = toys();
    let refused = |job: MergeJob, parts: &[&str]| {
        let outcome = run(Job::Merge(job), 1);
        refused(&outcome, parts);
        assert_eq!(outcome.files(), []);
    };
    refused(job(&toys, &json!({ "floor": -1e-9 })), &["method fisher: floor is -1e-9"]);
    refused(job(&toys, &json!({ "density": 0.5 })), &["it has no parameter \"density\""]);
    let mut without = job(&toys, &json!({}));
    without.models[1].fisher = None;
    refused(without, &["model m1 has no Fisher information", "`fishers:` names one entry per model"]);

    let other = toys.home.path().join("other");
    let artifact = |tensors: &[(&str, Tensor)]| {
        let _ = fs::remove_dir_all(&other);
        toy_fisher(&other, tensors);
        let mut job = job(&toys, &json!({}));
        job.models[2].fisher = Some(other.clone());
        job
    };
    let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
    let layer = "model.layers.0.self_attn.o_proj.weight";
    let (embedding, norm) = (("model.embed_tokens.weight", ones(&[30, 4])), ("model.norm.weight", ones(&[4])));
    let small = artifact(&[(layer, ones(&[90, 60])), (embedding.0, embedding.1.copy()), (norm.0, norm.1.copy())]);
    refused(
        small,
        &["o_proj.weight: [90, 70] in the models, [90, 60] in the Fisher information of m2", "another size"],
    );
    let lacks = artifact(&[embedding, (norm.0, norm.1.copy())]);
    refused(
        lacks,
        &["the Fisher information of m2", "has none for model.layers.0.self_attn.o_proj.weight", "use: average"],
    );
    let zero = artifact(&[(norm.0, norm.1 * 0.0)]);
    refused(
        MergeJob { params: [("normalize".to_owned(), json!(true))].into_iter().collect(), ..zero },
        &["the Fisher information of model m2 is zero everywhere"],
    );
}

#[test]
fn a_merge_of_tiny_models_by_their_fisher_information_is_a_model() {
    let Some(references) = references() else { return };
    let (rows, model) = (references.join("rows.jsonl"), references.join("llama/model"));
    let made: Vec<Outcome> = [0, 12]
        .into_iter()
        .map(|skip_first| {
            let run_job = GramJob { skip_first, ..gram_job(&model, &rows) };
            run(Job::Fisher(FisherJob { run: run_job, labels: Labels::Data }), 2).ok()
        })
        .collect();
    // The same weights twice: whatever the information, they come out as they are.
    let twice = made.iter().enumerate().map(|(index, outcome)| MergeSource {
        fisher: Some(outcome.out.clone()),
        ..source(&format!("m{index}"), &model, None)
    });
    let outcome = run(Job::Merge(merge_job("fisher", twice.collect())), 2).ok();
    let [found, model] = [&outcome.out, &model].map(|path| Checkpoint::open(path).unwrap());
    for name in model.names() {
        assert_eq!(found.load(name).unwrap(), model.load(name).unwrap(), "{name}");
    }
    // Rows of the embedding that no text has are known to neither.
    assert!(outcome.facts()["elements_averaged"].as_u64().unwrap() > 48);
}
