//! What is reported of every layer that was solved: `layers.json` in the output directory.
//!
//! `{ "format": 1, "layers": [ … ] }`, one object per linear layer in the order of solving; numbers are finite or `null`.
//! Models go by their place in the merge, not by name, so that the file depends on what was computed alone.
//!
//! Format history: 1, the first.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::objective::Objective;
use crate::failure::FileError;
use crate::linalg::Path as SolvePath;
use crate::report::Reporter;

/// Figures of one linear layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerFigures {
    /// The weight's name.
    pub tensor: String,
    /// `[out, in]`.
    pub shape: [usize; 2],
    /// α it was solved with.
    pub alpha: f64,
    /// How the system was solved.
    pub path: SolvePath,
    /// Each step down from fp32 Cholesky, in words.
    pub steps: Vec<String>,
    /// Condition number of the scaled system, estimated.
    pub condition: Option<f64>,
    /// Steps of conjugate gradient that the row with most of them took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iterations: Option<usize>,
    /// `‖B - A X‖ / ‖B‖` of the scaled system, or with conjugate gradient `‖B - X S‖ / ‖B - X₀ S‖`; where fp32 was enough, of the rows that were checked in fp64.
    pub residual: Option<f64>,
    /// `‖error‖ / ‖W - W̄‖` (in the norm of D) of the rows that were checked, where fp32 was enough.
    pub error_over_correction: Option<f64>,
    /// Features that no token ever had; they stay at the average.
    pub unseen_features: usize,
    /// Eigenvalues that were cut.
    pub cut_eigenvalues: i64,
    /// `‖W - W̄‖ / ‖W̄‖`.
    pub correction_over_weights: Option<f64>,
    /// `‖round(W) - W‖ / ‖W - W̄‖`: the share of the correction that the output type's rounding is as large as.
    pub rounding_over_correction: Option<f64>,
    /// On the Grams used.
    pub objective: Objective,
    /// On held-out Grams.
    pub objective_held_out: Option<Objective>,
}

/// `value`, if it is a number that JSON can hold.
pub fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// `a / b`, if it is a number.
pub fn ratio(a: f64, b: f64) -> Option<f64> {
    finite(a / b)
}

/// Writes `layers.json`.
///
/// # Errors
/// When it cannot be written.
pub fn write(out: &Path, layers: &[LayerFigures]) -> Result<(), FileError> {
    let path = out.join("layers.json");
    let text =
        serde_json::to_string_pretty(&json!({ "format": 1, "layers": layers })).expect("finite numbers and names");
    std::fs::write(&path, text + "\n").map_err(FileError::of("write", &path))
}

/// The figures of all layers in a few numbers, for the manifest.
pub fn facts(layers: &[LayerFigures], reporter: &Reporter) {
    if layers.is_empty() {
        return;
    }
    let mut paths = serde_json::Map::new();
    for layer in layers {
        let name =
            serde_json::to_value(layer.path).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default();
        let count = paths.get(&name).and_then(Value::as_u64).unwrap_or(0);
        paths.insert(name, json!(count + 1));
    }
    let worst = |of: &dyn Fn(&LayerFigures) -> Option<f64>| {
        layers.iter().filter_map(of).fold(None, |a: Option<f64>, b| Some(a.map_or(b, |a| a.max(b))))
    };
    reporter.fact("layers_solved", json!(layers.len()));
    reporter.fact("solver_paths", Value::Object(paths));
    reporter.fact("condition_max", json!(worst(&|layer| layer.condition)));
    reporter.fact("residual_max", json!(worst(&|layer| layer.residual)));
    if let Some(most) = layers.iter().filter_map(|layer| layer.iterations).max() {
        reporter.fact("iterations_max", json!(most));
    }
    reporter.fact("error_over_correction_max", json!(worst(&|layer| layer.error_over_correction)));
    reporter.fact("correction_over_weights_max", json!(worst(&|layer| layer.correction_over_weights)));
    reporter.fact("rounding_over_correction_max", json!(worst(&|layer| layer.rounding_over_correction)));
    let total = |of: &dyn Fn(&LayerFigures) -> Option<f64>| -> Option<f64> { layers.iter().map(of).sum() };
    reporter.fact("objective_average", json!(total(&|layer| layer.objective.average)));
    reporter.fact("objective_merge", json!(total(&|layer| layer.objective.merge)));
    if layers.iter().all(|layer| layer.objective_held_out.is_some()) {
        let held =
            |layer: &LayerFigures, of: fn(&Objective) -> Option<f64>| layer.objective_held_out.as_ref().and_then(of);
        reporter.fact("objective_held_out_average", json!(total(&|layer| held(layer, |o| o.average))));
        reporter.fact("objective_held_out_merge", json!(total(&|layer| held(layer, |o| o.merge))));
    }
}
