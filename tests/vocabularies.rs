//! Vocabularies that do not go together are found before anything runs; by token they do.

use crate::project::Project;

fn project() -> Project {
    let tokenizer = |tokens: &str| format!(r#"{{"model": {{"vocab": {{{tokens}}}}}, "added_tokens": []}}"#);
    let project = Project::with(
        "name: x
models: { a: { path: models/a }, b: { path: models/b }, c: { path: models/c } }
commands:
  hours: { run: [touch, '{out}/done'] }
merges:
  m: { method: average, models: [a, b] }
",
    );
    project
        .model("models/a", "a")
        .model("models/b", "b")
        .model("models/c", "c")
        .file("models/a/tokenizer.json", tokenizer(r#""x": 0, "y": 1"#))
        .file("models/b/tokenizer.json", tokenizer(r#""y": 0, "x": 1"#))
        .file("models/c/tokenizer.json", tokenizer(r#""x": 0, "y": 1, "<c>": 2"#))
        .with_fakes()
}

#[test]
fn other_ids_for_one_token_are_found_before_anything_runs() {
    let project = project();
    let said = project.mergelab(&["run", "x.yaml"]).exits(3);
    said.says("the token \"x\" is 0 in `a` and 1 in `b`").says("x.yaml:6:").says("`tokenizer: union`");
    project.mergelab(&["run", "x.yaml", "--dry-run"]).exits(3).says("the token \"x\" is 0 in `a` and 1 in `b`");
    assert!(project.in_store("objects").is_empty(), "nothing ran");
    // What is not asked for is nobody's business.
    project.run(&["--only", "commands.hours"]).ran(&["commands.hours"]);
    // By token they go together, in the tokens of either.
    project.edit("x.yaml", "models: [a, b]", "models: [a, b], tokenizer: b");
    project.run(&[]).ran(&["models.a", "models.b", "models.c", "merges.m"]);
    project.edit("x.yaml", "tokenizer: b", "tokenizer: union");
    project.run(&[]).ran(&["merges.m"]);
}

#[test]
fn tables_of_other_sizes_are_found_unless_a_rule_takes_one_model_s() {
    let project = project();
    project.edit("x.yaml", "[a, b]", "[a, c]");
    project.write("models/c/config.json", r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 5}"#);
    let said = project.mergelab(&["run", "x.yaml"]).exits(3);
    let said = said.says("`vocab_size` in the config.json of `a` is 4, and in that of `c` 5");
    said.says("x.yaml:6:").says("`tokenizer: NAME`");
    project.edit("x.yaml", "[a, c]", "[a, c], rules: [{ match: '*embed*', use: { model: c } }]");
    project.run(&[]).ran(&["models.a", "models.b", "models.c", "commands.hours", "merges.m"]);
}

#[test]
fn the_way_out_is_not_what_is_stated() {
    let project = project();
    project.edit("x.yaml", "models: [a, b]", "models: [a, b], tokenizer: { source: a, rows: ids }");
    let said = project.mergelab(&["run", "x.yaml"]).exits(3);
    said.says("the token \"x\" is 0 in `a` and 1 in `b`")
        .says("x.yaml:6:")
        .says("take `rows: ids` away")
        .says_nothing_of("tokenizer: NAME");
    project.edit("x.yaml", ", rows: ids", "");
    project.run(&["--only", "merges.m"]).ran(&["models.a", "models.b", "merges.m"]);
    let config =
        "merge_method: linear\nbase_model: models/a\nmodels: [{ model: models/b }]\nparameters: { weight: 1 }\n";
    project.write("m.yml", config);
    project.edit(
        "x.yaml",
        "method: average, models: [a, b], tokenizer: { source: a }",
        "method: mergekit, config: m.yml",
    );
    let said = project.mergelab(&["run", "x.yaml"]).exits(3);
    said.says("the token \"x\" is 0 in `a` and 1 in `b`").says("x.yaml:6:").says("add `tokenizer_source: MODEL`");
}

#[test]
fn a_tokenizer_changes_a_merge_by_token_and_not_one_by_ids() {
    let project = project();
    project.edit("x.yaml", "[a, b]", "[a, c]");
    project.edit("x.yaml", "  m:", "  t: { method: average, models: [a, c], tokenizer: a }\n  m:");
    project.run(&[]).ran(&["models.a", "models.b", "models.c", "commands.hours", "merges.t", "merges.m"]);
    // That of the second model counts only where rows go by token.
    project.edit("models/c/tokenizer.json", "<c>", "<d>");
    project.run(&[]).ran(&["models.c", "merges.t"]);
}
