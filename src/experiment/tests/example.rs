//! The design's example means what the design says.

use indexmap::IndexMap;
use mergelab_wire::{Alpha, Message, Rows};
use serde_json::json;

use super::DESIGN;
use crate::experiment::{
    Backend, DataSource, Experiment, Gram, Input, Keep, Model, Pick, Requires, Row, UnsafeCode, Weighted, parse,
};

fn design() -> Experiment {
    parse("design.yaml".as_ref(), DESIGN).unwrap_or_else(|errors| panic!("{errors}")).experiment
}

#[test]
fn models_come_from_the_hub_at_a_revision() {
    let models = design().models;
    let hub = |repo: &str, revision: Option<&str>| Model::Hub { repo: repo.into(), revision: revision.map(Into::into) };
    assert_eq!(models["math"], hub("TIGER-Lab/MAmmoTH2-8B", Some("main")));
    assert_eq!(models["code"], hub("rombodawg/rombos_Replete-Coder-Llama3-8B", None));
}

#[test]
fn data_says_which_rows_and_how_they_become_text() {
    let data = design().data;
    let message = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
    let math = &data["math-train"];
    assert_eq!(math.rows, Pick::First(10_000));
    assert_eq!(
        math.format,
        Rows::Messages(vec![message("user", "{{ question }}"), message("assistant", "{{ answer }}")])
    );
    let hub = DataSource::Hub {
        repo: "TIGER-Lab/WebInstructSub".into(),
        revision: None,
        config: None,
        split: "train".into(),
    };
    assert_eq!(math.source, hub);
    assert_eq!(data["code-train"].rows, Pick::Sample { sample: 500, seed: 7 });
    assert_eq!(data["code-train"].source, DataSource::Path("data/code.jsonl".into()));
}

#[test]
fn a_command_keeps_its_placeholders() {
    let command = &design().commands["train-math"];
    assert_eq!(command.run.last().map(String::as_str), Some("{out}"));
    let train = "experiments/quickstart/train.py";
    assert_eq!(command.inputs[train], Input::Path(train.into()));
}

#[test]
fn a_gram_names_its_model_and_data() {
    let Gram::Capture(math) = &design().grams["math"] else { panic!("a capture") };
    assert_eq!((math.model.as_str(), math.data.as_str(), math.max_length), ("math", "math-train", Some(256)));
    assert!(math.add_special_tokens);
    assert_eq!(math.shards, 1);
}

#[test]
fn a_sweep_becomes_one_merge_a_value_in_the_place_of_its_entry() {
    let merges = design().merges;
    let names: Vec<_> = merges.keys().collect();
    assert_eq!(names, ["avg", "regmean", "alphas-0.1", "alphas-0.5", "alphas-0.9"]);
    assert_eq!(merges["alphas-0.5"].alpha, Some(Alpha::Number(0.5)));
    assert_eq!(merges["alphas-0.5"].keep, Keep::Recipe);
    assert_eq!(merges["avg"].alpha, None);
    let weighted = |model: &str| Weighted { model: model.into(), weight: 1.0.into(), params: IndexMap::new() };
    assert_eq!(merges["regmean"].models, [weighted("math"), weighted("code")]);
    assert_eq!(merges["regmean"].grams, ["math", "code"]);
}

#[test]
fn a_suite_expands_swept_models_and_keeps_lm_evals_names() {
    let suite = &design().evals["suite"];
    assert_eq!(suite.models, ["math", "code", "avg", "regmean", "alphas-0.1", "alphas-0.5", "alphas-0.9"]);
    assert_eq!(suite.backend, Backend::Vllm);
    assert_eq!(suite.model_args["tensor_parallel_size"], json!(1));
    assert_eq!(suite.model_args["add_bos_token"], json!(false));
    assert_eq!(suite.tasks[1].options.num_fewshot, Some(3));
    assert_eq!(suite.unsafe_code, UnsafeCode::Sandbox);
}

#[test]
fn a_table_and_the_settings_are_read() {
    let design = design();
    let row =
        |model: &str, label: Option<&str>| Row { model: model.into(), label: label.map(Into::into), ..Row::default() };
    let table = &design.tables["main"];
    assert_eq!(table.rows, [row("math", Some("Math model")), row("avg", None), row("regmean", None)]);
    assert_eq!(table.metrics().next().and_then(|column| column.filter.as_deref()), Some("flexible-extract"));
    assert_eq!(table.into.as_deref(), Some("README.md".as_ref()));
    let gib = 1 << 30;
    let requires = Requires { gpu_memory: Some(40 * gib), memory: None, disk: Some(120 * gib) };
    assert_eq!(design.settings.requires, requires);
}
