//! One test a rule: what is refused, with which words.

use mergelab_wire::{Alignment, Labels, NamedWeight, Normalize, RowSource, RuleUse, TokenRow, Weight};
use serde_json::json;

use super::{errors, errors_of, shown, valid, with};
use crate::experiment::{Input, Model, Output};

fn one(sections: &str) -> String {
    let found = errors(sections);
    assert_eq!(found.len(), 1, "{found:#?}");
    found.into_iter().next().expect("one")
}

fn merge(keys: &str) -> String {
    format!("merges: {{ m: {{ models: [a, b], {keys} }} }}")
}

fn suite(keys: &str) -> String {
    format!("evals: {{ e: {{ models: [a], {keys} }} }}")
}

// Keys and types

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one() {
    insta::assert_snapshot!(shown("tables: { main: { rows: [a], colums: [] } }"));
}

#[test]
fn every_section_refuses_unknown_keys() {
    for (section, what) in [
        ("models: { z: { path: x, zzz: 1 } }", "a model"),
        ("data: { z: { path: x.csv, text: x, zzz: 1 } }", "a data set"),
        ("commands: { z: { run: [x], zzz: 1 } }", "a command"),
        ("grams: { z: { pickle: { path: x }, zzz: 1 } }", "a Gram entry"),
        ("fishers: { z: { model: m, data: d, zzz: 1 } }\ndata: { d: { path: d.csv, text: x } }", "a Fisher entry"),
        ("merges: { z: { method: average, models: [m], zzz: 1 } }", "a merge"),
        ("evals: { z: { models: [m], tasks: [t], zzz: 1 } }", "a suite"),
        ("settings: { zzz: 1 }", "`settings`"),
        ("zzz: 1", "an experiment"),
    ] {
        let found = errors_of(&format!(
            "name: x\n{}{section}\n",
            if section.starts_with("models") { "" } else { "models: { m: { path: m } }\n" }
        ));
        assert_eq!(found, [format!("{what} has no key `zzz`")]);
    }
}

#[test]
fn a_missing_key_is_named() {
    assert_eq!(one("commands: { c: { inputs: [x] } }"), "a command needs `run`");
    assert_eq!(errors_of("models: {}"), ["an experiment needs `name`"]);
    assert_eq!(one("merges: { m: { models: [a, b] } }"), "a merge needs `method`");
}

#[test]
fn wrong_types_say_what_they_are_and_what_is_expected() {
    assert_eq!(one(&merge("method: [average]")), "`method` must be text, not a list");
    assert_eq!(one("commands: { c: { run: echo } }"), "`run` must be a list, not text");
    assert_eq!(one("commands: { c: 5 }"), "a command must be a mapping, not a number");
    assert_eq!(one("commands: [c]"), "`commands` must be a mapping from names to entries, not a list");
    assert_eq!(one("commands: { c: { run: [x], version: true } }"), "`version` must be text, not a boolean");
    assert_eq!(one(&suite("tasks: [t], num_fewshot: 1.5")), "`num_fewshot` must be a whole number, not a number");
    assert_eq!(one(&suite("tasks: [t], num_fewshot: '3'")), "`num_fewshot` must be a whole number, not text");
    assert_eq!(one("merges: { m: }"), "a merge must be a mapping, not empty");
}

#[test]
fn yes_and_on_are_text_and_only_true_and_false_are_booleans() {
    insta::assert_snapshot!(shown("  gc: { model: a, data: text-a, add_special_tokens: yes }"));
    let experiment =
        valid(&suite("tasks: [t], model_args: { a: yes, b: on, c: no, d: off, e: true, f: 'true', g: null, h: 1.0 }"));
    let arguments = serde_json::to_value(&experiment.evals["e"].model_args).expect("JSON");
    assert_eq!(
        arguments,
        json!({ "a": "yes", "b": "on", "c": "no", "d": "off", "e": true, "f": "true", "g": null, "h": 1.0 })
    );
}

#[test]
fn a_number_where_text_is_asked_for_is_taken_as_spelled() {
    let experiment = valid("commands: { c: { run: [train, --lr, 1e-4, 010], version: 2 } }");
    assert_eq!(experiment.commands["c"].run, ["train", "--lr", "1e-4", "010"]);
    assert_eq!(experiment.commands["c"].version.as_deref(), Some("2"));
}

#[test]
fn an_empty_section_is_a_section_without_entries() {
    assert!(valid("merges:\nevals:\n").merges.is_empty());
}

#[test]
fn names_have_one_form() {
    assert_eq!(one("commands: { 'a b': { run: [x] } }"), "`a b` is not a name");
    assert_eq!(one("commands: { .hidden: { run: [x] } }"), "`.hidden` is not a name");
    assert_eq!(errors_of("name: results/x"), ["`results/x` is not a name"]);
    assert!(valid("commands: { 1.a_B-c: { run: [x] } }").commands.contains_key("1.a_B-c"));
}

// Ranges

#[test]
fn alpha_lies_between_0_and_1() {
    assert_eq!(one(&merge("method: regmean, grams: [ga, gb], alpha: 1.5")), "`alpha` must be from 0 to 1, not 1.5");
    assert_eq!(
        one(&merge("method: regmean, grams: [ga, gb], alpha: [0.1, -1]")),
        "`alpha` must be from 0 to 1, not -1"
    );
    assert_eq!(one(&merge("method: regmean, grams: [ga, gb], alpha: .nan")), "`alpha` must be from 0 to 1, not .nan");
    assert_eq!(one(&merge("method: regmean, grams: [ga, gb], alpha: atuo")), "`alpha` cannot be `atuo`");
}

#[test]
fn density_lies_between_0_and_1_in_gradients_and_filters_too() {
    let of = |density: &str| merge(&format!("method: ties, base: base, density: {density}"));
    for density in ["1.1", "[0.5, 1.1]"] {
        assert_eq!(one(&of(density)), "`density` must be from 0 to 1, not 1.1");
    }
    let filtered = of("[{ filter: mlp, value: 1.1 }, { value: 0.5 }]");
    assert_eq!(one(&filtered), "`value` must be from 0 to 1, not 1.1");
}

#[test]
fn weights_are_finite() {
    let message = one("merges: { m: { method: average, models: [{ model: a, weight: .inf }, b] } }");
    assert_eq!(message, "`weight` must be a finite number, not .inf");
}

#[test]
fn counts_start_at_one() {
    assert_eq!(one("  gc: { model: a, data: text-a, max_length: 0 }"), "`max_length` must be at least 1, not 0");
    assert_eq!(one("  gc: { model: a, data: text-a, shards: 0 }"), "`shards` must be from 1 to 100000, not 0");
    assert_eq!(
        errors_of("name: x\ndata: { d: { path: d.csv, text: x, rows: 0 } }"),
        ["`rows` must be at least 1, not 0"]
    );
    assert_eq!(one("commands: { c: { run: [x], timeout: 0 } }"), "`timeout` must be above 0");
    assert_eq!(one(&suite("tasks: [t], batch_size: 0")), "`batch_size` must be from 1 to 4294967295, not 0");
    let table = "tables: { t: { rows: [a], columns: [{ task: t, metric: acc, digits: 18 }] } }";
    assert_eq!(one(&format!("{}\n{table}", suite("tasks: [t]"))), "`digits` must be from 0 to 17, not 18");
}

#[test]
fn a_limit_is_a_count_or_a_share() {
    assert_eq!(valid(&suite("tasks: [t], limit: 0.1")).evals["e"].tasks[0].options.limit, Some(0.1));
    assert_eq!(one(&suite("tasks: [t], limit: 1.5")), "`limit` is a whole number of documents, or a share below 1");
}

#[test]
fn a_programs_time_is_of_a_suite_or_of_one_of_its_tasks_and_bounded() {
    let tasks = &valid(&suite("tasks: [t, { task: u, code_timeout: 0.5 }], code_timeout: 10")).evals["e"].tasks;
    assert_eq!([tasks[0].options.code_timeout, tasks[1].options.code_timeout], [Some(10.0), Some(0.5)]);
    assert_eq!(one(&suite("tasks: [t], code_timeout: 3601")), "`code_timeout` is at most 3600 seconds");
}

#[test]
fn sizes_have_units() {
    assert_eq!(valid("settings: { requires: { disk: 1.5 GB } }").settings.requires.disk, Some(1_500_000_000));
    assert_eq!(one("settings: { requires: { disk: 40Gib } }"), "`40Gib` is not a size");
    assert_eq!(one("settings: { device: gpu }"), "`gpu` is not a device");
}

// References

#[test]
fn an_unknown_model_is_refused_with_the_nearest_name() {
    insta::assert_snapshot!(shown("merges: { avg: { method: average, models: [a, bse] } }"));
}

#[test]
fn unknown_names_are_refused_wherever_one_may_stand() {
    assert_eq!(one("  gc: { model: nobody, data: text-a }"), "there is no model or merge called `nobody`");
    assert_eq!(one("  gc: { model: a, data: nothing }"), "there is no data set called `nothing`");
    assert_eq!(one(&merge("method: regmean, grams: [ga, gx]")), "there is no Gram entry called `gx`");
    assert_eq!(one(&merge("method: average, base: nobody")), "there is no model or merge called `nobody`");
    assert_eq!(one(&suite("backend: loss, data: [nothing]")), "there is no data set called `nothing`");
    assert_eq!(errors_of("name: x\nmodels: { m: { from: commands.none } }"), ["there is no command called `none`"]);
}

#[test]
fn from_names_a_section_and_an_entry() {
    let text = "name: x
commands: { train: { run: [x, '{out}'] } }
models: { m: { from: commands.train, path: final } }
data: { d: { from: commands.train, path: rows.jsonl, text: x } }
merges: { avg: { method: average, models: [m] } }
";
    let loaded = crate::experiment::parse("x.yaml".as_ref(), text).unwrap_or_else(|errors| panic!("{errors}"));
    let output = Output { command: "train".into(), path: Some("final".into()) };
    assert_eq!(loaded.experiment.models["m"], Model::From(output));
    let wrong = |from: &str| errors_of(&text.replace("from: commands.train, path: final", &format!("from: {from}")));
    assert_eq!(wrong("train"), ["`train` is not a reference; expected `commands.NAME`"]);
    assert_eq!(wrong("commands.train, path: ../x"), ["`../x` leaves the output it is a part of"]);
    assert_eq!(wrong("commands.train, path: /x"), ["`/x` leaves the output it is a part of"]);
}

#[test]
fn an_adapter_comes_from_a_directory_the_hub_or_a_command_and_has_none_itself() {
    let text = "name: x
commands: { train: { run: [x, '{out}'] } }
models:
  short: { path: base, lora: adapters/one }
  hub: { hub: org/base, lora: { hub: org/adapter, revision: v1 } }
  made: { path: base, lora: { from: commands.train, path: final } }
";
    let models = crate::experiment::parse("x.yaml".as_ref(), text).unwrap().experiment.models;
    let adapter = |name: &str| match &models[name] {
        Model::Lora(lora) => lora.adapter.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(adapter("short"), Model::Path("adapters/one".into()));
    assert_eq!(adapter("hub"), Model::Hub { repo: "org/adapter".into(), revision: Some("v1".into()) });
    assert_eq!(adapter("made"), Model::From(Output { command: "train".into(), path: Some("final".into()) }));
    assert_eq!(models["hub"].repositories(), ["org/base", "org/adapter"]);
    let wrong = |lora: &str| errors_of(&text.replace("lora: adapters/one", &format!("lora: {lora}")));
    assert_eq!(wrong("[one, two]"), ["`lora` must be text, not a list"]);
    assert_eq!(wrong("{ revision: v1 }"), ["`lora` needs one of `hub`, `path`, `from`"]);
    assert_eq!(wrong("{ path: one, revision: v1 }"), ["`revision` has no meaning for a directory"]);
    assert_eq!(wrong("{ path: one, lora: two }"), ["`lora` has no key `lora`"]);
    assert_eq!(wrong("{ from: commands.none }"), ["there is no command called `none`"]);
    assert_eq!(errors_of("name: x\nmodels: { m: { lora: one } }"), ["a model needs one of `hub`, `path`, `from`"]);
}

#[test]
fn inputs_may_come_from_commands_models_merges_data_and_grams() {
    let experiment = valid(
        "merges: { avg: { method: average, models: [a, b] } }
commands:
  prep: { run: [x, '{out}'] }
  c:
    run: [x, '{inputs.p}', '{inputs.m}', '{out}']
    inputs: { p: { from: commands.prep, path: sub }, m: { from: merges.avg }, a: { from: models.a }, d: { from: data.text-a }, g: { from: grams.ga }, f: file.py }",
    );
    let inputs = &experiment.commands["c"].inputs;
    assert_eq!(inputs["p"], Input::From(Output { command: "prep".into(), path: Some("sub".into()) }));
    assert_eq!(inputs["m"], Input::Model("avg".into()));
    assert_eq!(inputs["d"], Input::Data("text-a".into()));
    assert_eq!(inputs["g"], Input::Gram("ga".into()));
    assert_eq!(inputs["f"], Input::Path("file.py".into()));
    let wrong = one(
        "merges: { avg: { method: average, models: [a, b] } }\ncommands: { c: { run: [x], inputs: { m: { from: models.avg } } } }",
    );
    assert_eq!(wrong, "`avg` is not in `models`");
}

#[test]
fn a_cycle_is_named_as_a_path() {
    let found = errors(
        "merges:
  x: { method: average, models: [a, y] }
  y: { method: average, models: [b, x] }",
    );
    assert_eq!(found, ["a cycle: merges.x -> merges.y -> merges.x"]);
    assert_eq!(one("merges: { x: { method: average, models: [a, x] } }"), "a cycle: merges.x -> merges.x");
}

#[test]
fn a_cycle_through_grams_and_commands_is_found() {
    let text = "name: x
models: { m: { from: commands.train } }
data: { d: { path: d.csv, text: x } }
grams: { g: { model: m, data: d } }
merges: { r: { method: regmean, models: [m], grams: [g] } }
commands: { train: { run: [x, '{out}'], inputs: { r: { from: merges.r } } } }
";
    let found = errors_of(text);
    let around = "a cycle: models.m -> commands.train -> merges.r";
    assert_eq!(found, [format!("{around} -> grams.g -> models.m"), format!("{around} -> models.m")]);
}

#[test]
fn a_name_in_models_and_merges_is_refused() {
    insta::assert_snapshot!(shown("merges:\n  a: { method: average, models: [a, b] }"));
}

#[test]
fn a_name_may_stand_in_sections_that_are_not_mixed() {
    assert_eq!(valid("commands: { a: { run: [x] } }").commands.len(), 1);
}

// Data and commands

#[test]
fn a_source_is_one_of_hub_path_and_from() {
    assert_eq!(errors_of("name: x\nmodels: { m: {} }"), ["a model needs one of `hub`, `path`, `from`"]);
    assert_eq!(
        errors_of("name: x\nmodels: { m: { path: x, hub: a/b } }"),
        ["a model takes only one of `hub`, `path`, `from`"]
    );
    assert_eq!(
        errors_of("name: x\nmodels: { m: { path: x, revision: main } }"),
        ["`revision` has no meaning for a directory"]
    );
    assert_eq!(errors_of("name: x\nmodels: { m: { hub: a/b/c } }"), ["`a/b/c` is not a hub repository"]);
}

#[test]
fn rows_become_text_by_messages_or_by_text() {
    assert_eq!(errors_of("name: x\ndata: { d: { path: d.csv } }"), ["a data set needs one of `messages`, `text`"]);
    assert_eq!(
        errors_of("name: x\ndata: { d: { path: d.txt, text: x } }"),
        ["`d.txt` does not say how its rows are written"]
    );
}

#[test]
fn a_template_that_does_not_parse_is_refused() {
    let found =
        errors_of("name: x\ndata: { d: { path: d.csv, messages: [{ role: user, content: '{{ question }' }] } }");
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("`content` is not a Jinja template: "), "{found:?}");
}

#[test]
fn an_unknown_placeholder_is_refused_with_the_nearest_one() {
    insta::assert_snapshot!(shown("commands: { c: { run: [x, '--out={ouput}', '{out}'], inputs: { data: x } } }"));
    let message = one("commands: { c: { run: [x, '{inputs.dat}'], inputs: { data: x } } }");
    assert_eq!(message, "there is no placeholder `{inputs.dat}` here");
    assert_eq!(one(&suite("backend: command, run: [x, '{modle}']")), "there is no placeholder `{modle}` here");
}

#[test]
fn doubled_braces_are_braces() {
    let run = &valid(r#"commands: { c: { run: [x, '{{"a": 1}}', '{out}'] } }"#).commands["c"].run;
    let filled = crate::experiment::substitute(&run[1], |_| None);
    assert_eq!(filled.as_deref(), Ok(r#"{"a": 1}"#));
    let filled = crate::experiment::substitute(&run[2], |name| (name == "out").then(|| "/tmp/o".into()));
    assert_eq!(filled.as_deref(), Ok("/tmp/o"));
    let message = one("commands: { c: { run: [x, 'a } b'] } }");
    assert_eq!(message, "a `}` that belongs to no placeholder");
}

#[test]
fn broken_inputs_invent_no_unknown_placeholder() {
    assert_eq!(
        one("commands: { c: { run: [x, '{inputs.d}'], inputs: { d: { from: commands.none } } } }"),
        "there is no command called `none`"
    );
}

// Grams

#[test]
fn a_gram_is_captured_or_imported() {
    assert_eq!(one("  gc: { model: a }"), "a Gram entry needs `data`");
    assert_eq!(one("  gc: {}"), "a Gram entry needs `model` and `data`, or one of `pickle`, `path` and `hub`");
    assert_eq!(
        one("  gc: { pickle: { path: x }, model: a }"),
        "`model` has no meaning beside `pickle`: these matrices are made already"
    );
    assert_eq!(one("  gc: { pickle: { hub: a/b } }"), "`pickle` needs `file`");
    let made = |beside: &str, from: &str| {
        format!("`{beside}` has no meaning beside `{from}`: these matrices are made already")
    };
    assert_eq!(one("  gc: { path: x, data: text-a }"), made("data", "path"));
    assert_eq!(one("  gc: { path: x, hub: a/b }"), made("hub", "path"));
    assert_eq!(one("  gc: { path: x, revision: main }"), made("revision", "path"));
    assert_eq!(one("  gc: { hub: a/b, max_length: 3 }"), made("max_length", "hub"));
    assert_eq!(one("  gc: { pickle: { path: x }, path: y }"), made("path", "pickle"));
    assert_eq!(one("  gc: { model: a, data: text-a, revision: main }"), "`revision` has no meaning without `hub`");
    assert_eq!(one("  gc: { hub: /x }"), "`/x` is not a hub repository");
}

#[test]
fn a_glob_that_is_none_is_refused() {
    assert!(one("  gc: { model: a, data: text-a, exclude: ['[a'] }").starts_with("`[a` is not a glob: "));
    assert!(one(&merge("method: average, rules: [{ match: '{a', use: average }]")).starts_with("`{a` is not a glob: "));
}

#[test]
fn the_assistants_tokens_need_messages() {
    let message = one("  gc: { model: a, data: text-a, tokens: assistant }");
    assert_eq!(message, "`text-a` is plain text, in which no token is the assistant's");
}

// Merges

#[test]
fn an_unknown_method_is_refused_with_the_nearest_one() {
    insta::assert_snapshot!(shown("merges: { m: { models: [a, b], method: regmaen } }"));
}

#[test]
fn every_method_of_the_registry_is_taken() {
    for method in crate::experiment::METHODS.iter().filter(|method| method.name != "mergekit") {
        let models = match method.models {
            (_, 1) => "[a]",
            _ => "[a, b]",
        };
        let grams = if method.grams == crate::experiment::Need::Must { "grams: [ga, gb]," } else { "" };
        let base = if method.base == crate::experiment::Need::Must { "base: base," } else { "" };
        let fishers = if method.takes_fishers() { "fishers: [fa, fb]," } else { "" };
        let needed: Vec<_> = method.params.iter().filter(|param| param.default.is_none()).collect();
        let needed: Vec<_> = needed.iter().map(|param| format!("{}: 0.5,", param.name)).collect();
        let needed = needed.concat();
        let sections = format!(
            "merges: {{ m: {{ method: {}, models: {models}, {grams} {fishers} {base} {needed} }} }}",
            method.name
        );
        let sections = format!("{FISHERS}{sections}");
        assert_eq!(valid(&sections).merges["m"].method, method.name);
    }
}

const FISHERS: &str = "fishers: { fa: { model: a, data: text-a }, fb: { model: b, data: text-b } }\n";

#[test]
fn a_fisher_entry_says_whose_labels_and_draws_by_a_seed() {
    let read =
        |keys: &str| valid(&format!("fishers: {{ f: {{ model: a, data: text-a{keys} }} }}\nsettings: {{ seed: 3 }}"));
    let fisher = |keys: &str| read(keys).fishers["f"].clone();
    assert_eq!(fisher("").labels, Labels::Data);
    assert_eq!(fisher(", labels: model").labels, Labels::Model { seed: 3 });
    assert_eq!(fisher(", labels: model, seed: 8").labels, Labels::Model { seed: 8 });
    let capture = fisher(", max_length: 9, skip_first: 2, dtype: bfloat16").capture;
    assert_eq!((capture.max_length, capture.skip_first, capture.dtype.as_deref()), (Some(9), 2, Some("bfloat16")));

    let wrong = |keys: &str| one(&format!("fishers: {{ f: {{ model: a, data: text-a, {keys} }} }}"));
    assert_eq!(wrong("seed: 8"), "`seed` has no meaning without `labels: model`: nothing is drawn");
    assert!(wrong("dtype: float16").contains("`dtype`"));
    assert!(wrong("labels: true, seed: 8").contains("`labels`"));
    assert!(wrong("exclude: ['*']").ends_with("has no key `exclude`"));
    assert_eq!(wrong("tokens: assistant"), "`text-a` is plain text, in which no token is the assistant's");
    assert_eq!(one("fishers: { f: { model: a } }"), "a Fisher entry needs `data`");
    assert_eq!(one("fishers: { f: { model: c, data: text-a } }"), "there is no model or merge called `c`");
}

#[test]
fn a_merge_by_fisher_information_takes_one_entry_per_model() {
    let merge = |keys: &str| format!("{FISHERS}{}", merge(keys));
    let read = valid(&merge("method: fisher, fishers: [fa, fb], floor: 1e-12, normalize: true"));
    assert_eq!(read.merges["m"].fishers, ["fa", "fb"]);
    assert_eq!(json!(read.merges["m"].params), json!({ "normalize": true, "floor": 1e-12 }));

    assert_eq!(one(&merge("method: fisher")), "`fisher` needs `fishers`, one per model");
    assert_eq!(
        one(&merge("method: fisher, fishers: [fa]")),
        "2 models and 1 entries in `fishers`: there must be one per model"
    );
    assert_eq!(one(&merge("method: fisher, fishers: [fb, fb]")), "`fb` was captured from `b` and stands for `a` here");
    assert_eq!(one(&merge("method: fisher, fishers: [ga, fb]")), "there is no Fisher entry called `ga`");
    assert!(one(&merge("method: fisher, fishers: [fa, fb], floor: -1")).contains("`floor`"));
    assert_eq!(
        one(&merge("method: average, fishers: [fa, fb]")),
        "`fishers` has no meaning for `average`, which uses no Fisher information"
    );
    assert_eq!(
        one(&merge("method: fisher, fishers: [fa, fb], alpha: 0.5")),
        "`alpha` has no meaning for `fisher`, which uses no Gram matrices"
    );
    let weighted = "{ method: fisher, models: [{ model: a, weight: -1 }, b], fishers: [fa, fb] }";
    assert_eq!(one(&format!("{FISHERS}merges: {{ m: {weighted} }}")), "the weight of `a` is negative");
    let cycle =
        "fishers: { f: { model: m, data: text-a } }\nmerges: { m: { method: fisher, models: [a], fishers: [f] } }";
    assert!(errors(cycle).iter().any(|error| error.starts_with("a cycle: ")), "{:?}", errors(cycle));
}

#[test]
fn an_alias_of_a_method_becomes_its_name() {
    assert_eq!(valid(&merge("method: linear")).merges["m"].method, "average");
}

#[test]
fn a_parameter_of_another_method_is_refused_with_those_that_have_it() {
    insta::assert_snapshot!(shown("merges: { m: { method: slerp, models: [a, b], base: a, t: 0.5, gamma: 0.1 } }"));
}

#[test]
fn a_method_that_needs_something_says_so() {
    assert_eq!(one(&merge("method: ties")), "`ties` needs a `base` model");
    assert_eq!(one(&merge("method: regmean")), "`regmean` needs `grams`, one per model");
    assert_eq!(one(&merge("method: slerp, base: a")), "`slerp` needs the parameter `t`");
    assert_eq!(one(&merge("method: passthrough")), "`passthrough` merges 1 model, not 2");
    assert_eq!(one("merges: { m: { method: mergekit } }"), "a merge needs `config`");
}

#[test]
fn what_a_method_has_no_use_for_is_refused() {
    assert_eq!(
        one(&merge("method: average, alpha: 0.1")),
        "`alpha` has no meaning for `average`, which uses no Gram matrices"
    );
    assert_eq!(
        one(&merge("method: average, grams: [ga, gb]")),
        "`grams` has no meaning for `average`, which uses no Gram matrices"
    );
    assert_eq!(one(&merge("method: average, solver: pinv")), "`solver` has no meaning without Gram matrices");
    assert_eq!(one(&merge("method: karcher, base: base")), "`base` has no meaning for `karcher`");
}

#[test]
fn there_is_one_gram_per_model() {
    assert_eq!(
        one(&merge("method: regmean, grams: [ga]")),
        "2 models and 1 entries in `grams`: there must be one per model"
    );
}

#[test]
fn a_gram_of_another_model_is_refused() {
    insta::assert_snapshot!(shown("merges: { m: { method: regmean, models: [a, b], grams: [ga, ga] } }"));
}

#[test]
fn a_model_merged_twice_is_refused() {
    assert_eq!(one("merges: { m: { method: average, models: [a, a] } }"), "`a` is merged twice");
}

#[test]
fn mats_takes_grams_a_start_that_is_there_and_no_solver() {
    let all = "method: mats, grams: [ga, gb]";
    let read = |more: &str| valid(&merge(&format!("{all}{more}"))).merges["m"].clone();
    assert_eq!(read("").alpha, Some(mergelab_wire::Alpha::Number(1.0)));
    assert_eq!(read(", alpha: 0.5").alpha, Some(mergelab_wire::Alpha::Number(0.5)));
    assert_eq!(read(", base: base, x0: base, iterations: 7").params["iterations"], 7);
    assert_eq!(one(&merge("method: mats")), "`mats` needs `grams`, one per model");
    assert_eq!(one(&merge(&format!("{all}, x0: base"))), "`x0: base`, and this merge has no `base`");
    assert_eq!(
        one(&merge(&format!("{all}, solver: lstsq"))),
        "`solver` has no meaning for `mats`, which goes by conjugate gradient"
    );
    assert_eq!(
        one("merges: { m: { method: mats, models: [{ model: a, weight: -1 }, b], grams: [ga, gb] } }"),
        "the weight of `a` is negative"
    );
}

#[test]
fn a_weight_is_a_number_or_a_list_over_depth_that_leaves_something_at_both_ends() {
    let models = |first: &str, second: &str| {
        format!(
            "merges: {{ m: {{ method: average, models: [{{ model: a, weight: {first} }}, {{ model: b, weight: {second} }}] }} }}"
        )
    };
    let weight = |first: &str| valid(&models(first, "1")).merges["m"].models[0].weight.clone();
    assert_eq!(weight("0.5"), 0.5.into());
    assert_eq!(weight("[0, 1, 0.5]"), Weight::Gradient(vec![0.0, 1.0, 0.5]));
    assert_eq!(one(&models("[0, 1]", "0")), "the weights add up to 0 at the first layer");
    assert_eq!(one(&models("[1, 0]", "[2, 1, 0]")), "the weights add up to 0 at the last layer");
    assert_eq!(one(&models("[0, 0]", "0")), "the weights add up to 0");
    assert_eq!(one(&models("[0.5, -1]", "1")), "the weights add up to 0 at the last layer");
    assert_eq!(weight("-0.5"), (-0.5).into());
    valid(&models("[0.5, -1]", "1").replace("average,", "average, normalize: false,"));
    assert_eq!(one(&models("[]", "1")), "`weight` is an empty list");
}

#[test]
fn a_weight_may_go_by_tensor_name() {
    let models =
        |weight: &str| format!("merges: {{ m: {{ method: average, models: [{{ model: a, weight: {weight} }}, b] }} }}");
    let read =
        valid(&models("[{ filter: mlp, value: [0.1, 0.3] }, { value: 2 }]")).merges["m"].models[0].weight.clone();
    let mlp = NamedWeight { filter: Some("mlp".into()), value: vec![0.1, 0.3] };
    assert_eq!(read, Weight::ByName(vec![mlp, NamedWeight { filter: None, value: vec![2.0] }]));
    valid(&models("[{ filter: mlp, value: -2 }, { value: 1 }]"));
    assert_eq!(one(&models("[{ filter: mlp }]")), "a filtered value needs `value`");
    assert_eq!(one(&models("[0.5, { value: 1 }]")), "a filtered value must be a mapping, not a number");
    assert_eq!(
        one("merges: { m: { method: slerp, models: [{ model: a, weight: 2 }], base: base, t: 0.5 } }"),
        "`weight` has no meaning for `slerp`, whose models have none"
    );
}

#[test]
fn a_model_may_state_parameters_of_its_own() {
    let merge = |method: &str, own: &str| {
        format!("merges: {{ m: {{ method: {method}, base: base, density: 0.8, models: [{{ model: a, {own} }}, b] }} }}")
    };
    let read = valid(&merge("della", "weight: 0.5, density: [0.2, 0.3], epsilon: [{ filter: mlp, value: 0.01 }]"));
    let models = &read.merges["m"].models;
    let own = json!({ "density": [0.2, 0.3], "epsilon": [{ "filter": "mlp", "value": 0.01 }] });
    assert_eq!((json!(models[0].params), &models[0].weight), (own, &Weight::Number(0.5)));
    assert!(models[1].params.is_empty());
    assert_eq!(read.merges["m"].params["density"], 0.8);
    assert_eq!(one(&merge("ties", "density: 2")), "`density` must be from 0 to 1, not 2");
    assert_eq!(one(&merge("ties", "lambda: 2")), "a model of a merge has no key `lambda`");
    assert_eq!(one(&merge("ties", "gamma: 0.1")), "`ties` has no parameter `gamma`");
    assert_eq!(
        one("merges: { m: { method: ram, base: base, models: [{ model: a, epsilon: 0.1 }, b] } }"),
        "`ram` has one `epsilon` for all models"
    );
}

#[test]
fn the_base_of_a_method_on_task_vectors_is_none_of_its_models() {
    let merge = |method: &str, models: &str| {
        valid(&format!("merges: {{ m: {{ method: {method}, base: base, models: [{models}] }} }}")).merges["m"].clone()
    };
    assert_eq!(merge("ties", "base, a, b"), merge("ties", "a, b"));
    assert_eq!(merge("slerp, t: 0.5", "a, base"), merge("slerp, t: 0.5", "a"));
    assert_eq!(merge("nuslerp", "a, base, b"), merge("nuslerp", "a, b"));
    // To a mean a base is but what rules may take tensors from.
    assert_eq!(merge("average", "base, a").models.len(), 2);
    let wrong = |models: &str| one(&format!("merges: {{ m: {{ method: ties, base: base, models: [{models}] }} }}"));
    assert_eq!(
        wrong("{ model: base, weight: 0.5 }, a"),
        "`base` is the base of this merge: it has no weight and no parameters"
    );
    assert_eq!(wrong("base"), "`ties` merges nothing into its base here");
    assert_eq!(
        one("merges: { m: { method: slerp, base: base, t: 0.5, models: [a, b] } }"),
        "`slerp` merges 1 model beside its base, not 2"
    );
}

#[test]
fn a_method_that_captures_by_itself_takes_entries_that_say_on_what() {
    assert_eq!(one(&merge("method: regmean++")), "`regmean++` needs `grams`, one per model");
    let read = valid(&merge("method: regmean++, grams: [ga, gb]"));
    let captures = &read.merges["m"].captures;
    assert_eq!(captures.iter().map(|each| &*each.capture.model).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(read.merges["m"].alpha, Some(mergelab_wire::Alpha::Number(0.1)));
    assert!(one(&merge("method: regmean++, grams: [ga, gb], held_out: [ga, gb]")).contains("`held_out`"));
    assert_eq!(one(&merge("method: regmean++, grams: [ga, gb], alpha: auto")), "`regmean++` does not pick its α");
    assert!(valid(&merge("method: regmean, grams: [ga, gb]")).merges["m"].captures.is_empty());
}

#[test]
fn it_takes_no_entry_that_another_engine_or_program_captured() {
    let with = |gram: &str| {
        let text = format!(
            "name: x\nmodels: {{ a: {{ path: a }} }}\ndata: {{ d: {{ path: d.jsonl, text: \"{{{{ t }}}}\" }} }}\n\
             grams: {{ g: {gram} }}\nmerges: {{ m: {{ method: regmean++, models: [a], grams: [g] }} }}\n"
        );
        let found = errors_of(&text);
        assert_eq!(found.len(), 1, "{found:#?}");
        found.into_iter().next().expect("one")
    };
    assert_eq!(
        with("{ model: a, data: d, engine: transformers }"),
        "`regmean++` runs the models by itself, and `g` asks for `engine: transformers`"
    );
    assert_eq!(with("{ pickle: { path: x.pkl } }"), "`regmean++` captures by itself, and `g` is imported");
}

#[test]
fn an_automatic_alpha_needs_held_out_grams() {
    assert_eq!(
        one(&merge("method: regmean, grams: [ga, gb], alpha: auto")),
        "α is picked on held-out Grams, and this merge has none"
    );
    assert!(
        valid(&merge("method: regmean, grams: [ga, gb], held_out: [ga, gb], alpha: auto-layer"))
            .merges
            .contains_key("m")
    );
}

#[test]
fn rules_use_what_is_in_the_merge() {
    let rules = |rule: &str| merge(&format!("method: regmean, grams: [ga, gb], rules: [{rule}]"));
    let experiment = valid(&rules(
        "{ match: '*.lm_head.*', use: { model: a } }, { match: '*norm*', use: average }, { match: '*', alpha: 0.9 }",
    ));
    assert_eq!(experiment.merges["m"].rules[0].action, Some(RuleUse::Model("a".into())));
    assert_eq!(experiment.merges["m"].rules[2].alpha, Some(0.9));
    assert_eq!(one(&rules("{ match: '*', use: { model: base } }")), "`base` is not a model of this merge");
    assert_eq!(one(&rules("{ match: '*', use: base }")), "a rule uses `base`, and this merge has none");
    assert_eq!(one(&rules("{ match: '*', use: avrage }")), "a rule cannot use `avrage`");
    assert_eq!(one(&rules("{ match: '*' }")), "a rule needs `use` or `alpha`");
    assert_eq!(
        one(&rules("{ match: '*', use: average, alpha: 0.1 }")),
        "`alpha` has no meaning in a rule that does not use RegMean"
    );
    assert_eq!(
        one(&merge("method: average, rules: [{ match: '*', use: regmean }]")),
        "a rule that uses `regmean` needs `grams`, one per model"
    );
}

#[test]
fn a_parameter_without_a_default_needs_a_value_for_all_tensors() {
    let slerp = |t: &str| format!("merges: {{ m: {{ method: slerp, base: a, models: [b], t: {t} }} }}");
    let partial = "[{ filter: mlp, value: 0.3 }, { filter: norm, value: 0 }]";
    assert_eq!(one(&slerp(partial)), "`slerp` needs `t` for all tensors, and no filter fits the others");
    valid(&slerp("[{ filter: mlp, value: 0.3 }, { value: 0.5 }]"));
    valid(&slerp("[{ filter: mlp, value: 0.3 }, { filter: '*', value: 0.5 }]"));
    valid(&slerp("[0, 0.5, 1]"));
}

#[test]
fn a_tokenizer_comes_from_a_model_of_the_merge() {
    assert_eq!(one(&merge("method: average, tokenizer: base")), "`base` is not a model of this merge");
    assert_eq!(valid(&merge("method: average, tokenizer: union")).merges["m"].tokenizer.as_deref(), Some("union"));
    assert_eq!(
        valid(&merge("method: ties, base: base, tokenizer: base")).merges["m"].tokenizer.as_deref(),
        Some("base")
    );
}

#[test]
fn rows_go_by_the_tokens_of_a_tokenizer_that_is_named() {
    let read = |tokenizer: &str| {
        let text = merge(&format!("method: ties, base: base, tokenizer: {tokenizer}"));
        let merge = valid(&text).merges["m"].clone();
        (merge.tokenizer.expect("it is stated"), merge.alignment)
    };
    assert_eq!(read("a"), ("a".into(), Some(Alignment::default())));
    assert_eq!(read("{ source: b }"), ("b".into(), Some(Alignment::default())));
    assert_eq!(read("{ source: b, rows: ids }"), ("b".into(), None));
    assert_eq!(read("union"), ("union".into(), Some(Alignment { union: true, ..Alignment::default() })));
    assert_eq!(valid(&merge("method: average")).merges["m"].alignment, None);

    let row = |source: Option<RowSource>, force: bool| TokenRow { source, force };
    let (model, token) = ("a".to_owned(), "<u>".to_owned());
    let expected = Alignment {
        union: true,
        base: Some("b".into()),
        pad_to_multiple_of: Some(64),
        tokens: [
            ("<0>".to_owned(), row(Some(RowSource::Zero), true)),
            ("<1>".to_owned(), row(Some(RowSource::Model("base".into())), false)),
            ("<2>".to_owned(), row(Some(RowSource::Token { model: model.clone(), token }), false)),
            ("<3>".to_owned(), row(Some(RowSource::Id { model, id: 7 }), false)),
            ("<4>".to_owned(), row(None, false)),
        ]
        .into(),
    };
    let tokens = "{ <0>: { source: { kind: zero }, force: true }, <1>: { source: base }, \
                  <2>: { source: { kind: model_token, model: a, token: <u> } }, \
                  <3>: { source: { kind: model_token, model: a, token_id: 7 } }, <4>: {} }";
    let found = read(&format!("{{ source: union, base: b, pad_to_multiple_of: 64, tokens: {tokens} }}"));
    assert_eq!(found, ("union".into(), Some(expected)));

    for (tokenizer, message) in [
        ("{ rows: tokens }", "`tokenizer` needs `source`"),
        ("{ source: c }", "there is no model or merge called `c`"),
        ("{ source: a, rows: numbers }", "`rows` cannot be `numbers`"),
        ("{ source: union, rows: ids }", "a union has no ids that its models share"),
        (
            "{ source: a, rows: ids, pad_to_multiple_of: 2 }",
            "`pad_to_multiple_of` has no meaning where rows go by their ids",
        ),
        ("{ source: a, pad_to_multiple_of: 0 }", "`pad_to_multiple_of` must be from 1 to 1048576, not 0"),
        (
            "{ source: a, tokens: { x: { force: true } } }",
            "`force: true` replaces the token's row, and there is no `source` for it",
        ),
        (
            "{ source: a, tokens: { x: { source: { kind: model_token, model: a } } } }",
            "the source of a row needs one of `token`, `token_id`",
        ),
        (
            "{ source: a, tokens: { x: { source: { kind: zero, model: a } } } }",
            "`model` has no meaning where the row is of zeros",
        ),
        ("{ source: a, tokens: { x: { sauce: a } } }", "a token has no key `sauce`"),
    ] {
        assert_eq!(one(&merge(&format!("method: average, tokenizer: {tokenizer}"))), message, "{tokenizer}");
    }
    let wrong_weight = "method: average, models: [{ model: a, weight: x }, b], tokenizer: base";
    let found = errors(&format!("merges: {{ m: {{ {wrong_weight} }} }}"));
    assert_eq!(found, ["`weight` must be a number, not text", "`base` is not a model of this merge"]);
    for (tokenizer, hint) in [
        ("unions", "did you mean `union`?"),
        ("{ source: bsae }", "did you mean `base`?"),
        ("{ source: a, tokens: { x: { source: zero } } }", "a row of zeros is `{ kind: zero }`"),
        (
            "{ source: a, tokens: { x: { source: model-token } } }",
            "the row of another token is `{ kind: model_token, model: NAME, token: … }`",
        ),
        ("{ source: a, tokens: { x: { source: aa } } }", "did you mean `a`?"),
    ] {
        let wrong = with(&merge(&format!("method: average, tokenizer: {tokenizer}"))).expect_err(tokenizer);
        assert_eq!(wrong.list()[0].hint.as_deref(), Some(hint), "{tokenizer}");
    }
}

#[test]
fn normalize_is_of_grams_or_of_weights() {
    assert_eq!(
        valid(&merge("method: regmean, grams: [ga, gb], normalize: trace")).merges["m"].normalize,
        Normalize::Trace
    );
    assert_eq!(
        valid(&merge("method: ties, base: base, normalize: false")).merges["m"].params["normalize"],
        json!(false)
    );
    assert_eq!(
        one(&merge("method: slerp, base: a, t: 0.5, normalize: true")),
        "`normalize` has no meaning for `slerp`"
    );
}

#[test]
fn parameters_are_numbers_gradients_or_filtered() {
    let params = |density: &str| {
        valid(&merge(&format!("method: ties, base: base, density: {density}"))).merges["m"].params["density"].clone()
    };
    assert_eq!(params("0.5"), json!(0.5));
    assert_eq!(params("[0, 1]"), json!([0.0, 1.0]));
    assert_eq!(
        params("[{ filter: mlp, value: [0.1, 0.2] }, { value: 0.3 }]"),
        json!([{ "filter": "mlp", "value": [0.1, 0.2] }, { "filter": null, "value": 0.3 }])
    );
}

#[test]
fn what_draws_takes_the_seed_of_the_settings() {
    let dare = "merges: { m: { method: dare_linear, models: [a], base: base }, n: { method: dare_linear, models: [a], base: base, seed: 1 } }";
    let merges = valid(&format!("{dare}\nsettings: {{ seed: 7 }}")).merges;
    assert_eq!((&merges["m"].params["seed"], &merges["n"].params["seed"]), (&json!(7), &json!(1)));
}

// Evaluations and tables

#[test]
fn each_backend_takes_its_own_keys() {
    assert_eq!(one(&suite("backend: vllm")), "a suite needs `tasks`");
    assert_eq!(one(&suite("backend: loss, data: [text-a], tasks: [t]")), "`tasks` has no meaning for `backend: loss`");
    assert_eq!(one(&suite("backend: loss")), "a suite needs `data`");
    assert_eq!(one(&suite("tasks: [t], data: [text-a]")), "`data` has no meaning but for `backend: loss`");
    assert_eq!(one(&suite("backend: command")), "a suite needs `run`");
    assert_eq!(one(&suite("backend: command, run: [x], limit: 3")), "`limit` has no meaning for `backend: command`");
    assert_eq!(one(&suite("backend: vlm, tasks: [t]")), "`backend` cannot be `vlm`");
}

#[test]
fn a_loss_suite_says_how_its_rows_run_as_a_gram_does() {
    use crate::experiment::{Kl, LossOptions};
    let options = |keys: &str| valid(&suite(&format!("backend: loss, data: [text-a], {keys}"))).evals["e"].loss.clone();
    let plain = options("kl: true");
    assert_eq!(plain, LossOptions { add_special_tokens: true, ..LossOptions::default() });
    let all =
        options("max_length: 8, add_special_tokens: false, chat_template: t.jinja, dtype: float32, kl: [b, a, b]");
    assert_eq!((all.max_length, all.add_special_tokens, all.dtype.as_deref()), (Some(8), false, Some("float32")));
    assert_eq!(all.kl, Kl::From(vec!["b".to_owned(), "a".to_owned()]));
    assert_eq!(options("kl: false").kl, Kl::None);

    let loss = |keys: &str| one(&suite(&format!("backend: loss, data: [text-a], {keys}")));
    assert_eq!(loss("max_length: 0"), "`max_length` must be at least 1, not 0");
    assert_eq!(loss("dtype: int8"), "`dtype` cannot be `int8`");
    assert_eq!(loss("tokens: user"), "`tokens` cannot be `user`");
    assert_eq!(loss("tokens: assistant"), "`text-a` is plain text, in which no token is the assistant's");
    assert_eq!(loss("kl: yes"), "`kl` must be true, false or a list of models, not text");
    assert_eq!(loss("kl: [nobody]"), "there is no model or merge called `nobody`");
    assert_eq!(loss("kl: []"), "`kl` is an empty list");
    assert_eq!(loss("model_args: { dtype: float32 }"), "`model_args` has no meaning for `backend: loss`");
    assert_eq!(loss("unsafe_code: allow"), "`unsafe_code` has no meaning for `backend: loss`");
    for keys in ["backend: hf, tasks: [t]", "tasks: [t]", "backend: command, run: [x, '{model}', '{out}']"] {
        assert_eq!(one(&suite(&format!("{keys}, dtype: float32"))), "`dtype` has no meaning but for `backend: loss`");
    }
    insta::assert_snapshot!(shown("evals: { e: { models: [a], backend: loss, data: [text-a], tokens: assistant } }"));
}

#[test]
fn unsafe_code_is_refuse_sandbox_or_allow() {
    insta::assert_snapshot!(shown("evals: { e: { models: [a], tasks: [mbpp], unsafe_code: sanbox } }"));
}

#[test]
fn a_task_takes_the_suites_options_where_it_has_none() {
    let tasks = "num_fewshot: 5, gen_kwargs: { until: [x] }, tasks: [t, { task: u, num_fewshot: 0, gen_kwargs: {} }]";
    let experiment = valid(&suite(tasks));
    let tasks = &experiment.evals["e"].tasks;
    assert_eq!((tasks[0].options.num_fewshot, tasks[1].options.num_fewshot), (Some(5), Some(0)));
    assert_eq!(tasks[0].options.gen_kwargs["until"], json!(["x"]));
    assert!(tasks[1].options.gen_kwargs.is_empty());
}

#[test]
fn variables_of_the_chat_template_keep_their_types() {
    let experiment = valid(&suite("chat_template_args: { enable_thinking: false, effort: low }, tasks: [t]"));
    let given = &experiment.evals["e"].tasks[0].options.chat_template_args;
    assert_eq!((&given["enable_thinking"], &given["effort"]), (&json!(false), &json!("low")));
}

#[test]
fn a_tripwire_is_a_share_or_accepted_and_a_tasks_own_stands_beside_the_suites() {
    let experiment =
        valid(&suite("tripwires: { cut: accept, empty: 0.1 }, tasks: [t, { task: u, tripwires: { empty: 1 } }]"));
    let of = |task: usize| json!(experiment.evals["e"].tasks[task].options.tripwires);
    assert_eq!(of(0), json!({ "cut": "accept", "empty": 0.1 }));
    assert_eq!(of(1), json!({ "cut": "accept", "empty": 1.0 }));
    assert_eq!(one(&suite("tasks: [t], tripwires: { cut: yes }")), "`cut` must be a share from 0 to 1, or accept");
    assert_eq!(one(&suite("tasks: [t], tripwires: { cut: 1.5 }")), "`cut` must be from 0 to 1, not 1.5");
    assert_eq!(one(&suite("tasks: [t], tripwires: { kut: 0.5 }")), "`tripwires` has no key `kut`");
}

#[test]
fn a_task_evaluated_twice_needs_a_name() {
    let found = one(&suite("tasks: [t, { task: t, num_fewshot: 5 }]"));
    assert_eq!(found, "`t` is evaluated twice");
    let named = valid(&suite("tasks: [t, { task: t, name: t-5, num_fewshot: 5 }]"));
    assert_eq!(named.evals["e"].tasks[1].name, "t-5");
    let across = one("evals: { e: { models: [a, b], tasks: [t] }, f: { models: [b], tasks: [t] } }");
    assert_eq!(across, "`t` is evaluated twice");
    assert_eq!(one("evals: { e: { models: [a, a], tasks: [t] } }"), "`a` is evaluated twice");
}

#[test]
fn a_table_shows_only_what_is_evaluated() {
    let table = |row: &str, task: &str| {
        format!(
            "evals: {{ e: {{ models: [a], tasks: [gsm8k] }} }}\ntables: {{ t: {{ rows: [{row}], columns: [{{ task: {task}, metric: acc }}] }} }}"
        )
    };
    assert_eq!(valid(&table("a", "gsm8k")).tables.len(), 1);
    assert_eq!(one(&table("b", "gsm8k")), "no suite evaluates `b`, so this row would be empty");
    assert_eq!(one(&table("a", "gsm8")), "no suite evaluates the task `gsm8`, so this column would be empty");
    assert_eq!(one(&table("nobody", "gsm8k")), "there is no model or merge called `nobody`");
}

/// A table on `a` and `b`, which are evaluated on two tasks, and `base`, which is on none; `r` is swept, `c` a command.
fn compared(keys: &str, columns: &str) -> String {
    format!(
        "merges: {{ r: {{ method: task_arithmetic, models: [a, b], base: base, sweep: {{ lambda: [0.5, 1.0] }} }} }}
evals: {{ e: {{ models: [a, b, r], tasks: [gsm8k, mbpp] }}, only: {{ models: [base], tasks: [arc] }} }}
tables: {{ t: {{ rows: [a, b], columns: [{columns}], {keys} }} }}"
    )
}

const TWO: &str = "{ task: gsm8k, metric: acc }, { task: mbpp, metric: pass, label: Code }";

#[test]
fn a_baseline_is_one_evaluated_model() {
    let table = valid(&compared("baseline: b, bold: not_worse, second: true", TWO)).tables["t"].clone();
    assert_eq!(
        (table.baseline.as_deref(), table.bold, table.second),
        (Some("b"), crate::experiment::Bold::NotWorse, true)
    );
    assert_eq!(valid(&compared("baseline: r-0.5", TWO)).tables["t"].baseline.as_deref(), Some("r-0.5"));
    assert_eq!(one(&compared("baseline: r", TWO)), "`r` is swept and stands for 2 entries; `baseline` takes one");
    let unused = compared("baseline: base", TWO).replace("models: [base]", "models: [a]");
    assert_eq!(one(&unused), "no suite evaluates `base`, so nothing could be tested against it");
    assert_eq!(one(&compared("bold: worst", TWO)), "`bold` cannot be `worst`");
    insta::assert_snapshot!(shown(&compared("baseline: bas", TWO)));
}

#[test]
fn a_mean_names_columns_and_is_over_all_metrics_unless_it_does() {
    use crate::experiment::TableColumn;
    let of = |mean: &str| -> Vec<usize> {
        let table = valid(&compared("second: false", &format!("{{ mean: {mean} }}, {TWO}"))).tables["t"].clone();
        let TableColumn::Mean(mean) = &table.columns[0] else { panic!("a mean") };
        mean.of.clone()
    };
    assert_eq!(of("scores, label: Mean"), [1, 2]);
    assert_eq!(of("scores, label: Mean, of: [Code]"), [2]);
    assert_eq!(of("scores, label: Mean, of: [mbpp, gsm8k]"), [2, 1]);
    let special =
        "{ mean: normalized, label: N }, { task: gsm8k, metric: acc, specialist: a }, { task: mbpp, metric: p }";
    let TableColumn::Mean(mean) = &valid(&compared("second: false", special)).tables["t"].columns[0] else {
        panic!("a mean")
    };
    assert_eq!(mean.of, [1]);

    let said = |columns: &str| one(&compared("second: false", columns));
    assert_eq!(said(&format!("{TWO}, {{ mean: scores, label: M, of: [Coder] }}")), "this table has no column `Coder`");
    let twice = "{ task: gsm8k, metric: acc }, { task: gsm8k, metric: em }, { mean: scores, label: M, of: [gsm8k] }";
    assert_eq!(said(twice), "`gsm8k` means 2 columns");
    assert_eq!(said("{ mean: scores, label: M }"), "this table has no column that the mean could be over");
    assert_eq!(said(&format!("{TWO}, {{ mean: scores }}")), "a mean needs `label`");
    assert_eq!(said(&format!("{TWO}, {{ mean: median, label: M }}")), "`mean` cannot be `median`");
    let none = "no column of this table has a `specialist`, so there is nothing to normalize by";
    assert_eq!(said(&format!("{TWO}, {{ mean: normalized, label: M }}")), none);
    assert_eq!(
        said(&special.replace("label: N", "label: N, of: [gsm8k]")),
        "`of` has no meaning for `mean: normalized`: it is over the columns that have a `specialist`"
    );
    assert_eq!(said(&special.replace("specialist: a", "specialist: base")), "no suite evaluates `base` on `gsm8k`");
    assert_eq!(
        said(&special.replace("specialist: a", "specialist: nobody")),
        "there is no model or merge called `nobody`"
    );
}

#[test]
fn a_table_may_show_losses_and_command_suites() {
    let experiment = valid(
        "evals:
  loss: { models: [a], backend: loss, data: [text-a] }
  mine: { models: [a], backend: command, run: [x, '{model}', '{out}'] }
tables: { t: { rows: [a], columns: [{ task: text-a, metric: bits_per_byte }, { task: mine, metric: score }] } }",
    );
    assert_eq!(experiment.tables["t"].columns.len(), 2);
}

#[test]
fn a_broken_suite_invents_no_empty_rows() {
    let found = one(
        "evals: { e: { models: [nobody], tasks: [t] } }\ntables: { t: { rows: [a], columns: [{ task: t, metric: acc }] } }",
    );
    assert_eq!(found, "there is no model or merge called `nobody`");
}

#[test]
fn a_broken_entry_is_still_a_name() {
    let found =
        errors("merges: { m: { method: nonsense, models: [a, b] } }\nevals: { e: { models: [m], tasks: [t] } }");
    assert_eq!(found, ["there is no method `nonsense`"]);
    let found = errors_of("name: x\nmodels: { m: { path: 5, zzz: 1 } }\nevals: { e: { models: [m], tasks: [t] } }");
    assert_eq!(found, ["a model has no key `zzz`"]);
    let found = errors_of("name: x\nmodels: [m]\nevals: { e: { models: [m], tasks: [t] } }");
    assert_eq!(found, ["`models` must be a mapping from names to entries, not a list"]);
}

#[test]
fn a_misspelled_key_is_not_also_missing() {
    assert_eq!(one("commands: { c: { rum: [x] } }"), "a command has no key `rum`");
    assert_eq!(errors_of("name: x\nmodels: { m: { pth: x } }"), ["a model has no key `pth`"]);
    assert_eq!(one(&merge("method: ties, bse: base")), "a merge has no key `bse`");
    assert_eq!(one(&suite("bakend: loss, data: [text-a]")), "a suite has no key `bakend`");
    assert_eq!(one("commands: { c: { run: ['{inputs.d}'], input: { d: x } } }"), "a command has no key `input`");
    assert_eq!(one(&merge("metod: ties, density: 0.5")), "a merge has no key `metod`");
}

#[test]
fn a_misspelled_section_makes_no_name_unknown() {
    let found = errors_of("name: x\nmodles: { m: { path: m } }\nevals: { e: { models: [m], tasks: [t] } }");
    assert_eq!(found, ["an experiment has no key `modles`"]);
    let found = one("eval: {}\ntables: { t: { rows: [a], columns: [{ task: t, metric: acc }] } }");
    assert_eq!(found, "an experiment has no key `eval`");
}
