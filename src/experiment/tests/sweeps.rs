//! What sweeps expand to, and which of them are refused.

use std::path::Path;

use mergelab_wire::Alpha;

use super::{errors, shown, valid};
use crate::experiment::{Expansion, Gram, Lora, Model, Output, Pick, parse};

fn merges(sections: &str) -> Vec<String> {
    valid(sections).merges.into_keys().collect()
}

#[test]
fn several_keys_multiply_in_file_order_the_last_one_fastest() {
    let sweep =
        "merges: { m: { method: ties, models: [a, b], base: base, sweep: { density: [0.2, 0.5], lambda: [1, 2] } } }";
    assert_eq!(merges(sweep), ["m-0.2-1", "m-0.2-2", "m-0.5-1", "m-0.5-2"]);
    let turned =
        "merges: { m: { method: ties, models: [a, b], base: base, sweep: { lambda: [1, 2], density: [0.2, 0.5] } } }";
    assert_eq!(merges(turned), ["m-1-0.2", "m-1-0.5", "m-2-0.2", "m-2-0.5"]);
}

#[test]
fn values_keep_their_spelling_in_names_and_their_meaning_in_parameters() {
    let experiment =
        valid("merges: { m: { method: regmean, models: [a, b], grams: [ga, gb], sweep: { alpha: [1, 1.0, 1e-1] } } }");
    let names: Vec<_> = experiment.merges.keys().collect();
    assert_eq!(names, ["m-1", "m-1.0", "m-1e-1"]);
    assert_eq!(experiment.merges["m-1.0"].alpha, Some(Alpha::Number(1.0)));
    assert_eq!(experiment.merges["m-1e-1"].alpha, Some(Alpha::Number(0.1)));
}

#[test]
fn a_sweep_of_one_value_still_names_it() {
    let sections = "merges: { m: { method: average, models: [a, b], sweep: { dtype: [float32] } } }\nevals: { e: { models: [m], tasks: [t] } }";
    assert_eq!(valid(sections).evals["e"].models, ["m-float32"]);
}

#[test]
fn a_method_can_be_swept() {
    let sections = "merges: { m: { models: [a, b], base: base, sweep: { method: [average, ties] } } }";
    let experiment = valid(sections);
    assert_eq!(experiment.merges["m-ties"].method, "ties");
}

/// BASE has `models` and `data` of its own, so this is a whole file.
#[test]
fn a_swept_command_multiplies_the_models_and_data_that_come_from_it() {
    let text = "name: small
commands:
  solve: { run: [x, '{alpha}', '{out}'], sweep: { alpha: ['0.1', '1.0'] } }
models:
  solved: { from: commands.solve, sweep: { path: [ours, theirs] } }
  one: { from: commands.solve-0.1, path: ours }
data:
  rows: { from: commands.solve, path: rows.jsonl, text: '{{ text }}' }
";
    let loaded = parse(Path::new("small.yaml"), text).unwrap_or_else(|errors| panic!("{errors}"));
    let expansion = Expansion {
        entry: "solved".into(),
        coordinates: vec![("path".into(), "theirs".into()), ("alpha".into(), "1.0".into())],
    };
    assert_eq!(loaded.expansion("models.solved-theirs-1.0"), Some(&expansion));
    let experiment = loaded.experiment;
    let output = |alpha: &str, path: &str| Output { command: format!("solve-{alpha}"), path: Some(path.into()) };
    let models: Vec<_> = experiment.models.iter().map(|(name, model)| (name.as_str(), model.clone())).collect();
    let from = |alpha, path| Model::From(output(alpha, path));
    assert_eq!(
        models,
        [
            ("solved-ours-0.1", from("0.1", "ours")),
            ("solved-ours-1.0", from("1.0", "ours")),
            ("solved-theirs-0.1", from("0.1", "theirs")),
            ("solved-theirs-1.0", from("1.0", "theirs")),
            ("one", from("0.1", "ours")),
        ],
    );
    assert_eq!(experiment.data.keys().collect::<Vec<_>>(), ["rows-0.1", "rows-1.0"]);
}

#[test]
fn a_swept_command_that_trains_adapters_multiplies_the_model_and_an_adapter_can_be_swept() {
    let text = "name: small
commands:
  train: { run: [x, '{rate}', '{out}'], sweep: { rate: [low, high] } }
models:
  tuned: { path: base, lora: { from: commands.train } }
  named: { path: base, sweep: { lora: [one, two] } }
";
    let models = parse(Path::new("small.yaml"), text).unwrap_or_else(|errors| panic!("{errors}")).experiment.models;
    assert_eq!(models.keys().collect::<Vec<_>>(), ["tuned-low", "tuned-high", "named-one", "named-two"]);
    let lora = |adapter| Model::Lora(Box::new(Lora { base: Model::Path("base".into()), adapter }));
    assert_eq!(models["tuned-high"], lora(Model::From(Output { command: "train-high".into(), path: None })));
    assert_eq!(models["named-two"], lora(Model::Path("two".into())));
}

#[test]
fn an_expansion_can_be_named_by_itself() {
    let sections = "merges: { m: { method: average, models: [a, b], sweep: { dtype: [float32, float16] } } }\nevals: { e: { models: [m-float16], tasks: [t] } }";
    assert_eq!(valid(sections).evals["e"].models, ["m-float16"]);
}

#[test]
fn an_expansion_knows_its_entry_and_its_values_also_those_of_swept_grams() {
    let text = "name: x
models: { a: { path: a }, b: { path: b } }
data: { d: { path: d.jsonl, text: x, sweep: { sample: [3, 4] } } }
grams: { ga: { model: a, data: d }, gb: { model: b, data: d } }
merges: { m: { method: regmean, models: [a, b], grams: [ga, gb], sweep: { alpha: [0.10, 1.0] } } }";
    let loaded = parse(Path::new("x.yaml"), text).unwrap();
    let coordinates = [("alpha", "0.10"), ("sample", "4")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let expected = Expansion { entry: "m".to_owned(), coordinates: coordinates.into() };
    assert_eq!(loaded.expansion("merges.m-0.10-4"), Some(&expected));
    assert_eq!(loaded.expansion("models.a"), None);
}

#[test]
fn a_swept_name_in_a_merge_or_a_row_means_all_of_its_expansions() {
    let experiment = valid(
        "merges:
  m: { method: average, models: [a, b], sweep: { dtype: [float32, float16] } }
  all: { method: average, models: [{ model: m, weight: 2 }, base] }
evals: { e: { models: [m], tasks: [t] } }
tables: { main: { rows: [{ model: m, label: Mean }], columns: [{ task: t, metric: acc }] } }",
    );
    let models: Vec<_> =
        experiment.merges["all"].models.iter().map(|model| (model.model.as_str(), model.weight.of("")[0])).collect();
    assert_eq!(models, [("m-float32", 2.0), ("m-float16", 2.0), ("base", 1.0)]);
    let rows: Vec<_> = experiment.tables["main"].rows.iter().map(|row| row.label.as_deref()).collect();
    assert_eq!(rows, [Some("Mean float32"), Some("Mean float16")]);
}

const SWEPT_GRAMS: &str = "
  sa: { model: a, data: text-a, sweep: { max_length: [8, 16] } }
  sb: { model: b, data: text-b, sweep: { max_length: [8, 16] } }
  tb: { model: b, data: text-b, sweep: { skip_first: [0, 1] } }
";

#[test]
fn grams_swept_alike_go_together_and_multiply_the_merge() {
    let merges = format!("{SWEPT_GRAMS}merges: {{ m: {{ method: regmean, models: [a, b], grams: [sa, sb] }} }}");
    let merges = valid(&merges).merges;
    assert_eq!(merges.keys().collect::<Vec<_>>(), ["m-8", "m-16"]);
    assert_eq!(merges["m-16"].grams, ["sa-16", "sb-16"]);
}

#[test]
fn grams_swept_differently_multiply() {
    let merges = format!("{SWEPT_GRAMS}merges: {{ m: {{ method: regmean, models: [a, b], grams: [sa, tb] }} }}");
    let merges = valid(&merges).merges;
    assert_eq!(merges.keys().collect::<Vec<_>>(), ["m-8-0", "m-8-1", "m-16-0", "m-16-1"]);
    assert_eq!(merges["m-16-0"].grams, ["sa-16", "tb-0"]);
}

#[test]
fn a_merges_own_values_come_before_those_of_its_grams() {
    let merges = format!(
        "{SWEPT_GRAMS}merges: {{ m: {{ method: regmean, models: [a, b], grams: [sa, gb], held_out: [sa, sb], sweep: {{ alpha: [0.1, 0.2] }} }} }}"
    );
    let merges = valid(&merges).merges;
    assert_eq!(merges.keys().collect::<Vec<_>>(), ["m-0.1-8", "m-0.1-16", "m-0.2-8", "m-0.2-16"]);
    assert_eq!(merges["m-0.2-8"].grams, ["sa-8", "gb"]);
    assert_eq!(merges["m-0.2-8"].held_out, ["sa-8", "sb-8"]);
}

#[test]
fn commands_are_swept_over_placeholders() {
    let commands =
        valid("commands: { t: { run: [train, --steps, '{steps}', '{out}'], sweep: { steps: [10, 20] } } }").commands;
    assert_eq!(commands.keys().collect::<Vec<_>>(), ["t-10", "t-20"]);
    assert_eq!(commands["t-20"].run, ["train", "--steps", "20", "{out}"]);
}

#[test]
fn a_swept_placeholder_that_nothing_uses_is_refused() {
    let found = errors("commands: { t: { run: [train, '{out}'], sweep: { steps: [10, 20] } } }");
    assert_eq!(found, ["the sweep over `steps` changes nothing"]);
}

#[test]
fn an_empty_sweep_is_refused() {
    let found = errors("merges: { m: { method: regmean, models: [a, b], grams: [ga, gb], sweep: { alpha: [] } } }");
    assert_eq!(found, ["the sweep of `alpha` is empty"]);
    let found = errors("merges: { m: { method: average, models: [a, b], sweep: {} } }");
    assert_eq!(found.len(), 1);
}

#[test]
fn a_key_that_is_swept_and_set_is_refused() {
    let found = errors(
        "merges: { m: { method: regmean, models: [a, b], grams: [ga, gb], alpha: 0.1, sweep: { alpha: [0.1] } } }",
    );
    assert_eq!(found, ["`alpha` is swept and also set directly"]);
}

#[test]
fn a_swept_key_that_does_not_exist_is_refused_once() {
    let found =
        errors("merges: { m: { method: regmean, models: [a, b], grams: [ga, gb], sweep: { alhpa: [0.1, 0.2] } } }");
    assert_eq!(found, ["a merge has no key `alhpa`"]);
}

#[test]
fn a_swept_value_out_of_range_is_shown_at_the_value() {
    insta::assert_snapshot!(shown(
        "merges: { m: { method: regmean, models: [a, b], grams: [ga, gb], sweep: { alpha: [0.5, 1.5] } } }"
    ));
}

#[test]
fn a_swept_value_that_cannot_stand_in_a_name_is_refused() {
    insta::assert_snapshot!(shown("commands: { t: { run: [x, '{file}'], sweep: { file: [data/a.jsonl] } } }"));
}

#[test]
fn a_list_as_a_swept_value_is_refused() {
    let found = errors("merges: { m: { method: average, sweep: { models: [[a, b], [a, base]] } } }");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("must be one word or number"), "{found:?}");
}

#[test]
fn two_equal_values_in_a_sweep_collide() {
    insta::assert_snapshot!(shown(
        "merges: { m: { method: regmean, models: [a, b], grams: [ga, gb], sweep: { alpha: [0.5, '0.5'] } } }"
    ));
}

#[test]
fn an_expansion_that_has_the_name_of_an_entry_collides() {
    let found = errors(
        "merges:
  m: { method: regmean, models: [a, b], grams: [ga, gb], sweep: { alpha: [0.5] } }
  m-0.5: { method: average, models: [a, b] }",
    );
    assert_eq!(found, ["two entries expand to the name `m-0.5`"]);
}

#[test]
fn two_sweeps_whose_expansions_have_one_name_collide() {
    let found = errors(
        "commands:
  t: { run: [x, '{p}', '{q}'], sweep: { p: [a-b], q: [c] } }
  t-a: { run: [x, '{p}'], sweep: { p: [b-c] } }",
    );
    assert_eq!(found, ["two entries expand to the name `t-a-b-c`"]);
    let one = errors("commands: { t: { run: [x, '{p}', '{q}'], sweep: { p: [a, a-b], q: [b-c, c] } } }");
    assert_eq!(one, ["two entries expand to the name `t-a-b-c`"]);
}

#[test]
fn more_than_ten_thousand_expansions_are_refused_without_making_them() {
    let values: Vec<_> = (0..101).map(|value| value.to_string()).collect();
    let values = values.join(", ");
    let sweep = format!(
        "commands: {{ t: {{ run: [x, '{{p}}', '{{q}}', '{{r}}'], sweep: {{ p: [{values}], q: [{values}], r: [{values}] }} }} }}"
    );
    assert_eq!(errors(&sweep), ["with this sweep the file has more than 10000 expansions"]);
    let fits = format!("commands: {{ t: {{ run: [x, '{{p}}', '{{q}}'], sweep: {{ p: [{values}], q: [1, 2] }} }} }}");
    assert_eq!(valid(&fits).commands.len(), 202);
}

#[test]
fn a_broken_sweep_hides_nothing_and_invents_nothing() {
    let found = errors(
        "merges: { m: { method: regmean, models: [a, b], grams: [ga, gb], sweep: { alpha: [] } } }
evals: { e: { models: [m, m-0.5, nobody], tasks: [t] } }
tables: { main: { rows: [m, m-0.5], columns: [{ task: t, metric: acc }] } }",
    );
    assert_eq!(found, ["the sweep of `alpha` is empty", "there is no model or merge called `nobody`"]);
}

#[test]
fn a_swept_name_where_one_is_asked_for_is_refused_with_its_expansions() {
    insta::assert_snapshot!(shown(
        "commands: { t: { run: [x, '{n}'], sweep: { n: [1, 2] } }, u: { run: [x], inputs: { from-t: { from: commands.t } } } }"
    ));
}

#[test]
fn grams_and_fisher_entries_of_one_name_are_swept_each_by_itself() {
    let sections = "
  g: { model: a, data: text-a, sweep: { max_length: [8, 16] } }
fishers:
  g: { model: a, data: text-a, sweep: { skip_first: [0, 1] } }
merges:
  m:
    method: fisher
    models: [a]
    fishers: [g]
    grams: [g]
    rules: [{ match: '*.o_proj.*', use: regmean }]
";
    let merges = valid(sections).merges;
    assert_eq!(merges.keys().collect::<Vec<_>>(), ["m-8-0", "m-8-1", "m-16-0", "m-16-1"]);
    assert_eq!(
        (&*merges["m-16-0"].grams, &*merges["m-16-0"].fishers),
        (&["g-16".to_owned()][..], &["g-0".to_owned()][..])
    );
}

#[test]
fn swept_data_multiplies_its_gram_and_through_it_the_merge() {
    let text = "name: s
models: { a: { path: m } }
data: { d: { path: d.jsonl, messages: [{ role: user, content: x }], sweep: { rows: [10, 20] } } }
grams: { g: { model: a, data: d, sweep: { tokens: [all, assistant] } } }
merges: { m: { method: regmean, models: [a], grams: [g] } }
";
    let experiment =
        crate::experiment::parse("s.yaml".as_ref(), text).unwrap_or_else(|errors| panic!("{errors}")).experiment;
    assert_eq!(experiment.data["d-20"].rows, Pick::First(20));
    let grams: Vec<_> = experiment.grams.keys().collect();
    assert_eq!(grams, ["g-all-10", "g-all-20", "g-assistant-10", "g-assistant-20"]);
    let Gram::Capture(capture) = &experiment.grams["g-assistant-20"] else { panic!("a capture") };
    assert_eq!(capture.data, "d-20");
    assert_eq!(experiment.merges["m-assistant-10"].grams, ["g-assistant-10"]);
}

fn sampled(rows: &str, sweep: &str) -> String {
    format!(
        "name: s
models: {{ a: {{ path: m }} }}
data: {{ d: {{ path: d.jsonl, {rows} text: '{{{{ x }}}}', sweep: {{ {sweep} }} }} }}
grams: {{ g: {{ model: a, data: d }} }}
merges: {{ m: {{ method: regmean, models: [a], grams: [g] }} }}
"
    )
}

#[test]
fn a_sample_is_swept_over_its_seed_and_multiplies_gram_and_merge() {
    for rows in ["rows: { sample: 1000, seed: 0 },", "rows: { sample: 1000 },"] {
        let text = sampled(rows, "seed: [0, 1, 2]");
        let experiment = crate::experiment::parse("s.yaml".as_ref(), &text).unwrap().experiment;
        let picks: Vec<_> = experiment.data.iter().map(|(name, data)| (name.as_str(), data.rows)).collect();
        let pick = |seed| Pick::Sample { sample: 1000, seed };
        assert_eq!(picks, [("d-0", pick(0)), ("d-1", pick(1)), ("d-2", pick(2))]);
        assert_eq!(experiment.grams.keys().collect::<Vec<_>>(), ["g-0", "g-1", "g-2"]);
        assert_eq!(experiment.merges.keys().collect::<Vec<_>>(), ["m-0", "m-1", "m-2"]);
        assert_eq!(experiment.merges["m-1"].grams, ["g-1"]);
    }
}

#[test]
fn a_samples_size_is_swept_alone_and_with_its_seed() {
    let text = sampled("", "sample: [10, 100], seed: [3]");
    let experiment = crate::experiment::parse("s.yaml".as_ref(), &text).unwrap().experiment;
    assert_eq!(experiment.data["d-100-3"].rows, Pick::Sample { sample: 100, seed: 3 });
    let text = sampled("rows: { sample: 1, seed: 5 },", "sample: [10]");
    let experiment = crate::experiment::parse("s.yaml".as_ref(), &text).unwrap().experiment;
    assert_eq!(experiment.data["d-10"].rows, Pick::Sample { sample: 10, seed: 5 });
}

fn shown_of(text: &str) -> String {
    crate::experiment::parse("s.yaml".as_ref(), text).unwrap_err().render(false)
}

#[test]
fn a_swept_seed_of_the_first_rows_is_refused_at_its_place() {
    insta::assert_snapshot!(shown_of(&sampled("rows: 1000,", "seed: [0, 1]")));
}

#[test]
fn a_swept_seed_without_a_sample_or_out_of_range_is_refused_at_its_place() {
    insta::assert_snapshot!(shown_of(&sampled("", "seed: [0, -1]")));
}

#[test]
fn two_seeds_of_one_spelling_collide() {
    insta::assert_snapshot!(shown_of(&sampled("rows: { sample: 9 },", "seed: [0, 0]")));
}

#[test]
fn an_expansion_over_seeds_that_has_the_name_of_another_data_set_collides() {
    let text = sampled("rows: { sample: 9 },", "seed: [0, 1]")
        .replace("data: { d:", "data: { d-1: { path: e.csv, text: x }, d:");
    let found = crate::experiment::parse("s.yaml".as_ref(), &text).unwrap_err();
    assert!(found.to_string().contains("two entries expand to the name `d-1`"), "{found}");
}
