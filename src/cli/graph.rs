//! `mergelab graph`.

use std::path::PathBuf;

use clap::ValueEnum;
use mergelab_wire::exit;
use serde_json::json;

use super::session::Session;
use super::{CliError, output};
use crate::plan::Graph;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Experiment file
    file: PathBuf,
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Print JSON, as --format json does
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Dot,
    Mermaid,
    Json,
}

/// Prints the graph; it needs the file only.
pub(super) fn run(arguments: &Arguments) -> Result<u8, CliError> {
    let graph = Session::open(std::slice::from_ref(&arguments.file))?.graph;
    match if arguments.json { Format::Json } else { arguments.format } {
        Format::Text => output::print(&text(&graph)),
        Format::Dot => output::print(&dot(&graph)),
        Format::Mermaid => output::print(&mermaid(&graph)),
        Format::Json => output::print_json(&as_json(&graph)),
    }
    Ok(exit::DONE)
}

fn needs(graph: &Graph) -> impl Iterator<Item = (usize, &str, Vec<usize>)> {
    graph.iter().map(|(id, stage)| {
        let mut needs: Vec<usize> = stage.needs.iter().map(|need| need.stage.0).collect();
        needs.sort_unstable();
        needs.dedup();
        (id.0, stage.name.as_str(), needs)
    })
}

fn text(graph: &Graph) -> String {
    let line = |(_, name, needs): (usize, &str, Vec<usize>)| {
        let needs: Vec<_> = needs.into_iter().map(|need| graph.stages[need].name.as_str()).collect();
        if needs.is_empty() { format!("{name}\n") } else { format!("{name} <- {}\n", needs.join(", ")) }
    };
    needs(graph).map(line).collect()
}

fn dot(graph: &Graph) -> String {
    let mut text = String::from("digraph mergelab {\n  rankdir=LR;\n  node [shape=box];\n");
    for (id, name, needs) in needs(graph) {
        text += &format!("  n{id} [label=\"{}\"];\n", name.replace('\\', "\\\\").replace('"', "\\\""));
        text.extend(needs.iter().map(|need| format!("  n{need} -> n{id};\n")));
    }
    text + "}\n"
}

fn mermaid(graph: &Graph) -> String {
    let mut text = String::from("flowchart LR\n");
    for (id, name, needs) in needs(graph) {
        text += &format!("  n{id}[\"{}\"]\n", name.replace('"', "#quot;"));
        text.extend(needs.iter().map(|need| format!("  n{need} --> n{id}\n")));
    }
    text
}

fn as_json(graph: &Graph) -> serde_json::Value {
    let stages = graph.iter().map(|(id, stage)| {
        let needs: Vec<_> = stage
            .needs
            .iter()
            .map(|need| json!({ "role": need.role, "stage": graph.stage(need.stage).name }))
            .collect();
        json!({
            "experiment": graph.experiment_name(id),
            "stage": stage.name,
            "kind": stage.spec.kind(),
            "needs": needs,
        })
    });
    stages.collect()
}
