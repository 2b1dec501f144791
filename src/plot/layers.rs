//! What a merge reports of the layers that it solved, as heat maps.

use mergelab_wire::Place;

use super::heat::{Cells, Panel, heat, table};
use crate::layers::{Layer, Objective, Solved, kind};
use crate::report::plain;

/// A map for each figure that has something to show, by layer and kind of linear layer.
pub fn layers(stage: &str, solved: &Solved) -> String {
    let stage = plain(stage);
    let numbers = |heading: &str, note: &str, of: &dyn Fn(&Layer) -> Option<f64>| {
        let shown = solved.layers.iter().any(|layer| of(layer).is_some());
        shown.then(|| panel(solved, heading, note, of, Cells::Numbers))
    };
    // A figure that is the same everywhere is a sentence and no picture.
    let varying = |heading: &str, note: &str, of: &dyn Fn(&Layer) -> Option<f64>| {
        let all: Vec<_> = solved.layers.iter().map(of).collect();
        let varies = all.windows(2).any(|pair| pair[0] != pair[1]);
        varies.then(|| numbers(heading, note, of)).flatten()
    };
    let path = |layer: &Layer| Some(layer.path.clone());
    let held_out = |layer: &Layer| layer.objective_held_out.as_ref().and_then(Objective::over_average);
    let panels = [
        numbers("Objective, merge over average", "on the Grams used; below 1 the merge is better", &|layer| {
            layer.objective.over_average()
        }),
        numbers("Objective on held-out Grams, merge over average", "below 1 the merge is better", &held_out),
        numbers("Correction", "norm of the merge less the average, over that of the average", &|layer| {
            layer.correction_over_weights
        }),
        numbers(
            "Rounding over correction",
            "how much of the correction the output type's rounding is as large as",
            &|layer| layer.rounding_over_correction,
        ),
        numbers("Condition number", "of the scaled system, estimated", &|layer| layer.condition),
        numbers("Residual", "what the solution leaves of the right-hand side", &|layer| layer.residual),
        numbers("Steps of conjugate gradient", "of the row with most of them", &|layer| {
            layer.iterations.map(|iterations| iterations as f64)
        }),
        varying("α", "chosen for each layer", &|layer| Some(layer.alpha)),
        varying("Features without a token", "they keep the average", &|layer| Some(layer.unseen_features as f64)),
        varying("Eigenvalues cut", "too small for what fp32 Grams tell", &|layer| Some(layer.cut_eigenvalues as f64)),
        (!solved.layers.is_empty()).then(|| panel(solved, "Path", "how each system was solved", &path, Cells::Words)),
    ];
    let panels: Vec<Panel> = panels.into_iter().flatten().collect();
    let alphas: Vec<f64> = solved.layers.iter().map(|layer| layer.alpha).collect();
    let same = alphas.first().filter(|first| alphas.iter().all(|alpha| alpha.total_cmp(first).is_eq()));
    let notes: Vec<_> = same.map(|alpha| ("α:".to_owned(), format!("{alpha} in every layer"))).into_iter().collect();
    heat(&format!("{stage}: the layers that were solved"), &panels, &notes)
}

/// A map by kind and layer; what lies in no layer, as a head does, has a column of its own.
fn panel<T>(
    solved: &Solved,
    heading: &str,
    note: &str,
    of: &dyn Fn(&Layer) -> Option<T>,
    cells: fn(Vec<Vec<Option<T>>>) -> Cells,
) -> Panel {
    let mut layers: Vec<&Layer> = solved.layers.iter().collect();
    let place = |layer: &Layer| Place::of(&layer.tensor).layer.map(|layer| (layer.stack.to_owned(), layer.number));
    // Merges solve layers in the order of their work; what is outside of layers comes last.
    layers.sort_by_key(|layer| (place(layer).is_none(), place(layer)));
    let stacks: std::collections::BTreeSet<_> =
        layers.iter().filter_map(|layer| place(layer)).map(|(stack, _)| stack).collect();
    let column = |layer: &Layer| match place(layer) {
        Some((_, number)) if stacks.len() == 1 => number.to_string(),
        Some((stack, number)) => format!("{stack}.{number}"),
        None => "-".to_owned(),
    };
    let found = layers.iter().map(|layer| (plain(kind(&layer.tensor)), plain(&column(layer)), of(layer))).collect();
    let (rows, columns, found) = table(found);
    Panel { heading: heading.to_owned(), note: note.to_owned(), rows, columns, cells: cells(found) }
}
