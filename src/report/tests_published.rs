//! Published values beside measured ones, and headings with links and units.

use super::tests::{Project, column, measured, published, with_stderr};
use super::*;
use crate::experiment::{Column, Notation, TableColumn};

/// One figure far from what was published, one near, one without a standard error, one with other shots, one of which
/// nothing was published and one that was published alone.
fn compared() -> Project {
    let models = ["far", "near", "bare", "shots", "ours", "theirs"];
    let n_shot = |n_shot, figure| Measurement { n_shot: Some(n_shot), ..figure };
    let mut project = Project::new(&models, vec![column("t", "acc"), column("u", "acc")])
        .measured([
            with_stderr(0.03, measured("far", "t", "acc", "", 0.6)),
            with_stderr(0.03, measured("near", "t", "acc", "", 0.61)),
            measured("bare", "t", "acc", "", 0.62),
            n_shot(5, with_stderr(0.03, measured("shots", "t", "acc", "", 0.6))),
            with_stderr(0.03, measured("ours", "t", "acc", "", 0.6)),
            measured("ours", "u", "acc", "", 0.6),
        ])
        .published([
            published("far", "t", "acc", 0.7, "A", ""),
            with_stderr(0.04, published("near", "t", "acc", 0.7, "A", "")),
            published("bare", "t", "acc", 0.6, "A", ""),
            n_shot(0, published("shots", "t", "acc", 0.6, "A", "")),
            published("theirs", "t", "acc", 0.5, "A", ""),
        ]);
    project.tables[0].comparison = true;
    project
}

#[test]
fn a_column_says_how_far_measured_values_are_from_published_ones() {
    let grid = compared().grid();
    // (60 - 70) / 3 = -3.3, (61 - 70) / √(3² + 4²) = -1.8; nothing was published of the second task.
    insta::assert_snapshot!("compared.md", markdown(&grid));
    insta::assert_snapshot!("compared.tex", latex(&grid));
    insta::assert_snapshot!("compared.html", html(&grid));
    insta::assert_snapshot!("compared.csv", sheet(&grid));
    assert_eq!(grid.clone().turn().turn(), grid);
    let without = grid.clone().without_comparisons();
    assert_eq!(without.columns.len(), 2);
    assert!(without.rows.iter().all(|row| row.cells.len() == 2));
}

#[test]
fn differences_are_written_as_their_column_is() {
    let one = |column: Column, value: f64, theirs: f64| {
        let mut project = Project::new(&["a"], vec![column])
            .measured([measured("a", "t", "loss", "", value)])
            .published([published("a", "t", "loss", theirs, "A", "")]);
        project.tables[0].comparison = true;
        let Cell::Compared(compared) = &project.grid().rows[0].cells[1] else { panic!("compared") };
        compared.to_string()
    };
    assert_eq!(one(column("t", "loss"), 1.5, 1.25), "+0.25 (no SE)");
    assert_eq!(one(column("t", "loss"), 1.5, 1.5), "0.00 (no SE)");
    assert_eq!(one(column("t", "loss"), 1.501, 1.5), "0.00 (no SE)");
    let scaled = Column { scale: Some(100.0), digits: Some(1), ..column("t", "loss") };
    assert_eq!(one(scaled, 1.0, 1.25), "-25.0 (no SE)");
    let scientific = Column { notation: Notation::Scientific, digits: Some(1), ..column("t", "loss") };
    assert_eq!(one(scientific.clone(), 3e-5, 1e-5), "+2.0e-5 (no SE)");
    assert_eq!(one(scientific, 3e-5, 3e-5), "0.0e0 (no SE)");
}

#[test]
fn labels_lead_somewhere_and_units_stand_in_headings() {
    let hostile = "https://example.org/a_b~c?d=1&copy=2#e%20f*";
    let first = Column {
        label: Some("GSM8k [5]".to_owned()),
        unit: Some("%".to_owned()),
        note: Some("exact match".to_owned()),
        link: Some(hostile.to_owned()),
        ..column("t", "acc")
    };
    let second = Column { unit: Some("bits | <b>".to_owned()), ..column("u", "bits_per_byte") };
    let mut project = Project::new(&["a", "b"], vec![first, second])
        .measured([measured("a", "t", "acc", "", 0.5), measured("a", "u", "bits_per_byte", "", 0.8)]);
    project.tables[0].rows[0].link = Some("https://huggingface.co/org/a".to_owned());
    let texts = |grid: &Grid| [markdown(grid), latex(grid), html(grid), sheet(grid)].join("\n");
    insta::assert_snapshot!("links", texts(&project.grid()));
    project.tables[0].turned = true;
    insta::assert_snapshot!("links_turned", texts(&project.grid()));
    assert!(matches!(project.tables[0].columns[0], TableColumn::Metric(_)));
}
