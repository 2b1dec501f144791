//! Gram matrices, logits and token ids against `transformers` (`tests/reference/models.py`).

use std::fs;
use std::path::Path;

use mergelab_tensor::checkpoint::{Checkpoint, SafeFile};
use mergelab_tensor::dtype::FloatType;
use mergelab_tensor::gram::GramSet;
use mergelab_tensor::model::{Decoder, DecoderConfig, logits};
use mergelab_tensor::report::Reporter;
use mergelab_tensor::text::{Sequence, TextSpec, sequences};
use mergelab_wire::{GramJob, Job, Rows, TokenMask};
use tch::{Device, Kind, Tensor};

use crate::support::{FAMILIES, Outcome, chat_rows, gram_job, references, run};

/// `‖A - B‖ / ‖B‖` in fp64.
fn distance(found: &Tensor, expected: &Tensor) -> f64 {
    let expected = expected.to_kind(Kind::Double);
    ((found.to_kind(Kind::Double) - &expected).norm() / expected.norm()).double_value(&[])
}

/// The farthest of an artifact's Grams from the reference's, which must be of the same modules.
fn farthest(outcome: &Outcome, reference: &SafeFile) -> f64 {
    let grams = GramSet::open(&outcome.out).unwrap();
    let mut modules: Vec<&str> = grams.modules().collect();
    let mut expected: Vec<&str> = reference.tensors().keys().filter_map(|name| name.strip_prefix("gram:")).collect();
    modules.sort_unstable();
    expected.sort_unstable();
    assert_eq!(modules, expected);
    let gap = |module: &&str| {
        let matrix = grams.matrix(grams.entry(module).unwrap()).unwrap();
        distance(&matrix, &reference.load(&format!("gram:{module}")).unwrap())
    };
    modules.iter().map(gap).fold(0.0, f64::max)
}

fn tokenised(model: &Path, data: &Path, tokens: TokenMask, max_length: Option<usize>) -> Vec<Sequence> {
    let rows = chat_rows();
    let spec = TextSpec {
        model,
        data,
        shown: data,
        rows: &rows,
        range: None,
        strict: false,
        max_length,
        add_special_tokens: true,
        tokens,
        skip_first: 0,
        chat_template: None,
    };
    sequences(&spec, &Reporter::silent()).unwrap()
}

#[test]
fn grams_of_every_family_agree_with_hooks_on_transformers_to_1e_5() {
    let Some(references) = references() else { return };
    for family in FAMILIES {
        let home = references.join(family);
        let outcome = run(Job::Gram(gram_job(&home.join("model"), &references.join("rows.jsonl"))), 2).ok();
        let gap = farthest(&outcome, &SafeFile::open(&home.join("reference.safetensors")).unwrap());
        assert!(gap < 1e-5, "{family}: {gap:e}");
    }
}

#[test]
fn a_bf16_forward_pass_stays_near_the_fp32_one() {
    let Some(references) = references() else { return };
    let home = references.join("qwen3");
    let job =
        GramJob { dtype: Some("bfloat16".to_owned()), ..gram_job(&home.join("model"), &references.join("rows.jsonl")) };
    let outcome = run(Job::Gram(job), 2).ok();
    assert_eq!(outcome.facts()["forward_dtype"], "bfloat16");
    let gap = farthest(&outcome, &SafeFile::open(&home.join("reference.safetensors")).unwrap());
    assert!(gap < 2e-2, "{gap:e}");
    assert!(gap > 1e-5, "bf16 cannot be this near: {gap:e}");
}

#[test]
fn logits_of_every_family_agree_with_transformers_to_1e_4() {
    let Some(references) = references() else { return };
    for family in FAMILIES {
        let home = references.join(family);
        let reference = SafeFile::open(&home.join("reference.safetensors")).unwrap();
        let config = DecoderConfig::read(&home.join("model")).unwrap();
        let checkpoint = Checkpoint::open(&home.join("model")).unwrap();
        let decoder = Decoder::new(&checkpoint, &config, FloatType::Float32, Device::Cpu);
        for row in 0..6 {
            let ids: Vec<i64> = Vec::try_from(reference.load(&format!("ids:{row}")).unwrap()).unwrap();
            let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
            let gap = distance(&logits(&decoder, &ids).unwrap(), &reference.load(&format!("logits:{row}")).unwrap());
            assert!(gap < 1e-4, "{family}, row {row}: {gap:e}");
        }
    }
}

#[test]
fn token_ids_of_chat_rows_are_those_of_transformers() {
    let Some(references) = references() else { return };
    let home = references.join("llama");
    let reference = SafeFile::open(&home.join("reference.safetensors")).unwrap();
    let found = tokenised(&home.join("model"), &references.join("rows.jsonl"), TokenMask::All, Some(100));
    assert_eq!(found.len(), 6);
    for (row, sequence) in found.iter().enumerate() {
        let expected: Vec<i64> = Vec::try_from(reference.load(&format!("ids:{row}")).unwrap()).unwrap();
        assert_eq!(sequence.ids.iter().map(|id| i64::from(*id)).collect::<Vec<_>>(), expected, "row {row}");
    }
}

#[test]
fn assistant_tokens_are_those_of_transformers() {
    let Some(references) = references() else { return };
    let home = references.join("llama");
    let reference = SafeFile::open(&home.join("reference.safetensors")).unwrap();
    let found = tokenised(&home.join("model"), &references.join("rows.jsonl"), TokenMask::Assistant, None);
    for (row, sequence) in found.iter().enumerate() {
        let expected: Vec<i64> = Vec::try_from(reference.load(&format!("assistant:{row}")).unwrap()).unwrap();
        // `transformers` tokenises its own rendering without special tokens; ours has one more begin token in front.
        let counts: Vec<i64> = sequence.counts.iter().skip(1).map(|counts| i64::from(*counts)).collect();
        assert_eq!(counts, expected, "row {row}");
    }
}

#[test]
fn skipped_tokens_count_in_no_gram_and_are_still_seen_by_later_ones() {
    let Some(references) = references() else { return };
    let model = references.join("llama/model");
    let data = references.join("rows.jsonl");
    let all = run(Job::Gram(gram_job(&model, &data)), 1).ok();
    let skipped = run(Job::Gram(GramJob { skip_first: 1, ..gram_job(&model, &data) }), 1).ok();
    assert_eq!(
        all.facts()["tokens_counted"].as_u64().unwrap() - 6,
        skipped.facts()["tokens_counted"].as_u64().unwrap()
    );
    assert_eq!(skipped.facts()["first_token_share_max"], 0.0);
    // n G of all tokens is n G without the first tokens, and those: the share that is reported.
    let trace = |outcome: &Outcome| {
        let input = &outcome.json("layers.json")["inputs"][0];
        input["trace"].as_f64().unwrap() * outcome.facts()["tokens_counted"].as_f64().unwrap()
    };
    let share = all.json("layers.json")["inputs"][0]["first_token_share"].as_f64().unwrap();
    let expected = 1.0 - trace(&skipped) / trace(&all);
    assert!((share - expected).abs() < 1e-5, "{share} {expected}");
    assert!(share > 0.01);
}

#[test]
fn excluded_modules_have_no_gram() {
    let Some(references) = references() else { return };
    let model = references.join("llama/model");
    let exclude = vec!["*.mlp.*".to_owned(), "lm_head".to_owned(), "model.layers.1.*".to_owned()];
    let outcome = run(Job::Gram(GramJob { exclude, ..gram_job(&model, &references.join("rows.jsonl")) }), 1).ok();
    let grams = GramSet::open(&outcome.out).unwrap();
    let modules: Vec<&str> = grams.modules().collect();
    let layer = "model.layers.0.self_attn";
    assert_eq!(modules, ["q", "k", "v", "o"].map(|part| format!("{layer}.{part}_proj")));
    assert!(!outcome.out.join("layer-00001.safetensors").exists());
}

#[test]
fn rows_that_lack_a_column_or_are_empty_are_skipped_and_counted() {
    let Some(references) = references() else { return };
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("rows.jsonl");
    fs::write(&data, "{\"a\": \"one\"}\n{\"b\": \"two\"}\n{\"a\": \"  \"}\n{\"a\": \"three\"}\n{\"b\": \"4\"}\n")
        .unwrap();
    let job = GramJob { rows: Rows::Text("{{ a }}".to_owned()), ..gram_job(&references.join("llama/model"), &data) };
    let outcome = run(Job::Gram(job.clone()), 1).ok();
    let facts = outcome.facts();
    assert_eq!([&facts["rows"], &facts["rows_used"], &facts["rows_skipped"]], [5, 2, 3]);
    assert_eq!(facts["rows_lacking_column"], serde_json::json!({ "a": 2 }));
    assert_eq!([&facts["rows_empty"], &facts["rows_without_tokens"]], [1, 0]);
    let notes = outcome.notes().join("\n");
    assert!(notes.contains("2 row(s) lack column \"a\" (first: rows 2, 5), skipped"), "{notes}");
    assert!(notes.contains("1 row(s) are empty (first: row 3), skipped"), "{notes}");
    let strict = run(Job::Gram(GramJob { strict: true, ..job }), 1);
    assert_eq!(strict.code, 3);
    assert!(strict.stderr.contains("row 2: no column \"a\" (the row has b)"), "{}", strict.stderr);
}
