//! Tables of sweeps: replicates in one row, values of a key side by side, and tables that are turned.

use super::tests::{Project, column, measured, published, with_stderr};
use super::*;
use crate::experiment::{Across, Column, Mean, MeanOf, Member, Row, TableColumn};

fn row(model: &str, label: &str, replicates: Option<&str>, members: &[(&str, Option<&str>, Option<&str>)]) -> Row {
    let own = |text: Option<&str>| text.map(str::to_owned);
    let member = |(model, at, replicate): &(&str, Option<&str>, Option<&str>)| Member {
        model: (*model).to_owned(),
        at: own(*at),
        replicate: own(*replicate),
    };
    let (model, label) = (model.to_owned(), Some(label.to_owned()).filter(|label| !label.is_empty()));
    let members = members.iter().map(member).collect();
    Row { model, label, replicates: own(replicates), members, ..Row::default() }
}

fn mean(of: &[usize], at: Option<&str>) -> TableColumn {
    let (label, at) = ("Mean".to_owned(), at.map(str::to_owned));
    TableColumn::Mean(Mean { mean: MeanOf::Scores, of: of.to_vec(), label, note: None, digits: None, unit: None, at })
}

/// Three seeds of `dare`, of which one lacks a task and the other two are 0.5 and 0.6, and an average.
fn replicated() -> Project {
    let mut project = Project::new(&["avg"], vec![column("t", "acc"), column("u", "acc")])
        .measured([
            with_stderr(0.01, measured("avg", "t", "acc", "", 0.58)),
            with_stderr(0.01, measured("avg", "u", "acc", "", 0.40)),
            with_stderr(0.01, measured("dare-0", "t", "acc", "", 0.5)),
            with_stderr(0.01, measured("dare-1", "t", "acc", "", 0.6)),
            with_stderr(0.01, measured("dare-2", "t", "acc", "", 0.7)),
            with_stderr(0.01, measured("dare-0", "u", "acc", "", 0.5)),
            with_stderr(0.01, measured("dare-2", "u", "acc", "", 0.6)),
            with_stderr(0.01, measured("lone-0", "u", "acc", "", 0.3)),
        ])
        .published([published("dare", "t", "acc", 0.65, "Somebody, 2024", "over 5 seeds")]);
    let members = |name: &str| [0, 1, 2].map(|seed| (format!("{name}-{seed}"), seed.to_string()));
    for (name, label) in [("dare", "DARE"), ("lone", "")] {
        let members = members(name);
        let members: Vec<_> = members.iter().map(|(name, seed)| (name.as_str(), None, Some(seed.as_str()))).collect();
        project.tables[0].rows.push(row(name, label, Some("seed"), &members));
    }
    project.tables[0].columns.push(mean(&[0, 1], None));
    project
}

#[test]
fn replicates_are_a_mean_with_their_standard_deviation_and_a_missing_one_is_said() {
    let grid = replicated().grid();
    // t: 50, 60, 70: mean 60, sd 10, and 10 / √3 = 5.77 for the mean, so (60 - 65) / 5.77 = -0.9. u: 50, 60: mean 55,
    // √(25 + 25) = 7.07. Means of seeds 0 and 2: 50 and 65: 57.5 and √(2 · 7.5²) = 10.61.
    insta::assert_snapshot!("replicates.md", markdown(&grid));
    insta::assert_snapshot!("replicates.tex", latex(&grid));
    insta::assert_snapshot!("replicates.html", html(&grid));
    insta::assert_snapshot!("replicates.csv", sheet(&grid));
}

#[test]
fn replicates_are_not_tested_and_the_table_says_so() {
    let mut project = replicated();
    project.tables[0].baseline = Some("avg".to_owned());
    assert!(comparisons(&project.inputs()).is_empty());
    let text = project.markdown();
    assert!(text.contains("Not tested: t of DARE (a mean over replicates); u of DARE, lone (a mean over"), "{text}");
}

/// `ties` over three values of α, `dare` over two of them with two seeds, and an average over none.
fn across() -> Project {
    let alphas = [None, Some("0.1"), Some("0.5"), Some("0.9")];
    let mut project = Project::new(&["avg"], vec![]).measured([
        measured("avg", "t", "acc", "", 0.50),
        measured("ties-0.1", "t", "acc", "", 0.51),
        measured("ties-0.5", "t", "acc", "", 0.52),
        measured("ties-0.9", "t", "acc", "", 0.53),
        measured("dare-0.1-0", "t", "acc", "", 0.60),
        measured("dare-0.1-1", "t", "acc", "", 0.62),
        measured("dare-0.5-0", "t", "acc", "", 0.64),
    ]);
    let table = &mut project.tables[0];
    let ties = ["0.1", "0.5", "0.9"].map(|alpha| (format!("ties-{alpha}"), alpha));
    let ties: Vec<_> = ties.iter().map(|(name, alpha)| (name.as_str(), Some(*alpha), None)).collect();
    table.rows.push(row("ties", "TIES", None, &ties));
    let dare = [
        ("dare-0.1-0", Some("0.1"), Some("0")),
        ("dare-0.1-1", Some("0.1"), Some("1")),
        ("dare-0.5-0", Some("0.5"), Some("0")),
        ("dare-0.5-1", Some("0.5"), Some("1")),
    ];
    table.rows.push(row("dare", "", Some("seed"), &dare));
    table.across = Some(Across { key: "alpha".to_owned(), label: Some("α =".to_owned()) });
    let at = |at: Option<&str>| Column { note: Some("%".to_owned()), at: at.map(str::to_owned), ..column("t", "acc") };
    table.columns.extend(alphas.map(at).map(TableColumn::Metric));
    table.columns.extend([mean(&[0], None), mean(&[2], Some("0.5"))]);
    project
}

#[test]
fn a_key_across_stands_over_the_columns_and_what_is_not_swept_so_says_it() {
    let grid = across().grid();
    insta::assert_snapshot!("across.md", markdown(&grid));
    insta::assert_snapshot!("across.tex", latex(&grid));
}

#[test]
fn a_turned_table_has_the_same_cells_and_its_best_values_stand_in_rows() {
    let upright = replicated();
    let mut project = replicated();
    project.tables[0].turned = true;
    let (TableColumn::Metric(first), TableColumn::Metric(second)) =
        (project.tables[0].columns[0].clone(), project.tables[0].columns[1].clone())
    else {
        panic!("metrics")
    };
    project.tables[0].columns[0] = TableColumn::Metric(Column { note: Some("5-shot | %".to_owned()), ..first });
    project.tables[0].columns[1] = TableColumn::Metric(Column { label: Some("U <b>".to_owned()), ..second });
    let grid = project.grid();
    insta::assert_snapshot!("turned.md", markdown(&grid));
    insta::assert_snapshot!("turned.tex", latex(&grid));
    insta::assert_snapshot!("turned.html", html(&grid));
    insta::assert_snapshot!("turned.csv", sheet(&grid));
    let cells = |grid: &Grid| grid.rows.iter().map(|row| row.cells.clone()).collect::<Vec<_>>();
    let back = grid.clone().turn();
    assert_eq!(back.rows.len(), upright.tables[0].rows.len());
    assert_eq!(cells(&back.clone().turn()), cells(&grid));
    assert_eq!(back.turn(), grid);
}

#[test]
fn marks_of_a_turned_table_are_given_out_in_its_order_of_reading() {
    let mut project = Project::new(&["a", "b"], vec![column("t", "acc"), column("u", "acc")])
        .published([published("b", "t", "acc", 0.5, "First", ""), published("a", "u", "acc", 0.5, "Second", "")]);
    project.tables[0].turned = true;
    let grid = project.grid();
    assert_eq!(grid.origins.iter().map(|origin| origin.citation.as_str()).collect::<Vec<_>>(), ["First", "Second"]);
    project.tables[0].turned = false;
    let grid = project.grid();
    assert_eq!(grid.origins.iter().map(|origin| origin.citation.as_str()).collect::<Vec<_>>(), ["Second", "First"]);
}
