//! Token ids and masks against `transformers` (`tests/reference/tokens.py`).

use std::path::Path;

use mergelab_tensor::report::Reporter;
use mergelab_tensor::text::{Sequence, TextSpec, sequences};
use mergelab_wire::{Rows, TokenMask};
use serde_json::Value;

use crate::support::{python, reference_program};

/// A case as our own code tokenises it.
fn tokenised(home: &Path, case: &Value) -> Vec<Sequence> {
    let rows: Rows = serde_json::from_value(case["rows"].clone()).unwrap();
    let data = home.join("rows.jsonl");
    let spec = TextSpec {
        model: &home.join(case["model"].as_str().unwrap()),
        data: &data,
        shown: &data,
        rows: &rows,
        range: None,
        strict: true,
        max_length: case["max_length"].as_u64().map(|length| length as usize),
        add_special_tokens: case["add_special_tokens"].as_bool().unwrap(),
        tokens: if case["mask"].is_null() { TokenMask::All } else { TokenMask::Assistant },
        skip_first: 0,
        chat_template: None,
    };
    sequences(&spec, &Reporter::silent()).unwrap_or_else(|error| panic!("{case}: {error}"))
}

#[test]
fn token_ids_of_every_kind_of_tokenizer_are_those_of_transformers() {
    let Some(python) = python() else {
        println!("skipped: no Python with transformers (MERGELAB_PYTHON, VIRTUAL_ENV, .venv)");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    reference_program(&python, "tokens.py", &[home.to_str().unwrap()]);
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(home.join("cases.json")).unwrap()).unwrap();
    assert_eq!(cases.len(), 13 * 13);
    let mut different = Vec::new();
    for case in &cases {
        for (row, sequence) in tokenised(home, case).iter().enumerate() {
            let ids: Vec<u32> = serde_json::from_value(case["ids"][row].clone()).unwrap();
            let counts = case["mask"][row].as_array().map_or_else(
                || vec![true; ids.len()],
                |mask| mask.iter().map(|counts| counts.as_u64() == Some(1)).collect(),
            );
            let mut place = case.clone();
            let _ = place.as_object_mut().unwrap().remove("rows");
            let kind = if case["rows"]["text"].is_null() { "messages" } else { "text" };
            let place =
                format!("{} {kind} {} {}, row {row}", place["model"], place["max_length"], place["add_special_tokens"]);
            if sequence.ids != ids {
                different.push(format!("{place}: ids\n  {:?}\n  {ids:?}", sequence.ids));
            } else if sequence.counts != counts {
                different.push(format!("{place}: mask\n  {:?}\n  {counts:?}", sequence.counts));
            }
        }
    }
    assert!(different.is_empty(), "{} differ\n{}", different.len(), different.join("\n"));
}
