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
