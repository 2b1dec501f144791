//! How two models differ, as heat maps.

use indexmap::IndexMap;

use super::heat::{Cells, Panel, heat, table};
use crate::diff::Models;
use crate::report::plain;

/// The relative difference of two models by layer and kind of tensor, a map for each stack of layers, and that of the modules
/// outside of layers.
pub fn difference(names: &[String; 2], found: &Models) -> String {
    let note = "norm of the difference over that of A's tensor";
    let mut stacks: IndexMap<String, Vec<(String, String, Option<f64>)>> = IndexMap::new();
    for (layer, kind, figures) in found.by_layer_and_kind() {
        if let Some((stack, number)) = layer.rsplit_once('.') {
            stacks.entry(stack.to_owned()).or_default().push((plain(&kind), number.to_owned(), figures.relative));
        }
    }
    let mut panels: Vec<Panel> = stacks
        .into_iter()
        .map(|(stack, cells)| {
            let (rows, columns, cells) = table(cells);
            let heading = format!("Relative difference by layer of {}", plain(&stack));
            Panel { heading, note: note.to_owned(), rows, columns, cells: Cells::Numbers(cells) }
        })
        .collect();
    let outside: Vec<_> = found.outside().collect();
    if !outside.is_empty() {
        panels.push(Panel {
            heading: "Relative difference outside of layers".to_owned(),
            note: note.to_owned(),
            rows: outside.iter().map(|group| plain(&group.layer)).collect(),
            columns: vec!["module".to_owned()],
            cells: Cells::Numbers(outside.iter().map(|group| vec![group.figures.relative]).collect()),
        });
    }
    let names = names.each_ref().map(|name| plain(name));
    let notes = [("A:".to_owned(), names[0].clone()), ("B:".to_owned(), names[1].clone())];
    heat("How two models differ", &panels, &notes)
}
