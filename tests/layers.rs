//! Figures of the layers that a merge solved, with a stand-in for the program that solves them.

use serde_json::json;

use crate::project::Project;

/// A merge whose figures of layers lie in the artifact.
fn solved() -> Project {
    let project = crate::science::project();
    let layer = |name: &str, merge: f64| {
        json!({
            "tensor": name, "shape": [8, 4], "alpha": 0.1, "path": "cholesky", "steps": [], "condition": 40.0,
            "residual": 1e-7, "error_over_correction": 1e-6, "unseen_features": 0, "cut_eigenvalues": 0,
            "correction_over_weights": 0.125, "rounding_over_correction": 0.01,
            "objective": { "sources": [1.0, 2.0], "average": 4.0, "merge": merge }, "objective_held_out": null,
        })
    };
    let layers = ["model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"];
    let layers = json!({ "format": 1, "layers": [layer(layers[0], 3.0), layer(layers[1], 1.0)] });
    project.write("layers.json", layers.to_string());
    let path = project.path("layers.json").to_str().unwrap().to_owned();
    let project = project.variable("TENSOR_LAYERS", &path);
    project.run(&["--only", "merges.regmean"]);
    project
}

#[test]
fn figures_of_a_merges_layers_are_printed_as_csv_and_drawn() {
    let project = solved();
    let csv = project.mergelab(&["show", "merges.regmean", "x.yaml", "--csv"]).exits(0).stdout;
    assert_eq!(csv.lines().count(), 3);
    assert!(csv.contains("\nmodel.layers.1.mlp.up_proj.weight,1,mlp.up_proj,8,4,0.1,cholesky,,40.0,,1e-7,"), "{csv}");
    let said = project.mergelab(&["plot", "x.yaml", "--layers", "merges.regmean"]).exits(0);
    said.says("new: results/x/plots/merges.regmean-layers.svg\n").says_nothing_of("bars");
    let picture = project.read("results/x/plots/merges.regmean-layers.svg");
    for text in ["mlp.up_proj, 0: 0.750", "mlp.up_proj, 1: 0.250", "mlp.up_proj, 1: cholesky", "0.1 in every layer"] {
        assert!(picture.contains(text), "{text}: {picture}");
    }
    project.mergelab(&["plot", "x.yaml", "--layers", "merges.regmean", "--check"]).exits(0);
    project.edit("results/x/plots/merges.regmean-layers.svg", "0.750", "0.751");
    project.mergelab(&["plot", "x.yaml", "--layers", "merges.regmean", "--check"]).exits(4);
}

#[test]
fn a_merge_without_figures_of_layers_says_what_shows_it() {
    let project = crate::science::project();
    project.run(&["--only", "merges.avg"]);
    for command in [&["show", "merges.avg", "x.yaml", "--csv"][..], &["plot", "x.yaml", "--layers", "merges.avg"]] {
        let said = project.mergelab(command).exits(1);
        said.says("merges.avg has no figures of layers: its method solves none")
            .says("`mergelab diff models.BASE merges.avg FILE`");
    }
    project.mergelab(&["show", "models.a", "x.yaml", "--csv"]).exits(2).says("models.a is no merge");
    let empty = crate::science::project();
    let said = empty.mergelab(&["show", "merges.regmean", "x.yaml", "--csv"]).exits(1);
    said.says("merges.regmean is not up to date").says("hint: run it first");
}
