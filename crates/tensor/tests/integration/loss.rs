//! Losses and KL divergences against `transformers` and plain `PyTorch` (`tests/reference/loss.py`), and what is refused.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use flate2::read::GzDecoder;
use mergelab_wire::{GramJob, Job, LossJob, LossSource, Rows, TokenMask};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{FAMILIES, Outcome, gram_job, made_by, run, run_within};

fn losses() -> Option<&'static Path> {
    static MADE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let texts = [include_str!("../reference/loss.py"), include_str!("../reference/models.py")];
    MADE.get_or_init(|| made_by("loss.py", &texts)).as_deref()
}

/// A loss without sources.
fn job(capture: GramJob) -> LossJob {
    LossJob { capture, sources: Vec::new() }
}

/// A loss with one source, `other`.
fn against(capture: GramJob, path: &Path) -> LossJob {
    LossJob { capture, sources: vec![LossSource { name: "other".to_owned(), path: path.to_path_buf() }] }
}

/// What `loss.py` calls its cases.
fn cases(home: &Path, model: &Path) -> [(&'static str, GramJob); 5] {
    let chat = || gram_job(model, &home.join("rows.jsonl"));
    let text = || GramJob { rows: Rows::Text("{{ text }}".to_owned()), ..gram_job(model, &home.join("texts.jsonl")) };
    [
        ("chat", chat()),
        ("cut", GramJob { max_length: Some(20), ..chat() }),
        ("assistant", GramJob { tokens: TokenMask::Assistant, add_special_tokens: false, ..chat() }),
        ("text", text()),
        ("bare", GramJob { add_special_tokens: false, ..text() }),
    ]
}

fn samples(outcome: &Outcome) -> Vec<Value> {
    let mut text = String::new();
    let file = fs::File::open(outcome.out.join("samples.jsonl.gz")).unwrap();
    GzDecoder::new(file).read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The value of a metric, and its standard error.
fn metric(outcome: &Outcome, name: &str) -> (f64, Option<f64>) {
    let metrics = outcome.json("metrics.json");
    let found = metrics.as_array().unwrap().iter().find(|metric| metric["metric"] == name);
    let found = found.unwrap_or_else(|| panic!("no {name} in {metrics}"));
    assert_eq!((&found["filter"], &found["higher_is_better"]), (&json!("none"), &json!(false)));
    (found["value"].as_f64().unwrap(), found["stderr"].as_f64())
}

#[track_caller]
fn near(found: f64, expected: f64, place: &str) {
    assert!((found - expected).abs() < 1e-4 * expected.abs(), "{place}: {found}, not {expected}");
}

#[test]
fn losses_and_kl_divergences_of_every_family_are_those_of_transformers_to_1e_4() {
    let Some(home) = losses() else { return };
    let reference: Value = serde_json::from_slice(&fs::read(home.join("losses.json")).unwrap()).unwrap();
    for family in FAMILIES {
        let (model, other) = (home.join(family).join("model"), home.join(family).join("other"));
        for (case, capture) in cases(home, &model) {
            let place = format!("{family}, {case}");
            let outcome = run(Job::Loss(against(capture, &other)), 2).ok();
            let expected = reference[family][case].as_array().unwrap();
            let found = samples(&outcome);
            assert_eq!(found.len(), expected.len(), "{place}");
            let number = |row: &Value, name: &str| row[name].as_f64().unwrap();
            for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
                let place = format!("{place}, row {row}");
                assert_eq!(found["doc_id"], row, "{place}");
                assert_eq!([&found["tokens"], &found["bytes"]], [&expected["tokens"], &expected["bytes"]], "{place}");
                near(number(found, "nll"), number(expected, "nll"), &place);
                let (tokens, per_row) = (number(expected, "tokens"), &found["metrics"]["none"]);
                near(number(per_row, "kl/other"), number(expected, "kl") / tokens, &place);
                near(number(per_row, "nll"), number(expected, "nll") / tokens, &place);
            }
            let sum = |name: &str| expected.iter().map(|row| number(row, name)).sum::<f64>();
            let (tokens, bytes) = (sum("tokens"), sum("bytes"));
            near(metric(&outcome, "nll").0, sum("nll") / tokens, &place);
            near(metric(&outcome, "kl/other").0, sum("kl") / tokens, &place);
            let (bits, stderr) = metric(&outcome, "bits_per_byte");
            near(bits, sum("nll") / 2f64.ln() / bytes, &place);
            let residual = |row: &Value| (number(row, "nll") / 2f64.ln() - bits * number(row, "bytes")).powi(2);
            let n = expected.len() as f64;
            let squares: f64 = expected.iter().map(residual).sum();
            near(stderr.unwrap(), (n / (n - 1.0) * squares).sqrt() / bytes, &place);
            assert_eq!(outcome.json("metrics.json")[0]["n_samples"], expected.len());
            assert_eq!(outcome.facts()["bytes_counted"], bytes);
        }
    }
}

#[test]
fn a_model_predicts_what_it_predicts_and_its_divergence_from_itself_is_nothing_at_all() {
    let Some(home) = losses() else { return };
    let model = home.join("qwen3/model");
    for dtype in ["float32", "bfloat16"] {
        let capture = GramJob { dtype: Some(dtype.to_owned()), ..gram_job(&model, &home.join("rows.jsonl")) };
        let outcome = run(Job::Loss(against(capture, &model)), 1).ok();
        assert_eq!(metric(&outcome, "kl/other"), (0.0, Some(0.0)));
        assert_eq!(outcome.facts()["forward_dtype"], dtype);
    }
}

#[test]
fn a_bf16_forward_pass_gives_nearly_the_fp32_loss() {
    let Some(home) = losses() else { return };
    let loss = |dtype: &str| {
        let capture =
            GramJob { dtype: Some(dtype.to_owned()), ..gram_job(&home.join("llama/model"), &home.join("rows.jsonl")) };
        metric(&run(Job::Loss(job(capture)), 1).ok(), "nll").0
    };
    let gap = (loss("bfloat16") / loss("float32") - 1.0).abs();
    assert!(gap < 1e-2 && gap > 1e-7, "{gap:e}");
}

#[test]
fn neither_threads_nor_a_memory_budget_show_in_the_result() {
    let Some(home) = losses() else { return };
    // Enough rows for several chunks.
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("rows.jsonl");
    let row = |row: usize| format!("{{\"question\": \"{row}\", \"answer\": \"{}\"}}\n", "word ".repeat(row % 13 + 1));
    fs::write(&data, (0..60).map(row).collect::<String>()).unwrap();
    let capture = gram_job(&home.join("llama/model"), &data);
    let job = || Job::Loss(against(capture.clone(), &home.join("llama/other")));
    let one = run(job(), 1).ok();
    assert_eq!(one.facts()["hidden_states_in_file"], 0);
    let files = one.files();
    assert_eq!(files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["metrics.json", "samples.jsonl.gz"]);
    assert_eq!(run(job(), 3).ok().files(), files);
    let spilled = run_within(job(), 2, Some(1)).ok();
    assert!(spilled.facts()["hidden_states_in_file"].as_u64().unwrap() > 0);
    assert_eq!(spilled.files(), files);
}

#[test]
fn only_tokens_that_something_predicts_count() {
    let Some(home) = losses() else { return };
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("rows.jsonl");
    fs::write(&data, "{\"text\": \"a\"}\n{\"text\": \"ab\"}\n{\"text\": \"c\"}\n").unwrap();
    let capture = GramJob {
        rows: Rows::Text("{{ text }}".to_owned()),
        add_special_tokens: false,
        ..gram_job(&home.join("llama/model"), &data)
    };
    let outcome = run(Job::Loss(job(capture.clone())), 1).ok();
    let facts = outcome.facts();
    assert_eq!([&facts["rows"], &facts["rows_without_tokens"], &facts["tokens_counted"]], [3, 2, 1]);
    assert_eq!(metric(&outcome, "bits_per_byte").1, None, "one row has no standard error");
    fs::write(&data, "{\"text\": \"a\"}\n").unwrap();
    refused(&run(Job::Loss(job(capture)), 1), &["none of the 1 rows gives a token that counts", "look at the data"]);
}

/// The experiment is wrong, and it says each part.
#[track_caller]
fn refused(outcome: &Outcome, parts: &[&str]) {
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    for part in parts {
        assert!(outcome.stderr.contains(part), "{part:?} is not in\n{}", outcome.stderr);
    }
    assert_eq!(outcome.files(), []);
}

/// A copy of a model in which a file is another.
fn changed(model: &Path, name: &str, change: impl FnOnce(&mut Value)) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(model).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let mut value: Value = serde_json::from_slice(&fs::read(model.join(name)).unwrap()).unwrap();
    change(&mut value);
    fs::write(copy.path().join(name), value.to_string()).unwrap();
    copy
}

#[test]
fn models_whose_tokens_differ_are_refused_with_what_differs_and_the_way_out() {
    let Some(home) = losses() else { return };
    let model = home.join("llama/model");
    let capture = gram_job(&model, &home.join("rows.jsonl"));
    let larger = changed(&model, "config.json", |config| config["vocab_size"] = json!(320));
    refused(
        &run(Job::Loss(against(capture.clone(), larger.path())), 1),
        &["vocabularies differ: the model has 300 tokens, the source other has 320", "hint: `kl: false`"],
    );
    let swapped = changed(&model, "tokenizer.json", |tokenizer| {
        let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        let (a, b) = (vocab["a"].clone(), vocab["b"].clone());
        vocab.insert("a".to_owned(), b);
        vocab.insert("b".to_owned(), a);
    });
    refused(
        &run(Job::Loss(against(capture.clone(), swapped.path())), 1),
        &["tokenizers differ: token ", " is \"a\" to the model and \"b\" to the source other", "hint: `kl: false`"],
    );
    // Of a source without a tokenizer its vocabulary's size is all that is known.
    fs::remove_file(swapped.path().join("tokenizer.json")).unwrap();
    run(Job::Loss(against(capture, swapped.path())), 1).ok();
}

#[test]
fn a_family_without_a_native_forward_pass_is_named_with_what_else_evaluates_it() {
    let Some(home) = losses() else { return };
    let model = home.join("llama/model");
    let gpt = changed(&model, "config.json", |config| config["model_type"] = json!("gpt2"));
    let capture = gram_job(&model, &home.join("rows.jsonl"));
    let hint = "native families are llama, mistral, qwen2, qwen3; `backend: hf` evaluates";
    let own = job(GramJob { model: gpt.path().to_path_buf(), ..capture.clone() });
    refused(&run(Job::Loss(own), 1), &["the model has model_type \"gpt2\"", hint]);
    refused(&run(Job::Loss(against(capture, gpt.path())), 1), &["the source other has model_type \"gpt2\"", hint]);
}

#[test]
fn missing_data_and_rows_past_the_models_positions_are_refused() {
    let Some(home) = losses() else { return };
    let capture = gram_job(&home.join("llama/model"), &home.join("nowhere.jsonl"));
    refused(&run(Job::Loss(job(capture.clone())), 1), &["nowhere.jsonl"]);
    let long = GramJob { max_length: None, data: home.join("rows.jsonl"), ..capture };
    let parts = ["row 6 has ", " tokens, and the model was made for 128 positions", "hint: set `max_length`"];
    refused(&run(Job::Loss(job(long)), 1), &parts);
}

#[test]
fn a_model_whose_predictions_are_no_numbers_is_an_error_that_names_the_row() {
    let Some(home) = losses() else { return };
    let broken = changed(&home.join("llama/model"), "config.json", |_| {});
    let path = broken.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let start = 8 + header + json["model.norm.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[start..start + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let outcome = run(Job::Loss(job(gram_job(broken.path(), &home.join("rows.jsonl")))), 1);
    refused(&outcome, &["lm_head: the activations of row ", " are not finite"]);
}
