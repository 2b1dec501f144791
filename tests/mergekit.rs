//! mergekit's configurations through the program, with a stand-in for what merges.

use crate::project::Project;

const CONFIG: &str = "\
# As published.
merge_method: ties
models:
  - model: models/one
    parameters: { weight: 1.0, density: 0.5 }
  - model: models/two
    parameters: { weight: 0.5 }
base_model: models/base
dtype: bfloat16
";

fn project() -> Project {
    Project::with("name: x\nmerges: { m: { method: mergekit, config: configs/ties.yml } }\n")
        .with_fakes()
        .file("configs/ties.yml", CONFIG)
        .model("models/one", "one")
        .model("models/two", "two")
        .model("models/base", "base")
}

#[test]
fn a_configuration_runs_as_it_is_and_again_only_when_it_says_something_else() {
    let project = project();
    project.run(&[]).ran(&["models.one", "models.two", "models.base", "merges.m"]);
    assert!(project.output("x", "merges.m", "model.safetensors").exists());
    project.edit("configs/ties.yml", "# As published.\n", "# As published, and read.\n\n");
    project.run(&[]).ran(&[]);
    project.edit("configs/ties.yml", "density: 0.5", "density: 0.25");
    project.run(&[]).ran(&["merges.m"]);
}

#[test]
fn an_error_names_the_configuration_and_its_line() {
    let project = project();
    project.edit("configs/ties.yml", "density: 0.5", "density: 5");
    let said = project.mergelab(&["status", "x.yaml"]).exits(3);
    said.says("`density` must be from 0 to 1, not 5").says("configs/ties.yml:5:");
    project.edit("configs/ties.yml", "density: 5", "density: 0.5");
    project.edit("configs/ties.yml", "models/two", "models/three/deep");
    project.mergelab(&["run", "x.yaml"]).exits(3).says("models/three/deep").says("configs/ties.yml:6:");
}

#[test]
fn all_errors_of_a_configuration_are_said_at_once_and_beside_those_of_the_experiment() {
    let project = project();
    project.edit("configs/ties.yml", "density: 0.5", "density: 5");
    project.edit("configs/ties.yml", "parameters: { weight: 0.5 }", "parameters: { wieght: 0.5 }");
    project.edit("configs/ties.yml", "dtype: bfloat16", "dtype: bf16\ntokenizer_source: unoin");
    project.edit("x.yaml", "merges:", "modles: {}\nmerges:");
    let said = project.mergelab(&["status", "x.yaml"]).exits(3).says("an experiment has no key `modles`");
    let said = said.says("`density` must be from 0 to 1, not 5").says("`ties` has no parameter `wieght`");
    said.says("`dtype` cannot be `bf16`").says("did you mean `union`?");
    let imported = project.mergelab(&["import", "mergekit", "configs/ties.yml"]).exits(3);
    assert_eq!(imported.stderr.matches("error: ").count(), 4, "{}", imported.stderr);
}

#[test]
fn layers_that_a_model_has_not_are_found_before_anything_runs() {
    let slices = "merge_method: passthrough\nslices:\n  - sources: [{ model: models/one, layer_range: [0, 3] }]\n";
    let project = project().file("configs/ties.yml", slices);
    project.write("models/one/config.json", r#"{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2}"#);
    let said = project.mergelab(&["status", "x.yaml"]).exits(3);
    said.says("layers 0 to 3 of a model that has 2").says("configs/ties.yml:3:");
    project.write("x.yaml", "name: x\nmodels: { a: { path: models/one } }\nmerges:\n  m:\n    method: passthrough\n    slices:\n      - models: [{ model: a, layers: [1, 3] }]\n");
    let said = project.mergelab(&["status", "x.yaml"]).exits(3);
    said.says("layers 1 to 3 of a model that has 2").says("x.yaml:7:");
    project.edit("x.yaml", "[1, 3]", "[1, 2]");
    project.run(&[]).ran(&["models.a", "merges.m"]);
}

#[cfg(feature = "fetch")]
#[test]
fn layers_that_a_model_in_the_cache_has_not_are_found_before_anything_runs() {
    let slices =
        "merges:\n  m:\n    method: passthrough\n    slices:\n      - models: [{ model: a, layers: [0, 2] }]\n";
    let text = format!("name: x\nmodels: {{ a: {{ hub: acme/one }} }}\n{slices}");
    let (project, hub) = crate::hub_server::HubServer::of(Project::with(&text).with_fakes());
    hub.model("acme/one", "one");
    hub.write("models/acme/one/main/config.json", r#"{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2}"#);
    project.run(&[]).ran(&["models.a", "merges.m"]);
    project.edit("x.yaml", "[0, 2]", "[1, 3]");
    for arguments in [&["run", "x.yaml"][..], &["run", "x.yaml", "--dry-run"]] {
        let said = project.mergelab(arguments).exits(3);
        said.says("slice 1: layers 1 to 3 of `a`, which has 2").says("x.yaml:7:");
    }
}

#[test]
fn what_is_imported_is_the_same_merge_and_does_not_run_again() {
    let project = project();
    project.run(&[]);
    let imported = project.mergelab(&["import", "mergekit", "configs/ties.yml", "--name", "native"]).exits(0);
    insta::assert_snapshot!("imported", imported.stdout);
    project.write("native.yaml", &imported.stdout);
    let status = project.mergelab(&["status", "native.yaml"]).exits(0);
    assert!(!status.stdout.contains("run "), "{}", status.stdout);
    let named = project.mergelab(&["import", "mergekit", "configs/ties.yml"]).exits(0);
    assert!(named.stdout.starts_with("name: ties\n"), "{}", named.stdout);
    project.mergelab(&["import", "mergekit", "no.yml"]).exits(2).says("cannot read no.yml");
    project.mergelab(&["import", "mergekit", "configs/ties.yml", "--name", "a b"]).exits(2).says("a name starts with");
    project.edit("configs/ties.yml", "ties", "tise");
    project.mergelab(&["import", "mergekit", "configs/ties.yml"]).exits(3).says("did you mean `ties`?");
}

#[test]
fn slices_are_handed_to_what_merges_and_run_again_when_they_are_others() {
    let slices = "\
merge_method: passthrough
slices:
  - sources: [{ model: models/one, layer_range: [0, 3] }]
  - sources: [{ model: models/two, layer_range: [1, 4] }]
";
    let project = project().file("configs/ties.yml", slices);
    project.run(&[]).ran(&["models.one", "models.two", "merges.m"]);
    project.run(&[]).ran(&[]);
    project.edit("configs/ties.yml", "[1, 4]", "[0, 3]");
    project.run(&[]).ran(&["merges.m"]);
    project.edit(
        "configs/ties.yml",
        "[0, 3] }]\n  - sources: [{ model: models/two",
        "[0, 4] }]\n  - sources: [{ model: models/two",
    );
    project.run(&[]).ran(&["merges.m"]);
}
