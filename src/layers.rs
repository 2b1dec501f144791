//! What a merge reports of each linear layer that it solved: `layers.json` in its artifact.
//!
//! The tensor program writes the file (`crates/tensor/src/merge/figures.rs`) as `{ "format": 1, "layers": [ … ] }`. Numbers that
//! are not there are null.

use mergelab_wire::Place;
use serde::Deserialize;

use crate::report::results::{shortest, write};

/// The file in a merge's artifact.
pub const FILE: &str = "layers.json";

/// The version of the file that is read.
const FORMAT: u64 = 1;

/// The layers of a merge, in the order of solving.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Solved {
    format: u64,
    /// The layers.
    pub layers: Vec<Layer>,
}

/// Figures of one linear layer; [docs/numerics.md](../docs/numerics.md) says what each is.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Layer {
    /// Name of the weight.
    pub tensor: String,
    /// `[out, in]`.
    pub shape: [u64; 2],
    /// α that it was solved with.
    pub alpha: f64,
    /// How it was solved: `cholesky`, `cholesky-refined`, …
    pub path: String,
    /// Each step down from fp32 Cholesky, in words.
    #[serde(default)]
    pub steps: Vec<String>,
    /// Condition number, estimated.
    pub condition: Option<f64>,
    /// Steps of conjugate gradient.
    #[serde(default)]
    pub iterations: Option<u64>,
    /// What the solution leaves of the right-hand side.
    pub residual: Option<f64>,
    /// Error of the solution over the correction.
    pub error_over_correction: Option<f64>,
    /// Features that no token ever had.
    pub unseen_features: u64,
    /// Eigenvalues that were cut.
    pub cut_eigenvalues: i64,
    /// Size of the correction over the average.
    pub correction_over_weights: Option<f64>,
    /// What rounding eats of the correction.
    pub rounding_over_correction: Option<f64>,
    /// On the Grams used.
    pub objective: Objective,
    /// On held-out Grams.
    pub objective_held_out: Option<Objective>,
}

/// How far weights are from each model on that model's own inputs.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Objective {
    /// With the weights of each model, in the order of the merge.
    pub sources: Vec<Option<f64>>,
    /// With the average.
    pub average: Option<f64>,
    /// With the merge.
    pub merge: Option<f64>,
}

impl Objective {
    /// What the merge leaves of the average's.
    pub fn over_average(&self) -> Option<f64> {
        let ratio = self.merge? / self.average?;
        ratio.is_finite().then_some(ratio)
    }
}

impl Solved {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is not such a file, or one of a later version; in words.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let value: serde_json::Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        match value["format"].as_u64() {
            Some(FORMAT) => serde_json::from_value(value).map_err(|error| error.to_string()),
            Some(found) => Err(format!("it is of format {found}, and this program reads {FORMAT}")),
            None => Err("it has no `format`".to_owned()),
        }
    }

    /// Every layer and every figure as CSV; a number that is not there is an empty field.
    pub fn csv(&self) -> String {
        let models = self.layers.iter().map(|layer| layer.objective.sources.len()).max().unwrap_or(0);
        let mut header: Vec<String> = [
            "tensor",
            "layer",
            "kind",
            "out",
            "in",
            "alpha",
            "path",
            "steps",
            "condition",
            "iterations",
            "residual",
            "error_over_correction",
            "unseen_features",
            "cut_eigenvalues",
            "correction_over_weights",
            "rounding_over_correction",
        ]
        .map(str::to_owned)
        .to_vec();
        for objective in ["objective", "objective_held_out"] {
            header.extend(["average", "merge"].map(|whose| format!("{objective}_{whose}")));
            header.extend((1..=models).map(|model| format!("{objective}_model_{model}")));
        }
        let number = |value: Option<f64>| value.map(shortest).unwrap_or_default();
        let objective = |objective: Option<&Objective>| {
            let of = |of: &dyn Fn(&Objective) -> Option<f64>| number(objective.and_then(of));
            let mut fields = vec![of(&|objective| objective.average), of(&|objective| objective.merge)];
            fields.extend((0..models).map(|model| of(&|objective| *objective.sources.get(model)?)));
            fields
        };
        let row = |layer: &Layer| {
            let place = Place::of(&layer.tensor);
            let fields = vec![
                layer.tensor.clone(),
                place.layer.map(|layer| layer.number.to_string()).unwrap_or_default(),
                kind(&layer.tensor).to_owned(),
                layer.shape[0].to_string(),
                layer.shape[1].to_string(),
                shortest(layer.alpha),
                layer.path.clone(),
                layer.steps.join("; "),
                number(layer.condition),
                layer.iterations.map(|iterations| iterations.to_string()).unwrap_or_default(),
                number(layer.residual),
                number(layer.error_over_correction),
                layer.unseen_features.to_string(),
                layer.cut_eigenvalues.to_string(),
                number(layer.correction_over_weights),
                number(layer.rounding_over_correction),
            ];
            [fields, objective(Some(&layer.objective)), objective(layer.objective_held_out.as_ref())].concat()
        };
        write(header, self.layers.iter().map(row))
    }
}

/// `mlp.up_proj` of `model.layers.3.mlp.up_proj.weight`.
pub fn kind(tensor: &str) -> &str {
    let kind = Place::of(tensor).kind;
    kind.strip_suffix(".weight").unwrap_or(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a merge of two models writes it, with a head outside of layers and numbers that are not there.
    const TEXT: &str = r#"{ "format": 1, "layers": [
        { "tensor": "lm_head.weight", "shape": [9, 4], "alpha": 0.5, "path": "eigenvalues", "steps": ["a, b", "c"],
          "condition": null, "residual": 1e-9, "error_over_correction": null, "unseen_features": 2, "cut_eigenvalues": 1,
          "correction_over_weights": 0.25, "rounding_over_correction": 0.001,
          "objective": { "sources": [2.0, 3.0], "average": 2.0, "merge": 1.5 }, "objective_held_out": null },
        { "tensor": "model.layers.1.mlp.up_proj.weight", "shape": [8, 4], "alpha": 0.9, "path": "cholesky", "steps": [],
          "condition": 40.0, "residual": 1e-7, "error_over_correction": 1e-6, "unseen_features": 0, "cut_eigenvalues": 0,
          "correction_over_weights": 0.125, "rounding_over_correction": 0.01,
          "objective": { "sources": [1.0, 1.0], "average": 0.0, "merge": 0.0 },
          "objective_held_out": { "sources": [1.0, null], "average": 4.0, "merge": 3.0 } },
        { "tensor": "model.layers.0.mlp.up_proj.weight", "shape": [8, 4], "alpha": 0.1, "path": "cholesky", "steps": [],
          "condition": 4e6, "iterations": 7, "residual": null, "error_over_correction": null, "unseen_features": 0,
          "cut_eigenvalues": 0, "correction_over_weights": null, "rounding_over_correction": null,
          "objective": { "sources": [1.0, 1.0], "average": 1.0, "merge": null }, "objective_held_out": null } ] }"#;

    #[test]
    fn every_figure_is_in_the_csv_and_what_is_not_there_is_empty() {
        insta::assert_snapshot!(Solved::parse(TEXT.as_bytes()).unwrap().csv());
    }

    #[test]
    fn each_figure_is_a_picture_by_layer_and_kind() {
        let solved = Solved::parse(TEXT.as_bytes()).unwrap();
        insta::assert_snapshot!(crate::plot::layers("merges.<m>", &solved));
        assert_eq!(solved.layers[1].objective.over_average(), None);
        assert_eq!(solved.layers[0].objective.over_average(), Some(0.75));
    }

    #[test]
    fn another_file_is_refused_with_why() {
        let said = |text: &str| Solved::parse(text.as_bytes()).unwrap_err();
        assert_eq!(said(r#"{ "format": 2 }"#), "it is of format 2, and this program reads 1");
        assert_eq!(said("{}"), "it has no `format`");
        assert!(said(r#"{ "format": 1, "layers": [{}] }"#).contains("missing field `tensor`"));
        assert!(said("x").contains("line 1"));
    }
}
