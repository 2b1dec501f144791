//! Models of different vocabularies: rows that belong together by token, tokens that only some have, padding.

use std::fs;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use mergelab_tensor::checkpoint::Checkpoint;
use mergelab_wire::{
    Alignment, Job, MergeJob, MergeSlice, MergeSource, RowSource, Rule, RuleUse, SliceSource, TokenRow,
};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

use crate::support::{Outcome, merge_job, refused, run, save, source};

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// A tokenizer that cuts at spaces: these tokens, then special ones.
fn tokenizer(tokens: &[&str], special: &[&str]) -> Value {
    let vocabulary: serde_json::Map<String, Value> =
        tokens.iter().zip(0..).map(|(token, id)| ((*token).to_owned(), json!(id))).collect();
    let added = special.iter().zip(tokens.len()..).map(|(token, id)| {
        json!({ "id": id, "content": token, "special": true, "single_word": false, "lstrip": false, "rstrip": true,
                "normalized": false })
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": { "type": "WhitespaceSplit" }, "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "x" },
    })
}

/// A model whose embedding has rows `[value, -value]` and whose head has `[10 value, 1]`, for these values.
fn model(home: &Path, name: &str, tokenizer: Option<&Value>, values: &[f64]) -> MergeSource {
    let directory = home.join(name);
    fs::create_dir_all(&directory).unwrap();
    let table = |row: fn(f64) -> [f64; 2]| {
        let flat: Vec<f64> = values.iter().flat_map(|value| row(*value)).collect();
        Tensor::from_slice(&flat).view([-1, 2]).to_kind(Kind::Float)
    };
    save(
        &directory.join("model.safetensors"),
        &[
            (EMBEDDING, table(|value| [value, -value])),
            (HEAD, table(|value| [10.0 * value, 1.0])),
            ("model.norm.weight", Tensor::ones([2], (Kind::Float, Device::Cpu))),
        ],
    );
    let config = format!(
        "{{\"model_type\": \"llama\", \"num_hidden_layers\": 1, \"vocab_size\": {}, \"torch_dtype\": \"float32\"}}\n",
        values.len()
    );
    fs::write(directory.join("config.json"), config).unwrap();
    if let Some(tokenizer) = tokenizer {
        fs::write(directory.join("tokenizer.json"), tokenizer.to_string()).unwrap();
        fs::write(directory.join("tokenizer_config.json"), r#"{"added_tokens_decoder": {}, "chat_template": "T"}"#)
            .unwrap();
    }
    source(name, &directory, None)
}

fn by_token() -> Alignment {
    Alignment::default()
}

fn union() -> Alignment {
    Alignment { union: true, ..Alignment::default() }
}

fn aligned(method: &str, models: &[MergeSource], alignment: Alignment) -> MergeJob {
    MergeJob { alignment: Some(alignment), ..merge_job(method, models.to_vec()) }
}

/// First column of a table of the result.
fn column(directory: &Path, table: &str) -> Vec<f64> {
    let tensor = Checkpoint::open(directory).unwrap().load(table).unwrap();
    Vec::try_from(tensor.select(1, 0).to_kind(Kind::Double).contiguous()).unwrap()
}

fn embedding(outcome: &Outcome) -> Vec<f64> {
    let column = column(&outcome.out, EMBEDDING);
    let head = self::column(&outcome.out, HEAD);
    // The head has the same rows.
    assert!(column.iter().zip(&head).all(|(value, head)| (head - 10.0 * value).abs() < 1e-5), "{column:?} {head:?}");
    column
}

fn vocab_size(outcome: &Outcome) -> Value {
    outcome.json("config.json")["vocab_size"].clone()
}

/// Two models of the tokens x, y, z, in other orders.
fn two_orders() -> (TempDir, Vec<MergeSource>) {
    let home = tempfile::tempdir().unwrap();
    let a = model(home.path(), "a", Some(&tokenizer(&["x", "y", "z"], &[])), &[1.0, 2.0, 3.0]);
    let b = model(home.path(), "b", Some(&tokenizer(&["z", "x", "y"], &[])), &[30.0, 10.0, 20.0]);
    (home, vec![a, b])
}

#[test]
fn rows_go_together_by_token() {
    let (_home, models) = two_orders();
    let outcome = run(Job::Merge(aligned("average", &models, by_token())), 1).ok();
    assert_eq!(embedding(&outcome), [5.5, 11.0, 16.5]);
    assert!(outcome.notes().iter().any(|note| note.contains("rows of b are brought into the order")));
    // What is beside the tables is the giver's, to the byte.
    for file in ["tokenizer.json", "tokenizer_config.json", "config.json"] {
        assert_eq!(fs::read(outcome.out.join(file)).unwrap(), fs::read(models[0].path.join(file)).unwrap(), "{file}");
    }
    let names: Vec<String> = outcome.files().into_iter().map(|(name, _)| name).collect();
    let expected = [
        "README.md",
        "config.json",
        "layers.json",
        "merge.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(names, expected, "nothing is left of what was written on the way");

    // In the order of the other one.
    let job = MergeJob { tokenizer: models[1].path.clone(), ..aligned("average", &models, by_token()) };
    assert_eq!(embedding(&run(Job::Merge(job), 1).ok()), [16.5, 5.5, 11.0]);
}

#[test]
fn without_alignment_they_are_refused_with_the_way_out() {
    let (_home, models) = two_orders();
    let outcome = run(Job::Merge(merge_job("average", models)), 1);
    refused(&outcome, &["\"x\"", "tokenizer: NAME", "tokenizer: union"]);
    let home = tempfile::tempdir().unwrap();
    let tokens = tokenizer(&["x", "y"], &[]);
    let longer = tokenizer(&["x", "y"], &["<b>"]);
    let a = model(home.path(), "a", Some(&tokens), &[1.0, 2.0]);
    let b = model(home.path(), "b", Some(&longer), &[10.0, 20.0, 30.0]);
    let outcome = run(Job::Merge(merge_job("average", vec![a, b])), 1);
    refused(&outcome, &[EMBEDDING, "2", "3", "tokenizer: union"]);
}

#[test]
fn models_of_one_vocabulary_give_the_same_bytes_aligned_or_not() {
    let home = tempfile::tempdir().unwrap();
    let tokens = tokenizer(&["x", "y"], &["<b>"]);
    let models = [("a", [1.0, 2.0, 3.0, 4.0]), ("b", [10.0, 20.0, 30.0, 40.0])]
        .map(|(name, v)| model(home.path(), name, Some(&tokens), &v));
    let files = |alignment: Option<Alignment>| {
        let outcome = run(Job::Merge(MergeJob { alignment, ..merge_job("average", models.to_vec()) }), 1).ok();
        assert_eq!(outcome.notes(), [""; 0]);
        outcome.files().into_iter().filter(|(name, _)| name != "merge.json").collect::<Vec<_>>()
    };
    let plain = files(None);
    assert_eq!(files(Some(by_token())), plain);
    assert_eq!(files(Some(union())), plain);
}

#[test]
fn a_union_has_the_tokens_of_all_and_the_rows_of_those_that_have_them() {
    let home = tempfile::tempdir().unwrap();
    let models = [
        model(home.path(), "a", Some(&tokenizer(&["x", "y"], &["<a>"])), &[1.0, 2.0, 3.0]),
        model(home.path(), "b", Some(&tokenizer(&["y", "x"], &["<b>", "<c>"])), &[20.0, 10.0, 40.0, 50.0]),
        model(home.path(), "c", Some(&tokenizer(&["x", "y", "w"], &["<c>"])), &[100.0, 200.0, 300.0, 500.0]),
    ];
    let outcome = run(Job::Merge(aligned("average", &models, union())), 1).ok();
    // x, y and <a> as in a; <b> and <c> of b, w of c. What one has is that one's row in all; <c>, which two have, their mean
    // in the third.
    let tokenizer = outcome.json("tokenizer.json");
    let added: Vec<(&str, u64, bool, bool)> = tokenizer["added_tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| {
            let flag = |name: &str| token[name].as_bool().unwrap();
            (token["content"].as_str().unwrap(), token["id"].as_u64().unwrap(), flag("special"), flag("rstrip"))
        })
        .collect();
    let expected = [("<a>", 2, true, true), ("<b>", 3, true, true), ("<c>", 4, true, true), ("w", 5, false, false)];
    assert_eq!(added, expected);
    assert_eq!(embedding(&outcome), [37.0, 74.0, 3.0, 40.0, 275.0, 300.0]);
    assert_eq!(vocab_size(&outcome), 6);
    let config = outcome.json("tokenizer_config.json");
    assert_eq!(config["chat_template"], "T");
    assert_eq!(config["added_tokens_decoder"]["5"]["content"], "w");
    assert_eq!(config["added_tokens_decoder"].as_object().unwrap().len(), 3);
    // The base that is named has <c>.
    let how = Alignment { base: Some("b".to_owned()), ..union() };
    let outcome_of_b = run(Job::Merge(aligned("average", &models, how)), 1).ok();
    assert_eq!(embedding(&outcome_of_b), [37.0, 74.0, 3.0, 40.0, (50.0 + 50.0 + 500.0) / 3.0, 300.0]);
    assert!(outcome.notes().iter().any(|note| note == "a lacks 3 token(s) of the tokenizer: \"<b>\", \"<c>\", \"w\""));
}

#[test]
fn a_task_vector_is_zero_where_only_the_base_or_one_model_has_a_token() {
    let home = tempfile::tempdir().unwrap();
    let base = model(home.path(), "base", Some(&tokenizer(&["x", "y"], &["<0>"])), &[1.0, 2.0, 3.0]);
    let models = [
        model(home.path(), "a", Some(&tokenizer(&["x", "y"], &["<a>"])), &[2.0, 4.0, 7.0]),
        model(home.path(), "b", Some(&tokenizer(&["x", "y"], &["<0>"])), &[4.0, 2.0, 13.0]),
    ];
    let job = MergeJob {
        base: Some(base.clone()),
        tokenizer: base.path.clone(),
        params: [("normalize".to_owned(), json!(false))].into_iter().collect(),
        ..aligned("task_arithmetic", &models, union())
    };
    // x: 1 + 1 + 3; y: 2 + 2 + 0; <0>: 3 + 0 (a lacks it and has the base's row) + 10; <a>: 7 in all.
    assert_eq!(embedding(&run(Job::Merge(job.clone()), 1).ok()), [5.0, 4.0, 13.0, 7.0]);
    // By a rule the base's table; it has the row of <a> too.
    let rule = |name: &str| Rule { pattern: name.to_owned(), action: Some(RuleUse::Base), alpha: None };
    let job = MergeJob { rules: vec![rule("*embed*"), rule("lm_head*")], ..job };
    assert_eq!(embedding(&run(Job::Merge(job), 1).ok()), [1.0, 2.0, 3.0, 7.0]);
}

#[test]
fn padding_stays_and_new_tokens_go_into_it() {
    let home = tempfile::tempdir().unwrap();
    // Three tokens in rows of four, and two tokens in two.
    let models = [
        model(home.path(), "a", Some(&tokenizer(&["x", "y"], &["<a>"])), &[1.0, 2.0, 3.0, 4.0]),
        model(home.path(), "b", Some(&tokenizer(&["y", "x"], &[])), &[20.0, 10.0]),
    ];
    let outcome = run(Job::Merge(aligned("average", &models, by_token())), 1).ok();
    assert_eq!(embedding(&outcome), [5.5, 11.0, 3.0, 4.0]);
    // Of the other's tokenizer: two rows.
    let job = MergeJob { tokenizer: models[1].path.clone(), ..aligned("average", &models, by_token()) };
    let outcome = run(Job::Merge(job.clone()), 1).ok();
    assert_eq!((embedding(&outcome), vocab_size(&outcome)), (vec![11.0, 5.5], json!(2)));
    // More padding gets the mean of the rows of tokens, each model's own: (1 + 2) / 2 and (20 + 10) / 2.
    let alignment = Alignment { pad_to_multiple_of: Some(3), ..by_token() };
    let outcome = run(Job::Merge(MergeJob { alignment: Some(alignment), ..job }), 1).ok();
    assert_eq!((embedding(&outcome), vocab_size(&outcome)), (vec![11.0, 5.5, 8.25], json!(3)));

    // Two new tokens: one fits into the padding, and the table grows by what it was a multiple of.
    let third = model(home.path(), "c", Some(&tokenizer(&["x", "y"], &["<c>", "<d>"])), &[0.0, 0.0, 8.0, 9.0]);
    let outcome = run(Job::Merge(aligned("average", &[models[0].clone(), third], union())), 1).ok();
    let mean = [(1.0 + 2.0 + 3.0 + 8.0 + 9.0) / 5.0, (3.0 + 8.0 + 9.0) / 5.0];
    let expected = [0.5, 1.0, 3.0, 8.0, 9.0].into_iter().chain([f64::midpoint(mean[0], mean[1]); 3]);
    let found = embedding(&outcome);
    assert_eq!(found.len(), 8);
    assert!(found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6), "{found:?}");
}

#[test]
fn slices_take_tables_by_token_too() {
    let home = tempfile::tempdir().unwrap();
    let mut models = [
        model(home.path(), "a", Some(&tokenizer(&["x", "y"], &[])), &[1.0, 2.0]),
        model(home.path(), "b", Some(&tokenizer(&["y", "x"], &["<b>"])), &[20.0, 10.0, 30.0]),
    ];
    for (source, value) in models.iter_mut().zip([1.0, 2.0]) {
        let path = source.path.join("model.safetensors");
        let whole = Checkpoint::open(&source.path).unwrap();
        let load = |name: &'static str| (name, whole.load(name).unwrap());
        let layer = Tensor::full([2, 2], value, (Kind::Float, Device::Cpu));
        let tensors = [load(EMBEDDING), load(HEAD), ("model.layers.0.mlp.up_proj.weight", layer)];
        fs::remove_file(&path).unwrap();
        save(&path, &tensors);
    }
    let part =
        |name: &str| SliceSource { name: name.to_owned(), first: 0, weight: 1.0.into(), params: IndexMap::new() };
    let slice = |name: &str| MergeSlice { layers: 1, models: vec![part(name)], base: None, params: IndexMap::new() };
    // The embedding is that of the first slice, the head of the last.
    let job = MergeJob { slices: vec![slice("a"), slice("b")], ..aligned("passthrough", &models, union()) };
    let outcome = run(Job::Merge(job), 1).ok();
    assert_eq!(column(&outcome.out, EMBEDDING), [1.0, 2.0, 30.0]);
    assert_eq!(column(&outcome.out, HEAD), [100.0, 200.0, 300.0]);
    assert_eq!(column(&outcome.out, "model.layers.1.mlp.up_proj.weight"), [2.0, 2.0]);
}

#[test]
fn rows_of_single_tokens_can_be_stated() {
    let home = tempfile::tempdir().unwrap();
    let models = [
        model(home.path(), "a", Some(&tokenizer(&["x", "y"], &[])), &[1.0, 2.0]),
        model(home.path(), "b", Some(&tokenizer(&["x", "y"], &["<b>"])), &[10.0, 20.0, 30.0]),
    ];
    let stated = |token: &str, source: Option<RowSource>, force: bool| (token.to_owned(), TokenRow { source, force });
    let with = |tokens: &[(String, TokenRow)]| {
        let tokens: IndexMap<_, _> = tokens.iter().cloned().collect();
        run(Job::Merge(aligned("average", &models, Alignment { tokens, ..union() })), 1)
    };
    let of_b = |token: &str| RowSource::Token { model: "b".to_owned(), token: token.to_owned() };
    // Zeros for the model that lacks it; for both; a token of nobody with another's row; another row where all have one.
    let zero = || Some(RowSource::Zero);
    assert_eq!(embedding(&with(&[stated("<b>", zero(), false)]).ok()), [5.5, 11.0, 15.0]);
    assert_eq!(embedding(&with(&[stated("<b>", zero(), true)]).ok()), [5.5, 11.0, 0.0]);
    let new = with(&[
        stated("new", Some(of_b("y")), false),
        stated("x", Some(RowSource::Id { model: "a".into(), id: 1 }), true),
    ])
    .ok();
    assert_eq!(embedding(&new), [2.0, 11.0, 30.0, 20.0]);
    assert_eq!(new.json("tokenizer.json")["added_tokens"][1]["content"], "new");
    // Where no source is stated, it is as for any other token.
    assert_eq!(embedding(&with(&[stated("<b>", None, false)]).ok()), [5.5, 11.0, 30.0]);

    for (token, reason) in [
        (stated("<b>", Some(RowSource::Model("c".into())), false), "c is not a model of this merge"),
        (stated("<b>", Some(RowSource::Model("a".into())), false), "a has no row for the token \"<b>\""),
        (stated("<b>", Some(RowSource::Id { model: "a".into(), id: 2 }), false), "has 2 rows, and no row 2"),
    ] {
        refused(&with(&[token]), &["the row of \"<b>\"", reason, "kind: zero"]);
    }
}

#[test]
fn a_token_without_a_row_in_its_own_model_gets_one() {
    let home = tempfile::tempdir().unwrap();
    let tokens = tokenizer(&["x", "y"], &["<pad>"]);
    let models = [
        model(home.path(), "a", Some(&tokens), &[1.0, 2.0]),
        model(home.path(), "b", Some(&tokens), &[10.0, 20.0, 30.0]),
    ];
    for alignment in [by_token(), union()] {
        let outcome = run(Job::Merge(aligned("average", &models, alignment)), 1).ok();
        assert_eq!((embedding(&outcome), vocab_size(&outcome)), (vec![5.5, 11.0, 30.0], json!(3)));
    }
    // Where no model has one, it is the mean of the others; where one is stated, that.
    let alone = [models[0].clone(), MergeSource { name: "again".to_owned(), ..models[0].clone() }];
    assert_eq!(embedding(&run(Job::Merge(aligned("average", &alone, by_token())), 1).ok()), [1.0, 2.0, 1.5]);
    let row = TokenRow { source: Some(RowSource::Zero), force: false };
    let stated = Alignment { tokens: IndexMap::from([("<pad>".to_owned(), row)]), ..by_token() };
    assert_eq!(embedding(&run(Job::Merge(aligned("average", &alone, stated)), 1).ok()), [1.0, 2.0, 0.0]);
}

#[test]
fn a_model_without_any_tokenizer_is_taken_to_have_the_giver_s() {
    let home = tempfile::tempdir().unwrap();
    let models = [
        model(home.path(), "a", Some(&tokenizer(&["x", "y"], &[])), &[1.0, 2.0]),
        model(home.path(), "b", None, &[10.0, 20.0]),
    ];
    let outcome = run(Job::Merge(aligned("average", &models, by_token())), 1).ok();
    assert_eq!(embedding(&outcome), [5.5, 11.0]);
    assert!(outcome.notes().iter().any(|note| note.contains("b has no tokenizer")));
    // One of a kind that is not read could be any.
    fs::write(models[1].path.join("tokenizer.model"), "").unwrap();
    let outcome = run(Job::Merge(aligned("average", &models, by_token())), 1);
    refused(&outcome, &["model b", "no tokenizer.json", "save_pretrained"]);
}

#[test]
fn tokens_that_are_spelled_otherwise_cannot_be_united() {
    let home = tempfile::tempdir().unwrap();
    let spelled = |tokens: &[&str], decoder: Value| {
        let mut tokenizer = tokenizer(tokens, &[]);
        tokenizer["decoder"] = decoder;
        tokenizer
    };
    let bytes = json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true });
    let underline = json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true });
    let models = [
        model(home.path(), "a", Some(&spelled(&["x", "Ġy"], bytes)), &[1.0, 2.0]),
        model(home.path(), "b", Some(&spelled(&["x", "▁y"], underline)), &[10.0, 20.0]),
    ];
    let outcome = run(Job::Merge(aligned("average", &models, union())), 1);
    refused(&outcome, &["cannot be united", "`Ġ` for a space", "`▁` for a space", "\"▁y\"", "tokenizer: NAME"]);
    // By the tokens of one, the other lacks one.
    let outcome = run(Job::Merge(aligned("average", &models, by_token())), 1).ok();
    assert_eq!(embedding(&outcome), [5.5, 2.0]);
}

#[test]
fn what_goes_by_a_model_s_own_rows_is_refused() {
    let (home, models) = two_orders();
    let fisher: PathBuf = home.path().join("fisher");
    let models: Vec<MergeSource> =
        models.into_iter().map(|model| MergeSource { fisher: Some(fisher.clone()), ..model }).collect();
    let outcome = run(Job::Merge(aligned("fisher", &models, by_token())), 1);
    refused(&outcome, &["the Fisher information of b", "one tokenizer"]);
}
