//! The experiments that come with mergelab.

use std::fs;
use std::path::Path;

use crate::project::Project;

/// A project with a file of this repository, at the same place.
fn with(project: Project, name: &str) -> Project {
    let text = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    project.file(name, text)
}

#[test]
fn every_experiment_is_valid_and_can_be_looked_at_without_network_store_and_python() {
    let mut count = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments")).unwrap() {
        let name = format!("experiments/{}", entry.unwrap().file_name().to_str().unwrap());
        if Path::new(&name).extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let project = with(Project::new(), &name);
        let stages = project.mergelab(&["graph", &name, "--json"]).exits(0).json().as_array().unwrap().len();
        let said = project.mergelab(&["run", &name, "--dry-run"]).exits(0);
        // After a line for each stage come the commands of evaluations, with a line of its own for each of them.
        let lines = said.stdout.lines().take_while(|line| !line.is_empty()).count();
        assert_eq!(lines, stages, "{name}");
        assert!(!project.has(".mergelab"));
        count += 1;
    }
    assert!(count >= 2, "{count} experiments");
}

#[test]
fn the_published_experiment_shows_every_published_figure_and_says_that_it_is_one() {
    let (experiment, published) = ("experiments/llama3-code-math.yaml", "results/llama3-code-math/published.csv");
    let project = with(with(Project::new(), experiment), published);
    project.write("README.md", "<!-- mergelab:table llama3-code-math/main -->\n<!-- mergelab:end -->\n");
    project.mergelab(&["render", experiment]).exits(0);
    let readme = project.read("README.md");
    let rows: Vec<Vec<&str>> = readme
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(2)
        .map(|line| {
            line.split('|').skip(2).map(|cell| cell.split_whitespace().next().unwrap_or_default()).take(4).collect()
        })
        .collect();
    let expected = [
        ["70.40", "43.85", "36.59", "40.04"],
        ["57.92", "37.35", "42.07", "49.20"],
        ["65.27", "44.05", "43.29", "47.80"],
        ["68.31", "44.99", "44.51", "45.20"],
    ];
    assert_eq!(rows, expected, "{readme}");
    assert!(readme.contains("published, not measured here"), "{readme}");
}
